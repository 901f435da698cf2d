"""What an environment does that a run should know of, found out from one environment at work: a line for each habit."""

from __future__ import annotations

import gymnasium
import numpy as np

from rlkit.envs.aliases import Env, Info, Opening, Step, Value, Wrapper
from rlkit.spaces import Array, Box, Space, leaf_values, leaves

NOTICED = 1e-3  # a smaller change of a number is taken for noise

# classes that normalize with running statistics -> (what they normalize, the option that does it for an agent)
NORMALIZERS = {
    "NormalizeObservation": ("observations", "network.normalize=true"),
    "NormalizeReward": ("rewards", "agent.normalize_reward=true"),
}


def normalizing(env: Env) -> list[str]:
    """A line for every wrapper around an environment that normalizes by what it has seen so far."""
    found = []
    while isinstance(env, gymnasium.Wrapper):
        for kind in type(env).__mro__:
            if kind.__name__ in NORMALIZERS:
                what, option = NORMALIZERS[kind.__name__]
                found.append(
                    f"warning: {kind.__name__} in the environment normalizes its {what} by statistics of each lane's "
                    f"own, which are not saved: evaluation, resume and rlkit.load see other numbers than training; "
                    f"take it out and type {option}"
                )
        env = env.env
    return found


class Narrowing(Wrapper):
    """Finds numbers of observations that change, but by less than float32, in which networks compute, can show."""

    def __init__(self, env: Env, space: Space) -> None:
        super().__init__(env)
        self.space, self.wide = space, wide(space)
        self.before: dict[str, Array] = {}
        self.lost: dict[str, float] = {}  # entry -> a value whose change is lost

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        obs, info = self.env.reset(seed=seed, options=options)
        self.before = {}
        self._look(obs)
        return obs, info

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._look(obs)
        return obs, reward, terminated, truncated, info

    def _look(self, obs: Value) -> None:
        values = zip(leaves(self.space), leaf_values(self.space, obs), strict=True)
        now = {name: np.array(value, np.float64) for (name, _), value in values if name in self.wide}
        for name, value in now.items():
            before = self.before.get(name, value)
            if before.shape == value.shape:
                lost = np.abs(value - before) >= NOTICED
                lost &= value.astype(np.float32) == before.astype(np.float32)
                if lost.any():
                    self.lost.setdefault(name, float(value[lost][0]))
        self.before = now

    def notes(self) -> list[str]:
        """A line for every entry whose changes are lost."""
        return [
            f"warning: observation{f' entry {name}' if name else ''} changes by less than float32 holds at "
            f"{value:g} (its neighbours there are {np.spacing(np.float32(value)):.3g} apart), so the agent cannot "
            "see it; have the environment show it from a start of its own"
            for name, value in self.lost.items()
        ]


def wide(space: Space) -> set[str]:
    """The leaves of an observation with numbers that float32 may not hold."""
    return {
        name
        for name, leaf in leaves(space)
        if isinstance(leaf, Box) and np.dtype(leaf.dtype).itemsize >= 4 and leaf.dtype != "float32"
    }
