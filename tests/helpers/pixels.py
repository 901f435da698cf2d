"""Small environments of the learning tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces


class Before(gymnasium.Env[npt.NDArray[np.uint8], int]):
    """A bright left or right half, at random each step; reward 1 for naming the side of the frame before.

    12 steps; the first has no frame before it (a stack repeats it). Best 11 to 12, without memory 6 in the mean.
    """

    observation_space = spaces.Box(0, 255, (8, 8), np.uint8)
    action_space = spaces.Discrete(2)

    def _draw(self) -> npt.NDArray[np.uint8]:
        self.before, self.side = self.side, int(self.np_random.integers(2))
        frame = np.zeros((8, 8), np.uint8)
        frame[:, 4 * self.side : 4 * self.side + 4] = 255
        return frame

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.side = 0, int(self.np_random.integers(2))
        return self._draw(), {}

    def step(self, action: int) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        reward = float(action == self.before)
        self.t += 1
        return self._draw(), reward, self.t == 12, False, {}


class Constant(gymnasium.Env[npt.NDArray[np.float32], int]):
    """Reward 1 for ever, and nothing to see."""

    observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 1.0, False, False, {}
