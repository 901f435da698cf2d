"""Training episodes that lead nowhere are cut."""

from __future__ import annotations

from typing import Any

import gymnasium


class Patience(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Truncate an episode after `steps` steps (of the agent: a frame skip is one) in a row without a reward above 0.

    A truncation, not a termination: the value of where it is cut is bootstrapped, so what is learned of the task does
    not change; what changes is how much of the experience is of standing still.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], steps: int) -> None:
        super().__init__(env)
        self.steps, self.waited = steps, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.waited = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.waited = 0 if float(reward) > 0 else self.waited + 1
        return obs, reward, terminated, truncated or self.waited >= self.steps, info
