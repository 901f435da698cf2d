"""What a driver of CarRacing's roads could be told: a mask of the picture, where the car stands, a driver by hand.

The same machine code serves `rlkit/Driving`, all lanes at once, and CarRacing, as one lane. A lane's car is given as

    body    [5, 4]   x, y, sine and cosine of the angle of the wheels (front left, right, rear left, right) and the hull
    motion  [3]      speed forwards (m/s), yaw rate (rad/s, positive to the left), seconds since the episode began

and its road as in `rlkit.envs.driving.batched.track.Tracks`: path, edge, kerb, count. Lengths are metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.driving.batched.paint import fill
from rlkit.envs.driving.batched.track import KERB as KERB_WIDTH
from rlkit.envs.driving.batched.track import STEP, WIDTH, Floats
from rlkit.envs.driving.batched.tyres import ARMS, CENTRE, HULL, LOCK, OUTLINES, TREAD, Cars
from rlkit.spaces import Array, Box

Bytes = npt.NDArray[np.uint8]
Kerbs = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

GRASS, ROAD, CAR, KERB, PANEL = range(5)  # what a pixel shows
WINDOW_W, WINDOW_H, BAR = (
    1000.0,
    800.0,
    700.0,
)  # the picture before it is shrunk, and the row where the panel begins
ZOOM_FAR, ZOOM_NEAR = 0.6, 16.2
POSE = 7  # numbers of a pose
AHEAD = (
    2,
    6,
    12,
)  # points of the road, 3.5 m apart, at which a pose tells its curvature: 7, 21 and 42 m ahead
SPAN = 2  # points to either side over which that is measured
TILES_AHEAD = 6  # tiles that are boxed
AXLES = 162 * 0.02  # metres between the front and the rear wheels

# The driver by hand steers for the point of the road that is LOOK + LOOK_SPEED * speed metres away (pure pursuit),
# against DAMPING times the yaw rate, at the highest speed from which braking with SLOWING m/s2 makes every bend of the
# next REACH points take at most PULL m/s2 sideways. GAS and BRAKE are what a difference of 1 m/s in speed is worth;
# full steering takes EASE of the gas away.
LOOK, LOOK_SPEED, DAMPING = 6.0, 0.25, 0.06
PULL, SLOWING, FASTEST, REACH = 120.0, 60.0, 80.0, 40
GAS, BRAKE, HARDEST, EASE = 0.15, 0.05, 0.8, 0.8


@compiled
def stand(cars: Cars, low: int, high: int, body: Floats, motion: Floats) -> None:
    """Fill body [N, 5, 4] and motion [N, 3] of the batched environment's cars low .. high - 1."""
    for n in range(low, high):
        car = cars[n]
        cos, sin = math.cos(car.angle), math.sin(car.angle)
        for i in range(4):
            turned = car.angle + car.joint[i]
            body[n, i, 0] = car.x + cos * ARMS[i, 0] - sin * ARMS[i, 1]
            body[n, i, 1] = car.y + sin * ARMS[i, 0] + cos * ARMS[i, 1]
            body[n, i, 2], body[n, i, 3] = math.sin(turned), math.cos(turned)
        body[n, 4, 0] = car.x - (cos * CENTRE[0] - sin * CENTRE[1])
        body[n, 4, 1] = car.y - (sin * CENTRE[0] + cos * CENTRE[1])
        body[n, 4, 2], body[n, 4, 3] = sin, cos
        motion[n, 0], motion[n, 1] = -sin * car.vx + cos * car.vy, car.spin
        motion[n, 2] = car.frame / 50.0


@compiled
def paint(
    low: int, high: int, body: Floats, motion: Floats, edge: Floats, kerb: Kerbs, count: Ints, out: Bytes
) -> None:
    """Write out [N, H, W]: what the picture shows at the middle of each pixel, drawn in the picture's order."""
    height, width = out.shape[1:]
    points, view = np.empty((8, 2)), np.empty(6)
    left, right = np.empty(height, np.int64), np.empty(height, np.int64)
    rows = max(math.ceil(BAR * height / WINDOW_H - 0.5), 0)
    for n in range(low, high):
        reach = _view(body[n, 4], motion[n, 2], height, width, view) + WIDTH + KERB_WIDTH + STEP
        canvas = out[n, :rows]
        canvas[:] = GRASS
        out[n, rows:] = PANEL
        for i in range(count[n]):
            j = i - 1 if i else count[n] - 1
            mx, my = 0.5 * (edge[n, i, 0, 0] + edge[n, i, 1, 0]), 0.5 * (edge[n, i, 0, 1] + edge[n, i, 1, 1])
            if (mx - body[n, 4, 0]) ** 2 + (my - body[n, 4, 1]) ** 2 > reach * reach:
                continue
            _tile(points, view, edge[n, i], edge[n, j])
            fill(canvas, points, 4, ROAD, left, right)
            if kerb[n, i]:
                side = 1 if kerb[n, i] > 0 else 0
                _beside(points, view, edge[n, i], side, 0)
                _beside(points, view, edge[n, j], side, 1)
                fill(canvas, points, 4, KERB, left, right)
        for i in range(4):
            for k in range(4):
                _part(points, k, view, body[n, i], TREAD[k])
            fill(canvas, points, 4, CAR, left, right)
        for part in range(4):
            size = OUTLINES[part + 1] - OUTLINES[part]
            for k in range(size):
                _part(points, k, view, body[n, 4], HULL[OUTLINES[part] + k])
            fill(canvas, points, size, CAR, left, right)


@compiled
def _view(hull: Floats, clock: float, height: float, width: float, view: Floats) -> float:
    """Fill view [6], column = a x + b y + c and row = d x + e y + f; returns how far the picture reaches in metres."""
    sx, sy = width / WINDOW_W, height / WINDOW_H
    zoom = ZOOM_FAR * max(1.0 - clock, 0.0) + ZOOM_NEAR * min(clock, 1.0)
    x, y, sin, cos = hull[0], hull[1], hull[2], hull[3]
    a, b, d, e = zoom * cos * sx, zoom * sin * sx, zoom * sin * sy, -zoom * cos * sy
    view[0], view[1], view[2] = a, b, 0.5 * width - a * x - b * y
    view[3], view[4], view[5] = d, e, 0.75 * height - d * x - e * y
    return math.sqrt(500.0 * 500.0 + 600.0 * 600.0) / zoom


@compiled
def _see(points: Floats, k: int, view: Floats, x: float, y: float) -> None:
    """Point k is where (x, y) of the world lies in the picture."""
    points[k, 0] = view[0] * x + view[1] * y + view[2]
    points[k, 1] = view[3] * x + view[4] * y + view[5]


@compiled
def _part(points: Floats, k: int, view: Floats, body: Floats, point: Floats) -> None:
    """Point k is where a point of a body lies in the picture."""
    x = body[0] + body[3] * point[0] - body[2] * point[1]
    y = body[1] + body[2] * point[0] + body[3] * point[1]
    _see(points, k, view, x, y)


@compiled
def _tile(points: Floats, view: Floats, edge: Floats, before: Floats) -> None:
    """The tile between two points of the road."""
    _see(points, 0, view, edge[0, 0], edge[0, 1])
    _see(points, 1, view, edge[1, 0], edge[1, 1])
    _see(points, 2, view, before[1, 0], before[1, 1])
    _see(points, 3, view, before[0, 0], before[0, 1])


@compiled
def _beside(points: Floats, view: Floats, edge: Floats, side: int, end: int) -> None:
    """One end of a kerb: from the road's edge outwards (points 0 and 1, or 3 and 2)."""
    outer = (WIDTH + KERB_WIDTH) / WIDTH
    ex, ey = edge[side, 0], edge[side, 1]
    mx, my = 0.5 * (edge[0, 0] + edge[1, 0]), 0.5 * (edge[0, 1] + edge[1, 1])
    _see(points, 3 * end, view, ex, ey)
    _see(points, 1 + end, view, mx + (ex - mx) * outer, my + (ey - my) * outer)


@compiled
def box(
    low: int, high: int, body: Floats, motion: Floats, path: Floats, edge: Floats, count: Ints, out: Singles
) -> None:
    """Write out [N, K, 5] of the next K tiles: left, top, right, bottom as shares of the picture's sides, and 1.

    All are 0 where nothing of a tile is seen.
    """
    points, view, bottom = np.empty((8, 2)), np.empty(6), BAR / WINDOW_H
    for n in range(low, high):
        _view(body[n, 4], motion[n, 2], 1.0, 1.0, view)
        nearest = _nearest(body[n, 4, 0], body[n, 4, 1], path[n], count[n])
        for k in range(out.shape[1]):
            _tile(points, view, edge[n, (nearest + k + 1) % count[n]], edge[n, (nearest + k) % count[n]])
            columns, rows = points[:4, 0], points[:4, 1]
            left, right = max(columns.min(), 0.0), min(columns.max(), 1.0)
            top, end = max(rows.min(), 0.0), min(rows.max(), bottom)
            out[n, k] = 0.0
            if right > left and end > top:
                out[n, k, 0], out[n, k, 1], out[n, k, 2], out[n, k, 3], out[n, k, 4] = (
                    left,
                    top,
                    right,
                    end,
                    1.0,
                )


@compiled
def _nearest(x: float, y: float, path: Floats, count: int) -> int:
    """The point of the road that is nearest to (x, y)."""
    nearest, best = 0, math.inf
    for i in range(count):
        dx, dy = x - path[i, 1], y - path[i, 2]
        if dx * dx + dy * dy < best:
            nearest, best = i, dx * dx + dy * dy
    return nearest


@compiled
def _bend(path: Floats, count: int, i: int) -> float:
    """The road's curvature at point i in 1/m, positive to the left: its turn over the points around."""
    turn = _turned(path[(i + SPAN) % count, 0] - path[(i - SPAN) % count, 0])
    return turn / (2 * SPAN * STEP)


@compiled
def _turned(angle: float) -> float:
    """An angle within half a turn of 0."""
    return angle - 2 * math.pi * math.floor(angle / (2 * math.pi) + 0.5)


@compiled
def locate(
    low: int, high: int, body: Floats, motion: Floats, path: Floats, count: Ints, out: Singles
) -> None:
    """Write out [N, POSE]: the pose of the hull on the road."""
    for n in range(low, high):
        x, y, sin, cos = body[n, 4, 0], body[n, 4, 1], body[n, 4, 2], body[n, 4, 3]
        nearest = _nearest(x, y, path[n], count[n])
        beta = path[n, nearest, 0]
        dx, dy = x - path[n, nearest, 1], y - path[n, nearest, 2]
        out[n, 0] = dx * math.cos(beta) + dy * math.sin(beta)
        out[n, 1] = _turned(math.atan2(sin, cos) - beta)
        out[n, 2], out[n, 3] = motion[n, 0], motion[n, 1]
        for k in range(len(AHEAD)):
            out[n, 4 + k] = _bend(path[n], count[n], nearest + AHEAD[k])


@compiled
def pursue(
    low: int, high: int, body: Floats, motion: Floats, path: Floats, count: Ints, out: Singles
) -> None:
    """Write out [N, 3]: the driver's steering (right is positive), gas and brake."""
    for n in range(low, high):
        x, y, sin, cos = body[n, 4, 0], body[n, 4, 1], body[n, 4, 2], body[n, 4, 3]
        speed, spin, road, size = motion[n, 0], motion[n, 1], path[n], count[n]
        nearest = _nearest(x, y, road, size)
        look, aside, far = LOOK + LOOK_SPEED * max(speed, 0.0), 0.0, 1.0
        for k in range(1, size):
            i = (nearest + k) % size
            dx, dy = road[i, 1] - x, road[i, 2] - y
            far = math.sqrt(dx * dx + dy * dy)
            if far >= look:
                aside = cos * dx + sin * dy
                if (
                    cos * dy - sin * dx < 0.0
                ):  # behind: turn as sharply as a point straight to the side asks for
                    aside = math.copysign(far, aside)
                break
        # the circle that leaves along the heading and meets the point has the curvature 2 aside / far^2
        steer = math.atan(AXLES * 2.0 * aside / (far * far)) / LOCK + DAMPING * spin
        steer = min(max(steer, -1.0), 1.0)
        # v^2 = PULL / curvature there, + 2 SLOWING * distance here
        target = FASTEST
        for k in range(REACH):
            bend = max(abs(_bend(road, size, nearest + k)), 1e-4)
            target = min(target, math.sqrt(PULL / bend + 2.0 * SLOWING * STEP * max(k - 1, 0)))
        out[n, 0] = steer
        out[n, 1] = min(max(GAS * (target - speed), 0.0), 1.0) * (1.0 - EASE * abs(steer))
        out[n, 2] = min(max(BRAKE * (speed - target), 0.0), HARDEST)


OFFERED = ("mask", "pose", "boxes", "expert")


@dataclass(frozen=True)
class Road:
    """The roads of N lanes, as `track.Tracks` has them."""

    path: Floats
    edge: Floats
    kerb: Kerbs
    count: Ints


def road_spaces(shape: tuple[int, ...], action: Box) -> dict[str, Box]:
    """The space of every label; shape: rows and columns of the picture; action: the driver's."""
    return {
        "mask": Box(shape, "uint8", 0.0, float(PANEL), meaning="codes"),
        "pose": Box((POSE,), "float32"),
        "boxes": Box((TILES_AHEAD, 5), "float32", 0.0, 1.0),
        "expert": action,
    }


def written(rows: dict[str, Array], low: int, high: int, body: Floats, motion: Floats, track: Road) -> None:
    """Write those of the labels that `rows` [N, ...] has room for, of lanes low .. high - 1."""
    path, edge, kerb, count = track.path, track.edge, track.kerb, track.count
    if "mask" in rows:
        paint(low, high, body, motion, edge, kerb, count, rows["mask"])
    if "pose" in rows:
        locate(low, high, body, motion, path, count, rows["pose"])
    if "boxes" in rows:
        box(low, high, body, motion, path, edge, count, rows["boxes"])
    if "expert" in rows:
        pursue(low, high, body, motion, path, count, rows["expert"])
