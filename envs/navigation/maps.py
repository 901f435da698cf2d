"""Maps of ROS's map server: a YAML file that names a picture (PGM) in its own folder, and what robots need of them.

    image             the picture's file name; a PGM, text (P2) or binary (P5), at most 4096 x 4096 pixels of 8 bits
    resolution        metres a pixel
    origin            [x, y, yaw] of the picture's lower left corner; yaw is 0
    negate            0: dark is occupied; 1: light is
    occupied_thresh, free_thresh     with p the darkness from 0 to 1: p < free_thresh is free floor. All else is a wall,
                      also what is unknown, between the two
    mode              trinary

Only these keys are read, nothing in a file is carried out, and no link is followed (`rlkit.files`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml  # type: ignore[import-untyped]

from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import Bools, Bytes, Ints
from rlkit.envs.navigation.robots import RADIUS
from rlkit.envs.navigation.worlds import NEAREST
from rlkit.files import named

KEYS = ("image", "resolution", "origin", "negate", "occupied_thresh", "free_thresh", "mode")
NEEDED = KEYS[:3]
LONGEST_YAML, LONGEST_SIDE = 1 << 16, 4096
LONGEST_PICTURE = LONGEST_SIDE * LONGEST_SIDE + 4096
SPARE = 0.05  # metres beyond the robot's radius that its places keep from walls
_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"(P[25])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s")


@dataclass(frozen=True)
class Map:
    """A map as kernels read it. Its own coordinates begin in the lower left corner of a border of walls.

    near [lines, columns], bottom first: 0 for a wall; k: no wall in the square of 2 k - 1 cells around this one;
    cell: metres; corner: the map's coordinates of ours (0, 0); places, begin, end: as for `worlds.open_on_map`.
    """

    near: Bytes
    cell: float
    corner: tuple[float, float]
    places: Ints
    begin: Ints
    end: Ints

    def goal(self, goal: tuple[float, float]) -> Map:
        """The same map with the places alone from which a goal, in the map's coordinates, is reached."""
        lines, columns = self.near.shape
        x, y = goal[0] - self.corner[0], goal[1] - self.corner[1]
        i, j = math.floor(x / self.cell), math.floor(y / self.cell)
        inside = 0 <= i < columns and 0 <= j < lines
        found = np.flatnonzero(self.places == j * columns + i) if inside else np.zeros(0, np.int64)
        if not len(found):
            to_x = (self.places % columns + 0.5) * self.cell - x
            to_y = (self.places // columns + 0.5) * self.cell - y
            best = int(np.argmin(to_x**2 + to_y**2))
            near = f"[{round(goal[0] + to_x[best], 3)},{round(goal[1] + to_y[best], 3)}]"
            why = "no robot fits there" if inside else "it lies outside the map"
            raise ValueError(
                f"env.kwargs.goal=[{goal[0]:g},{goal[1]:g}]: cannot be reached: {why}; allowed: places "
                f"{RADIUS + SPARE:g} m from walls that others lead to; nearest: type env.kwargs.goal={near}"
            )
        mine = slice(self.begin[found[0]], self.end[found[0]])
        count = len(self.places[mine])
        return Map(
            self.near,
            self.cell,
            self.corner,
            self.places[mine],
            np.zeros(count, np.int64),
            np.full(count, count),
        )


def read_map(path: str) -> Map:
    """The map that a YAML file describes. Raises ValueError for one that is none, or has no room for a robot."""
    try:
        folder = named(Path(path).parent)
        text = (folder / Path(path).name).read(LONGEST_YAML)
    except (OSError, ValueError) as error:
        raise _wrong(
            path, f"cannot be read: {_reason(error)}; allowed: a YAML file of ROS's map server"
        ) from error
    given = _fields(path, text)
    image = given["image"]
    try:
        data = (folder / str(image)).read(LONGEST_PICTURE)
    except ValueError as error:
        raise _wrong(
            path, f"image: {image!r}: allowed: the name of a PGM file in the map's own folder; copy it there"
        ) from error
    except OSError as error:
        raise _wrong(
            path,
            f"image: {image}: cannot be read: {_reason(error)}; allowed: a PGM file in the map's own folder",
        ) from error
    dark = _picture(path, str(image), data)
    dark = 1.0 - dark if given["negate"] else dark
    free = np.zeros((dark.shape[0] + 2, dark.shape[1] + 2), np.bool_)  # a border of walls
    free[1:-1, 1:-1] = dark[::-1] < given["free_thresh"]
    cell = float(given["resolution"])
    if not free.any():
        raise _wrong(
            path, f"no cell of {image} is free: allowed: pixels with a darkness below free_thresh: "
            f"{given['free_thresh']:g}; it goes from {dark.min():.3g} to {dark.max():.3g}"
        )  # fmt: skip
    places, begin, end = _places(free, cell)
    if not len(places):
        raise _wrong(
            path, f"no goal can be reached: allowed: a map with two places {NEAREST:g} m apart between which a robot "
            f"of {RADIUS:g} m radius drives; at resolution: {cell:g} there is none"
        )  # fmt: skip
    near = np.zeros(free.shape, np.uint8)
    measure(free, near)
    corner = (float(given["origin"][0]) - cell, float(given["origin"][1]) - cell)
    return Map(near, cell, corner, places, begin, end)


def _wrong(path: str, what: str) -> ValueError:
    return ValueError(f"env.kwargs.map={path}: {what}")


def _reason(error: Exception) -> str:
    """What the system says, without the path and without advice for other folders."""
    said = getattr(error, "strerror", None) or str(error)
    return said.partition(";")[0]


def _fields(path: str, text: bytes) -> dict[str, Any]:
    """The checked values of the YAML file, defaults included."""
    try:
        found = yaml.safe_load(text.decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path, "is no YAML; allowed: a map's description, as map_saver writes it") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise _wrong(path, f"holds no keys; allowed: {', '.join(KEYS)}")
    unknown, missing = sorted(set(found) - set(KEYS)), [key for key in NEEDED if key not in found]
    if unknown or missing:
        what = f"unknown: {', '.join(unknown)[:80]}" if unknown else f"missing: {', '.join(missing)}"
        raise _wrong(path, f"{what}; allowed: {', '.join(KEYS)}")
    given = {"negate": 0, "occupied_thresh": 0.65, "free_thresh": 0.196, "mode": "trinary"} | found
    origin, free = given["origin"], given["free_thresh"]
    checks = (
        ("image", isinstance(given["image"], str), "a file's name"),
        ("resolution", _number(given["resolution"], 0.005, 5.0), "metres a pixel, from 0.005 to 5"),
        (
            "origin",
            isinstance(origin, list)
            and len(origin) == 3
            and all(_number(each, -1e6, 1e6) for each in origin)
            and origin[2] == 0,
            "[x, y, 0]: a map that is not turned",
        ),
        ("negate", given["negate"] in (0, 1), "0 or 1"),
        ("free_thresh", _number(free, 0.0, 1.0), "a number from 0 to 1"),
        ("occupied_thresh", _number(given["occupied_thresh"], 0.0, 1.0), "a number from 0 to 1"),
        ("mode", given["mode"] == "trinary", "trinary"),
    )
    for key, fine, allowed in checks:
        if not fine:
            raise _wrong(path, f"{key}: {str(given[key])[:80]}: allowed: {allowed}")
    return given


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _picture(path: str, image: str, data: bytes) -> npt.NDArray[np.float64]:
    """How dark a PGM's pixels are, 0 to 1, top first."""
    header = _HEADER.match(data)
    if header is None:
        raise _wrong(path, f"image: {image}: is no PGM; allowed: a picture that begins with P2 or P5, a width, a "
                     "height and a highest value")  # fmt: skip
    columns, lines, highest = (int(header[k]) for k in (2, 3, 4))
    if not (1 <= columns <= LONGEST_SIDE and 1 <= lines <= LONGEST_SIDE and 1 <= highest <= 255):
        raise _wrong(
            path, f"image: {image}: {columns} x {lines} pixels up to {highest}: allowed: 1 to {LONGEST_SIDE} pixels in "
            "a line and in a column, values up to 255"
        )  # fmt: skip
    body = data[header.end() :]
    if header[1] == b"P5":
        values = np.frombuffer(body[:-1] if len(body) == columns * lines + 1 else body, np.uint8)
    else:
        words = body.split()
        if not all(word.isdigit() and len(word) <= 3 for word in words):
            raise _wrong(path, f"image: {image}: allowed in a P2 picture: numbers from 0 to {highest}")
        values = np.array([int(word) for word in words], np.int64)
    if len(values) != columns * lines:
        raise _wrong(
            path, f"image: {image}: not rectangular: {columns} x {lines} pixels are announced and {len(values)} are "
            f"there; allowed: {columns * lines}"
        )  # fmt: skip
    if values.max() > highest:
        raise _wrong(path, f"image: {image}: a pixel of {values.max()}: allowed: 0 to {highest}")
    dark: npt.NDArray[np.float64] = 1.0 - values.reshape(lines, columns) / highest
    return dark


def _places(free: Bools, cell: float) -> tuple[Ints, Ints, Ints]:
    """The cells from which a robot gets NEAREST metres away, those that lead to one another in a run; its bounds."""
    queue, begins = np.empty(free.size, np.int64), np.zeros(free.size + 1, np.int64)
    runs = _group(_fitting(free, cell, RADIUS + SPARE), queue, begins)
    kept, begin, end = list[Ints](), list[Ints](), list[Ints]()
    sizes = np.diff(begins[: runs + 1])
    for run in np.flatnonzero(sizes > 1):
        cells = queue[begins[run] : begins[run + 1]]
        wide, high = (np.ptp(each) * cell for each in (cells % free.shape[1], cells // free.shape[1]))
        if max(wide, high) >= 2 * NEAREST:  # from any cell one of the ends is NEAREST away
            count = sum(len(each) for each in kept)
            kept.append(cells)
            begin.append(np.full(len(cells), count))
            end.append(np.full(len(cells), count + len(cells)))
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *kept]), np.concatenate([none, *begin]), np.concatenate([none, *end])


@compiled
def _fitting(free: Bools, cell: float, clear: float) -> Bools:
    """The cells whose middle is at least `clear` away from all cells that are not free."""
    fits, reach = free.copy(), int(clear / cell + 0.5)
    lines, columns = free.shape
    for j in range(lines):
        for i in range(columns):
            inner = 0 < j < lines - 1 and 0 < i < columns - 1
            if free[j, i] or (
                inner and not (free[j - 1, i] or free[j + 1, i] or free[j, i - 1] or free[j, i + 1])
            ):
                continue  # walls that only walls touch are behind others
            for b in range(max(j - reach, 0), min(j + reach, lines - 1) + 1):
                for a in range(max(i - reach, 0), min(i + reach, columns - 1) + 1):
                    dx, dy = max(abs(a - i) - 0.5, 0.0) * cell, max(abs(b - j) - 0.5, 0.0) * cell
                    if dx * dx + dy * dy < clear * clear:
                        fits[b, a] = False
    return fits


@compiled
def _group(fits: Bools, queue: Ints, begins: Ints) -> int:
    """Write the cells into runs that lead to one another; begins: where they begin, and the end. Their number."""
    columns, left = fits.shape[1], fits.copy().ravel()
    count, done, runs = 0, 0, 0
    for cell in range(len(left)):
        if not left[cell]:
            continue
        begins[runs] = count
        runs += 1
        left[cell], queue[count] = False, cell
        count += 1
        while done < count:
            here = queue[done]
            done += 1
            for step in (1, columns, -1, -columns):
                if left[here + step]:  # the border is never free
                    left[here + step], queue[count] = False, here + step
                    count += 1
    begins[runs] = count
    return runs


@compiled
def measure(free: Bools, near: Bytes) -> None:
    """near: how many cells it is to the nearest wall, diagonal steps included, at most 255."""
    lines, columns = free.shape
    for j in range(lines):
        for i in range(columns):
            if not free[j, i]:
                near[j, i] = 0
                continue
            least = 254
            for b, a in ((j - 1, i - 1), (j - 1, i), (j - 1, i + 1), (j, i - 1)):
                least = min(least, near[b, a])
            near[j, i] = least + 1
    for j in range(lines - 1, -1, -1):
        for i in range(columns - 1, -1, -1):
            if free[j, i]:
                least = 254
                for b, a in ((j + 1, i + 1), (j + 1, i), (j + 1, i - 1), (j, i + 1)):
                    least = min(least, near[b, a])
                near[j, i] = min(near[j, i], least + 1)
