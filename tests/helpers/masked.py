"""Environments that know which actions they allow, and refuse all others."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

KINDS: dict[str, Any] = {
    "Discrete": lambda: spaces.Discrete(5, start=2),
    "MultiDiscrete": lambda: spaces.MultiDiscrete([3, 4]),
    "Dict": lambda: spaces.Dict(
        {
            "gear": spaces.Discrete(3, start=-1),
            "pair": spaces.Tuple((spaces.Box(-2.0, 3.0, (2,), np.float64), spaces.MultiDiscrete([2, 3]))),
        }
    ),
}
COUNTS = {"Discrete": (5,), "MultiDiscrete": (3, 4), "Dict": (3, 2, 3)}


class Masked(gymnasium.Env[Any, Any]):
    """Random masks from the seed, a step with a forbidden action raises; obs = (t, the sum of the mask).

    form: how info gives the mask: "array" (one vector), "parts" (the structure of the action), or "entry" (no info:
    the observation has the entry). The reward is 1 for the lowest allowed choice of every component, else 0. At an
    ending everything is forbidden.
    """

    def __init__(self, kind: str = "Discrete", form: str = "array", length: int = 4) -> None:
        self.kind, self.form, self.length = kind, form, length
        self.counts = COUNTS[kind]
        self.action_space = KINDS[kind]()
        self.observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)
        if form == "entry":
            entry = spaces.MultiBinary(sum(self.counts))
            self.observation_space = spaces.Dict({"seen": self.observation_space, "action_mask": entry})

    def _show(self, ended: bool) -> tuple[Any, dict[str, Any]]:
        self.masks = [self.np_random.integers(0, 2, n).astype(np.int8) for n in self.counts]
        for mask in self.masks:
            mask[self.np_random.integers(len(mask))] = 1
            if ended:
                mask[:] = 0
        flat = np.concatenate(self.masks)
        obs = np.array([self.t, flat.sum()], np.float32)
        if self.form == "entry":
            return {"seen": obs, "action_mask": flat}, {}
        if self.form == "array" or self.kind == "Discrete":
            return obs, {"action_mask": flat}
        if self.kind == "Dict":
            return obs, {"action_mask": {"gear": self.masks[0], "pair": (None, tuple(self.masks[1:]))}}
        return obs, {"action_mask": tuple(self.masks)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._show(False)

    def choices(self, action: Any) -> list[int]:
        """The choices of an action, counted from 0."""
        if self.kind == "Dict":
            return [int(action["gear"]) + 1, *map(int, action["pair"][1])]
        return [int(action) - 2] if self.kind == "Discrete" else list(map(int, action))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action} is no action")
        chosen = self.choices(action)
        if not all(mask[i] for mask, i in zip(self.masks, chosen, strict=True)):
            raise ValueError(f"{action} is forbidden by {self.masks}")
        reward = float(chosen == [int(np.argmax(mask)) for mask in self.masks])
        self.t += 1
        ended = self.t == self.length
        obs, info = self._show(ended)
        return obs, reward, ended and self.np_random.random() < 0.5, ended, info


class Silent(Masked):
    """Forgets its mask after the first step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *rest, _ = super().step(action)
        return (*rest, {})


class Empty(Masked):
    """Forbids everything from the start."""

    def _show(self, ended: bool) -> tuple[Any, dict[str, Any]]:
        return super()._show(True)
