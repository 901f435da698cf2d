"""An environment that draws from the generators of the process; workers load it, so it imports no torch."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Drawing(gymnasium.Env[Any, Any]):
    """Shows a number that its constructor drew, one of the reset and one of the step."""

    observation_space, action_space = spaces.Box(-9, 9, (3,), np.float32), spaces.Discrete(2)

    def __init__(self, kind: str = "numpy", at: str = "all") -> None:
        self.kind, self.at, self.made = kind, at, 0.0
        self.made = self.draw("make")

    def draw(self, at: str) -> float:
        if self.at not in ("all", at):
            return 0.0
        return {"numpy": np.random.normal, "python": random.random, "none": float}[self.kind]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.opened = 0, self.draw("reset")
        return np.array([self.made, self.opened, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.array([self.made, self.opened, self.draw("step")], np.float32), 0.0, False, self.t == 6, {}
