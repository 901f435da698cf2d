"""Lanes of a classic control problem: Gymnasium opens the episodes, `equations` moves all lanes in one call.

Every lane keeps Gymnasium's environment. It draws the first state of an episode, replays what a checkpoint says, and
takes over, with the lanes' present states, for a step with an action that is none of the problem's: what follows from
that, an error or a row that is no number, is its business. So seeds, checkpoints and faults are those of plain lanes.
"""

from __future__ import annotations

import functools
import warnings

import gymnasium
import numpy as np
import numpy.typing as npt

from rlkit.envs.aliases import Core
from rlkit.envs.backends.lane import Block, Lane, strip
from rlkit.envs.backends.rows import Rows
from rlkit.envs.classic import PROBLEMS, equations
from rlkit.envs.classic.equations import Flags
from rlkit.envs.config import EnvConfig
from rlkit.envs.single import make_env
from rlkit.spaces import Array

TWO = 2.0  # see `equations`
# how far the numbers of a state may lie from 0 where `same` begins, so that bounds and endings are met
REACH = {
    "cartpole": (2.5, 3.0, 0.22, 3.0),
    "pendulum": (10.0, 8.0),
    "acrobot": (3.2, 3.2, 12.0, 28.0),
    "mountain_car": (1.2, 0.07),
    "mountain_car_continuous": (1.2, 0.07),
}


class ClassicBlock(Block):
    """Lanes [start, stop) of a problem of which `same` is true."""

    def attach(self, rows: Rows) -> None:
        """Choose the rows that the lanes write; lane i writes row i."""
        super().attach(rows)
        for lane in self.lanes:  # these environments draw from their own generators alone
            lane.draws, lane.env_step = None, lane.env.step
        mine = slice(self.start, self.stop)
        self.flags = Flags(*(getattr(rows, name)[mine] for name in Flags._fields))
        self.obs = rows.obs[""][mine]
        self.kernel = PROBLEMS[self.config.id][1]
        self.move, self.limit = getattr(equations, self.kernel), self.lanes[0].limit
        self.state = np.zeros((len(self.lanes), len(REACH[self.kernel])))

    def step(self) -> None:
        """Apply the block's rows of `rows.action`. Raises EnvFault."""
        opening = self.move(self.state, self.actions, self.obs, self.flags, self.limit, TWO)
        if opening < 0:
            self._lend()
            super().step()
            self._take()
            return
        if opening:
            for i in np.flatnonzero(self.flags.steps < 0).tolist():
                lane = self.lanes[i]
                self.rows.cursor[self.start] = lane.index
                lane.begin(lane.episode + 1)
                self.state[i] = state_of(lane)
            self.rows.cursor[self.start] = self.start
        if self.config.check == "space":  # rows are finite where actions are
            self.verify()

    def _restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> None:
        super()._restore(episode, actions)
        self._take()

    def cut(self, lane: Lane) -> None:
        """End what the failed lane is in."""
        lane.steps = int(self.rows.steps[lane.index])
        super().cut(lane)

    def _lend(self) -> None:
        """Bring Gymnasium's environments to where the lanes are."""
        for i, lane in enumerate(self.lanes):
            core: Core = lane.env.unwrapped
            lane.steps, lane.fresh = int(self.flags.steps[i]), bool(self.flags.first[i])
            lane.last = bool(self.flags.last[i])
            single = lane.steps and self.kernel == "mountain_car_continuous"
            core.state = self.state[i].astype(np.float32 if single else np.float64)

    def _take(self) -> None:
        """Continue from where Gymnasium's environments are."""
        for i, lane in enumerate(self.lanes):
            self.state[i] = state_of(lane)


def state_of(lane: Lane) -> Array:
    """The state [k] of a lane's environment."""
    core: Core = lane.env.unwrapped
    return np.array(core.state, np.float64)


@functools.cache
def same(id: str) -> bool:
    """Whether the installed Gymnasium's steps of a problem have the bits of ours, looked at once per process.

    False without a word where another class is registered under the id; with a warning where the bits differ.
    """
    core, _ = strip(make_env(EnvConfig(id=id)))
    kind, kernel = PROBLEMS[id]
    if f"{type(core).__module__}:{type(core).__qualname__}" != kind:
        return False
    try:
        why = difference(id, kernel)
    except Exception as error:  # whatever it is, this is not the Gymnasium that we know
        why = repr(error)
    if why:
        warnings.warn(
            f"env.id={id}: {why}, so Gymnasium's own environments are stepped (the same, slower)",
            stacklevel=2,
        )
    return not why


def difference(id: str, kernel: str, lanes: int = 16, steps: int = 24) -> str:
    """Where steps of Gymnasium and ours differ, from first states and from states within REACH; "" where none does."""
    generator, reach = np.random.default_rng(0), np.array(REACH[kernel])
    cores: list[Core] = [make_env(EnvConfig(id=id)).unwrapped for _ in range(lanes)]
    for n, core in enumerate(cores):
        core.reset(seed=n)
        if n % 2:
            core.state = generator.uniform(-reach, reach)
    state = np.array([core.state for core in cores], np.float64)
    space, shown = cores[0].action_space, cores[0].observation_space.shape
    obs, reward, counts = (
        np.zeros((lanes, *shown), np.float32),
        np.zeros(lanes, np.float32),
        np.zeros(lanes, int),
    )
    flags = Flags(reward, *(np.zeros(lanes, np.bool_) for _ in range(3)), counts)
    going = list(range(lanes))
    for step in range(steps):
        if isinstance(space, gymnasium.spaces.Discrete):
            action = generator.integers(space.n, size=lanes)
        else:
            action = generator.uniform(1.5 * space.low, 1.5 * space.high, (lanes, *space.shape)).astype(
                space.dtype
            )
        getattr(equations, kernel)(state, action, obs, flags, 0, TWO)
        for n in going:
            seen, paid, terminated, _, _ = cores[n].step(action[n] if action.ndim > 1 else int(action[n]))
            theirs = (
                seen.tobytes(),
                np.float32(paid).tobytes(),
                terminated,
                np.array(cores[n].state, float).tobytes(),
            )
            if theirs != (obs[n].tobytes(), reward[n].tobytes(), flags.terminated[n], state[n].tobytes()):
                return f"step {step + 1} of the installed Gymnasium differs from its equations here"
        going = [n for n in going if not flags.last[n]]
    return ""
