"""Tasks whose best return is known, so that a broken agent cannot look like a working one."""

from __future__ import annotations

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlkit.envs.aliases import Info, Value

Vector = npt.NDArray[np.float32]
Step = tuple[Vector, float, bool, bool, Info]


class Identity(gymnasium.Env[Vector, int]):
    """Say what you see: obs is one-hot of k, reward 1 for action k and 0 else.

    The best return is `length`; a uniformly random one is length / choices in the mean.
    """

    def __init__(self, choices: int = 4, length: int = 10) -> None:
        self.choices, self.length = choices, length
        self.observation_space = spaces.Box(0.0, 1.0, (choices,), np.float32)
        self.action_space = spaces.Discrete(choices)

    def _draw(self) -> Vector:
        self.answer = int(self.np_random.integers(self.choices))
        seen: Vector = np.eye(self.choices, dtype=np.float32)[self.answer]
        return seen

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: int) -> Step:
        reward = float(action == self.answer)
        self.t += 1
        return self._draw(), reward, self.t == self.length, False, {}


class Bandit(gymnasium.Env[Vector, int]):
    """One-step contextual bandit: context c pays 1 for arm (c + 1) mod arms, `consolation` for the next.

    The best return is 1; an agent that ignores the context gets 1 / arms at best (plus consolation).
    """

    def __init__(self, arms: int = 3, consolation: float = 0.5) -> None:
        self.arms, self.consolation = arms, consolation
        self.observation_space = spaces.Box(0.0, 1.0, (arms,), np.float32)
        self.action_space = spaces.Discrete(arms)

    def _observe(self) -> Vector:
        seen: Vector = np.eye(self.arms, dtype=np.float32)[self.context]
        return seen

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.context = int(self.np_random.integers(self.arms))
        return self._observe(), {}

    def step(self, action: int) -> Step:
        distance = (action - self.context - 1) % self.arms
        reward = {0: 1.0, 1: self.consolation}.get(int(distance), 0.0)
        return self._observe(), reward, True, False, {}


class Quadratic(gymnasium.Env[Vector, Vector]):
    """Linear control: x' = x + gain a with a in [-1, 1]^n, reward -|x'|^2 / n, `length` steps.

    x_0 is uniform in [-1, 1]^n. With gain 1 the action -x reaches 0 in one step, so the best return is 0;
    doing nothing returns -length |x_0|^2 / n, which is -length / 3 in the mean. Episodes are truncated,
    never terminated.
    """

    def __init__(self, size: int = 1, gain: float = 1.0, length: int = 10) -> None:
        self.gain, self.length = gain, length
        bound = 1.0 + abs(gain) * length
        self.observation_space = spaces.Box(-bound, bound, (size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (size,), np.float32)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.t = 0
        self.x = self.np_random.uniform(-1.0, 1.0, self.observation_space.shape).astype(np.float32)
        return self.x, {}

    def step(self, action: Vector) -> Step:
        self.x = self.x + np.float32(self.gain) * np.clip(action, -1.0, 1.0)
        self.t += 1
        return self.x, -float(np.mean(np.square(self.x))), False, self.t == self.length, {}


class Cue(gymnasium.Env[Vector, Value]):
    """A cue in the first row only, asked for in the last: no memoryless policy does better than guessing.

    obs = one-hot cue of `choices` (zeros after the first row) and a flag in the row whose action is paid: 1
    if it names the cue, else 0. The best return is 1, without memory 1 / choices. Episodes have `delay` + 1
    actions.

    continuous: the cues stand for numbers y, evenly spaced from -1/2 to 1/2, actions a lie in [-1, 1], and the
    one that is paid gets 1 - (a - y)^2 / var(y). The best return is 1, without memory (a = 0) it is 0.
    """

    def __init__(self, choices: int = 2, delay: int = 4, continuous: bool = False) -> None:
        self.choices, self.delay = choices, delay
        self.answers = np.linspace(-0.5, 0.5, choices)
        self.observation_space = spaces.Box(0.0, 1.0, (choices + 1,), np.float32)
        self.action_space = (
            spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(choices)
        )

    def _observe(self) -> Vector:
        obs = np.zeros(self.choices + 1, np.float32)
        if self.t == 0:
            obs[self.cue] = 1.0
        obs[-1] = self.t == self.delay
        return obs

    def _pay(self, action: Value) -> float:
        if isinstance(self.action_space, spaces.Discrete):
            return float(action == self.cue)
        error = float(np.clip(action[0], -1.0, 1.0)) - self.answers[self.cue]
        return float(1.0 - error**2 / self.answers.var())

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(self.choices)), 0
        return self._observe(), {}

    def step(self, action: Value) -> Step:
        asked = self.t == self.delay
        reward = self._pay(action) if asked else 0.0
        self.t += 1
        return self._observe(), reward, asked, False, {}


class Scripted(gymnasium.Env[Vector, int]):
    """Nothing random but the seed: obs = (resets so far - 1, step, last action, seed mod 1000).

    reward = step + action / 10. Episode e (of this object) ends after lengths[e mod len] steps: truncated
    where truncated[e mod len], else terminated. The action `stop` (-1: none) terminates at once.
    """

    def __init__(
        self,
        lengths: tuple[int, ...] = (3, 1, 4),
        truncated: tuple[bool, ...] = (False, True),
        stop: int = -1,
    ) -> None:
        self.lengths, self.truncations, self.stop = tuple(lengths), tuple(truncated), stop
        self.episode = -1
        self.observation_space = spaces.Box(-1.0, 1e4, (4,), np.float32)
        self.action_space = spaces.Discrete(5)

    def _observe(self, action: int) -> Vector:
        return np.array([self.episode, self.t, action, self.seed % 1000], np.float32)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self.seed = 0 if seed is None else seed
        self.episode += 1
        self.t = 0
        return self._observe(-1), {}

    def step(self, action: int) -> Step:
        self.t += 1
        stopped = action == self.stop
        ended = self.t == self.lengths[self.episode % len(self.lengths)]
        cut = self.truncations[self.episode % len(self.truncations)]
        reward = self.t + action / 10
        return self._observe(action), reward, stopped or (ended and not cut), ended and cut, {}
