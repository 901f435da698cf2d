"""Lanes: one environment each, writing its rows. The same lanes run in the trainer's process and in workers.

The row rule (Gymnasium's NEXT_STEP autoreset): after a row that was `last` the action is ignored and the
next episode opens (reward 0, first); otherwise the environment steps and `last = terminated or truncated`.
Every episode starts from an explicit seed, a hash of (seed, lane, episode), so it can be rebuilt from its
actions alone. NumPy, no torch.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from rlkit.envs.aliases import Env, GymSpace, Value
from rlkit.envs.backends.actions import unpack
from rlkit.envs.backends.draws import LEADERS, Draws, Verdict, apart
from rlkit.envs.backends.faults import EnvFault, spent
from rlkit.envs.backends.interface import FLAGS, NUMBERS, Misuse, check_info, flag, misuse, number, own
from rlkit.envs.backends.leaf import observation_leaves
from rlkit.envs.backends.rows import Check, Rows
from rlkit.envs.backends.simulators import Simulators
from rlkit.envs.backends.watchdog import Hang
from rlkit.envs.config import EnvConfig
from rlkit.envs.pictures import as_picture
from rlkit.envs.wrappers.atari import AtariGame
from rlkit.envs.wrappers.frames import FrameSkip
from rlkit.envs.wrappers.quirks import Pen, fresh_world, silence
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Space, from_gymnasium


def strip(env: Env) -> tuple[Env, int]:
    """(env without Gymnasium's checking and counting wrappers, its time limit or 0): lanes do their work."""
    limit = 0
    while type(env) in (OrderEnforcing, PassiveEnvChecker, TimeLimit):
        if isinstance(env, TimeLimit):
            limit = min(limit or env._max_episode_steps, env._max_episode_steps)
        env = env.env  # type: ignore[attr-defined]
    return env, limit


def atari_game(env: Env) -> AtariGame | None:
    """The wrapper that plays an Atari game by our rules, which knows of lost lives."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, AtariGame):
            return env
        env = env.env
    return None


class Lane:
    """One environment and row `index` of `rows`; space: of the rows, where it is not the environment's own."""

    def __init__(
        self,
        env: Env,
        config: EnvConfig,
        seeds: Seeds,
        index: int,
        rows: Rows,
        draws: Draws | None = None,
        space: GymSpace | None = None,
    ) -> None:
        self.env, self.limit = strip(env)
        self.config, self.seeds, self.index, self.rows, self.draws = config, seeds, index, rows, draws
        self.env_step = self.env.step if draws is None else self.step_apart
        self.renew = fresh_world(env)
        silence(env)
        self.pen = Pen.of(env)
        self.game = atari_game(env)
        self.leaves = observation_leaves(env.observation_space if space is None else space, rows.obs)
        self.strict = config.check in ("space", "warn")
        only = self.leaves[0]
        self.shape, self.dtype, self.obs = only.shape, only.dtype, only.rows
        # The common case is one array: it is looked at and written without the detour through Leaf.put.
        self.plain = isinstance(env.observation_space, spaces.Box)
        self.trusting = config.check == "none"
        self.episode = self.steps = 0
        self.fresh = self.last = False

    def step(self, action: Value) -> None:
        """Apply one action (or open the next episode) and write the row. Raises EnvFault."""
        if self.last:
            self.begin(self.episode + 1)
            return
        rows, index = self.rows, self.index
        self.steps = steps = self.steps + 1
        rows.steps[index] = steps
        try:
            obs, reward, terminated, truncated, _ = self.env_step(action)
        except BaseException as error:
            raise self.blame(error, "step") from error
        if self.fresh:
            rows.first[index] = self.fresh = False
        if type(reward) not in NUMBERS or type(terminated) not in FLAGS or type(truncated) not in FLAGS:
            try:
                reward = number(reward, self.strict)
                terminated, truncated = flag("terminated", terminated), flag("truncated", truncated)
            except Misuse as wrong:
                raise self.fault(wrong.kind, wrong.field, wrong.detail) from wrong
        try:
            rows.reward[index] = reward
        except OverflowError as error:
            raise self.fault("nan", "reward", f"{reward} is too large for float32") from error
        rows.terminated[index] = terminated or (self.game is not None and self.game.lost_life)
        rows.last[index] = self.last = terminated or truncated or steps == self.limit
        self.put(obs)

    def step_apart(self, action: Value) -> Value:
        """The environment's step with random numbers of the lane's own, until it is known to draw none."""
        draws = self.draws
        assert draws is not None, "plain steps are the environment's"
        if draws.settled:
            self.draws, self.env_step = None, self.env.step
            return self.env.step(action)
        return draws.call(self.env.step, action)

    def begin(self, episode: int) -> None:
        """Open an episode and write its first row. Raises EnvFault."""
        rows, index = self.rows, self.index
        rows.episode[index] = self.episode = episode
        rows.steps[index] = self.steps = 0
        try:
            if self.renew is not None:
                self.renew()
            seed, reset = self.seeds.of(index, episode), self.env.reset
            obs, info = reset(seed=seed) if self.draws is None else self.draws.reset(reset, seed)
            check_info(info)
        except BaseException as error:
            raise self.blame(error, "reset") from error
        rows.reward[index] = 0.0
        rows.terminated[index] = rows.last[index] = self.last = False
        rows.first[index] = self.fresh = True
        self.put(obs)

    def put(self, obs: Value) -> None:
        """Write the observation's row; raises EnvFault (shape, dtype) unless env.check=none."""
        if self.plain and (
            self.trusting or (type(obs) is np.ndarray and obs.shape == self.shape and obs.dtype == self.dtype)
        ):
            self.obs[self.index] = obs
            return
        for leaf in self.leaves:
            try:
                problem = leaf.put(self.index, obs, self.strict)
            except Exception as error:
                raise self.fault("shape", leaf.name, repr(error), traceback.format_exc()) from error
            if problem is not None:
                raise self.fault(problem[0], leaf.name, problem[1])

    def restore(self, episode: int, actions: list[Value], beat: Callable[[], object]) -> None:
        """Open an episode, replay its actions and write the row they lead to; `beat` is called between steps.

        A replay that ends early stays at its ending: the environment does not follow from its seed, and who compares
        the rows will see it. Raises EnvFault.
        """
        hidden = self.pen if actions else None
        if hidden is not None:
            hidden.off()  # nobody sees the frames on the way
        try:
            self.begin(episode)
            for action in actions[:-1]:
                beat()
                self.step(action)
                if self.last:
                    break
        finally:
            if hidden is not None:
                hidden.on()
        if actions and not self.last:
            beat()
            self.step(actions[-1])

    def cut(self) -> None:
        """End the episode where it failed: a row that is `last` and paid nothing, after a reset `first` as well.

        The observation is the one before, or what the environment gave in place of one. The next step opens the next
        episode.
        """
        rows, index = self.rows, self.index
        rows.reward[index], rows.terminated[index] = 0.0, False
        rows.first[index] = self.steps == 0
        rows.last[index] = self.last = True
        self.fresh = False

    def blame(self, error: BaseException, method: str) -> EnvFault:
        """The fault that an error of the environment's `method` means. Raises the error where it is not its own."""
        if isinstance(error, Hang):
            trace = "".join(traceback.format_exception(error))
            return self.fault("hung", "" if method == "step" else method, overdue(self.config), trace)
        if not own(error):
            raise error
        wrong = error if isinstance(error, Misuse) else misuse(error, method)
        if wrong is not None:
            return self.fault(wrong.kind, wrong.field, wrong.detail)
        kind = "exited" if isinstance(error, SystemExit) else "raised"
        return self.fault(kind, "" if method == "step" else method, repr(error), traceback.format_exc())

    def fault(self, kind: str, field: str = "", detail: str = "", trace: str = "") -> EnvFault:
        """The error of this lane, here and now."""
        return lane_fault(kind, self.config.id, self.seeds, self.rows, self.index, field, detail, trace)


def overdue(config: EnvConfig) -> str:
    """What is said of a step that hangs."""
    return f"no answer in {config.deadline:g} s"


def lane_fault(
    kind: str,
    id: str,
    seeds: Seeds,
    rows: Rows,
    index: int,
    field: str = "",
    detail: str = "",
    trace: str = "",
) -> EnvFault:
    """The error of lane `index`, which stands where its rows say."""
    episode, step = int(rows.episode[index]), int(rows.steps[index])
    seed = seeds.of(index, episode)
    return EnvFault(kind, id, seeds.first_lane + index, episode, step, seed, field, detail, trace)


class Block:
    """Lanes [start, stop) of a vector environment, stepped one after the other in this process.

    envs: what they step (None: made here).
    """

    def __init__(
        self,
        config: EnvConfig,
        seeds: Seeds,
        start: int,
        stop: int,
        render: bool = False,
        envs: list[Env] | None = None,
    ) -> None:
        self.config, self.seeds, self.start, self.stop = config, seeds, start, stop
        mode = "rgb_array" if render else None
        self.agents: tuple[str, ...] = ("agent",)  # of one game
        self.groups: tuple[tuple[str, tuple[int, ...]], ...] = ()  # of them, as EnvSpec.groups
        self.envs = envs or []
        self.simulators, self.opened = Simulators(), False
        # called after every step of a replay and every episode that was cut: the time for a step begins anew
        self.beat: Callable[[], object] = lambda: None
        if envs is None:
            with self.simulators.tracking(), apart() as seed:  # for constructors that draw
                self.envs = self.made(mode, seed)
        self.observation: Space = from_gymnasium(self.envs[0].observation_space, config.channels)
        self.action_space: GymSpace = self.envs[0].action_space
        self.action: Space = from_gymnasium(self.action_space)
        self.fps = float(self.envs[0].metadata.get("render_fps", 30)) / config.skip  # decisions per second
        self.lanes: list[Lane] = []

    def made(self, mode: str | None, seed: Callable[[int], object]) -> list[Env]:
        """New environments of the lanes; seed(number): seeds the global generators that a constructor may draw from."""
        from rlkit.envs.single import make_env

        found = []
        for lane in range(self.start, self.stop):
            seed(self.seeds.making(lane))
            found.append(make_env(self.config, mode))
        return found

    def attach(self, rows: Rows) -> None:
        """Choose the rows that the lanes write; lane i writes row i."""
        self.rows = rows
        verdict = Verdict()
        self.lanes = [
            Lane(env, self.config, self.seeds, self.start + i, rows, Draws(verdict, i < LEADERS))
            for i, env in enumerate(self.envs)
        ]
        self.watch(rows)

    def watch(self, rows: Rows) -> None:
        """Look at the block's rows after every step."""
        mine = slice(self.start, self.stop)
        views = {name: array[mine] for name, array in rows.obs.items()}
        self.actions = rows.action[mine]
        rows.cursor[self.start] = self.start
        self.check = Check(
            self.observation,
            self.action,
            views,
            rows.reward[mine],
            rows.last[mine],
            self.config.check,
            self.groups,
        )

    def step(self) -> None:
        """Apply the block's rows of `rows.action`. Raises EnvFault."""
        cursor, start = self.rows.cursor, self.start
        for lane, action in zip(self.lanes, unpack(self.action_space, self.actions), strict=True):
            cursor[start] = lane.index
            try:
                lane.step(action)
            except EnvFault as fault:
                self.replace(lane, fault)
        self.verify()

    def restore(self, episode: Array, actions: list[Array]) -> None:
        """Bring lane `start + i` to episode[i] after actions[i]."""
        opens, self.opened = not self.opened, True
        with self.simulators.tracking() if opens else nullcontext():  # the first reset may start a simulator
            self._restore(episode, actions)
        self.verify()

    def _restore(self, episode: Array, actions: list[Array]) -> None:
        for lane, opened, history in zip(self.lanes, episode, actions, strict=True):
            self.rows.cursor[self.start] = lane.index
            try:
                lane.restore(int(opened), unpack(self.action_space, history), self.beat)
            except EnvFault as fault:
                self.replace(lane, fault)

    def verify(self) -> None:
        """Look for rows that leave their space. Raises EnvFault."""
        while (finding := self.check.find()) is not None:
            lane = self.lanes[finding.row]
            self.replace(lane, lane.fault(finding.kind, finding.field, finding.detail))
            self.check.mend(finding.row)

    def replace(self, lane: Lane, fault: EnvFault) -> None:
        """Cut the episode that failed and say so, or raise the fault where env.max_failures are used up."""
        failures, limit = self.rows.failures, self.config.max_failures
        failures[lane.index] += 1
        count = int(failures.sum())  # of all lanes: the rows may be shared by several processes
        if 0 <= limit < count:
            raise fault
        warnings.warn(
            f"{fault.text}; the episode is cut there ({spent(count, limit)})",
            RuntimeWarning,
            stacklevel=2,
        )
        self.beat()
        self.cut(lane)

    def cut(self, lane: Lane) -> None:
        """End what the failed lane is in."""
        lane.cut()

    def hung(self, stack: str, doing: str = "") -> EnvFault:
        """The fault of the lane at work, which hangs in a step, or in what it is `doing` instead."""
        lane = int(self.rows.cursor[self.start])
        return lane_fault(
            "hung", self.config.id, self.seeds, self.rows, lane, doing, overdue(self.config), stack
        )

    def render(self, lane: int) -> Array | None:
        """An [H, W, 3] picture of lane `lane` for people, or None where the environment draws none.

        Raises EnvFault where it fails, ValueError for what is no picture.
        """
        shown = self.lanes[lane - self.start]
        self.rows.cursor[self.start] = lane
        try:
            picture = shown.env.render() if shown.env.render_mode else None
        except BaseException as error:
            raise shown.blame(error, "render") from error
        return as_picture(picture)

    def passed(self, lane: int) -> list[Array]:
        """What a frame skip passed over in the latest step of lane `lane`, drawn for people; oldest first."""
        env: Env = self.envs[lane - self.start]
        while isinstance(env, gymnasium.Wrapper):
            if isinstance(env, FrameSkip):
                return [picture for picture in map(as_picture, env.passed) if picture is not None]
            env = env.env
        return []

    def close(self) -> None:
        """Close every environment, whatever the others do, and end what they have started. Raises an EnvFault."""
        try:
            self._close()
        finally:
            self.simulators.close()

    def _close(self) -> None:
        if not self.lanes:  # without rows: they have done nothing
            for env in self.envs:
                env.close()  # type: ignore[no-untyped-call]
        faults = []
        for lane, env in zip(self.lanes, self.envs, strict=True):
            self.rows.cursor[self.start] = lane.index
            try:
                env.close()  # type: ignore[no-untyped-call]
            except BaseException as error:
                faults.append(lane.blame(error, "close"))
        if faults:
            raise faults[0]
