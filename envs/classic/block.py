"""Lanes of a classic control problem, which `equations` moves in one call, from Gymnasium's first states.

Every lane keeps Gymnasium's environment. It replays what a checkpoint says, and takes over, with the lane's present
state, for a step with an action that is none of the problem's: what follows from that, an error or a row that is no
number, is its business. So checkpoints and faults are those of plain lanes.
"""

from __future__ import annotations

import functools
import math
import warnings

import gymnasium
import numpy as np
import numpy.typing as npt

from rlkit.envs.aliases import Core, Value
from rlkit.envs.backends.lane import Block, Lane, strip
from rlkit.envs.backends.rows import Rows
from rlkit.envs.classic.equations import KERNELS, Flags
from rlkit.envs.classic.problems import PROBLEMS
from rlkit.envs.config import EnvConfig
from rlkit.envs.navigation.cells import Bools, Ints
from rlkit.envs.seeds import draw_seeds, draw_uniforms, words
from rlkit.envs.single import make_env
from rlkit.jit import announced
from rlkit.seeding import episode_seed
from rlkit.spaces import Array

TWO = 2.0  # see `equations`
# the bounds between which the first state of an episode is drawn
START = {
    "cartpole": ((-0.05,) * 4, (0.05,) * 4),
    "pendulum": ((-math.pi, -1.0), (math.pi, 1.0)),
    "acrobot": ((-0.1,) * 4, (0.1,) * 4),
    "mountain_car": ((-0.6, 0.0), (-0.4, 0.0)),
    "mountain_car_continuous": ((-0.6, 0.0), (-0.4, 0.0)),
}
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
        self.move, self.limit = KERNELS[self.kernel], self.lanes[0].limit
        self.words, self.drawn = words(self.seeds.seed), np.zeros(rows.lanes, np.int64)
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
            self._open()
        if self.config.check == "space":  # rows are finite where actions are
            self.verify()

    def _open(self) -> None:
        """Begin the next episode of the lanes without steps, those that `equations` did not move."""
        rows, seeds, flags = self.rows, self.seeds, self.flags
        everyone = rows.steps < 0  # [N], of which lanes [start, stop) are ours
        opening = everyone[self.start : self.stop]
        rows.episode[self.start : self.stop] += opening
        draw_seeds(
            everyone,
            self.start,
            self.stop,
            self.words,
            seeds.evaluation,
            seeds.first_lane,
            rows.episode,
            self.drawn,
        )
        begin(self.kernel, opening, self.drawn[self.start : self.stop], self.state, self.obs)
        flags.steps[opening], flags.reward[opening], flags.first[opening] = 0, 0.0, True
        flags.terminated[opening] = flags.last[opening] = False

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
            lane.last, lane.episode = bool(self.flags.last[i]), int(self.rows.episode[lane.index])
            single = lane.steps and self.kernel == "mountain_car_continuous"
            core.state = self.state[i].astype(np.float32 if single else np.float64)

    def _take(self) -> None:
        """Continue from where Gymnasium's environments are."""
        for i, lane in enumerate(self.lanes):
            self.state[i] = state_of(lane)


def begin(kernel: str, opening: Bools, seed: Ints, state: Array, obs: Array) -> None:
    """Write the first states [N, k] of the lanes that are `opening`, drawn with seed [N], and what is seen of them."""
    low, high = np.array(START[kernel])
    draw_uniforms(opening, seed, low, high - low, state)
    if kernel == "acrobot":
        state[opening] = state[opening].astype(np.float32)
        # float32, whose cosines are others than float64's
        a, b, v, w = np.ascontiguousarray(state[opening].T, np.float32)
        obs[opening] = np.stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b), v, w], 1)
    elif kernel == "pendulum":
        a, w = np.ascontiguousarray(state[opening].T)
        obs[opening] = np.stack([np.cos(a), np.sin(a), w], 1)
    else:
        obs[opening] = state[opening]


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
    with announced(f"environment {id}: compiling its equations, once where a cache can be written"):
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
    space, shape = cores[0].action_space, cores[0].observation_space.shape
    discrete = isinstance(space, gymnasium.spaces.Discrete)
    state, reward = np.zeros((lanes, len(reach))), np.zeros(lanes, np.float32)
    obs = np.zeros((lanes, *shape), np.float32)
    terminated, first, last, everyone = np.zeros((4, lanes), np.bool_)
    counts, episode, drawn = np.zeros((3, lanes), np.int64)
    flags = Flags(reward, terminated, first, last, counts)
    everyone[:] = True
    draw_seeds(everyone, 0, lanes, words(0), False, 0, episode, drawn)
    begin(kernel, everyone, drawn, state, obs)
    for n, core in enumerate(cores):
        seen, _ = core.reset(seed=episode_seed(0, n, 0))
        if bits(seen, core.state) != bits(obs[n], state[n]):
            return "the first state of an episode differs from ours"
        if n % 2:
            state[n] = core.state = generator.uniform(-reach, reach)
    going = list(range(lanes))
    for step in range(steps):
        if discrete:
            action = generator.integers(int(space.n), size=lanes)
        else:
            wide = generator.uniform(1.5 * space.low, 1.5 * space.high, (lanes, *space.shape))
            action = wide.astype(np.float32)
        KERNELS[kernel](state, action, obs, flags, 0, TWO)
        for n in going:
            seen, paid, ended, _, _ = cores[n].step(int(action[n]) if discrete else action[n])
            theirs = bits(seen, cores[n].state), np.float32(paid).tobytes(), ended
            if theirs != (bits(obs[n], state[n]), reward[n].tobytes(), terminated[n]):
                return f"step {step + 1} of an episode differs from ours"
        going = [n for n in going if not last[n]]
    return ""


def bits(obs: Value, state: Value) -> bytes:
    """An observation and a state, to be compared to the last bit."""
    return bytes(np.asarray(obs).tobytes() + np.array(state, np.float64).tobytes())
