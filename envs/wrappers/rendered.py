"""The agent sees what an environment draws, instead of its observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rlkit.envs.aliases import Env, Info, Opening, Step, Value, Wrapper
from rlkit.envs.pictures import as_picture


class Rendered(Wrapper):
    """Shows the frame that render() draws, shrunk to size x size (cv2.INTER_AREA): uint8 [size, size, 3].

    The environment's own observation is kept in `state`. Raises ValueError where it cannot draw.
    """

    def __init__(self, env: Env, id: str, size: int) -> None:
        import cv2

        super().__init__(env)
        self.cv2, self.size, self.typed = cv2, size, f"env.pixels={size}: env.id={id}"
        modes: Any = (env.metadata or {}).get("render_modes", ())
        if "rgb_array" not in modes:
            raise ValueError(
                f"{self.typed} draws no pictures: render_mode=rgb_array is not among its modes; type env.pixels=0"
            )
        self.own = env.observation_space
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.state: Value = None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        self.state, info = self.env.reset(seed=seed, options=options)
        return self.drawn(), info

    def step(self, action: Value) -> Step:
        self.state, reward, terminated, truncated, info = self.env.step(action)
        return self.drawn(), reward, terminated, truncated, info

    def drawn(self) -> Value:
        """The present frame."""
        picture = as_picture(self.env.render())
        if picture is None:
            raise ValueError(f"{self.typed} draws no pictures: its render() returned none; type env.pixels=0")
        return self.cv2.resize(picture, (self.size, self.size), interpolation=self.cv2.INTER_AREA)


def rendered(env: Env) -> Rendered | None:
    """The wrapper that draws, among those around an environment."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Rendered):
            return env
        env = env.env
    return None
