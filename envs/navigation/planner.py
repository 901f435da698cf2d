"""A planner by hand for `rlkit/Nav`, the baseline that a policy should beat: the dynamic window approach.

D. Fox, W. Burgard, S. Thrun, "The dynamic window approach to collision avoidance", 1997. It reads what a policy reads,
nothing else. Of the speeds that can be had within WINDOW seconds, V_CHOICES x W_CHOICES are tried: each is driven on an
arc for HORIZON seconds among the points where rays ended. Those that cannot stop before they come to touch one are left
out; of the others the one with the highest sum wins:

    PROGRESS     how much nearer the goal comes, of what full speed would make
    HEADING      how well the goal lies ahead where the arc ends, 0 to 1
    CLEARANCE    the least distance to a point on the way, 0 to 1 for 0 to AWARE metres
    SPEED        v, of the highest

Where none is left the robot brakes and turns. So that it does not stand before a wall with the goal behind it, it
steers for a point LOOK metres away (or as near as the goal) in the direction of a ray along which it would touch
nothing: the one that takes the least turning from the goal's direction, and BENT times as much from its own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import Floats
from rlkit.envs.navigation.robots import FASTEST, PUSH, RADIUS, REACH, SLOWEST, TURN, TWIST
from rlkit.envs.navigation.scans import ANGLE_INCREMENT, ANGLE_MIN, RAYS

Doubles = npt.NDArray[np.float64]
WINDOW, HORIZON, POINTS = 0.25, 2.5, 20
V_CHOICES, W_CHOICES = 7, 15
PROGRESS, HEADING, CLEARANCE, SPEED = 1.0, 0.4, 0.5, 0.2
AWARE, SPARE, LOOK, BENT = 0.6, 0.07, 2.0, 0.3  # metres; and a share
BRAKE = 0.6 * PUSH  # what it counts on to stop


def plan(rows: Floats, reach: float) -> Floats:
    """Commands [N, 2] for observations [N, ENTRIES]; reach: of the rays."""
    commands = np.zeros((len(rows), 2), np.float32)
    choose(np.ascontiguousarray(rows, np.float32), reach, commands)
    return commands


@compiled
def choose(rows: Floats, reach: float, commands: Floats) -> None:
    """Write commands [N, 2]."""
    xs, ys = np.empty(RAYS), np.empty(RAYS)
    for lane in range(len(rows)):
        row, count = rows[lane], 0
        for k in range(RAYS):
            if row[k] < reach and row[k] < FASTEST * HORIZON + AWARE + RADIUS:
                angle = ANGLE_MIN + ANGLE_INCREMENT * k
                xs[count], ys[count] = row[k] * math.cos(angle), row[k] * math.sin(angle)
                count += 1
        far = min(row[RAYS], LOOK)
        towards = _open_way(math.atan2(row[RAYS + 2], row[RAYS + 1]), far, xs[:count], ys[:count])
        goal_x, goal_y = far * math.cos(towards), far * math.sin(towards)
        v0, w0 = row[RAYS + 3], row[RAYS + 4]
        slowest, fastest = max(v0 - PUSH * WINDOW, SLOWEST), min(v0 + PUSH * WINDOW, FASTEST)
        right, left = max(w0 - TWIST * WINDOW, -TURN), min(w0 + TWIST * WINDOW, TURN)
        best, found_v, found_w = -math.inf, 0.0, w0
        if abs(v0) < 0.1:
            found_w = TURN if goal_y >= 0 else -TURN
        for a in range(V_CHOICES):
            v = slowest + (fastest - slowest) * a / (V_CHOICES - 1)
            v = v if abs(v) > 0.04 else 0.0
            for b in range(W_CHOICES):
                w = right + (left - right) * b / (W_CHOICES - 1)
                worth = _worth(v, w, goal_x, goal_y, far, xs[:count], ys[:count])
                if worth > best:
                    best, found_v, found_w = worth, v, w
        commands[lane, 0], commands[lane, 1] = found_v, found_w


@compiled
def _worth(v: float, w: float, goal_x: float, goal_y: float, far: float, xs: Doubles, ys: Doubles) -> float:
    """What an arc is worth; -inf for one that cannot stop in time."""
    x, y, theta, step = 0.0, 0.0, 0.0, HORIZON / POINTS
    nearest, clear = far, AWARE
    tight = min(_room(0.0, 0.0, xs, ys), 0.0)  # where it is too near already, it may go away from there
    for i in range(POINTS):
        middle = theta + w * step / 2
        x, y, theta = x + v * step * math.cos(middle), y + v * step * math.sin(middle), theta + w * step
        room = _room(x, y, xs, ys)
        if room < tight - 0.005 and v != 0.0:
            if v * v > 2 * BRAKE * abs(v) * step * i:
                return -math.inf
            break
        clear = min(clear, max(room, 0.0))
        left = math.sqrt((goal_x - x) ** 2 + (goal_y - y) ** 2)
        nearest = min(nearest, left)
        if left <= REACH:
            break
    ahead = (goal_x - x) * math.cos(theta) + (goal_y - y) * math.sin(theta)
    aside = (goal_y - y) * math.cos(theta) - (goal_x - x) * math.sin(theta)
    heading = 1.0 - abs(math.atan2(aside, ahead)) / math.pi
    near = (far - nearest) / (FASTEST * HORIZON)
    return PROGRESS * near + HEADING * heading + CLEARANCE * clear / AWARE + SPEED * v / FASTEST


@compiled
def _room(x: float, y: float, xs: Doubles, ys: Doubles) -> float:
    """How far the robot at (x, y) is from the nearest point, less what it keeps away."""
    least = math.inf
    for k in range(len(xs)):
        least = min(least, (xs[k] - x) ** 2 + (ys[k] - y) ** 2)
    return math.sqrt(least) - RADIUS - SPARE


@compiled
def _open_way(goal: float, far: float, xs: Doubles, ys: Doubles) -> float:
    """The direction to steer for; the goal's where none is open."""
    best, found = math.inf, goal
    for k in range(-1, RAYS):
        angle = goal if k < 0 else ANGLE_MIN + ANGLE_INCREMENT * k
        cos, sin, open_ = math.cos(angle), math.sin(angle), True
        for i in range(len(xs)):
            ahead, aside = xs[i] * cos + ys[i] * sin, ys[i] * cos - xs[i] * sin
            open_ &= not (0.0 < ahead < far and abs(aside) < RADIUS + SPARE)
        turned = angle - goal
        turned -= 2 * math.pi * math.floor(turned / (2 * math.pi) + 0.5)
        cost = abs(turned) + BENT * abs(angle)
        if open_ and cost < best:
            best, found = cost, angle
    return found
