"""N robots on two wheels stepped together in machine code: drive to a goal by 64 rays of a lidar.

    size        metres along a side of the room, a new one in every episode
    walls       boxes that stand in it
    circles     pillars
    moving      circles that move
    speed       m/s that these have at most
    map         a map of ROS's map server instead of rooms: the path of its YAML file (`maps.py`)
    goal        [x, y] on the map, in its coordinates; without it a new one in every episode
    limit       steps of an episode, of 0.05 s each
    progress    reward for a metre towards the goal
    slip        how much a wheel's speed varies: its deviation as a share
    reach       metres that a ray reaches
    noise       metres that ranges vary by: their deviation
    dropout     the probability that a ray is lost

Worlds are those of `worlds.py`, what a command does and pays stands in `robots.py`, what is seen in `scans.py`. All
numbers follow from the seed of an episode, so neither how lanes are split over vectors nor the number of threads
changes a bit.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import torch

from rlkit.contracts import Saved
from rlkit.envs.kernels import KernelVec, among, finite, whole
from rlkit.envs.navigation import maps, plans, robots, scans, worlds
from rlkit.envs.navigation.cells import Bools, Floats
from rlkit.envs.seeds import draw_seeds, words
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Box
from rlkit.types import EnvSpec

SHARE = 128  # the fewest lanes that are worth a thread of their own
RANGES = {
    "size": (4.0, 50.0),
    "speed": (0.0, 2.0),
    "progress": (0.0, 100.0),
    "slip": (0.0, 0.5),
    "reach": (1.0, 100.0),
    "noise": (0.0, 1.0),
    "dropout": (0.0, 1.0),
}


class Nav(KernelVec):
    """N lanes of robots; its rows are CPU tensors that every step overwrites.

    threads: 0 for as many as torch uses. device: where the policy is; rows stay on the CPU and the actor moves them.
    render_mode: "human" shows lane 0 in a window. Raises ValueError for values out of range and for a wrong map.
    """

    fps = 1 / robots.TICK

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        size: float = 10.0,
        walls: int = 6,
        circles: int = 6,
        moving: int = 0,
        speed: float = 0.5,
        map: str = "",
        goal: list[float] | None = None,
        limit: int = 500,
        progress: float = 0.2,
        slip: float = 0.05,
        reach: float = 3.5,
        noise: float = 0.02,
        dropout: float = 0.02,
        threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        _check(
            size=size, speed=speed, progress=progress, slip=slip, reach=reach, noise=noise, dropout=dropout
        )
        for name, count, lowest, highest in (
            ("walls", walls, 0, 64),
            ("circles", circles, 0, 64),
            ("moving", moving, 0, 64),
            ("limit", limit, 1, 10**9),
            ("threads", threads, 0, 256),
        ):
            whole(name, count, lowest, highest)
        among("render_mode", render_mode, None, "rgb_array", "human")
        self.map, self._goal = _map(map, goal)
        self.lanes, self.device = lanes, torch.device("cpu")
        self.seeds = Seeds(seed, evaluation, first_lane, lanes)
        self.size, self.speed, self.limit, self.progress = float(size), float(speed), limit, float(progress)
        self.slip, self.sensor = float(slip), (float(reach), float(noise), float(dropout))
        self.fixed = 0 if self.map else circles
        self._near = self.map.near if self.map else np.zeros((0, 0), np.uint8)
        self._cell = self.map.cell if self.map else 1.0
        self.boxes = np.zeros((lanes, 0 if self.map else walls, 4), np.float32)
        self.circles = np.zeros((lanes, self.fixed + moving, 5), np.float32)
        self.robot, self.count = np.zeros((lanes, robots.NUMBERS), np.float32), np.zeros((lanes, 2), np.int64)
        self._seed, self._words = np.zeros(lanes, np.int64), words(seed)
        sides = np.array(self._near.shape) * self._cell if self.map else np.full(2, self.size)
        low, high = scans.bounds(self.sensor[0], float(np.hypot(*sides)))
        action = Box(
            (2,), "float32", np.array([robots.SLOWEST, -robots.TURN]), np.array([robots.FASTEST, robots.TURN])
        )
        self.spec = EnvSpec("rlkit/Nav", Box((scans.ENTRIES,), "float32", low, high), action)
        obs = torch.zeros(lanes, scans.ENTRIES)
        self._obs = obs.numpy()
        self._prepare(obs, threads, SHARE, render_mode)

    def _given(self, action: Array) -> Array:
        return finite(action, np.float32)

    def snapshot(self) -> Saved:
        """The whole state, copied. Observations follow from it; of a map there is a checksum."""
        return {
            "row": self._saved_row(),
            **{
                name: getattr(self, name).copy() for name in ("boxes", "circles", "robot", "count", "episode")
            },
            "map": self._checksum(),
        }

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value. Raises ValueError where that is of another map."""
        if state["map"] != self._checksum():
            raise ValueError("env.kwargs.map: this is not the map of the snapshot; allowed: the same files")
        self._load_row(state["row"])
        for name in ("boxes", "circles", "robot", "count", "episode"):
            getattr(self, name)[:] = state[name]
        self._parts.each(self._see)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """The lane's world from above, with the ends of its rays: [480, w, 3], or [h, 480, 3]."""
        return plans.plan(
            self.robot[lane],
            self.boxes[lane],
            self.circles[lane],
            self._obs[lane],
            self.size,
            self._near,
            self._cell,
        )

    def _checksum(self) -> int:
        return zlib.crc32(self._near.tobytes(), int(self._cell * 1e6)) if self.map else 0

    def _open(self, opening: Bools, low: int, high: int) -> None:
        """Begin the present episodes of the lanes that are `opening` [N]."""
        seeds, rows = self.seeds, (self._first, self._last, self._terminated, self._reward)
        draw_seeds(
            opening, low, high, self._words, seeds.evaluation, seeds.first_lane, self.episode, self._seed
        )
        if self.map is None:
            worlds.open_rooms(
                opening, low, high, self._seed, self.size, self.fixed, self.speed, self.boxes, self.circles, self.robot,
                self.count, *rows,
            )  # fmt: skip
            return
        known = self.map
        worlds.open_on_map(
            opening, low, high, self._seed, known.places, known.begin, known.end, known.near.shape[1], known.cell,
            self._goal, self.speed, self.circles, self.robot, self.count, *rows,
        )  # fmt: skip

    def _act(self, command: Floats, acting: Bools, low: int, high: int) -> None:
        """One step of the lanes that are `acting` [N]."""
        robots.drive(
            command, acting, low, high, self.limit, self.progress, self.slip, self.size, self.boxes, self.circles,
            self.fixed, self._near, self._cell, self.robot, self.count,
            self._first, self._last, self._terminated, self._reward,
        )  # fmt: skip

    def _look(self, low: int, high: int) -> None:
        """Write what the lanes see."""
        scans.scan(
            low, high, *self.sensor, self.size, self.boxes, self.circles, self._near, self._cell, self.robot,
            self.count, self._obs,
        )  # fmt: skip


def _map(path: str, goal: list[float] | None) -> tuple[maps.Map | None, Floats]:
    """The map of that path, if one is given, and a goal in its own coordinates, [2] or [0]."""
    if goal is not None:
        try:
            x, y = (float(each) for each in goal)
        except (TypeError, ValueError):
            x = y = float("nan")
        if not np.isfinite([x, y]).all():
            raise ValueError(f"env.kwargs.goal={goal}: allowed: [x, y] in metres")
        if not path:
            raise ValueError(f"env.kwargs.goal={goal}: allowed: with a map; type env.kwargs.map=PATH")
    if not isinstance(path, str):
        raise ValueError(f"env.kwargs.map={path}: allowed: the path of a YAML file of ROS's map server")
    if not path:
        return None, np.zeros(0, np.float32)
    found = maps.read_map(path)
    if goal is None:
        return found, np.zeros(0, np.float32)
    found = found.goal((x, y))
    return found, np.array([x - found.corner[0], y - found.corner[1]], np.float32)


def _check(**given: float) -> None:
    """Raise ValueError where an argument is no number of its range."""
    for name, value in given.items():
        low, high = RANGES[name]
        if isinstance(value, bool) or not (isinstance(value, int | float) and low <= value <= high):
            raise ValueError(f"env.kwargs.{name}={value}: allowed: a number from {low:g} to {high:g}")
