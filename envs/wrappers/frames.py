"""Frame wrappers: repeat an action, keep the luminance, shrink. Frames stay uint8."""

from __future__ import annotations

import gymnasium
import numpy as np

from rlkit.envs.aliases import Env, Info, Opening, Step, Value, Wrapper
from rlkit.envs.wrappers.quirks import Pen
from rlkit.spaces import Array, Box, from_gymnasium


class FrameSkip(Wrapper):
    """Applies each action `skip` times: rewards are summed, an ending ends it, the last frame is seen.

    Frames in between are not drawn where the environment allows it; what is seen and paid is the same
    either way. film: they are drawn for people all the same, and kept in `passed` until the next step.
    """

    def __init__(self, env: Env, skip: int, film: bool = False) -> None:
        super().__init__(env)
        self.skip, self.film = skip, film
        # a window shows every frame
        self.pen = None if env.render_mode == "human" else Pen.of(env)
        self.passed: list[Value] = []  # what render() gave after the frames in between

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        self.passed = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Value) -> Step:
        total, self.passed = 0.0, []
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
            if self.film and left:
                self.passed.append(self.env.render())
        return obs, total, terminated, truncated, info


class Picture(Wrapper):
    """Turns RGB frames into luminance [H, W] (0.299 R + 0.587 G + 0.114 B) and shrinks frames of any channels.

    Frames are [H, W], [H, W, C] or [C, H, W] (as `rlkit.spaces.Box.channel_axis` and `channels` say), and keep their
    order. Shrinking averages the pixels that an output pixel covers (cv2.INTER_AREA).
    """

    def __init__(self, env: Env, gray: bool, size: int, channels: str = "auto") -> None:
        import cv2

        super().__init__(env)
        self.cv2 = cv2
        space = env.observation_space
        shape = space.shape or ()
        typed = f"env.gray={str(gray).lower()} env.size={size}"
        if not isinstance(space, gymnasium.spaces.Box) or space.dtype != np.uint8 or len(shape) not in (2, 3):
            raise ValueError(
                f"{typed}: observations are {space}; allowed for uint8 frames [H, W], [H, W, C] or [C, H, W]; "
                "type env.gray=false env.size=0"
            )
        box = from_gymnasium(space, channels)
        axis = box.channel_axis if isinstance(box, Box) else ""
        if len(shape) == 3 and not axis:
            raise ValueError(
                f"{typed}: which axis of frames of shape {shape} is channels cannot be told; type env.channels=last or "
                "env.channels=first"
            )
        self.first = axis == "first"
        height, width, *depth = (*shape[1:], shape[0]) if self.first else shape
        if gray and depth and depth != [3]:
            raise ValueError(
                f"env.gray=true: frames have {depth[0]} channels, allowed: 3; type env.gray=false"
            )
        self.gray = gray and bool(depth)
        self.size = size
        self.shape = (
            size or height,
            size or width,
            *([] if self.gray else depth),
        )  # channels last, as OpenCV's
        outside = (self.shape[-1], *self.shape[:2]) if self.first and not self.gray else self.shape
        low, high = int(space.low.min()), int(space.high.max())  # a mean of pixels lies between both
        self.observation_space = gymnasium.spaces.Box(low, high, outside, np.uint8)

    def picture(self, frame: Array) -> Array:
        """A frame as `observation_space` has it."""
        image = np.moveaxis(frame, 0, -1) if self.first else frame
        if self.gray:
            image = self.cv2.cvtColor(np.ascontiguousarray(image), self.cv2.COLOR_RGB2GRAY)
        if self.size:
            image = self.cv2.resize(image, (self.size, self.size), interpolation=self.cv2.INTER_AREA)
            image = image.reshape(self.shape)  # cv2 drops a channel axis of one
        return np.moveaxis(image, -1, 0) if self.first and not self.gray else image

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        obs, info = self.env.reset(seed=seed, options=options)
        return self.picture(obs), info

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.picture(obs), reward, terminated, truncated, info
