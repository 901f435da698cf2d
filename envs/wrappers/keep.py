"""Hides a part of a vector observation: the agent sees the entries that are kept, and has to remember the rest."""

from __future__ import annotations

import gymnasium
import numpy as np

from rlkit.envs.aliases import Core, Env, Value


class Keep(gymnasium.ObservationWrapper[Value, Value, Value]):
    """obs [n] -> obs[entries], in the given order. Raises ValueError where there are no such entries."""

    def __init__(self, env: Env, entries: tuple[int, ...]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(
                f"env.keep={list(entries)}: observations are {space}; allowed for a Box of one axis; "
                f"type env.keep=[]"
            )
        size = space.shape[0]
        if len(set(entries)) < len(entries) or not all(0 <= entry < size for entry in entries):
            raise ValueError(
                f"env.keep={list(entries)}: the observation has {size} entries; allowed: different numbers from "
                f"0 to {size - 1}"
            )
        self.entries = np.array(entries)
        kind: Core = space.dtype
        self.observation_space = gymnasium.spaces.Box(
            space.low[self.entries], space.high[self.entries], dtype=kind
        )

    def observation(self, observation: Value) -> Value:
        """obs [n] -> [len(entries)]."""
        return observation[self.entries]
