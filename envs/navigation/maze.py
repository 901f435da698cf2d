"""N agents in N mazes stepped together in machine code: find the goal by what lies ahead.

    size        cells in a line and in a column, odd; walls around them included
    loops       the probability that a wall between two rooms is opened beyond the tree that joins all rooms
    doors       how many doors are locked, with a key each that can be reached before its door; the goal lies behind one
    obstacles   how many balls move about; walking into one ends the episode
    levels      how many mazes there are in training; 0: a new one in every episode
    held_out    whether evaluation is on mazes that training never shows; false: on the `levels` mazes of training
    limit       steps of an episode; 0: 2 size^2
    view        "codes" (7 x 7 cells ahead), "lidar" (16 rays), "picture" (64 x 64 pixels)
    goal        "hidden", or "vector": its direction and distance are seen, too

Levels are those of `levels.py`, actions and rewards those of `rules.py`, observations those of `views.py`. A maze
follows from the seed of its episode alone, so neither how lanes are split over vectors nor the number of threads
changes a bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Saved
from rlkit.envs.kernels import KernelVec, among, whole
from rlkit.envs.navigation import levels as drawn
from rlkit.envs.navigation import rules, tiles, views
from rlkit.envs.navigation.cells import FIELDS, HEADING, HIGHEST, PAD, PLACE, WALL, Bools, Ints, side_of
from rlkit.envs.seeds import draw_seeds, words
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Box, Dict, Discrete, Space
from rlkit.types import EnvSpec

SHARE = {"codes": 256, "lidar": 256, "picture": 32}  # the fewest lanes that are worth a thread of their own
PIXELS = 64  # a picture's side: seven tiles of nine pixels, and a line
LARGEST = 99


class Maze(KernelVec):
    """N lanes of mazes; its rows are CPU tensors that every step overwrites.

    threads: 0 for as many as torch uses. device: where the policy is; rows stay on the CPU and the actor moves them.
    render_mode: "human" shows lane 0 in a window. Raises ValueError for values out of range.
    """

    fps = 10.0

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        size: int = 11,
        loops: float = 0.1,
        doors: int = 0,
        obstacles: int = 0,
        levels: int = 0,
        held_out: bool = True,
        limit: int = 0,
        view: str = "codes",
        goal: str = "hidden",
        threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        _check_size(size)
        rooms = (size // 2) ** 2
        if not (isinstance(loops, int | float) and 0.0 <= loops <= 1.0):
            raise ValueError(f"env.kwargs.loops={loops}: allowed: a number from 0 to 1")
        _check_count("doors", doors, min(rooms // 4, drawn.HUES), size)
        _check_count("obstacles", obstacles, min(rooms // 2, 64), size)
        whole("levels", levels, 0, 2**31)
        whole("limit", limit, 0, 10**9)
        whole("threads", threads, 0, 256)
        among("view", view, *SHARE)
        among("goal", goal, "hidden", "vector")
        among("render_mode", render_mode, None, "rgb_array", "human")
        self.lanes, self.device = lanes, torch.device("cpu")
        self.seeds = Seeds(seed, evaluation, first_lane, lanes)
        self.size, self.side, self.limit = size, side_of(size), limit or 2 * size * size
        self.loops, self.doors = float(loops), doors
        self.levels = 0 if evaluation and held_out else levels
        self.cells = np.zeros((lanes, self.side * self.side), np.uint8)
        self.agent = np.zeros((lanes, FIELDS), np.int64)
        self.balls = np.zeros((lanes, obstacles), np.int64)
        self._seed, self._words = np.zeros(lanes, np.int64), words(seed)
        self.view = View(view, goal == "vector", self.side, bool(obstacles), bool(doors), lanes)
        self.spec = EnvSpec("rlkit/Maze", self.view.space, Discrete(rules.ACTIONS))
        self._tiles = tiles.tiles(24)
        self._prepare(self.view.rows, threads, SHARE[view], render_mode)

    def _given(self, action: Array) -> Array:
        given: Array = action.astype(np.int64, copy=False)
        if given.min() < 0 or given.max() >= rules.ACTIONS:
            lane = int(np.flatnonzero((given < 0) | (given >= rules.ACTIONS))[0])
            raise ValueError(f"action {given[lane]} of lane {lane}: allowed: 0 to {rules.ACTIONS - 1}")
        return given

    def snapshot(self) -> Saved:
        """The whole state, copied. Observations follow from it."""
        return {
            "row": self._saved_row(),
            "cells": self._inside().copy(),
            "agent": self.agent.copy(),
            "balls": self.balls.copy(),
            "episode": self.episode.copy(),
        }

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        self._load_row(state["row"])
        self.cells[:] = WALL
        self._inside()[:] = state["cells"]
        self.agent[:], self.balls[:] = state["agent"], state["balls"]
        self.episode[:] = state["episode"]
        self._parts.each(self._see)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """The lane's whole maze from above, [24 size, 24 size, 3]."""
        picture, size = tiles.picture(self._inside()[lane], self._tiles), self._tiles.shape[1]
        place = int(self.agent[lane, PLACE])
        top, left = (place // self.side - PAD) * size, (place % self.side - PAD) * size
        picture[top : top + size, left : left + size] = tiles.turned(
            self._tiles[-1], int(self.agent[lane, HEADING])
        )
        return picture

    def _inside(self) -> npt.NDArray[np.uint8]:
        """The cells without the border around them, [N, size, size]."""
        return self.cells.reshape(-1, self.side, self.side)[:, PAD:-PAD, PAD:-PAD]

    def _open(self, opening: Bools, low: int, high: int) -> None:
        """Begin the present episodes of the lanes that are `opening` [N]."""
        seeds = self.seeds
        draw_seeds(
            opening, low, high, self._words, seeds.evaluation, seeds.first_lane, self.episode, self._seed
        )
        drawn.open_levels(
            opening, low, high, self._seed, self.levels, self.size, self.doors, self.loops, self.cells, self.agent,
            self.balls, self._first, self._last, self._terminated, self._reward,
        )  # fmt: skip

    def _act(self, action: Ints, acting: Bools, low: int, high: int) -> None:
        """One step of the lanes that are `acting` [N]."""
        rules.act(
            action, acting, low, high, self.side, self.limit, self.cells, self.agent, self._first, self._last,
            self._terminated, self._reward,
        )  # fmt: skip
        if self.balls.shape[1]:
            drawn.wander(acting, self._last, low, high, self.side, self.cells, self.agent, self.balls)

    def _look(self, low: int, high: int) -> None:
        """Write what the lanes see."""
        self.view.write(low, high, self.cells, self.agent)


class View:
    """Observations of one kind: their space, their rows [N, ...], and how they are written."""

    def __init__(self, kind: str, compass: bool, side: int, obstacles: bool, doors: bool, lanes: int) -> None:
        self.kind, self.side, self.doors = kind, side, doors
        size = PIXELS // views.VIEW
        self.tiles = tiles.tiles(size).reshape(-1, size, 3 * size)
        self.signs, (self.offset, self.distance) = views.signs(obstacles, doors), views.rays(side)
        numbers = views.RAYS * (1 + self.signs.shape[1]) + doors if kind == "lidar" else 0
        low = np.array([0.0] * numbers + [-1.0, -1.0, 0.0] * compass)
        direction = Box((len(low),), "float32", low, np.ones_like(low))
        shape = (PIXELS, PIXELS, 3) if kind == "picture" else (views.VIEW, views.VIEW, 3)
        highest = 255.0 if kind == "picture" else np.broadcast_to(np.array(HIGHEST, np.float64), shape)
        cells = Box(shape, "uint8", 0.0, highest, meaning="codes" if kind == "codes" else "")
        seen = torch.full((lanes, *shape), tiles.LINE[0] if kind == "picture" else 0, dtype=torch.uint8)
        vector = torch.zeros(lanes, len(low))
        self.space: Space
        self.rows: Tensor | dict[str, Tensor]
        if kind == "lidar":
            self.space, self.rows = direction, vector
        elif compass:
            self.space, self.rows = (
                Dict((("view", cells), ("goal", direction))),
                {"view": seen, "goal": vector},
            )
        else:
            self.space, self.rows = cells, seen
        columns = (PIXELS, -1) if kind == "picture" else (-1,)
        self._cells, self._vector = seen.numpy().reshape(lanes, *columns), vector.numpy()
        self._compass = self._vector[:, numbers:] if compass else None

    def write(self, low: int, high: int, cells: npt.NDArray[np.uint8], agent: Ints) -> None:
        """Write the rows of lanes low .. high - 1."""
        if self.kind == "codes":
            views.look(low, high, self.side, cells, agent, views.SPREAD, self._cells)
        elif self.kind == "picture":
            views.paint(low, high, self.side, cells, agent, views.SPREAD, self.tiles, self._cells)
        else:
            views.lidar(
                low, high, cells, agent, self.offset, self.distance, self.signs, self.doors, self._vector
            )
        if self._compass is not None:
            views.compass(low, high, self.side, agent, self._compass)


def _check_size(size: int) -> None:
    """Raise ValueError for a size that no maze has."""
    if not (isinstance(size, int) and 5 <= size <= LARGEST and size % 2 == 1):
        near = min(max(int(size) // 2 * 2 + 1, 5), LARGEST) if isinstance(size, int | float) else 11
        raise ValueError(
            f"env.kwargs.size={size}: allowed: an odd whole number from 5 to {LARGEST}; type env.kwargs.size={near}"
        )


def _check_count(name: str, value: int, most: int, size: int) -> None:
    """Raise ValueError for more doors or obstacles than a maze has room for."""
    if not (isinstance(value, int) and 0 <= value <= most):
        raise ValueError(
            f"env.kwargs.{name}={value}: a maze of size {size} has room for {most}; allowed: a whole number from 0 to "
            f"{most}; type env.kwargs.{name}={most}"
        )
