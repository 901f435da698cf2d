"""What an agent in a maze sees.

    codes     uint8 [7, 7, 3]: MiniGrid's kind, colour and state of the cells ahead. The agent is in the middle of the
              last line and looks at the first; its own cell shows what it carries. A cell that is not seen is 0, 0, 0
    picture   uint8 [64, 64, 3]: the same, painted with the tiles of `tiles.py`
    lidar     numbers: 16 rays, from straight ahead to the right, 22.5 degrees apart (`lidar` below)
    compass   numbers: cosine and sine of the goal's direction (ahead is 0, the right positive), and how far it is, 1
              being the maze's diagonal; all 0 at the goal

What is seen (MiniGrid's rule): the agent's cell is. From the agent's line to the farthest, in each line first from left
to right and then from right to left: a cell that is seen and is no wall or shut door shows its neighbour in that
direction, the cell ahead of that one, and the cell ahead of itself.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import (
    BALL,
    CARRIED,
    CLEAR,
    CODES,
    COLOURS,
    EMPTY,
    GOAL,
    HEADING,
    KEY,
    LOCKED,
    OPEN,
    PAD,
    PLACE,
    SHUT,
    TARGET,
    TRIPLE,
    UNSEEN,
    Bytes,
    Floats,
    Ints,
)

VIEW = 7  # cells in a line of the view
MIDDLE = VIEW // 2
Lines = npt.NDArray[np.int16]  # lines of the view as bits: `spread`
RAYS, RANGE = 16, 10.0  # cells that a ray reaches


def spread() -> Lines:
    """What is seen of a line and of the next one, [seen, clear] -> seen line + 128 * next line; lines are bits.

    seen: what the line before shows of this one, and the bits that are seen through, `clear`.
    """
    everything = np.arange(1 << VIEW)
    seen, clear = np.meshgrid(everything, everything, indexing="ij")
    ahead = np.zeros_like(seen)
    for direction, cells in ((1, range(VIEW - 1)), (-1, range(VIEW - 1, 0, -1))):
        for i in cells:
            shows = seen >> i & clear >> i & 1
            seen = seen | shows << i + direction
            ahead = ahead | shows << i | shows << i + direction
    return (seen | ahead << VIEW).astype(np.int16)


SPREAD = spread()


@compiled
def look(low: int, high: int, side: int, cells: Bytes, agent: Ints, spread: Lines, out: Bytes) -> None:
    """out [N, 7 * 7 * 3]: codes."""
    for lane in range(low, high):
        heading = agent[lane, HEADING]
        ahead, right = (1, side, -1, -side)[heading], (side, -1, -side, 1)[heading]
        seen, line = 1 << MIDDLE, agent[lane, PLACE] - MIDDLE * right  # the leftmost cell of a line
        out[lane] = 0
        for i in range(VIEW - 1, -1, -1):
            seen = _shown(cells, lane, line, right, seen, spread)
            for j in range(VIEW):
                if seen >> j & 1:
                    code, at = cells[lane, line + j * right], 3 * (VIEW * i + j)
                    for k in range(3):
                        out[lane, at + k] = TRIPLE[code, k]
            seen >>= VIEW
            if seen == 0:
                break
            line += ahead
        for k in range(3):
            out[lane, 3 * (VIEW * (VIEW - 1) + MIDDLE) + k] = TRIPLE[agent[lane, CARRIED], k]


@compiled
def paint(
    low: int, high: int, side: int, cells: Bytes, agent: Ints, spread: Lines, tiles: Bytes, out: Bytes
) -> None:
    """out [N, 64, 64 * 3]: the view in tiles [CODES + 1, s, s * 3], the last one for an agent that carries nothing."""
    size, width = tiles.shape[1], tiles.shape[2]
    for lane in range(low, high):
        heading = agent[lane, HEADING]
        ahead, right = (1, side, -1, -side)[heading], (side, -1, -side, 1)[heading]
        seen, line = 1 << MIDDLE, agent[lane, PLACE] - MIDDLE * right
        for i in range(VIEW - 1, -1, -1):
            seen = _shown(cells, lane, line, right, seen, spread)
            for j in range(VIEW):
                code = cells[lane, line + j * right] if seen >> j & 1 else UNSEEN
                if i == VIEW - 1 and j == MIDDLE:
                    code = agent[lane, CARRIED] if agent[lane, CARRIED] != EMPTY else CODES
                for y in range(size):
                    for x in range(width):
                        out[lane, i * size + y, j * width + x] = tiles[code, y, x]
            seen >>= VIEW
            line += ahead


@compiled
def _shown(cells: Bytes, lane: int, line: int, right: int, seen: int, spread: Lines) -> int:
    """`spread` for the line whose leftmost cell is `line`."""
    clear = 0
    for j in range(VIEW):
        clear |= CLEAR[cells[lane, line + j * right]] << j
    return int(spread[seen & 127, clear])


# ---------------------------------------------------------------- rays


def signs(obstacles: bool, doors: bool) -> Floats:
    """What a ray's end looks like, [CODES, columns], columns being only those that the maze has a use for.

    goal; with obstacles: obstacle; with doors: key, shut or locked door, locked door, and (c + 1) / 6 of its colour c.
    """
    columns = [_of(GOAL)]
    if obstacles:
        columns.append(_of(BALL))
    if doors:
        hue = np.zeros(CODES, np.float32)
        for first in (KEY, SHUT, LOCKED):
            hue[first : first + len(COLOURS)] = np.arange(1, len(COLOURS) + 1) / len(COLOURS)
        columns += [_of(*range(KEY, OPEN)), _of(*range(SHUT, CODES)), _of(*range(LOCKED, CODES)), hue]
    return np.stack(columns, 1)


def _of(*codes: int) -> Floats:
    column = np.zeros(CODES, np.float32)
    column[list(codes)] = 1.0
    return column


def rays(side: int) -> tuple[Ints, Floats]:
    """The cells that rays cross: how far they lie in the row of bytes, [4, RAYS, k], 0 beyond RANGE, and at which
    distances [RAYS, k] they begin, in cells; by heading, ray, and crossing.

    A ray starts in the middle of a cell. Where it meets a corner of four cells it goes on into the one across.
    """
    paths = [_crossed(2 * math.pi * ray / RAYS) for ray in range(RAYS)]
    length = max(map(len, paths)) + 1
    offset, distance = np.zeros((4, RAYS, length), np.int64), np.full((RAYS, length), RANGE, np.float32)
    ahead, right = (1, side, -1, -side), (side, -1, -side, 1)
    for ray, path in enumerate(paths):
        for k, (forward, aside, begin) in enumerate(path):
            distance[ray, k] = begin
            for heading in range(4):
                offset[heading, ray, k] = forward * ahead[heading] + aside * right[heading]
    return offset, distance


def _crossed(angle: float) -> list[tuple[int, int, float]]:
    """(cells ahead, cells to the right, distance) of every cell that a ray enters before RANGE, nearest first."""
    slopes = (math.cos(angle), math.sin(angle))
    borders = []  # (distance, axis) of every line between cells that the ray crosses
    for axis, slope in enumerate(slopes):
        count = int(RANGE * abs(slope) + 0.5)
        borders += [((k + 0.5) / abs(slope), axis) for k in range(count) if abs(slope) > 1e-9]
    borders.sort()
    place, path = [0, 0], []
    for i, (distance, axis) in enumerate(borders):
        place[axis] += 1 if slopes[axis] > 0 else -1
        if i + 1 == len(borders) or borders[i + 1][0] - distance > 1e-9:  # else a corner: both axes at once
            path.append((place[0], place[1], distance))
    return path


@compiled
def lidar(
    low: int, high: int, cells: Bytes, agent: Ints, offset: Ints, distance: Floats, signs: Floats, carried: bool,
    out: Floats,
) -> None:  # fmt: skip
    """out [N, ...]: 16 times the distance (RANGE and more is 1) and the signs of what ends a ray; then, if `carried`,

    (c + 1) / 6 of the carried key's colour c, 0 without one. Rays pass empty floor and open doors.
    """
    width = signs.shape[1]
    for lane in range(low, high):
        place, heading, at = agent[lane, PLACE], agent[lane, HEADING], 0
        for ray in range(RAYS):
            k = 0
            code = cells[lane, place + offset[heading, ray, 0]]
            while (code == EMPTY or OPEN <= code < SHUT) and distance[ray, k] < RANGE:
                k += 1
                code = cells[lane, place + offset[heading, ray, k]]
            out[lane, at] = distance[ray, k] / RANGE
            for column in range(width):
                out[lane, at + 1 + column] = signs[code, column] if distance[ray, k] < RANGE else 0.0
            at += 1 + width
        if carried:
            key = agent[lane, CARRIED]
            out[lane, at] = (key - KEY + 1) / 6 if key != EMPTY else 0.0


@compiled
def compass(low: int, high: int, side: int, agent: Ints, out: Floats) -> None:
    """out [N, 3]: the goal's direction and distance."""
    longest = math.sqrt(2.0) * (side - 2 * PAD)
    for lane in range(low, high):
        place, target, heading = agent[lane, PLACE], agent[lane, TARGET], agent[lane, HEADING]
        down, along = target // side - place // side, target % side - place % side
        ahead = (along, down, -along, -down)[heading]
        right = (down, -along, -down, along)[heading]
        length = math.sqrt(ahead * ahead + right * right)
        out[lane] = 0.0
        if length > 0:
            out[lane, 0], out[lane, 1], out[lane, 2] = ahead / length, right / length, length / longest
