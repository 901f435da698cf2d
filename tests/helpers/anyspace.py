"""An environment of any observation and action space; it refuses actions that are not in its space."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

INSIDE = {
    "image": spaces.Box(0, 255, (6, 7, 3), np.uint8),
    "pair": spaces.Tuple((spaces.Discrete(3, start=1), spaces.Dict({"deep": spaces.MultiBinary(2)}))),
    "speed": spaces.Box(-1.0, 1.0, (), np.float64),
}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "float64": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "float16": spaces.Box(-1.0, 1.0, (3,), np.float16),
    "number": spaces.Box(-1.0, 1.0, (), np.float32),
    "matrix": spaces.Box(-1.0, 1.0, (3, 2), np.float32),
    "integers": spaces.Box(-5, 5, (3,), np.int32),
    "bytes": spaces.Box(0, 255, (8,), np.uint8),
    "byte": spaces.Box(0, 255, (), np.uint8),
    "gray": spaces.Box(0, 255, (40, 44), np.uint8),
    "rgb": spaces.Box(0, 255, (40, 44, 3), np.uint8),
    "channels_first": spaces.Box(0, 255, (3, 40, 44), np.uint8),
    "five_channels": spaces.Box(0, 255, (40, 44, 5), np.uint8),
    "five_channels_first": spaces.Box(0, 255, (5, 40, 44), np.uint8),
    "small": spaces.Box(0, 255, (5, 4, 3), np.uint8),
    "pixel": spaces.Box(0, 255, (1, 1, 3), np.uint8),
    "large": spaces.Box(0, 255, (120, 160, 1), np.uint8),
    "float_image": spaces.Box(0.0, 1.0, (12, 12, 3), np.float32),
    "volume": spaces.Box(0, 255, (3, 4, 5, 2), np.uint8),
    "discrete": spaces.Discrete(4, start=-2),
    "multidiscrete": spaces.MultiDiscrete([3, 2], start=[1, 5]),
    "multidiscrete_2d": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "multibinary": spaces.MultiBinary(3),
    "multibinary_2d": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict(INSIDE),
    "tuple": spaces.Tuple(
        (spaces.Discrete(2), spaces.Dict(INSIDE), spaces.Box(-1.0, 1.0, (2, 2), np.float32))
    ),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3, start=-1),
    "multidiscrete": spaces.MultiDiscrete([3, 2], start=[1, 5]),
    "multidiscrete_2d": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "multibinary": spaces.MultiBinary(3),
    "multibinary_2d": spaces.MultiBinary((2, 3)),
    "integer_box": spaces.Box(0, 5, (2,), np.int32),  # no agent acts in it
    "box": spaces.Box(-1.0, 3.0, (2,), np.float32),
    "box_number": spaces.Box(-1.0, 3.0, (), np.float32),
    "box_matrix": spaces.Box(-1.0, 3.0, (2, 2), np.float64),
    "box_unbounded": spaces.Box(np.array([-np.inf, 0.0]), np.array([np.inf, np.inf]), dtype=np.float64),
    "dict": spaces.Dict(
        {
            "steer": spaces.Box(-1.0, 1.0, (1,), np.float32),
            "throttle": spaces.Box(0.0, 1.0, (), np.float64),
            "gear": spaces.Discrete(5, start=-1),
        }
    ),
    "tuple": spaces.Tuple(
        (spaces.Discrete(2), spaces.Dict({"b": spaces.MultiBinary(2), "m": spaces.MultiDiscrete([2, 3])}))
    ),
}


class AnySpace(gymnasium.Env[Any, Any]):
    """Random observations that follow from the seed and the actions; episodes of 5 steps."""

    def __init__(self, observation: str = "vector", action: str = "discrete") -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observation], ACTIONS[action]

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.t += 1
        return self._observe(), 1.0, False, self.t == 5, {}
