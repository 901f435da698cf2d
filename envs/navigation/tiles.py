"""How cells look to people, and in `view=picture`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlkit.envs.navigation.cells import (
    BALL,
    CODES,
    COLOURS,
    GOAL,
    KEY,
    LOCKED,
    OPEN,
    SHUT,
    UNSEEN,
    WALL,
    Bools,
    Bytes,
)

RGB = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (112, 39, 195), (255, 255, 0), (100, 100, 100))  # of COLOURS
GREY, LINE, DARK = (100, 100, 100), (50, 50, 50), (30, 30, 60)


def tiles(size: int) -> Bytes:
    """A tile [size, size, 3] for every code, and a last one for the agent looking up: [CODES + 1, size, size, 3]."""
    centre = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(centre, centre, indexing="ij")
    found = np.zeros((CODES + 1, size, size, 3), np.uint8)
    found[UNSEEN], found[WALL], found[GOAL] = DARK, GREY, RGB[1]
    found[BALL][_disc(y, x, 0.5, 0.55, 0.35)] = RGB[2]
    bow = _disc(y, x, 0.3, 0.55, 0.22) & ~_disc(y, x, 0.3, 0.55, 0.08)
    key = bow | _box(y, x, 0.45, 0.95, 0.48, 0.62) | _box(y, x, 0.75, 0.9, 0.3, 0.62)
    frame = ~_box(y, x, 0.2, 0.9, 0.2, 0.9)
    knob, hole = _disc(y, x, 0.55, 0.75, 0.09), _disc(y, x, 0.55, 0.55, 0.15)
    for i in range(len(COLOURS)):
        colour = np.array(RGB[i], np.uint8)
        found[KEY + i][key] = colour
        found[OPEN + i][x < 0.25] = colour
        found[SHUT + i][frame | knob] = colour
        found[LOCKED + i] = colour // 2
        found[LOCKED + i][frame | hole] = colour
    triangle = (y > 0.2) & (y < 0.9) & (np.abs(x - 0.55) < 0.45 * (y - 0.2) / 0.7)
    found[CODES][triangle] = RGB[0]
    found[:, 0], found[:, :, 0] = LINE, LINE
    found[UNSEEN] = DARK
    return found


def picture(codes: Bytes, drawn: Bytes) -> Bytes:
    """codes [H, W] in tiles `drawn` [CODES + 1, s, s, 3]: [H s, W s, 3]."""
    size = drawn.shape[1]
    found: Bytes = (
        drawn[codes].transpose(0, 2, 1, 3, 4).reshape(codes.shape[0] * size, codes.shape[1] * size, 3)
    )
    return found


def turned(tile: Bytes, heading: int) -> Bytes:
    """A tile that looks up (north, 3), looking along a heading."""
    return np.rot90(tile, (3 - heading) % 4)  # counterclockwise: north, west, south, east


def _disc(
    y: npt.NDArray[np.float64], x: npt.NDArray[np.float64], row: float, column: float, radius: float
) -> Bools:
    inside: Bools = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return inside


def _box(
    y: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
    top: float,
    bottom: float,
    left: float,
    right: float,
) -> Bools:
    inside: Bools = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return inside
