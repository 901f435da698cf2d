"""Episodes as MP4 files, through imageio-ffmpeg's own ffmpeg."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlkit import registry
from rlkit.config import RunConfig
from rlkit.evaluate import Episode, run_episodes


class VideoWriter:
    """Frames [H, W, 3] uint8 to one MP4; the file appears when it is complete."""

    def __init__(self, path: Path, fps: int = 30) -> None:
        self.path, self.fps, self.frames = path, fps, 0
        self._part = path.with_name(f".{path.name}.part.mp4")
        self._writer: Generator[None, Any, None] | None = None

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        if self._writer is None:
            import imageio_ffmpeg

            self.path.parent.mkdir(parents=True, exist_ok=True)
            height, width = frame.shape[:2]
            self._writer = imageio_ffmpeg.write_frames(
                str(self._part), (width, height), fps=self.fps, macro_block_size=2, quality=7
            )
            self._writer.send(None)
        self._writer.send(np.ascontiguousarray(frame))
        self.frames += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._part.replace(self.path)


def record(
    policy: Any, config: RunConfig, path: Path, *, seed: int, device: torch.device, episodes: int = 1
) -> list[Episode]:
    """Record greedy episodes on held-out seeds. Raises ValueError where the environment draws nothing."""
    env_config = replace(config.env, lanes=1, reward_scale=1.0, backend="inprocess", workers=0)
    env = registry.env_package().make_vec(env_config, seed, evaluation=True, device=device, render=True)
    video = VideoWriter(path)
    try:
        played = run_episodes(policy, env, episodes, seed=seed, device=device, frame=video.add)
    finally:
        env.close()
        video.close()
    if not video.frames:
        raise ValueError(
            f"environment {config.env.id} draws no pictures (render_mode rgb_array), so nothing to record"
        )
    return played
