"""Frame wrappers: repeat an action, keep the luminance, shrink. Frames stay uint8."""

from __future__ import annotations

import gymnasium
import numpy as np

from rlkit.envs.aliases import Env, Info, Opening, Step, Value, Wrapper
from rlkit.envs.wrappers.quirks import Pen
from rlkit.spaces import Array


class FrameSkip(Wrapper):
    """Applies each action `skip` times: rewards are summed, an ending ends it, the last frame is seen.

    Frames in between are not drawn where the environment allows it; what is seen and paid is the same
    either way.
    """

    def __init__(self, env: Env, skip: int) -> None:
        super().__init__(env)
        self.skip = skip
        self.pen = Pen.of(env)

    def step(self, action: Value) -> Step:
        total = 0.0
        for left in reversed(range(self.skip)):
            pen = self.pen if left else None  # the last frame is seen
            if pen is not None:
                pen.off()
            try:
                obs, reward, terminated, truncated, info = self.env.step(action)
            finally:
                if pen is not None:
                    pen.on()
            total += float(reward)
            if terminated or truncated:
                obs = obs if pen is None else pen.draw()
                break
        return obs, total, terminated, truncated, info


class Picture(Wrapper):
    """Turns RGB frames [H, W, 3] into luminance [H, W] (0.299 R + 0.587 G + 0.114 B) and shrinks them.

    Shrinking averages the pixels that an output pixel covers (cv2.INTER_AREA).
    """

    def __init__(self, env: Env, gray: bool, size: int) -> None:
        import cv2

        super().__init__(env)
        self.cv2 = cv2
        space = env.observation_space
        shape = space.shape or ()
        if not isinstance(space, gymnasium.spaces.Box) or space.dtype != np.uint8 or len(shape) not in (2, 3):
            raise ValueError(
                f"env.gray={str(gray).lower()} env.size={size}: observations are {space}; allowed for uint8 "
                f"frames [H, W] or [H, W, 3]; type env.gray=false env.size=0"
            )
        if gray and len(shape) == 3 and shape[2] != 3:
            raise ValueError(
                f"env.gray=true: frames have {shape[2]} channels, allowed: 3; type env.gray=false"
            )
        self.gray = gray and len(shape) == 3
        self.size = size
        height, width = (size, size) if size else shape[:2]
        channels = () if self.gray else shape[2:]
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, *channels), np.uint8)

    def picture(self, frame: Array) -> Array:
        """[H, W, 3] or [H, W] -> [size, size(, 3)]."""
        image = frame
        if self.gray:
            image = self.cv2.cvtColor(image, self.cv2.COLOR_RGB2GRAY)
        if self.size:
            image = self.cv2.resize(image, (self.size, self.size), interpolation=self.cv2.INTER_AREA)
            image = image.reshape(self.observation_space.shape)  # cv2 drops a channel axis of one
        return image

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        obs, info = self.env.reset(seed=seed, options=options)
        return self.picture(obs), info

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.picture(obs), reward, terminated, truncated, info
