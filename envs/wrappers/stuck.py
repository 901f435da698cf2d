"""Training episodes that lead nowhere are lost."""

from __future__ import annotations

from rlkit.envs.aliases import Env, Info, Opening, Step, Value, Wrapper


class Stuck(Wrapper):
    """Terminate an episode after `steps` steps (of the agent: a frame skip is one) in a row without a reward above 0.

    A termination, not a truncation: nothing is bootstrapped where it is cut. A car that drives its track the wrong way
    sees the same road as one that does not; the value of such a state, bootstrapped, would make leaving the road cheap.
    """

    def __init__(self, env: Env, steps: int) -> None:
        super().__init__(env)
        self.steps, self.waited = steps, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        self.waited = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.waited = 0 if float(reward) > 0 else self.waited + 1
        return obs, reward, terminated or self.waited >= self.steps, truncated, info
