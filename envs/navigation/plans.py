"""Robots and their worlds from above, for people."""

from __future__ import annotations

import math

import numpy as np

from rlkit.envs.navigation.cells import Bools, Bytes, Floats
from rlkit.envs.navigation.robots import GOAL_X, GOAL_Y, RADIUS, REACH, THETA, X, Y
from rlkit.envs.navigation.scans import COS, RAYS, SIN

SIDE = 480  # pixels of the longer side
FLOOR, WALL, PILLAR, ROBOT, NOSE = (
    (245, 245, 245),
    (90, 90, 90),
    (120, 110, 160),
    (40, 90, 200),
    (255, 255, 255),
)
GOAL, RAY = (60, 170, 80), (220, 60, 50)


def plan(
    robot: Floats, boxes: Floats, circles: Floats, row: Floats, size: float, near: Bytes, cell: float
) -> Bytes:
    """A picture [h, w, 3] of a lane; row: its observation."""
    wide, high = (near.shape[1] * cell, near.shape[0] * cell) if near.size else (size, size)
    scale = max(wide, high) / SIDE  # metres a pixel
    columns, lines = max(round(wide / scale), 1), max(round(high / scale), 1)
    x, y = (np.arange(columns) + 0.5) * scale, ((np.arange(lines)[::-1] + 0.5) * scale)[:, None]
    picture = np.full((lines, columns, 3), FLOOR, np.uint8)
    if near.size:
        i, j = (x / cell).astype(int), (y / cell).astype(int)
        walls = near[j.clip(max=near.shape[0] - 1), i.clip(max=near.shape[1] - 1)] == 0
        picture[walls] = WALL
    for x0, y0, x1, y1 in boxes:
        picture[(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)] = WALL

    def disc(at_x: float, at_y: float, radius: float) -> Bools:
        inside: Bools = (x - at_x) ** 2 + (y - at_y) ** 2 <= radius**2
        return inside

    for circle in circles:
        picture[disc(circle[0], circle[1], circle[2])] = PILLAR
    picture[disc(robot[GOAL_X], robot[GOAL_Y], REACH)] = GOAL
    cos, sin = math.cos(robot[THETA]), math.sin(robot[THETA])
    ends_x = robot[X] + row[:RAYS] * (cos * COS - sin * SIN)
    ends_y = robot[Y] + row[:RAYS] * (sin * COS + cos * SIN)
    i, j = (ends_x / scale).astype(int), lines - 1 - (ends_y / scale).astype(int)
    seen = (i >= 0) & (i < columns) & (j >= 0) & (j < lines)
    picture[j[seen], i[seen]] = RAY
    picture[disc(robot[X], robot[Y], RADIUS)] = ROBOT
    picture[disc(robot[X] + 0.12 * cos, robot[Y] + 0.12 * sin, 0.06)] = NOSE
    return picture
