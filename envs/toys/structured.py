"""Tasks with structured actions and action masks, whose best return is known."""

from __future__ import annotations

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlkit.envs.aliases import Info, Value
from rlkit.spaces import MASK

Vector = npt.NDArray[np.float32]
Step = tuple[Vector, float, bool, bool, Info]


class Drive(gymnasium.Env[Vector, Value]):
    """Choose a gear, steer and give gas at once: a hybrid action, Dict(gear, pedals: Tuple(steer, gas)).

    obs = (x, |x|, one-hot gear asked for); reward = [right gear] - (steer - x)^2 - (gas - |x|)^2. The best return is
    `length`; the right numbers with any gear give length / gears, and the right gear with both numbers at 0 gives
    length (1 - 2/3) in the mean.
    """

    def __init__(self, gears: int = 3, length: int = 10) -> None:
        self.gears, self.length = gears, length
        self.observation_space = spaces.Box(-1.0, 1.0, (2 + gears,), np.float32)
        steer, gas = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Box(0.0, 1.0, (), np.float32)
        self.action_space = spaces.Dict(
            {"gear": spaces.Discrete(gears, start=1), "pedals": spaces.Tuple((steer, gas))}
        )

    def _draw(self) -> Vector:
        self.x = float(self.np_random.uniform(-1.0, 1.0))
        self.asked = int(self.np_random.integers(self.gears))
        seen: Vector = np.array([self.x, abs(self.x), *np.eye(self.gears)[self.asked]], np.float32)
        return seen

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: Value) -> Step:
        steer, gas = (float(np.squeeze(part)) for part in action["pedals"])
        reward = float(action["gear"] == self.asked + 1) - (steer - self.x) ** 2 - (gas - abs(self.x)) ** 2
        self.t += 1
        return self._draw(), reward, self.t == self.length, False, {}


class Locked(gymnasium.Env[Vector, int]):
    """Arms of which some are locked, at random in every step: info["action_mask"] names the others.

    Arms are ranked, the ranks never change, and the reward is 1 for the best open arm, 0 for another, so the best
    return is `length` and a random open arm's is length / open. Nothing else is seen: only a policy that ranks the arms
    and obeys the mask gets there. A locked arm raises ValueError.
    """

    def __init__(self, arms: int = 6, open: int = 3, length: int = 10) -> None:
        self.arms, self.open, self.length = arms, open, length
        self.ranks = [
            (7 * arm + 3) % arms for arm in range(arms)
        ]  # a permutation where 7 does not divide arms
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(arms)

    def _draw(self) -> tuple[Vector, Info]:
        self.mask = np.zeros(self.arms, np.int8)
        self.mask[self.np_random.choice(self.arms, self.open, replace=False)] = 1
        return np.ones(1, np.float32), {MASK: self.mask}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw()

    def step(self, action: int) -> Step:
        if not self.mask[action]:
            raise ValueError(f"arm {action} is locked; open: {np.flatnonzero(self.mask).tolist()}")
        best = max(np.flatnonzero(self.mask), key=lambda arm: self.ranks[arm])
        self.t += 1
        obs, info = self._draw()
        return obs, float(action == best), self.t == self.length, False, info
