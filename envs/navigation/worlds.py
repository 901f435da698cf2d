"""Worlds of robots: what is drawn when an episode begins.

    a room    size x size metres. Boxes: walls 0.2 thick, along either axis, 1 m to 0.4 sizes long, anywhere; circles of
              a radius from 0.15 to 0.5, anywhere
    start     the middle of a random one of the room's square cells (0.25 m) that keeps CLEAR metres from everything
    goal      another one, at least a third of the room away, to which a search from cell to neighbouring cell leads: a
              robot that follows it keeps away from everything
    movers    circles of a radius from 0.15 to 0.25 on such cells, 1.5 m from the start, in a random direction

A room without such a goal is drawn again; after every ten attempts with one box and one circle fewer. On a map
(`maps.py`) goal and start are two of its places that one another can be reached from, at least NEAREST apart.
"""

from __future__ import annotations

import math

import numpy as np

from rlkit.envs.chance import between, draw, mix
from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import Bools, Bytes, Floats, Ints
from rlkit.envs.navigation.robots import CHANCE, GOAL_X, GOAL_Y, STEPS, THETA, V, W, X, Y

CELL, CLEAR, THICK = 0.25, 0.35, 0.2
NEAREST, APART = 1.0, 1.5  # of goal and start on a map, of a mover and the start
TRIES = 50
ROOMS, MAPS, NOISE = (
    0x3C6EF372,
    0x510E527F,
    0x1F83D9AB,
)  # keys of rooms, of starts on a map, of what comes later


@compiled
def open_rooms(
    opening: Bools, low: int, high: int, seed: Ints, size: float, fixed: int, speed: float, boxes: Floats,
    circles: Floats, robot: Floats, count: Ints, first: Bools, last: Bools, terminated: Bools, reward: Floats,
) -> None:  # fmt: skip
    """Begin episodes from `seed` [N] in those of the lanes low .. high - 1 that are `opening` [N].

    boxes [N, b, 4], circles [N, c, 5], robot, count: as for `robots.drive`. speed: of circles from `fixed` on, at most.
    """
    side, stream = int(size / CELL), np.zeros(2, np.int64)
    free, queue = np.zeros(side * side, np.uint8), np.empty(side * side, np.int64)
    for lane in range(low, high):
        if not opening[lane]:
            continue
        stream[0], stream[1], attempt = mix(ROOMS ^ mix(seed[lane])), 0, 0
        while not _furnish(
            attempt // 10,
            size,
            side,
            fixed,
            speed,
            boxes[lane],
            circles[lane],
            robot[lane],
            stream,
            free,
            queue,
        ):
            attempt += 1
        _begin(robot[lane], count[lane], seed[lane], stream)
        first[lane], last[lane], terminated[lane], reward[lane] = True, False, False, 0.0


@compiled
def _begin(me: Floats, count: Ints, seed: int, stream: Ints) -> None:
    """What every episode begins with."""
    me[THETA], me[V], me[W] = between(stream, -math.pi, math.pi), 0.0, 0.0
    count[STEPS], count[CHANCE] = 0, mix(NOISE ^ mix(seed))


@compiled
def _furnish(
    fewer: int, size: float, side: int, fixed: int, speed: float, boxes: Floats, circles: Floats, me: Floats,
    stream: Ints, free: Bytes, queue: Ints,
) -> bool:  # fmt: skip
    """One attempt at a room; False where nothing fits. free and queue [side^2] are scratch."""
    boxes[:], circles[:], free[:] = 0.0, 0.0, 1
    for i in range(len(boxes) - fewer):
        long, lying = between(stream, 1.0, 0.4 * size), draw(stream, 2) == 0
        wide, high = (long, THICK) if lying else (THICK, long)
        x, y = between(stream, 0.0, size - wide), between(stream, 0.0, size - high)
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = x, y, x + wide, y + high
        _cover(free, side, x, y, x + wide, y + high, CLEAR)
    for i in range(fixed - fewer):
        circles[i, 2] = between(stream, 0.15, 0.5)
        circles[i, 0], circles[i, 1] = between(stream, 0.0, size), between(stream, 0.0, size)
        x, y = circles[i, 0], circles[i, 1]
        _cover(free, side, x, y, x, y, CLEAR + circles[i, 2])
    edge = int(CLEAR / CELL + 0.5)  # cells along the room's walls whose middle is nearer than CLEAR
    start = _draw_cell(free, side, edge, stream)
    if start < 0:
        return False
    me[X], me[Y] = (start % side + 0.5) * CELL, (start // side + 0.5) * CELL
    reached = _flood(free, side, edge, start, queue)
    found = False
    for _ in range(TRIES):
        goal = queue[draw(stream, reached)]
        me[GOAL_X], me[GOAL_Y] = (goal % side + 0.5) * CELL, (goal // side + 0.5) * CELL
        if math.sqrt((me[X] - me[GOAL_X]) ** 2 + (me[Y] - me[GOAL_Y]) ** 2) >= size / 3:
            found = True
            break
    if not found:
        return False
    for i in range(fixed, len(circles)):
        placed = False
        for _ in range(TRIES):
            at = queue[draw(stream, reached)]
            x, y = (at % side + 0.5) * CELL, (at // side + 0.5) * CELL
            if math.sqrt((me[X] - x) ** 2 + (me[Y] - y) ** 2) >= APART:
                placed = True
                break
        if not placed:
            return False
        _set_off(circles[i], x, y, speed, stream)
    return True


@compiled
def _set_off(circle: Floats, x: float, y: float, speed: float, stream: Ints) -> None:
    """A circle that moves, of a random size and speed, in a random direction."""
    angle, fast = between(stream, -math.pi, math.pi), between(stream, speed / 2, speed)
    circle[0], circle[1], circle[2] = x, y, between(stream, 0.15, 0.25)
    circle[3], circle[4] = fast * math.cos(angle), fast * math.sin(angle)


@compiled
def _cover(free: Bytes, side: int, x0: float, y0: float, x1: float, y1: float, clear: float) -> None:
    """Take away the cells whose middle is nearer than `clear` to a box."""
    bottom, top = max(int((y0 - clear) / CELL), 0), min(int((y1 + clear) / CELL), side - 1)
    left, right = max(int((x0 - clear) / CELL), 0), min(int((x1 + clear) / CELL), side - 1)
    for j in range(bottom, top + 1):
        y = (j + 0.5) * CELL
        dy = max(y0 - y, y - y1, 0.0)
        for i in range(left, right + 1):
            x = (i + 0.5) * CELL
            dx = max(x0 - x, x - x1, 0.0)
            if dx * dx + dy * dy < clear * clear:
                free[j * side + i] = 0


@compiled
def _draw_cell(free: Bytes, side: int, edge: int, stream: Ints) -> int:
    """A random free cell that is not at the edge; -1 where some draws found none."""
    inner = side - 2 * edge
    for _ in range(TRIES):
        number = draw(stream, inner * inner)
        cell = (number // inner + edge) * side + number % inner + edge
        if free[cell]:
            return cell
    return -1


@compiled
def _flood(free: Bytes, side: int, edge: int, start: int, queue: Ints) -> int:
    """How many free cells are reached from `start`: the first ones of `queue`. They are taken away."""
    for i in range(side):
        for j in range(edge):
            free[i * side + j] = free[i * side + side - 1 - j] = 0
            free[j * side + i] = free[(side - 1 - j) * side + i] = 0
    queue[0], count, done = start, 1, 0
    free[start] = 0
    while done < count:
        here = queue[done]
        done += 1
        for step in (1, side, -1, -side):
            if free[here + step]:
                free[here + step] = 0
                queue[count] = here + step
                count += 1
    return count


@compiled
def open_on_map(
    opening: Bools, low: int, high: int, seed: Ints, places: Ints, begin: Ints, end: Ints, columns: int, cell: float,
    goal: Floats, speed: float, circles: Floats, robot: Floats, count: Ints,
    first: Bools, last: Bools, terminated: Bools, reward: Floats,
) -> None:  # fmt: skip
    """Begin episodes on a map as `open_rooms` does in rooms; goal: [2], or [0] where it is drawn.

    places [P]: cells where robots fit, their neighbourhoods one after another; from place i those from begin[i] to
    end[i] - 1 can be reached.
    """
    stream = np.zeros(2, np.int64)
    for lane in range(low, high):
        if not opening[lane]:
            continue
        me = robot[lane]
        stream[0], stream[1] = mix(MAPS ^ mix(seed[lane])), 0
        at = draw(stream, len(places))
        me[GOAL_X], me[GOAL_Y] = (places[at] % columns + 0.5) * cell, (places[at] // columns + 0.5) * cell
        if len(goal):
            me[GOAL_X], me[GOAL_Y] = goal[0], goal[1]
        start, _ = _away(me[GOAL_X], me[GOAL_Y], places, begin[at], end[at], columns, cell, NEAREST, stream)
        me[X], me[Y] = (start % columns + 0.5) * cell, (start // columns + 0.5) * cell
        circles[lane] = 0.0
        for i in range(circles.shape[1]):
            to, far = _away(me[X], me[Y], places, begin[at], end[at], columns, cell, APART, stream)
            if far >= APART / 2:  # else there is no room for it
                x, y = (to % columns + 0.5) * cell, (to // columns + 0.5) * cell
                _set_off(circles[lane, i], x, y, speed, stream)
        _begin(me, count[lane], seed[lane], stream)
        first[lane], last[lane], terminated[lane], reward[lane] = True, False, False, 0.0


@compiled
def _away(
    x: float,
    y: float,
    places: Ints,
    begin: int,
    end: int,
    columns: int,
    cell: float,
    least: float,
    stream: Ints,
) -> tuple[int, float]:
    """A random place from `begin` to `end` at least `least` from a point: the first of some, or the farthest."""
    best, farthest = places[begin], -1.0
    for _ in range(TRIES):
        place = places[begin + draw(stream, end - begin)]
        dx, dy = (place % columns + 0.5) * cell - x, (place // columns + 0.5) * cell - y
        far = math.sqrt(dx * dx + dy * dy)
        if far > farthest:
            best, farthest = place, far
        if farthest >= least:
            break
    return best, farthest
