"""An environment that shows the action it received."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SPACES = {
    "MultiDiscrete([3, 2])": lambda: spaces.MultiDiscrete([3, 2]),
    "MultiBinary(3)": lambda: spaces.MultiBinary(3),
    "Box(-1, 1, (2, 2))": lambda: spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}


class Echo(gymnasium.Env[Any, Any]):
    """obs = the last action, flattened; episodes of 5 steps."""

    def __init__(self, space: str) -> None:
        self.action_space = SPACES[space]()
        size = int(np.prod(self.action_space.shape))
        self.observation_space = spaces.Box(-5.0, 5.0, (size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.t += 1
        return np.ravel(action).astype(np.float32), 0.0, False, self.t == 5, {}
