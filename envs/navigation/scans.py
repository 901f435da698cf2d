"""What a robot sees: 64 rays around it, where its goal lies, and how it moves; in ROS's units and order.

    entry      what                                              ROS 2
    0 .. 63    metres to the nearest wall or circle, `reach`     sensor_msgs/LaserScan ranges[k]; angle_min -pi,
               where there is none nearer or the ray is lost     angle_increment 2 pi / 64, which is counter-clockwise,
                                                                 range_min 0, range_max `reach`
    64         metres to the goal                                geometry_msgs/PoseStamped of the goal, seen from
    65, 66     cosine and sine of its direction (ahead is 0,     base_link (x ahead, y to the left): sqrt(x2 + y2),
               the left positive); both 0 at the goal            x and y over that
    67, 68     speeds: m/s ahead, rad/s counter-clockwise        nav_msgs/Odometry twist.twist: linear.x, angular.z

and an action is geometry_msgs/Twist: linear.x in m/s from -0.5 to 1, angular.z in rad/s from -2 to 2.

A range has normal noise of the deviation `noise` metres, and is lost with the probability `dropout`. Its numbers follow
from the episode's seed, the step and the ray.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlkit.envs.chance import NORMAL, QUANTILES, WORD, mix
from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import Bytes, Floats, Ints, Number
from rlkit.envs.navigation.robots import (
    CHANCE,
    FASTEST,
    GOAL_X,
    GOAL_Y,
    SLOWEST,
    STEPS,
    THETA,
    TURN,
    V,
    W,
    X,
    Y,
)

Words = npt.NDArray[np.uint32]
Bounds = npt.NDArray[np.float64]
RAYS = 64
ANGLE_MIN, ANGLE_INCREMENT = -math.pi, 2 * math.pi / RAYS
ENTRIES = RAYS + 5
_ANGLES = ANGLE_MIN + ANGLE_INCREMENT * np.arange(RAYS)
COS: Floats = np.cos(_ANGLES).astype(np.float32)
SIN: Floats = np.sin(_ANGLES).astype(np.float32)
NEVER, TINY = np.float32(1e30), np.float32(1e-12)
ZERO = np.float32(0.0)
SENSOR, STRIDE = 0x6C62272E, 0x9E3779B9  # the key of a scan's noise; what sets two rays' words apart


def bounds(reach: float, farthest: float) -> tuple[Bounds, Bounds]:
    """Lowest and highest values [ENTRIES]; farthest: of the goal."""
    high = np.array([reach] * RAYS + [farthest, 1.0, 1.0, FASTEST, TURN], np.float32)
    low = np.array([0.0] * RAYS + [0.0, -1.0, -1.0, SLOWEST, -TURN], np.float32)
    return low.astype(np.float64), high.astype(np.float64)


@compiled
def scan(
    low: int, high: int, reach: float, noise: float, dropout: float, size: float, boxes: Floats, circles: Floats,
    near: Bytes, cell: float, robot: Floats, count: Ints, out: Floats,
) -> None:  # fmt: skip
    """Write out [N, ENTRIES] of the lanes low .. high - 1; the rest as for `robots.drive`."""
    dx, dy, chance = np.empty(RAYS, np.float32), np.empty(RAYS, np.float32), np.empty(RAYS, np.uint32)
    inverse_x, inverse_y = np.empty(RAYS, np.float32), np.empty(RAYS, np.float32)
    for lane in range(low, high):
        me, row = robot[lane], out[lane]
        cos, sin = np.float32(math.cos(me[THETA])), np.float32(math.sin(me[THETA]))
        for k in range(RAYS):
            dx[k], dy[k] = cos * COS[k] - sin * SIN[k], sin * COS[k] + cos * SIN[k]
        if len(near):
            for k in range(RAYS):
                row[k] = _march(me[X], me[Y], dx[k], dy[k], reach, near, cell)
        else:
            _walls(
                me[X],
                me[Y],
                dx,
                dy,
                inverse_x,
                inverse_y,
                np.float32(size),
                np.float32(reach),
                boxes[lane],
                row,
            )
        _circles(me[X], me[Y], dx, dy, np.float32(reach), circles[lane], row)
        word = mix(count[lane, CHANCE] ^ mix(SENSOR ^ count[lane, STEPS]))
        _blur(word, np.float32(reach), noise, dropout, chance, row)
        x, y = me[GOAL_X] - me[X], me[GOAL_Y] - me[Y]
        length = math.sqrt(x * x + y * y)
        row[RAYS], row[RAYS + 1], row[RAYS + 2] = length, 0.0, 0.0
        if length > 0:
            row[RAYS + 1] = min(max((cos * x + sin * y) / length, -1.0), 1.0)
            row[RAYS + 2] = min(max((cos * y - sin * x) / length, -1.0), 1.0)
        row[RAYS + 3], row[RAYS + 4] = me[V], me[W]


@compiled
def _walls(
    x: Number, y: Number, dx: Floats, dy: Floats, inverse_x: Floats, inverse_y: Floats, size: Number, reach: Number,
    boxes: Floats, row: Floats,
) -> None:  # fmt: skip
    """Distances to the room's walls and to the boxes in it; the inverses of dx and dy are written on the way."""
    one = np.float32(1.0)
    for k in range(RAYS):
        # a direction along an axis meets the other axis' walls very far away
        inverse_x[k] = one / (dx[k] if abs(dx[k]) > TINY else TINY)
        inverse_y[k] = one / (dy[k] if abs(dy[k]) > TINY else TINY)
        tx = ((size if inverse_x[k] > ZERO else ZERO) - x) * inverse_x[k]
        ty = ((size if inverse_y[k] > ZERO else ZERO) - y) * inverse_y[k]
        row[k] = tx if tx < ty else ty
    for i in range(len(boxes)):
        x0, y0, x1, y1 = boxes[i, 0] - x, boxes[i, 1] - y, boxes[i, 2] - x, boxes[i, 3] - y
        aside, beside = max(x0, -x1, ZERO), max(y0, -y1, ZERO)
        if aside * aside + beside * beside > reach * reach:
            continue
        for k in range(RAYS):
            ax, bx, ay, by = x0 * inverse_x[k], x1 * inverse_x[k], y0 * inverse_y[k], y1 * inverse_y[k]
            enter_x, leave_x = (ax, bx) if ax < bx else (bx, ax)
            enter_y, leave_y = (ay, by) if ay < by else (by, ay)
            enter = enter_x if enter_x > enter_y else enter_y
            leave = leave_x if leave_x < leave_y else leave_y
            found = enter if (enter <= leave) & (enter > ZERO) else NEVER
            row[k] = found if found < row[k] else row[k]


@compiled
def _circles(
    x: Number, y: Number, dx: Floats, dy: Floats, reach: Number, circles: Floats, row: Floats
) -> None:
    """Distances to circles, where they are nearer than those in `row`."""
    for i in range(len(circles)):
        cx, cy, radius = circles[i, 0] - x, circles[i, 1] - y, circles[i, 2]
        square = cx * cx + cy * cy
        if square > (reach + radius) * (reach + radius):
            continue
        gap = square - radius * radius
        for k in range(RAYS):
            along = dx[k] * cx + dy[k] * cy
            inside = along * along - gap
            root = np.sqrt(inside if inside > ZERO else ZERO)
            found = along - root if (inside >= ZERO) & (along > ZERO) else NEVER
            found = found if found > ZERO else ZERO
            row[k] = found if found < row[k] else row[k]


@compiled
def _march(x: float, y: float, dx: float, dy: float, reach: float, near: Bytes, cell: float) -> float:
    """The distance to a map's wall, from one square of free cells to the next.

    near [lines, columns]: 0 for a wall; k: no wall in the square of 2 k - 1 cells around this one.
    """
    px, py, most = x / cell, y / cell, reach / cell
    i, j, t = math.floor(px), math.floor(py), 0.0
    while t < most:
        k = near[j, i]
        if k == 0:
            return t * cell
        tx = ty = math.inf
        if dx != 0.0:
            tx = ((i + k if dx > 0 else i - k + 1) - px) / dx
        if dy != 0.0:
            ty = ((j + k if dy > 0 else j - k + 1) - py) / dy
        if tx < ty:
            t = tx
            beside = math.floor(py + t * dy)
            i, j = (i + k if dx > 0 else i - k), min(max(beside, j - k + 1), j + k - 1)
        else:
            t = ty
            beside = math.floor(px + t * dx)
            i, j = min(max(beside, i - k + 1), i + k - 1), (j + k if dy > 0 else j - k)
    return reach


@compiled
def _blur(word: int, reach: Number, noise: float, dropout: float, chance: Words, row: Floats) -> None:
    """Noise, lost rays, and the sensor's range: the last ten bits of a ray's word and the others. chance: scratch."""
    for k in range(RAYS):  # `chance.mix` in 32 bits, of which a processor does eight at once
        x = np.uint32(word) ^ np.uint32(STRIDE * (k + 1) & WORD)
        x ^= x >> np.uint32(16)
        x = np.uint32(x * np.uint32(0x7FEB352D))
        x ^= x >> np.uint32(15)
        x = np.uint32(x * np.uint32(0x846CA68B))
        chance[k] = x ^ x >> np.uint32(16)
    lost, spread = np.uint32(int(dropout * ((WORD + 1) // QUANTILES))), np.float32(noise)
    for k in range(RAYS):
        found = row[k] + spread * NORMAL[chance[k] & np.uint32(QUANTILES - 1)]
        found = found if found > ZERO else ZERO
        found = found if row[k] < reach else reach
        found = found if found < reach else reach
        row[k] = reach if chance[k] // np.uint32(QUANTILES) < lost else found
