"""An environment of one's own, outside the package, with a mask: who stands at an end cannot go further."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Vector = npt.NDArray[np.float32]


class Line(gymnasium.Env[Vector, int]):
    """Left or right on 5 places, from a random one of the middle three; reward 1 and the end on the rightmost."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(-1, 2))
        return self._see()

    def step(self, action: int) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        if not self._mask()[action]:
            raise ValueError(f"there is no place {self.place + (1 if action else -1)}")
        self.place += 1 if action else -1
        obs, info = self._see()
        return obs, float(self.place == 2), self.place == 2, False, info

    def _see(self) -> tuple[Vector, dict[str, Any]]:
        return np.array([self.place], np.float32), {"action_mask": self._mask()}

    def _mask(self) -> npt.NDArray[np.int8]:
        return np.array([self.place > -2, self.place < 2], np.int8)
