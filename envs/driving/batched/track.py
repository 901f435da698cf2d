"""Tracks: a closed road through random checkpoints, the same as that of Gymnasium's CarRacing-v3 for the same seed.

The rules (gymnasium/envs/box2d/car_racing.py, O. Klimov; lengths in world units, angles in radians):

    checkpoint c = 0 .. 11   at the polar angle 2 pi c / 12 + u, u ~ U(0, 2 pi / 12), and the radius ~ U(50, 150);
                             the first and the last at 2 pi c / 12 exactly and the radius 225
    a pen    starts at (225, 0) with heading beta = 0, draws in the direction (-sin beta, cos beta), in steps of 3.5,
             and turns towards the first checkpoint that its own polar angle alpha has not passed, by at most 0.31
             per step: by 0.001 times six times the distance that the checkpoint lies aside
    the lap  is what lies between the last two crossings of the polar angle -2 pi / 24, after more than four turns;
             an attempt is given up where there are no two, or where the ends lie more than a step apart, along the
             first one's perpendicular
    tile i   spans the points i - 1 and i of the lap, 40/6 to either side of them
    kerb     red and white, 8/6 wide, on the outside of tile i: on the last of four bends in a row of more than
             0.2 * 0.31 to one side, and on the three tiles before it

Numbers are drawn by NumPy's PCG64, 24 per attempt, in Gymnasium's order; everything after them is machine code, with
the same operations in the same order, so points agree to the last bit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled

Floats = npt.NDArray[np.float64]

SCALE = 6.0
RADIUS = 900 / SCALE  # of the circle that tracks are drawn around
PLAYFIELD = 2000 / SCALE  # beyond it, in x or in y, a car is lost
STEP = 21 / SCALE  # between two points of the road
TURN = 0.31  # the most that the road bends in a step
WIDTH = 40 / SCALE  # from the road's middle to its edge
KERB = 8 / SCALE  # the width of a kerb
KERB_TILES = 4
GRASS = PLAYFIELD / 20.0  # side of a square of the lawn
CHECKPOINTS = 12
LIMIT = 2500  # points that an attempt may take
START = 2 * math.pi * (-0.5) / CHECKPOINTS  # the polar angle where a lap begins
TILES = 512  # the most tiles of a track: of 20,000 seeds the longest has 389; longer laps count as failed attempts


class Tracks:
    """The tracks of N lanes, at most TILES points each.

    count [N]; path [N, TILES, 3]: heading beta, x, y of each point; edge [N, TILES, 2, 2]: x and y of the road's left
    and right edge there; kerb [N, TILES]: 0, or the side of tile i that has one (-1 left, 1 right).
    """

    def __init__(self, lanes: int) -> None:
        self.count = np.zeros(lanes, np.int64)
        self.path = np.zeros((lanes, TILES, 3))
        self.edge = np.zeros((lanes, TILES, 2, 2))
        self.kerb = np.zeros((lanes, TILES), np.int8)

    def open(self, lane: int, seed: int) -> None:
        """Lay the track that CarRacing-v3's reset(seed=seed) makes."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        count = 0
        while not count:
            drawn = generator.uniform(
                (0.0, RADIUS / 3), (2 * math.pi * 1 / CHECKPOINTS, RADIUS), (CHECKPOINTS, 2)
            )
            count = lay(drawn, self.path[lane], self.edge[lane], self.kerb[lane])
        self.count[lane] = count


@compiled
def lay(drawn: Floats, path: Floats, edge: Floats, kerb: npt.NDArray[np.int8]) -> int:
    """One attempt with the checkpoints' angles and radii `drawn` [12, 2]: the number of points, 0 where it failed."""
    pen = np.empty((LIMIT, 4))
    steps = _draw(drawn, pen)
    begin, end = _lap(pen, steps)
    count = end - 1 - begin
    if count <= 0 or count > TILES:
        return 0
    lap = pen[begin : begin + count]
    # the ends' distance, each axis weighed by the first heading
    dx = math.cos(lap[0, 1]) * (lap[0, 2] - lap[count - 1, 2])
    dy = math.sin(lap[0, 1]) * (lap[0, 3] - lap[count - 1, 3])
    if math.sqrt(dx * dx + dy * dy) > STEP:
        return 0
    for i in range(count):
        beta, x, y = lap[i, 1], lap[i, 2], lap[i, 3]
        path[i, 0], path[i, 1], path[i, 2] = beta, x, y
        wide, high = WIDTH * math.cos(beta), WIDTH * math.sin(beta)
        edge[i, 0, 0], edge[i, 0, 1] = x - wide, y - high
        edge[i, 1, 0], edge[i, 1, 1] = x + wide, y + high
    _kerbs(path, count, kerb)
    return count


@compiled
def _draw(drawn: Floats, pen: Floats) -> int:
    """Rows (alpha, beta, x, y) of the pen; returns how many."""
    angle, goal = np.empty(CHECKPOINTS), np.empty((CHECKPOINTS, 2))
    for c in range(CHECKPOINTS):
        angle[c], radius = 2 * math.pi * c / CHECKPOINTS + drawn[c, 0], drawn[c, 1]
        if c == 0 or c == CHECKPOINTS - 1:
            angle[c], radius = 2 * math.pi * c / CHECKPOINTS, 1.5 * RADIUS
        goal[c, 0], goal[c, 1] = radius * math.cos(angle[c]), radius * math.sin(angle[c])
    x, y, beta = 1.5 * RADIUS, 0.0, 0.0
    turns, next_ = 0, 0
    below = False  # whether the pen was below the x axis since it last crossed it upwards
    for step in range(LIMIT):
        alpha = math.atan2(y, x)
        if below and alpha > 0:
            turns += 1
            below = False
        if alpha < 0:
            below = True
            alpha += 2 * math.pi
        while alpha > angle[next_]:
            next_ = (next_ + 1) % CHECKPOINTS
            if next_ == 0:
                alpha -= 2 * math.pi
        cos, sin = math.cos(beta), math.sin(beta)
        aside = cos * (goal[next_, 0] - x) + sin * (goal[next_, 1] - y)
        while beta - alpha > 1.5 * math.pi:
            beta -= 2 * math.pi
        while beta - alpha < -1.5 * math.pi:
            beta += 2 * math.pi
        before = beta
        aside *= SCALE
        if aside > 0.3:
            beta -= min(TURN, abs(0.001 * aside))
        if aside < -0.3:
            beta += min(TURN, abs(0.001 * aside))
        x += -sin * STEP
        y += cos * STEP
        pen[step, 0], pen[step, 1], pen[step, 2], pen[step, 3] = alpha, before * 0.5 + beta * 0.5, x, y
        if turns > 4:
            return step + 1
    return LIMIT


@compiled
def _lap(pen: Floats, steps: int) -> tuple[int, int]:
    """The last two steps that cross the start's polar angle, (0, 0) where there are no two."""
    end = 0
    for i in range(steps - 1, 0, -1):
        if pen[i, 0] > START and pen[i - 1, 0] <= START:
            if end:
                return i, end
            end = i
    return 0, 0


@compiled
def _kerbs(path: Floats, count: int, kerb: npt.NDArray[np.int8]) -> None:
    """Fill kerb [count]."""
    hard = np.zeros(count, np.bool_)
    for i in range(count):
        side, good = 0, True
        for j in range(KERB_TILES):
            bend = path[(i - j) % count, 0] - path[(i - j - 1) % count, 0]
            good = good and abs(bend) > TURN * 0.2
            side += (bend > 0) - (bend < 0)
        hard[i] = good and abs(side) == KERB_TILES
    for i in range(count):
        if hard[i]:  # and so on backwards: tiles marked here mark others when their turn comes
            for j in range(KERB_TILES):
                hard[(i - j) % count] = True
    for i in range(count):
        bend = path[(i - 1) % count, 0] - path[i, 0]
        kerb[i] = ((bend > 0) - (bend < 0)) if hard[i] else 0
