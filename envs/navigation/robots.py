"""What a command does to a robot: two driven wheels, a round body, walls and circles around it.

Lengths are metres, angles radians counter-clockwise, times seconds. A step is 0.05 s in two sub-steps; each of them

    speeds    v and w go towards the command, by at most 2 m/s2 and 6 rad/s2
    wheels    the left one runs at v - 0.3 w / 2, the right one at v + 0.3 w / 2; each times 1 + slip * a normal number
    pose      of the speeds v', w' that these wheels make: with the heading in the middle of the sub-step,
              theta + w' dt / 2, the robot goes v' dt; then it has turned by w' dt
    crash     where it would touch a wall or a circle it stays, and the episode ends
    goal      reached within 0.3 m of it

Then circles that move do so. One that would touch a wall or a circle that stands draws another direction instead; one
that comes to touch the robot is a crash.

    reward       progress * (metres by which the goal is nearer), + 1 at the goal, - 1 for a crash
    terminated   at the goal and by a crash
    truncated    after `limit` steps

A lane's robot is a row of numbers (X .. GOAL_Y), its steps and the key of its chance are whole ones. Walls are boxes
[x0, y0, x1, y1] in a square room from (0, 0) to (size, size), or the cells of a grid (`maps.py`); circles are
[x, y, radius, vx, vy].
"""

from __future__ import annotations

import math

import numpy as np

from rlkit.envs.chance import NORMAL, QUANTILES, WORD, mix
from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import Bools, Bytes, Floats, Ints, Number

X, Y, THETA, V, W, GOAL_X, GOAL_Y = range(7)
NUMBERS = 7
STEPS, CHANCE = range(2)

RADIUS, AXLE, REACH = 0.2, 0.3, 0.3  # of the body, between the wheels, of the goal
SLOWEST, FASTEST, TURN = -0.5, 1.0, 2.0  # m/s backwards and forwards, rad/s
PUSH, TWIST = 2.0, 6.0  # m/s2, rad/s2
TICK, SUBSTEPS = 0.05, 2
DT = TICK / SUBSTEPS
ZERO = np.float32(0.0)


@compiled
def drive(
    command: Floats, acting: Bools, low: int, high: int, limit: int, progress: float, slip: float, size: float,
    boxes: Floats, circles: Floats, fixed: int, near: Bytes, cell: float, robot: Floats, count: Ints,
    first: Bools, last: Bools, terminated: Bools, reward: Floats,
) -> None:  # fmt: skip
    """One step of those of the lanes low .. high - 1 that are `acting` [N], with command [N, 2]: v and w.

    boxes [N, b, 4]; circles [N, c, 5], of which the first `fixed` stand; near, cell: a map's, near [0, 0] for a room.
    """
    for lane in range(low, high):
        if not acting[lane]:
            continue
        me = robot[lane]
        count[lane, STEPS] += 1
        word = mix(count[lane, CHANCE] ^ mix(count[lane, STEPS]))
        before = math.sqrt((me[GOAL_X] - me[X]) ** 2 + (me[GOAL_Y] - me[Y]) ** 2)
        v = min(max(command[lane, 0], SLOWEST), FASTEST)
        w = min(max(command[lane, 1], -TURN), TURN)
        over, after = 0, before
        for part in range(SUBSTEPS):
            over = _roll(me, v, w, slip, word, part, size, boxes[lane], circles[lane], near, cell)
            if over >= 0:
                after = math.sqrt((me[GOAL_X] - me[X]) ** 2 + (me[GOAL_Y] - me[Y]) ** 2)
                if after <= REACH:
                    over = 1
            if over != 0:
                break
        if over == 0 and _wander(me, word, size, boxes[lane], circles[lane], fixed, near, cell):
            over = -1
        first[lane], terminated[lane] = False, over != 0
        last[lane] = over != 0 or count[lane, STEPS] >= limit
        reward[lane] = progress * (before - after) + over


@compiled
def _roll(
    me: Floats, v: float, w: float, slip: float, word: int, part: int, size: float, boxes: Floats, circles: Floats,
    near: Bytes, cell: float,
) -> int:  # fmt: skip
    """A sub-step towards the speeds v and w: -1 for a crash, which changes no pose, else 0."""
    me[V] += min(max(v - me[V], -PUSH * DT), PUSH * DT)
    me[W] += min(max(w - me[W], -TWIST * DT), TWIST * DT)
    left, right = me[V] - me[W] * (AXLE / 2), me[V] + me[W] * (AXLE / 2)
    if slip > 0.0:
        left *= 1.0 + slip * NORMAL[mix(word ^ mix(2 * part)) % QUANTILES]
        right *= 1.0 + slip * NORMAL[mix(word ^ mix(2 * part + 1)) % QUANTILES]
    forward, turn = (left + right) / 2, (right - left) / AXLE
    middle = me[THETA] + turn * DT / 2
    x, y = me[X] + forward * DT * math.cos(middle), me[Y] + forward * DT * math.sin(middle)
    theta = me[THETA] + turn * DT
    if _touches(
        np.float32(x), np.float32(y), np.float32(RADIUS), size, boxes, circles, len(circles), near, cell
    ):
        me[V] = me[W] = 0.0
        return -1
    me[X], me[Y] = x, y
    me[THETA] = theta - 2 * math.pi * math.floor(theta / (2 * math.pi) + 0.5)
    return 0


@compiled
def _wander(
    me: Floats, word: int, size: float, boxes: Floats, circles: Floats, fixed: int, near: Bytes, cell: float
) -> bool:
    """Move the circles that do; whether one of them touches the robot."""
    met = False
    for i in range(fixed, len(circles)):
        circle = circles[i]
        x, y = circle[0] + circle[3] * TICK, circle[1] + circle[4] * TICK
        if _touches(np.float32(x), np.float32(y), circle[2], size, boxes, circles, fixed, near, cell):
            speed = math.sqrt(circle[3] ** 2 + circle[4] ** 2)
            angle = 2 * math.pi * (mix(word ^ mix(2 * SUBSTEPS + i)) / (WORD + 1.0))
            circle[3], circle[4] = speed * math.cos(angle), speed * math.sin(angle)
        else:
            circle[0], circle[1] = x, y
        met |= (circle[0] - me[X]) ** 2 + (circle[1] - me[Y]) ** 2 < (circle[2] + RADIUS) ** 2
    return met


@compiled
def _touches(
    x: Number, y: Number, radius: Number, size: float, boxes: Floats, circles: Floats, several: int, near: Bytes,
    cell: float,
) -> bool:  # fmt: skip
    """Whether a disc meets a wall or one of the first `several` circles."""
    if len(near):
        if _on_grid(x, y, radius, near, cell):
            return True
    elif x < radius or y < radius or x > size - radius or y > size - radius:
        return True
    hits, square = 0, radius * radius  # counted, not branched on
    for i in range(len(boxes)):
        dx, dy = max(boxes[i, 0] - x, x - boxes[i, 2], ZERO), max(boxes[i, 1] - y, y - boxes[i, 3], ZERO)
        hits += dx * dx + dy * dy < square
    for i in range(several):
        dx, dy, reach = circles[i, 0] - x, circles[i, 1] - y, circles[i, 2] + radius
        hits += dx * dx + dy * dy < reach * reach
    return hits > 0


@compiled
def _on_grid(x: Number, y: Number, radius: Number, near: Bytes, cell: float) -> bool:
    """Whether a disc meets a wall's cell of a map; beyond the map all is wall."""
    i, j = math.floor(x / cell), math.floor(y / cell)
    lines, columns = near.shape
    if i < 0 or j < 0 or i >= columns or j >= lines:
        return True
    reach = math.floor(radius / cell) + 1
    if near[j, i] > reach:  # no wall within so many cells
        return False
    for b in range(max(j - reach, 0), min(j + reach, lines - 1) + 1):
        for a in range(max(i - reach, 0), min(i + reach, columns - 1) + 1):
            if near[b, a] == 0:
                dx, dy = (
                    max(a * cell - x, x - (a + 1) * cell, 0.0),
                    max(b * cell - y, y - (b + 1) * cell, 0.0),
                )
                if dx * dx + dy * dy < radius * radius:
                    return True
    return False
