"""EnvPool (`pip install "rlkit[envpool]"`): environments compiled from C++, stepped by its threads, as our rows.

EnvPool resets by itself, by our row rule (tests/transport/test_envpool.py): the step after an ending, a time limit's
included, ignores the lane's action and returns the next episode's first observation with reward 0. What differs from
Gymnasium:

seeds    a lane has a generator, seeded once, when the pool is made: with the seed of the episode that `restore` opens
         there. The lane's later episodes follow from that generator, so they depend on how many came before, and
         evaluation episodes on the number of lanes. They do not depend on the number of threads
resume   a lane in mid-episode cannot be rebuilt: `restore` with actions opens new episodes and says so
limits   a termination in the very step that reaches the time limit is reported as a truncation only
code     EnvPool's environments are its own: equations and parameters are those of the originals, random draws,
         pictures and some observations (Atari comes stacked and gray) are not
"""

from __future__ import annotations

import difflib
import importlib
import traceback
import warnings
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.aliases import Core, GymSpace, Value
from rlkit.envs.backends.actions import unpack_batch
from rlkit.envs.backends.atari import by_the_rules, pool_options
from rlkit.envs.backends.inprocess import reward_scale, rows_step
from rlkit.envs.backends.interface import own
from rlkit.envs.backends.lane import lane_fault
from rlkit.envs.backends.leaf import observation_leaves
from rlkit.envs.backends.rows import Check, Rows
from rlkit.envs.backends.watchdog import Guard, Hang
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.wrappers.entries import shown, text_space
from rlkit.seeding import Seeds
from rlkit.spaces import Array, from_gymnasium, too_long
from rlkit.types import EnvSpec, EnvStep

# Options of a pool that follow from ours; all its others are taken from env.kwargs.
OURS = (
    "num_envs", "batch_size", "num_threads", "max_num_players", "seed", "env_seed", "gym_reset_return_info",
    "base_path", "thread_affinity_offset", "render_mode",
)  # fmt: skip

TEXT, MISSION = (
    "mission_bytes",
    "mission",
)  # how many bytes the row of text in an observation has, and its entry


def pool_spaces(config: EnvConfig) -> tuple[GymSpace, GymSpace]:
    """The Gymnasium spaces (observation, action) that an agent sees of one lane; no environment is made.

    Raises ValueError where the package is missing, for an id that EnvPool lacks (with the nearest it has), for
    env.kwargs that it refuses, and for environments of several players.
    """
    envpool = _package(config)
    known, id = envpool.list_all_envs(), _id(config)
    if id not in known:
        lower = {each.lower(): each for each in known}
        close = [lower[key] for key in difflib.get_close_matches(id.lower(), lower, n=3)]
        nearest = f"nearest: {', '.join(close)}; " if close else ""
        raise ValueError(
            f"env.id={config.id}: EnvPool has no such environment; {nearest}type one of them, or env.backend=auto "
            f"for Gymnasium's"
        )
    options = envpool.make_spec(id)._config_keys
    taken = [name for name in config.kwargs if name in OURS]
    given = _options(config)
    problem = f"rlkit sets {', '.join(taken)} itself (env.lanes, env.workers, seed)" if taken else ""
    if not problem:
        try:
            spec = envpool.make_spec(id, num_envs=config.lanes, **given)
        except Exception as error:
            unfit = "incompatible" in str(error)  # then its text lists the types of all options
            problem = "a value of the wrong type" if unfit else str(error) or repr(error)
    if problem:
        free = ", ".join(name for name in options if name not in OURS)
        raise ValueError(f"env.kwargs={config.kwargs}: EnvPool's {config.id}: {problem}; allowed: {free}")
    if spec.config.max_num_players > 1:
        raise ValueError(
            f"env.id={config.id}: has {spec.config.max_num_players} players; allowed with env.backend=envpool: "
            f"environments of one"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gymnasium: bounds rounded to float32
        found = spec.gymnasium_observation_space
        if config.keep and not isinstance(found, spaces.Dict):
            raise ValueError(
                f"env.keep={list(config.keep)}: env.backend=envpool keeps entries of a Dict, by name; allowed with "
                "env.backend=inprocess or workers"
            )
        if config.atari != AtariConfig():
            found = spaces.Box(0, 255, (config.size, config.size), np.uint8)  # in place of a stack of one
        seen = shown(found, config, (MISSION,) if TEXT in options else ())
        if isinstance(seen, spaces.Dict) and TEXT in options and MISSION in seen.spaces:
            seen.spaces[MISSION] = text_space(config.text)
        return seen, spec.gymnasium_action_space


def _options(config: EnvConfig) -> dict[str, Value]:
    """env.kwargs, and what follows from our options for an environment that speaks.

    Its texts have at least as many bytes as it wants: it writes beyond the end of a shorter row. We cut them.
    """
    spec = _package(config).make_spec(_id(config))
    own: dict[str, Value] = {}
    if TEXT in spec._config_keys:
        own = {TEXT: max(config.text, spec.config.mission_bytes)}
    if config.atari != AtariConfig():
        own = pool_options(config)
    return own | config.kwargs


def _id(config: EnvConfig) -> str:
    """EnvPool's name of the environment: its Atari games have no ALE/ before them."""
    return config.id.removeprefix("ALE/") if config.atari != AtariConfig() else config.id


def probe_pool(config: EnvConfig) -> EnvSpec:
    """What a policy must know of the environment. Raises ValueError as `pool_spaces`."""
    return _spec(config, *pool_spaces(config))


def _spec(config: EnvConfig, observation: GymSpace, action: GymSpace) -> EnvSpec:
    try:
        return EnvSpec(
            config.id, from_gymnasium(observation, config.channels), from_gymnasium(action), config.stack
        )
    except ValueError as error:
        raise ValueError(f"env.id={config.id}: {error}") from error


class Pool(VecEnv):
    """VecEnv: `config.lanes` environments of one EnvPool with `config.workers` threads.

    `step` returns the same EnvStep every time. Raises ValueError as `pool_spaces`.
    """

    exact = "none"

    def __init__(self, config: EnvConfig, seeds: Seeds, render: bool = False) -> None:
        self.config, self.seeds, self.drawing = config, seeds, render
        self.lanes, self.device = config.lanes, torch.device("cpu")
        self.envpool = _package(config)
        shown, self.action_space = pool_spaces(config)
        self.spec = _spec(config, shown, self.action_space)
        self.batch_space = batch_space(self.action_space, self.lanes)
        self.rows = Rows(self.spec.observation, self.spec.action, self.lanes)
        self.leaves = observation_leaves(shown, self.rows.obs)
        self.check = Check(
            self.spec.observation,
            self.spec.action,
            self.rows.obs,
            self.rows.reward,
            self.rows.last,
            config.check,
        )
        self.row = rows_step(self.rows, self.spec.observation)
        self.scale = reward_scale(config, seeds)
        self.guard = Guard(config.deadline, self._hung)
        self.lives = np.zeros(self.lanes, np.int64)  # of Atari games
        self.pool: Core = None  # made by `restore`: its seeds are those of the episodes that open it

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Open episode[n] on every lane of a new pool; a lane with actions opens its next episode instead."""
        rows, replayed = self.rows, np.array([len(part) > 0 for part in actions])
        if replayed.any():
            warnings.warn(
                f"{self.config.id}: env.backend=envpool cannot replay actions; its lanes open new episodes",
                stacklevel=2,
            )
        rows.episode[:] = episode + replayed
        rows.reward[:], rows.steps[:] = 0.0, 0
        rows.terminated[:] = rows.last[:] = False
        rows.first[:] = True
        seeds = [self.seeds.of(lane, int(number)) for lane, number in enumerate(rows.episode)]
        options = _options(self.config) | ({"render_mode": "rgb_array"} if self.drawing else {})
        self.guard.begin()
        try:
            self.pool = self.envpool.make(
                _id(self.config),
                env_type="gymnasium",
                num_envs=self.lanes,
                num_threads=self.config.workers,
                seed=seeds,
                **options,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the pool builds its spaces here, see pool_spaces
                obs, infos = self.pool.reset()
            self.lives = infos["lives"].astype(np.int64) if "lives" in infos else self.lives
        except Hang:
            raise self.guard.pending or self._hung("") from None
        except BaseException as error:
            if not own(error):
                raise
            raise self._fault("raised", repr(error), traceback.format_exc()) from error
        finally:
            self.guard.end()
        return self._finish(obs)

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...]); raises EnvFault (of lane 0: the pool tells no lane)."""
        rows = self.rows
        rows.action[:] = action.numpy()
        self.guard.begin()
        try:
            actions = unpack_batch(self.action_space, self.batch_space, rows.action)
            obs, reward, terminated, truncated, infos = self.pool.step(actions)
        except Hang:
            raise self.guard.pending or self._hung("") from None
        except BaseException as error:
            if not own(error):
                raise
            raise self._fault("raised", repr(error), traceback.format_exc()) from error
        finally:
            self.guard.end()
        rows.first[:] = rows.last  # the pool has reset these lanes
        rows.episode += rows.first
        rows.steps += 1
        rows.steps[rows.first] = 0
        rows.reward[:], rows.terminated[:] = reward, terminated
        np.logical_or(terminated, truncated, out=rows.last)
        if self.config.atari != AtariConfig():
            before, self.lives = self.lives, infos["lives"].astype(np.int64)
            by_the_rules(self.config.atari, rows.reward, rows.terminated, rows.first, before, self.lives)
        return self._finish(obs)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture of a lane, or None (made without render=True)."""
        return np.asarray(self.pool.render(env_ids=[lane])[0], np.uint8) if self.drawing else None

    def lost(self) -> Exception | None:
        return self.guard.hand_over()

    def close(self) -> None:
        """End the pool's threads; idempotent."""
        self.guard.close()
        if self.pool is not None:
            self.pool.close()
        self.pool = None  # the last reference: its destructor joins the threads

    def _fault(self, kind: str, detail: str, trace: str) -> Exception:
        return lane_fault(kind, self.config.id, self.seeds, self.rows, 0, "vector", detail, trace)

    def _hung(self, stack: str) -> Exception:
        return self._fault("hung", f"no answer in {self.config.deadline:g} s", stack)

    def _finish(self, obs: Value) -> EnvStep:
        """Write batched observations ([N, ...] per leaf), check the rows and show them."""
        for leaf in self.leaves:
            values = leaf.of(obs)
            if leaf.name == MISSION and values.shape[1:] != leaf.shape:
                values = self._cut(values)
            leaf.write(slice(None), values)
        finding = self.check.find()
        if finding is not None:
            raise lane_fault(finding.kind, self.config.id, self.seeds, self.rows, finding.row, finding.field,
                             finding.detail)  # fmt: skip
        if self.scale != 1.0:
            self.rows.reward *= self.scale
        return self.row

    def _cut(self, texts: Array) -> Array:
        """Texts [N, bytes of the pool] as [N, env.text]. Raises EnvFault where one is longer."""
        size = self.config.text
        longer = texts[:, size:].any(1)
        if longer.any():
            lane = int(np.argmax(longer))
            said = bytes(texts[lane]).rstrip(b"\0")
            detail = too_long(said.decode(errors="replace"), len(said), size)
            raise lane_fault("text", self.config.id, self.seeds, self.rows, lane, MISSION, detail)
        return texts[:, :size]


def _package(config: EnvConfig) -> ModuleType:
    """The module envpool. Raises ValueError with what to type where it is not installed."""
    try:
        return importlib.import_module("envpool")
    except ImportError as error:
        raise ValueError(
            f"env.backend=envpool: {config.id} needs the package envpool ({error}); "
            f'type: pip install "rlkit[envpool]"'
        ) from error
