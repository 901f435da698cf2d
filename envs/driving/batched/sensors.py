"""What a driver could measure: the batched environment's vector observation.

Lengths are world units (the road is 13.3 wide), speeds units/s, angles radians, positive to the left. With R rays:

    entry            what                                                            unit            bounds
    0 .. R-1         distance to the nearest line of the road's edge along a ray,    60              0, 1
                     1 where there is none nearer; from 120 degrees right to left
    R                speed forwards, of the hull's origin                            50              -2, 2
    R+1              speed to the right                                              50              -2, 2
    R+2              yaw rate                                                        5 rad/s         -4, 4
    R+3              steering angle of the front left wheel                          0.4 rad         -2, 2
    R+4 .. R+7       rim speed of the wheels: front left, right, rear left, right    50              -4, 4
    R+8 .. R+11      whether these stand on the road                                 1               0, 1
    R+12             distance from the road's middle, positive to the right          20/3            -10, 10
    R+13, R+14       sine and cosine of the heading beyond the road's own            1               -1, 1
    R+15 .. R+20     the road's curvature 0, 7, 14, 21, 35 and 49 units ahead        0.31 / 3.5      -1, 1

The edge lines are those of all tiles: where the road comes back beside itself, a ray ends at the nearest line. Middle,
heading and curvature are of the track's point that is nearest to the hull's origin and of those after it; curvature is
the change of heading over the two steps around a point. Values beyond their bounds are cut off.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.driving.batched.track import STEP, TURN, WIDTH, Floats
from rlkit.envs.driving.batched.tyres import CENTRE, LOCK, TYRE, Cars

RANGE = 60.0
SPEED, SPIN = 50.0, 5.0  # what counts as 1
SWEEP = math.radians(240.0)
AHEAD = (0, 2, 4, 6, 10, 14)  # points of the track, 3.5 units apart
OTHERS = 15 + len(AHEAD)  # entries that are no rays


def bounds(rays: int) -> tuple[Floats, Floats]:
    """Lowest and highest values [rays + OTHERS]."""
    high = np.array([1.0] * rays + [2, 2, 4, 2] + [4] * 4 + [1] * 4 + [10, 1, 1] + [1] * len(AHEAD))
    low = -high
    low[:rays] = 0.0
    low[rays + 8 : rays + 12] = 0.0
    return low, high


def directions(rays: int) -> Floats:
    """Angles of the rays from straight ahead [rays], positive to the left; a single ray looks ahead."""
    return np.linspace(-SWEEP / 2, SWEEP / 2, rays) if rays > 1 else np.zeros(rays)


@compiled
def sense(
    cars: Cars, path: Floats, edge: Floats, count: npt.NDArray[np.int64],
    low: int, high: int, ray: Floats, least: Floats, most: Floats, out: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Write the observations of the lanes low .. high - 1 into out [N, rays + OTHERS].

    ray: directions [rays]; least, most: bounds.
    """
    rays = len(ray)
    reading = np.empty(len(least))
    for n in range(low, high):
        car = cars[n]
        cos, sin = math.cos(car.angle), math.sin(car.angle)
        armx, army = cos * CENTRE[0] - sin * CENTRE[1], sin * CENTRE[0] + cos * CENTRE[1]
        x, y = car.x - armx, car.y - army
        _scan(x, y, car.angle, edge[n], count[n], ray, reading)
        vx, vy = car.vx + car.spin * army, car.vy - car.spin * armx  # V + Omega x r, r = -arm
        reading[rays] = (-sin * vx + cos * vy) / SPEED
        reading[rays + 1] = (cos * vx + sin * vy) / SPEED
        reading[rays + 2] = car.spin / SPIN
        reading[rays + 3] = car.joint[0] / LOCK
        for i in range(4):
            reading[rays + 4 + i] = TYRE * car.omega[i] / SPEED
            reading[rays + 8 + i] = 1.0 if car.road[i] else 0.0
        _follow(x, y, car.angle, path[n], count[n], reading[rays + 12 :])
        for k in range(len(reading)):
            out[n, k] = min(max(reading[k], least[k]), most[k])


@compiled
def _follow(x: float, y: float, angle: float, path: Floats, count: int, out: Floats) -> None:
    """Where the car is on the road, and how that goes on."""
    nearest, best = 0, math.inf
    for i in range(count):
        dx, dy = x - path[i, 1], y - path[i, 2]
        if dx * dx + dy * dy < best:
            nearest, best = i, dx * dx + dy * dy
    beta = path[nearest, 0]
    out[0] = ((x - path[nearest, 1]) * math.cos(beta) + (y - path[nearest, 2]) * math.sin(beta)) / WIDTH
    out[1], out[2] = math.sin(angle - beta), math.cos(angle - beta)
    for k in range(len(AHEAD)):
        i = nearest + AHEAD[k]
        bend = path[(i + 1) % count, 0] - path[(i - 1) % count, 0]
        bend -= 2 * math.pi * math.floor(bend / (2 * math.pi) + 0.5)  # headings may differ by whole turns
        out[3 + k] = bend / (2 * STEP) / (TURN / STEP)


@compiled
def _scan(x: float, y: float, angle: float, edge: Floats, count: int, ray: Floats, out: Floats) -> None:
    """The rays' distances over RANGE."""
    direction = np.empty((len(ray), 2))
    for r in range(len(ray)):
        direction[r, 0], direction[r, 1] = -math.sin(angle + ray[r]), math.cos(angle + ray[r])
        out[r] = RANGE
    reach = RANGE + 2 * STEP
    for i in range(count):
        j = i - 1 if i else count - 1
        for side in range(2):
            px, py = edge[j, side, 0] - x, edge[j, side, 1] - y
            if px * px + py * py > reach * reach:
                continue
            dx, dy = edge[i, side, 0] - edge[j, side, 0], edge[i, side, 1] - edge[j, side, 1]
            across = px * dy - py * dx
            for r in range(len(ray)):
                # p + s d = t u:  t = p x d / u x d,  s = p x u / u x d
                ux, uy = direction[r, 0], direction[r, 1]
                turn = ux * dy - uy * dx
                if turn == 0.0:
                    continue
                t, s = across / turn, (px * uy - py * ux) / turn
                if 0.0 <= s <= 1.0 and 0.0 <= t < out[r]:
                    out[r] = t
    for r in range(len(ray)):
        out[r] /= RANGE
