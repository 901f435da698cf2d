"""What environments in machine code share: a batch of lanes in threads, a window, checks of arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Saved, VecEnv
from rlkit.spaces import Array, action_row
from rlkit.types import EnvStep, Obs


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


class KernelVec(VecEnv):
    """N lanes that kernels open, move and look at; its rows are CPU tensors that every step overwrites.

    The constructor of a class sets `lanes`, `device` and `spec`, and calls `_prepare` before anything is opened.
    """

    batched = True
    exact = "snapshot"

    def _prepare(self, obs: Obs, threads: int, share: int, render_mode: str | None) -> None:
        """Make the row around its observations, and deal the lanes out; share: the fewest lanes worth a thread."""
        flags = [torch.zeros(self.lanes, dtype=torch.bool) for _ in range(3)]
        self.row = EnvStep(obs, torch.zeros(self.lanes), *flags)
        self._reward = self.row.reward.numpy()
        self._terminated, self._first, self._last = (flag.numpy() for flag in flags)
        self.episode = np.full(self.lanes, -1)
        self._parts = Parts(self.lanes, threads, share)
        self._window = Window(self.fps) if render_mode == "human" else None
        # writes what is shown beside the observations of lanes low .. high - 1 (`rlkit.envs.labels.batch`)
        self.say: Callable[[int, int], None] | None = None

    @abstractmethod
    def _given(self, action: Array) -> Array:
        """Action rows as the kernels take them. Raises ValueError for what is none."""

    @abstractmethod
    def _open(self, opening: npt.NDArray[np.bool_], low: int, high: int) -> None:
        """Begin the present episodes of the lanes that are `opening` [N]."""

    @abstractmethod
    def _act(self, action: Array, acting: npt.NDArray[np.bool_], low: int, high: int) -> None:
        """One step of the lanes that are `acting` [N]."""

    @abstractmethod
    def _look(self, low: int, high: int) -> None:
        """Write what the lanes see."""

    def _see(self, low: int, high: int) -> None:
        """Write all that is shown of the lanes."""
        self._look(low, high)
        if self.say is not None:
            self.say(low, high)

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after actions[n]."""
        self.episode[:] = episode
        everyone = np.ones(self.lanes, np.bool_)
        self._parts.each(lambda low, high: self._open(everyone, low, high))
        counts = np.array([len(history) for history in actions])
        shape, dtype = action_row(self.spec.action)
        for t in range(int(counts.max(initial=0))):
            acting, rows = counts > t, np.zeros((self.lanes, *shape), dtype)
            for lane in np.flatnonzero(acting):
                rows[lane] = actions[lane][t]
            self._act(self._given(rows), acting, 0, self.lanes)
        self._parts.each(self._see)
        self._show()
        return self.row

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane, [N, ...]. Raises ValueError for what is none."""
        expected = (self.lanes, *action_row(self.spec.action)[0])
        assert tuple(action.shape) == expected, f"actions {tuple(action.shape)}, expected {expected}"
        given = self._given(action.detach().cpu().numpy())
        opening = self._last.copy()
        self.episode += opening
        acting = ~opening

        def work(low: int, high: int) -> None:
            self._act(given, acting, low, high)
            self._open(opening, low, high)
            self._see(low, high)

        self._parts.each(work)
        self._show()
        return self.row

    def _saved_row(self) -> Saved:
        """What the row says beside its observations, copied."""
        names = ("reward", "terminated", "first", "last")
        return {name: getattr(self.row, name).clone() for name in names}

    def _load_row(self, state: Saved) -> None:
        for name, value in state.items():
            getattr(self.row, name).copy_(value)

    def _show(self) -> None:
        if self._window is not None:
            picture = self.render(0)
            assert picture is not None, "a picture for people is always drawn"
            self._window.show(picture)

    def close(self) -> None:
        """End the threads and the window."""
        self._parts.close()
        if self._window is not None:
            self._window.close()
            self._window = None


def finite(action: Array, dtype: type[np.floating[Any]]) -> Array:
    """Actions of numbers as the kernels take them. Raises ValueError where one is not finite."""
    given = np.ascontiguousarray(action, dtype)
    if not np.isfinite(given).all():
        lane = int(np.flatnonzero(~np.isfinite(given).all(1))[0])
        raise ValueError(f"action {given[lane].tolist()} of lane {lane}: allowed: finite numbers")
    return given


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
