"""Episodes as MP4 files, through imageio-ffmpeg's own ffmpeg."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from rlkit.collect.make import meeting
from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, VecEnv
from rlkit.files import Place, at
from rlkit.options import ConfigError
from rlkit.play.evaluate import Episode, run_episodes

Picture: TypeAlias = npt.NDArray[np.uint8]  # [H, W, 3]
PART = ".part.mp4"  # how the name of a film ends that is not complete


class VideoWriter:
    """Frames [H, W, 3] uint8 to one MP4; the file appears when it is complete.

    Raises ConfigError where it cannot be written.
    """

    def __init__(self, path: Path | Place, fps: float = 30.0) -> None:
        self.path, self.fps, self.frames = at(path), fps, 0
        self._part = self.path.beside(f".{self.path.name}{PART}")
        self._writer: Generator[None, Picture | None, None] | None = None
        self._size: tuple[int, int] | None = None  # height and width of every frame
        try:
            self.path.parent.mkdir()
            self._part.remove()
            self._part.open("xb").close()  # which ffmpeg, who would follow a link, fills
        except OSError as error:
            raise ConfigError(f"video {path}: cannot be written there ({error.strerror})") from error

    def add(self, frame: Picture) -> None:
        """Append one frame. H.264 wants even sizes: an odd one repeats its edge.

        Raises ConfigError where a frame has another size than the first, OSError where it cannot be written.
        """
        height, width = frame.shape[:2]
        self._size = self._size or (height, width)
        if (height, width) != self._size:
            raise ConfigError(
                f"video {self.path}: the environment draws pictures of changing size, {self._size[1]}x{self._size[0]} "
                f"and then {width}x{height}; a video has one size"
            )
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._writer is None:
            import imageio_ffmpeg

            self._writer = imageio_ffmpeg.write_frames(
                str(self._part.path),
                (frame.shape[1], frame.shape[0]),
                fps=self.fps,
                macro_block_size=2,
                quality=7,
                ffmpeg_log_level="error",
            )
            self._writer.send(None)
        try:
            self._writer.send(np.ascontiguousarray(frame))
        except OSError as error:  # ffmpeg has ended, with its reason on stderr
            raise OSError(f"video {self.path}: ffmpeg failed ({str(error).splitlines()[0]})") from error
        self.frames += 1

    def close(self, keep: bool = True) -> None:
        """Finish the file; keep=False, or no frame at all: leave none. Raises OSError where it is not whole."""
        if self._writer is not None:
            self._writer.close()
        try:
            if keep and self.frames:
                self._verify()
                self._part.rename(self.path)
        finally:
            self._part.remove()

    def _verify(self) -> None:
        """ffmpeg does not say how it ended: look whether the file opens."""
        import imageio_ffmpeg

        reader = imageio_ffmpeg.read_frames(str(self._part.path))
        try:
            next(reader)
        except (OSError, RuntimeError, StopIteration) as error:
            raise OSError(f"video {self.path}: could not be completed (is the disk full?)") from error
        finally:
            reader.close()


def as_gif(path: Path, width: int = 240, fps: int = 10, seconds: int = 60) -> tuple[bytes, tuple[int, int]]:
    """The beginning of a film as a small GIF, which TensorBoard plays, and its size. Raises OSError."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-t", str(seconds), "-i", str(path)]
    command += ["-vf", f"fps={fps},scale={width}:-2", "-f", "gif", "-"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode or len(done.stdout) < 10:
        raise OSError(
            f"video {path}: ffmpeg made no GIF of it ({done.stderr.decode(errors='replace').strip()})"
        )
    # a GIF begins with its name and version, six bytes, then width and height
    return done.stdout, struct.unpack("<HH", done.stdout[6:10])


class Recorder:
    """Films of a policy in the run's environment: `folder`/step-000123456.mp4."""

    def __init__(self, policy: Policy, config: RunConfig, folder: Place, device: torch.device) -> None:
        self.policy, self.config, self.folder, self.device = policy, config, folder, device
        with suppress(OSError):  # a link in the place of the folder is told of when something is written
            for name in folder.list():
                if name.endswith(PART):  # of a process that was killed
                    (folder / name).remove()

    def record(self, step: int) -> Place:
        """Record one episode, with actions as in evaluation. Raises as `record`."""
        path = self.folder / f"step-{step:09d}.mp4"
        greedy = not self.config.evaluate.sample
        record(self.policy, self.config, path, seed=self.config.seed, device=self.device, greedy=greedy)
        return path


def record(
    policy: Policy,
    config: RunConfig,
    path: Path | Place,
    *,
    seed: int,
    device: torch.device,
    episodes: int = 1,
    greedy: bool = True,
    only: Sequence[Any] = (),
) -> list[Episode]:
    """Record episodes on held-out seeds. only: who takes the other seat in a game of turns; (): the policy's league.

    Raises ConfigError where the environment draws nothing or the file cannot be written.
    """
    env = _drawing(config, seed, device, len(policy.spec.agents))
    try:
        video = VideoWriter(path, env.picture_rate or env.fps)
        try:
            played = run_episodes(
                policy,
                meeting(env, policy, only=only),
                episodes,
                seed=seed,
                device=device,
                greedy=greedy,
                frame=video.add,
            )
        except BaseException as error:
            video.close(keep=False)
            if type(error) is ValueError:  # what it drew is no picture
                raise ConfigError(registry.env_package().no_picture(config.env.id, str(error))) from error
            raise
        video.close()
    finally:
        env.close()
    return played


def _drawing(config: RunConfig, seed: int, device: torch.device, lanes: int) -> VecEnv:
    """The lanes of one game of the run's environment, which draw. Raises ConfigError where they draw nothing."""
    package = registry.env_package()
    backend = "envpool" if config.env.backend == "envpool" else "auto"  # which has ids of its own
    game = replace(config.env, lanes=lanes, reward_scale=1.0, backend=backend, workers=0)
    try:
        env: VecEnv = package.make_vec(game, seed, evaluation=True, device=device, render=True)
        env.restore(np.zeros(lanes, np.int64), [np.zeros(0)] * lanes)
        if env.render(0) is not None:
            return env
        env.close()
    except ValueError as error:
        raise ConfigError(package.no_picture(config.env.id, str(error))) from error
    raise ConfigError(package.no_picture(config.env.id))
