"""An environment that checks composite actions; workers load it, so it imports no torch."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlkit.envs.backends.actions import pack

NESTED = spaces.Dict(
    {
        "a": spaces.Discrete(3, start=5),
        "b": spaces.Tuple((spaces.MultiBinary((2, 2)), spaces.Box(-1.0, 1.0, (), np.float64))),
        "c": spaces.Dict(
            {"d": spaces.MultiDiscrete([[2, 3]]), "e": spaces.Box(0.0, 9.0, (2, 1), np.float32)}
        ),
    }
)
PAIR = spaces.Tuple((spaces.Discrete(2), NESTED))


class Checked(gymnasium.Env[Any, Any]):
    """obs = the row of the last action, which must belong to NESTED; episodes of 3 steps."""

    def __init__(self, tuple_first: bool = False) -> None:
        self.action_space = PAIR if tuple_first else NESTED
        self.observation_space = spaces.Box(-9.0, 9.0, (11 if tuple_first else 10,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action: Any) -> Any:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is no action")
        self.t += 1
        return pack(self.action_space, action).astype(np.float32), 0.0, self.t == 3, False, {}
