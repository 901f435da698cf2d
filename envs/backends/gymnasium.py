"""Gymnasium's own vector environments (`gymnasium.make_vec`), in any autoreset mode, as our rows.

NEXT_STEP   the step after an ending resets: the row rule as it is
SAME_STEP   an ending's step already returns the next episode's first observation; the true last one is in
            infos["final_obs"]. Our row shows that; in the following step the whole vector has to be
            stepped, so the lane's hidden step is thrown away and the lane is reset once more to show its
            first row
DISABLED    we reset the ended lanes: once before the step that they sit out (a vector refuses to step past an
            ending), once more after it to show the first row

Episodes start from our seeds where the vector takes a list of seeds and, for episodes after the first, lets
us reset (SAME_STEP, DISABLED). Such vectors cannot rebuild a lane in mid-episode: `restore` with actions
opens new episodes.
"""

from __future__ import annotations

import traceback
import warnings

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.aliases import Info, Value, Vector
from rlkit.envs.backends.actions import allow, unpack_batch
from rlkit.envs.backends.inprocess import reward_scale, rows_step
from rlkit.envs.backends.interface import own
from rlkit.envs.backends.lane import lane_fault
from rlkit.envs.backends.leaf import observation_leaves
from rlkit.envs.backends.rows import Check, Rows
from rlkit.envs.backends.watchdog import Guard, Hang
from rlkit.envs.config import EnvConfig
from rlkit.envs.pictures import as_picture
from rlkit.envs.wrappers.masks import Masks, add_mask, with_mask
from rlkit.seeding import Seeds
from rlkit.spaces import MASK, Array, from_gymnasium
from rlkit.types import EnvSpec, EnvStep

Mask = npt.NDArray[np.bool_]


class Native(VecEnv):
    """VecEnv around a Gymnasium VectorEnv of `config.lanes` environments. `step` returns the same EnvStep."""

    exact = "none"

    def __init__(self, env: Vector, config: EnvConfig, seeds: Seeds) -> None:
        self.env, self.config, self.seeds = env, config, seeds
        self.lanes, self.device = config.lanes, torch.device("cpu")
        self.fps = float(env.metadata.get("render_fps", 30))
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        action, shown = from_gymnasium(env.single_action_space), env.single_observation_space
        self.nested = isinstance(shown, gymnasium.spaces.Dict)
        self.masks = Masks(action) if config.action_mask == "info" else None
        self.latest = np.zeros(
            (0, 0), np.int8
        )  # [N, choices] masks of the vector's present states, shown or not
        if self.masks is not None:
            shown = with_mask(shown, self.masks.size)
        observation = from_gymnasium(shown, config.channels)
        self.spec = EnvSpec(config.id, observation, action, config.stack)
        self.rows = Rows(observation, action, self.lanes)
        self.leaves = observation_leaves(shown, self.rows.obs)
        self.check = Check(observation, action, self.rows.obs, self.rows.reward, self.rows.last, config.check)
        self.row = rows_step(self.rows, observation)
        self.scale = reward_scale(config, seeds)
        self.guard = Guard(config.deadline, self._hung)

    @staticmethod
    def make(config: EnvConfig, seeds: Seeds, render: bool = False) -> Native:
        """The vector that the environment registered. Raises ValueError where there is none."""
        kwargs = dict(config.kwargs)
        if render:
            kwargs["render_mode"] = "rgb_array"
        try:
            env = gymnasium.make_vec(
                config.id, config.lanes, vectorization_mode="vector_entry_point", **kwargs
            )
        except (gymnasium.error.Error, TypeError) as error:
            raise ValueError(
                f"env.backend=native: {config.id} makes no vector of its own ({error}); type env.backend=auto"
            ) from error
        return Native(env, config, seeds)

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Open episode[n] on every lane; a lane with actions opens its next episode instead."""
        rows, replayed = self.rows, np.array([len(part) > 0 for part in actions])
        if replayed.any():
            warnings.warn(
                f"{self.config.id}: env.backend=native cannot replay actions; its lanes open new episodes",
                stacklevel=2,
            )
        rows.episode[:] = episode + replayed
        seeds = self._seeds()
        try:
            obs, infos = self.env.reset(seed=seeds)
        except (TypeError, ValueError, gymnasium.error.Error):  # this vector takes one seed for all lanes
            obs, infos = self.env.reset(seed=seeds[0])
        everywhere = np.ones(self.lanes, np.bool_)
        self._first(self._masked(obs, infos, ~everywhere), everywhere)
        return self._finish()

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...]); raises EnvFault (of lane 0 where none can be told)."""
        self.rows.action[:] = action.numpy()
        self.guard.begin()
        try:
            self._advance()
        except Hang:
            raise self.guard.pending or self._hung("") from None
        except BaseException as error:
            if not own(error):
                raise
            raise self._fault("raised", repr(error), traceback.format_exc()) from error
        finally:
            self.guard.end()
        return self._finish()

    def _advance(self) -> None:
        rows, opening = self.rows, self.rows.last.copy()
        rows.episode += opening
        rows.steps += 1
        if self.mode == AutoresetMode.DISABLED and opening.any():
            obs, infos = self.env.reset(options={"reset_mask": opening.copy()})
            self._masked(obs, infos, ~opening)
        if self.masks is not None and self.mode != AutoresetMode.NEXT_STEP:
            for lane in np.flatnonzero(opening):  # the hidden step: its action was chosen for another state
                action = rows.action[lane : lane + 1].reshape(-1)
                allow(self.spec.action, action, self.latest[lane], np.random.default_rng(0))
        actions = unpack_batch(self.env.single_action_space, self.env.action_space, rows.action)
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        rows.reward[:], rows.terminated[:] = reward, terminated
        np.logical_or(terminated, truncated, out=rows.last)
        rows.first[:] = False
        self._put(self._masked(obs, infos, rows.last | opening), slice(None))
        if self.mode == AutoresetMode.SAME_STEP:
            for lane in np.flatnonzero(rows.last & ~opening):
                final = _final(infos["final_obs"], int(lane))
                if self.masks is not None:  # no action follows
                    final = add_mask(final, np.ones(self.masks.size, np.int8), self.nested)
                self._put(final, int(lane))
        if opening.any():
            if self.mode != AutoresetMode.NEXT_STEP:
                seeds = self._seeds()
                obs, infos = self.env.reset(seed=seeds, options={"reset_mask": opening.copy()})
            self._first(self._masked(obs, infos, ~opening), opening)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture of a lane, or None (made without render=True, or nothing to draw)."""
        pictures: Value = self.env.render() if self.env.render_mode else None
        return None if pictures is None else as_picture(pictures[lane])

    def lost(self) -> Exception | None:
        return self.guard.hand_over()

    def close(self) -> None:
        """Close the vector; idempotent."""
        self.guard.close()
        self.env.close()

    def _fault(self, kind: str, detail: str, trace: str) -> Exception:
        return lane_fault(kind, self.config.id, self.seeds, self.rows, 0, "vector", detail, trace)

    def _hung(self, stack: str) -> Exception:
        return self._fault("hung", f"no answer in {self.config.deadline:g} s", stack)

    def _seeds(self) -> Value:
        """A list of seeds, which Gymnasium's own vectors take though VectorEnv does not declare it."""
        return [self.seeds.of(lane, int(episode)) for lane, episode in enumerate(self.rows.episode)]

    def _masked(self, obs: Value, infos: Info, excused: Mask) -> Value:
        """Batched observations with the masks of `infos`; excused [N]: lanes that need not give one."""
        if self.masks is None:
            return obs
        given = infos.get(f"_{MASK}", np.zeros(self.lanes, np.bool_))
        rows = [
            self.masks.read({MASK: _final(infos[MASK], lane)} if given[lane] else {}, bool(excused[lane]))
            for lane in range(self.lanes)
        ]
        self.latest = np.stack(rows)
        return add_mask(obs, self.latest, self.nested)

    def _put(self, obs: Value, lanes: int | slice) -> None:
        """Write batched observations ([len(lanes), ...] per leaf), or one lane's own, into rows `lanes`."""
        for leaf in self.leaves:
            leaf.write(lanes, np.asarray(leaf.of(obs)))

    def _first(self, obs: Value, mask: Mask) -> None:
        """Rows that open an episode, from the batched reset observation."""
        rows = self.rows
        rows.reward[mask] = 0.0
        rows.terminated[mask] = rows.last[mask] = False
        rows.first[mask] = True
        rows.steps[mask] = 0
        for leaf in self.leaves:
            leaf.write(mask, np.asarray(leaf.of(obs))[mask])

    def _finish(self) -> EnvStep:
        finding = self.check.find()
        if finding is not None:
            raise lane_fault(
                finding.kind,
                self.config.id,
                self.seeds,
                self.rows,
                finding.row,
                finding.field,
                finding.detail,
            )
        if self.scale != 1.0:
            self.rows.reward *= self.scale
        return self.row


def _final(final: Value, lane: int) -> Value:
    """Lane's own observation out of infos["final_obs"]: an array of observations or a dict of these."""
    if isinstance(final, dict):
        return {key: _final(value, lane) for key, value in final.items() if not str(key).startswith("_")}
    return final[lane]
