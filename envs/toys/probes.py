"""Probe environments: so small that the value of every row is known, each needing one more part of an agent than the
one before (after Andy Jones, "Debugging RL, without the agonizing pain", 2021). `rlkit doctor agent=NAME` runs them.

obs [1] in [-1, 1]; two choices, or with `continuous` one number in [-1, 1]. Where actions matter there is a
right number; choice 1 is right if it is positive, choice 0 if it is negative.
"""

from __future__ import annotations

from typing import Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlkit.envs.aliases import Info, Value

Vector = npt.NDArray[np.float32]


class Probe(gymnasium.Env[Vector, Value]):
    """What the probes share; a probe says what is seen (`_open`) and what an action leads to (`_next`)."""

    def __init__(self, continuous: bool = False) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.continuous = continuous
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._see(self._open()), {}

    def step(self, action: Value) -> tuple[Vector, float, bool, bool, Info]:
        self.t += 1
        seen, reward, end = self._next(action)
        return self._see(seen), reward, end == "terminated", end == "truncated", {}

    def _open(self) -> float:
        """The first observation."""
        return 0.0

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        """Next observation, reward, and how the episode ends, if it does."""
        return 0.0, 1.0, "terminated"

    def _see(self, x: float) -> Vector:
        return np.array([x], np.float32)

    def _sign(self) -> float:
        """-1 or 1, with equal probability."""
        return float(2 * self.np_random.integers(2) - 1)

    def _judge(self, action: Value, right: float) -> float:
        """1 for the right choice and -1 for the other; for a number, -(its distance from the right one)^2."""
        if self.continuous:
            return -(float(np.ravel(action)[0] - right) ** 2)
        return 1.0 if (int(action) == 1) == (right > 0) else -1.0


class Constant(Probe):
    """Reward 1 after every observation, which is always 0; a step ends the episode with probability `stop`.

    `end` says how. With stop < 1 a network that remembers has been in every row that it sees, closing ones included.
    """

    def __init__(
        self,
        continuous: bool = False,
        end: Literal["terminated", "truncated"] = "terminated",
        stop: float = 1.0,
    ) -> None:
        super().__init__(continuous)
        self.end: Literal["terminated", "truncated"] = end
        self.stop = stop

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        return 0.0, 1.0, self.end if self.np_random.random() < self.stop else ""


class Seen(Probe):
    """The reward of the one step is the observation, -1 or 1."""

    def _open(self) -> float:
        self.seen = self._sign()
        return self.seen

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        return 0.0, self.seen, "terminated"


class TwoSteps(Probe):
    """Observation -1, reward 0; observation 1, reward 1; the end."""

    def _open(self) -> float:
        return -1.0

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        return (1.0, 0.0, "") if self.t == 1 else (0.0, 1.0, "terminated")


class Choice(Probe):
    """One step; 1 is seen and right. With `seen`, -1 or 1 is seen and half of that is right.

    The half keeps an actor from a bound, where it would stay, while its critic does not tell the two apart yet; where
    one action is always right, actors run past anything but the bound.
    """

    def __init__(self, continuous: bool = False, seen: bool = False) -> None:
        super().__init__(continuous)
        self.seen = seen

    def _open(self) -> float:
        self.sign = self._sign() if self.seen else 1.0
        return self.sign

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        return 0.0, self._judge(action, self.sign / 2 if self.seen else 1.0), "terminated"


class Recall(Probe):
    """A sign, then 0; for the second action half of the sign is right."""

    def _open(self) -> float:
        self.sign = self._sign()
        return self.sign

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        return (0.0, 0.0, "") if self.t == 1 else (0.0, self._judge(action, self.sign / 2), "terminated")


class Forget(Probe):
    """Half of the episodes open with a sign, worth 0; then come one or two zeros, worth the sign (without one, 0).

    A zero after a zero may go on with the sign's episode or open one of its own, which only a memory that is cleared
    between episodes can tell.
    """

    def _open(self) -> float:
        self.sign = self._sign() if self.np_random.random() < 0.5 else 0.0
        self.zeros = int(self.np_random.integers(1, 3))
        self.length = self.zeros + (self.sign != 0)
        return self.sign

    def _next(self, action: Value) -> tuple[float, float, Literal["", "terminated", "truncated"]]:
        reward = 0.0 if self.t == 1 else self.sign
        return 0.0, reward, "terminated" if self.t == self.length else ""
