"""A task in which the best action by far is mostly forbidden."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

START, RISKY, SAFE = range(3)
BAIT = 2
CHANCE = 0.2  # that the bait is allowed


class Bait(gymnasium.Env[Any, int]):
    """Two steps: go to RISKY (action 0) or SAFE (1); there action 2, the bait, pays 1.

    It is allowed in RISKY with probability 0.2 and never elsewhere; the other actions pay 0.1 there and, in SAFE, 0 and
    0.5. So RISKY is worth 0.2 + 0.8 * 0.1 = 0.28, and the best return is 0.5, but whoever takes the maximum over all
    actions sees 1 there. The state says nothing about what is allowed, only the mask does. A forbidden action raises.
    """

    def __init__(self) -> None:
        mask = spaces.Box(0, 1, (3,), np.int8)
        self.observation_space = spaces.Dict(
            {"state": spaces.Box(0.0, 1.0, (3,), np.float32), "action_mask": mask}
        )
        self.action_space = spaces.Discrete(3)

    def _observe(self) -> dict[str, Any]:
        return {"state": np.eye(3, dtype=np.float32)[self.state], "action_mask": self.mask.copy()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.mask = START, np.array([1, 1, 0], np.int8)
        return self._observe(), {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if not self.mask[action]:
            raise ValueError(f"action {action} is forbidden in state {self.state}")
        if self.state == START:
            self.state = SAFE if action == 1 else RISKY
            self.mask[BAIT] = self.state == RISKY and self.np_random.random() < CHANCE
            return self._observe(), 0.0, False, False, {}
        pay = {RISKY: (0.1, 0.1, 1.0), SAFE: (0.0, 0.5, 0.0)}[self.state]
        return self._observe(), pay[action], True, False, {}
