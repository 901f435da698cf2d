"""What environments in machine code share: kernels, lanes dealt out to threads, a window, checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code that lets other threads run, kept on disk for later processes where that works.

    What is kept is renewed when the function's own file changes, so kernels call functions of their own file only
    (a changed constant that another file imports calls for `touch` on that file).
    """
    njit: Any = numba.njit
    try:
        kernel: F = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package nor the user has a folder to write to
        kernel = njit(nogil=True)(function)
    return kernel


class Parts:
    """The lanes of a batch in runs of about equal length, each stepped by a thread of its own, this one included.

    There are at most `threads` runs (0: as many as torch has threads), of at least `share` lanes each.
    """

    def __init__(self, lanes: int, threads: int, share: int) -> None:
        self.runs = split(lanes, threads or torch.get_num_threads(), share)
        self._pool = ThreadPoolExecutor(len(self.runs) - 1, "rlkit-lanes") if len(self.runs) > 1 else None

    def each(self, work: Callable[[int, int], None]) -> None:
        """Call work(low, high) for every run of lanes."""
        if self._pool is None:
            for low, high in self.runs:
                work(low, high)
            return
        others = [self._pool.submit(work, low, high) for low, high in self.runs[1:]]
        work(*self.runs[0])
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads; whatever is asked afterwards is done in this one."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


class Window:
    """Pictures [H, W, 3] on the screen, `fps` a second."""

    def __init__(self, fps: float) -> None:
        import pygame

        self._pygame, self._fps = pygame, fps
        self._screen: pygame.Surface | None = None
        pygame.display.init()
        self._clock = pygame.time.Clock()

    def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Wait for the picture's time and show it."""
        height, width = picture.shape[:2]
        if self._screen is None:
            self._screen = self._pygame.display.set_mode((width, height))
        self._pygame.surfarray.blit_array(self._screen, picture.transpose(1, 0, 2))
        self._pygame.display.flip()
        self._pygame.event.pump()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


def split(lanes: int, threads: int, share: int) -> list[tuple[int, int]]:
    """At most `threads` runs of lanes of equal length, of at least `share` lanes each."""
    parts = min(threads, max(lanes // share, 1))
    return [(lanes * k // parts, lanes * (k + 1) // parts) for k in range(parts)]


def among(name: str, value: str | None, *allowed: str | None) -> None:
    """Raise ValueError where an argument of a constructor is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"env.kwargs.{name}={value}: allowed: {', '.join(map(str, allowed))}")


def whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError where an argument of a constructor is no whole number from low to high."""
    if not (isinstance(value, int) and low <= value <= high):
        raise ValueError(f"env.kwargs.{name}={value}: allowed: a whole number from {low} to {high}")
