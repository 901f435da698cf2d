"""A car with four tyres, as Gymnasium's CarRacing-v3 computes it, without a physics engine.

Per frame of dt = 1/50 s (gymnasium/envs/box2d/car_dynamics.py, O. Klimov; units: metres of the world, seconds, kg):

    steering  each wheel turns at sign(e) min(50 |e|, 3) rad/s, e = target - angle; the front wheels' target is -steer,
              the rear wheels' 0; a wheel that stands beyond +-0.4 rad turns no further
    gas       rises by at most 0.1 per frame, falls at once; rear wheels: omega += dt 40,000 gas / (1.6 (|omega| + 5))
    brake     |omega| falls by 15 brake, not below 0; from 0.9 on the wheel is blocked
    force     along the wheel 82 (0.54 omega - v_forward), across it -82 v_side; together at most 400 on road, 240 on
              grass (in this order: what slides along is lost across)
    wheel     omega -= dt 0.54 f_forward / 1.6

In Box2D the hull and the four wheels are five bodies, joined by motors of 65 Nm, which are never outrun, in joints
that are iterated 180 times. Here the joints hold exactly: one rigid body of the five masses about their common centre
(hull 7.06 kg, wheels 0.0605 kg each, from areas and densities), in which the wheels' steering takes its share of the
angular momentum:

    V += dt sum F / M,    (I + I') Omega' + J sum u' = (I cos d + I') Omega + J sum u + dt sum r x F

with I of the five centres, I' of the bodies about their own, J of one wheel, u the steering speeds, d the last turn
(Box2D keeps velocities as they were before the bodies turned). What differs from Box2D: float64 for float32, no error
left in the joints, no sleeping, a body is stopped at 2 m per frame as one; outlines touch at a gap of 0.02 along an
edge's normal, corners included.

As there, a wheel's friction and a frame's reward are of the contacts before the car moves, and the forces of those of
the frame before.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.driving.batched.track import PLAYFIELD, STEP, WIDTH, Floats

Car: TypeAlias = Any  # one record of CAR, whose fields machine code reads as attributes
Cars: TypeAlias = npt.NDArray[np.void]  # [N] of them

FPS = 50
DT = 1.0 / FPS
SIZE = 0.02  # world units per unit of the outlines below
ENGINE = 100_000_000 * SIZE * SIZE
INERTIA = 4000 * SIZE * SIZE  # of a wheel about its axle
GRIP = 1_000_000 * SIZE * SIZE  # the largest force of a tyre on the road
GRASS_GRIP = 0.6 * GRIP
STIFFNESS = 205_000 * SIZE * SIZE
TYRE = 27 * SIZE  # radius of a wheel
TYRE_HALF = 14 * SIZE  # half its breadth
BRAKING = 15.0
LOCK, SLOP = 0.4, 2.0 / 180.0 * math.pi  # of the steering, rad
TOUCH = 0.02  # two outlines closer than this touch
FASTEST = 2.0 / DT
FRAME_COST = 0.1
LOST = -100.0
VISITED, TOUCHED = 1, 2  # bits of a tile's mark: by a wheel, by a wheel or the hull

# The hull's four outlines, one after the other; OUTLINES says where each begins.
HULL: Floats = SIZE * np.array([
    (-60, 130), (60, 130), (60, 110), (-60, 110),
    (-15, 120), (15, 120), (20, 20), (-20, 20),
    (25, 20), (50, -10), (50, -40), (20, -90), (-20, -90), (-50, -40), (-50, -10), (-25, 20),
    (-50, -120), (50, -120), (50, -90), (-50, -90),
])  # fmt: skip
OUTLINES = (0, 4, 8, 16, 20)
WHEELS: Floats = SIZE * np.array(
    [(-55, 80), (55, 80), (-55, -82), (55, -82)]
)  # front left, right, rear left, right

CAR = np.dtype(
    [
        ("x", "f8"), ("y", "f8"), ("angle", "f8"),  # of the common centre of mass; heading (-sin, cos)
        ("vx", "f8"), ("vy", "f8"), ("spin", "f8"), ("turned", "f8"),  # turned: angle of the last frame
        ("joint", "f8", (4,)), ("rate", "f8", (4,)),  # steering angle and speed of each wheel
        ("omega", "f8", (4,)), ("phase", "f8", (4,)), ("gas", "f8"),
        ("road", "i8", (4,)),  # whether each wheel touches a tile
        ("frame", "i8"), ("visited", "i8"), ("lap", "i8"),
        ("owed", "f8"), ("total", "f8"),  # paid with the next frame; paid so far
    ],
    align=True,
)  # fmt: skip


def _mass(outline: Floats, density: float) -> tuple[float, Floats, float]:
    """Mass, centre [2] and moment of inertia about the centre of a polygon [k, 2], by the shoelace formulas."""
    x, y = outline[:, 0], outline[:, 1]
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    cross = x * y1 - x1 * y
    area = cross.sum() / 2
    centre = np.array([((x + x1) * cross).sum(), ((y + y1) * cross).sum()]) / (6 * area)
    about_origin = ((x * x + x * x1 + x1 * x1 + y * y + y * y1 + y1 * y1) * cross).sum() / 12
    sign = np.sign(area)
    inertia = density * sign * (about_origin - area * (centre @ centre))
    return float(density * abs(area)), centre, float(inertia)


def _hull() -> tuple[float, Floats, float]:
    """The same of the hull: the sum over its outlines, which overlap a little."""
    parts = [_mass(HULL[a:b], 1.0) for a, b in pairwise(OUTLINES)]
    mass = sum(part[0] for part in parts)
    centre = sum(part[0] * part[1] for part in parts) / mass
    inertia = sum(part[2] + part[0] * float(((part[1] - centre) ** 2).sum()) for part in parts)
    return mass, np.asarray(centre), inertia


TREAD: Floats = np.array([(-TYRE_HALF, TYRE), (TYRE_HALF, TYRE), (TYRE_HALF, -TYRE), (-TYRE_HALF, -TYRE)])
HULL_MASS, HULL_CENTRE, HULL_INERTIA = _hull()
WHEEL_MASS, _, WHEEL_INERTIA = _mass(TREAD, 0.1)
MASS = HULL_MASS + 4 * WHEEL_MASS
CENTRE: Floats = (HULL_MASS * HULL_CENTRE + WHEEL_MASS * WHEELS.sum(0)) / MASS
ARMS: Floats = WHEELS - CENTRE  # from the common centre to the wheels
HULL_ARM: Floats = HULL_CENTRE - CENTRE
I_CENTRES = float(HULL_MASS * (HULL_ARM**2).sum() + WHEEL_MASS * (ARMS**2).sum())
I_OWN = HULL_INERTIA + 4 * WHEEL_INERTIA


@compiled
def place(car: Car, path: Floats, edge: Floats, marks: npt.NDArray[np.uint8], count: int) -> None:
    """Put a car at rest on a track's first point, after the frame that CarRacing-v3's reset makes.

    There the wheels are created without the heading's turn; the joints pull them and the hull together.
    """
    beta, x, y = path[0, 0], path[0, 1], path[0, 2]
    cos, sin = math.cos(beta), math.sin(beta)
    hx = x + cos * HULL_CENTRE[0] - sin * HULL_CENTRE[1]
    hy = y + sin * HULL_CENTRE[0] + cos * HULL_CENTRE[1]
    angle = beta
    wheel = np.empty((4, 2))
    for i in range(4):
        wheel[i, 0], wheel[i, 1] = x + WHEELS[i, 0], y + WHEELS[i, 1]
    marks[:count] = 0
    for i in range(4):
        car.joint[i] = car.rate[i] = car.omega[i] = car.phase[i] = 0.0
        car.road[i] = 0
    car.vx = car.vy = car.spin = car.turned = car.gas = 0.0
    car.visited = car.lap = 0
    car.owed = car.total = 0.0
    car.frame = 0
    car.x, car.y, car.angle = x, y, beta
    # contacts are of the wheels as created: upright, and not turned with the hull
    _touch(car, edge, marks, count, hx, hy, wheel)
    for _ in range(60):
        worst = 0.0
        for i in range(3, -1, -1):
            # C = wheel - anchor; K P = -C; hull -= P / m, wheel += P / m'
            ax, ay = WHEELS[i, 0] - HULL_CENTRE[0], WHEELS[i, 1] - HULL_CENTRE[1]
            cos, sin = math.cos(angle), math.sin(angle)
            rx, ry = cos * ax - sin * ay, sin * ax + cos * ay
            cx, cy = wheel[i, 0] - hx - rx, wheel[i, 1] - hy - ry
            worst = max(worst, math.sqrt(cx * cx + cy * cy))
            inverse = 1.0 / HULL_MASS + 1.0 / WHEEL_MASS
            kxx, kyy = inverse + ry * ry / HULL_INERTIA, inverse + rx * rx / HULL_INERTIA
            kxy = -rx * ry / HULL_INERTIA
            det = kxx * kyy - kxy * kxy
            px, py = -(kyy * cx - kxy * cy) / det, -(kxx * cy - kxy * cx) / det
            hx -= px / HULL_MASS
            hy -= py / HULL_MASS
            angle -= (rx * py - ry * px) / HULL_INERTIA
            wheel[i, 0] += px / WHEEL_MASS
            wheel[i, 1] += py / WHEEL_MASS
        if worst <= 0.005:
            break
    cos, sin = math.cos(angle), math.sin(angle)
    car.x = hx - (cos * HULL_ARM[0] - sin * HULL_ARM[1])
    car.y = hy - (sin * HULL_ARM[0] + cos * HULL_ARM[1])
    car.angle = angle
    for i in range(4):
        car.joint[i] = beta - angle
    car.frame = 1


@compiled
def drive(
    cars: Cars, edge: Floats, count: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8], action: Floats,
    acting: npt.NDArray[np.bool_], low: int, high: int, skip: int, frames: int, lap: float,
    reward: npt.NDArray[np.float32], terminated: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    """One decision of the lanes low .. high - 1 that are `acting` [N]: at most `skip` frames under action [N, 3].

    action: steer in [-1, 1], gas and brake in [0, 1], clamped. An ending ends the decision; rewards are summed.
    """
    for n in range(low, high):
        if not acting[n]:
            continue
        car = cars[n]
        steer = min(max(action[n, 0], -1.0), 1.0)
        gas, brake = min(max(action[n, 1], 0.0), 1.0), min(max(action[n, 2], 0.0), 1.0)
        paid, over, ended = 0.0, False, False
        for _ in range(skip):
            pay, over = _frame(car, edge[n], marks[n], count[n], steer, gas, brake, lap)
            paid += pay
            ended = over or car.frame > frames  # frame 1 was the reset's
            if ended:
                break
        reward[n], terminated[n], last[n] = paid, over, ended


@compiled
def _frame(
    car: Car,
    edge: Floats,
    marks: npt.NDArray[np.uint8],
    count: int,
    steer: float,
    gas: float,
    brake: float,
    lap: float,
) -> tuple[float, bool]:
    """One frame: (reward, whether the lap is complete or the car is lost)."""
    fx, fy, torque, steered = _forces(car, steer, gas, brake)
    _contacts(car, edge, marks, count, lap)
    # V += dt sum F / M;  (I + I') Omega' + J sum u' = (I cos d + I') Omega + J sum u + dt sum r x F
    car.vx += DT * fx / MASS
    car.vy += DT * fy / MASS
    momentum = (I_CENTRES * math.cos(car.turned) + I_OWN) * car.spin - WHEEL_INERTIA * steered + DT * torque
    car.spin = momentum / (I_CENTRES + I_OWN)
    speed = math.sqrt(car.vx * car.vx + car.vy * car.vy)
    if speed > FASTEST:
        car.vx *= FASTEST / speed
        car.vy *= FASTEST / speed
    car.x += DT * car.vx
    car.y += DT * car.vy
    car.turned = DT * car.spin
    car.angle += car.turned
    for i in range(4):
        beyond = abs(car.joint[i]) >= LOCK  # as the frame begins: then the angle is corrected
        car.joint[i] += DT * car.rate[i]
        if beyond:
            car.joint[i] = min(max(car.joint[i], -LOCK - SLOP), LOCK + SLOP)
    car.frame += 1
    reward = car.owed - FRAME_COST
    car.total += reward
    car.owed = 0.0
    x = car.x - (math.cos(car.angle) * CENTRE[0] - math.sin(car.angle) * CENTRE[1])
    y = car.y - (math.sin(car.angle) * CENTRE[0] + math.cos(car.angle) * CENTRE[1])
    if abs(x) > PLAYFIELD or abs(y) > PLAYFIELD:
        return LOST, True
    return reward, car.visited == count or car.lap != 0


@compiled
def _forces(car: Car, steer: float, gas: float, brake: float) -> tuple[float, float, float, float]:
    """Turn the wheels; (force x, y, torque about the centre, change of the steering speeds' sum)."""
    car.gas += min(gas - car.gas, 0.1)
    cos, sin = math.cos(car.angle), math.sin(car.angle)
    old_cos, old_sin = math.cos(car.angle - car.turned), math.sin(car.angle - car.turned)
    fx = fy = torque = steered = 0.0
    for i in range(4):
        error = (-steer if i < 2 else 0.0) - car.joint[i]
        rate = math.copysign(min(50.0 * abs(error), 3.0), error)
        if (car.joint[i] >= LOCK and rate > 0) or (car.joint[i] <= -LOCK and rate < 0):
            rate = 0.0
        steered += rate - car.rate[i]
        ahead_x, ahead_y = -math.sin(car.angle + car.joint[i]), math.cos(car.angle + car.joint[i])
        car.rate[i] = rate
        # the wheel's velocity is V + Omega x r, r as it was before the last turn
        ax, ay = ARMS[i, 0], ARMS[i, 1]
        vx = car.vx - car.spin * (old_sin * ax + old_cos * ay)
        vy = car.vy + car.spin * (old_cos * ax - old_sin * ay)
        along = ahead_x * vx + ahead_y * vy
        across = ahead_y * vx - ahead_x * vy
        grip = GRIP if car.road[i] else GRASS_GRIP
        omega, f, s = tyre(car.omega[i], car.gas if i >= 2 else 0.0, brake, along, across, grip)
        car.phase[i] += DT * (omega + DT * f * TYRE / INERTIA)  # of the speed before the road has acted
        car.omega[i] = omega
        px, py = s * ahead_y + f * ahead_x, -s * ahead_x + f * ahead_y
        rx, ry = cos * ax - sin * ay, sin * ax + cos * ay
        fx += px
        fy += py
        torque += rx * py - ry * px
    return fx, fy, torque, steered


@compiled
def tyre(
    omega: float, gas: float, brake: float, along: float, across: float, grip: float
) -> tuple[float, float, float]:
    """One tyre for one frame: (its new speed in rad/s, the force along it, the force across it, in N).

    omega: its speed; along, across: velocity of its centre, in m/s; grip: the largest force.
    """
    # energy J omega^2 / 2 grows with the engine's power; 5 keeps it finite at rest
    omega += DT * ENGINE * gas / INERTIA / (abs(omega) + 5.0)
    if brake >= 0.9:
        omega = 0.0
    elif brake > 0:
        omega -= math.copysign(min(BRAKING * brake, abs(omega)), omega)
    f, s = STIFFNESS * (TYRE * omega - along), -STIFFNESS * across
    force = math.sqrt(f * f + s * s)
    if force > grip:
        f *= grip / force
        s *= grip / force
    return omega - DT * f * TYRE / INERTIA, f, s


@compiled
def _contacts(car: Car, edge: Floats, marks: npt.NDArray[np.uint8], count: int, lap: float) -> None:
    """What the car touches where it stands; tiles that a wheel has not visited before are owed 1000 / count each."""
    cos, sin = math.cos(car.angle), math.sin(car.angle)
    wheel = np.empty((4, 2))
    for i in range(4):
        wheel[i, 0] = car.x + cos * ARMS[i, 0] - sin * ARMS[i, 1]
        wheel[i, 1] = car.y + sin * ARMS[i, 0] + cos * ARMS[i, 1]
    hx, hy = car.x + cos * HULL_ARM[0] - sin * HULL_ARM[1], car.y + sin * HULL_ARM[0] + cos * HULL_ARM[1]
    before = marks[0] & VISITED
    _touch(car, edge, marks, count, hx, hy, wheel)
    if not before and marks[0] & VISITED and car.visited / count > lap:
        car.lap = 1


@compiled
def _touch(
    car: Car, edge: Floats, marks: npt.NDArray[np.uint8], count: int, hx: float, hy: float, wheel: Floats
) -> None:
    """Mark tiles under the hull (its centre of mass at hx, hy) and under the wheels (centres [4, 2])."""
    reach = WIDTH + STEP + 3.5  # a tile whose front edge lies farther away touches no part of the car
    tile, tread, hull = np.empty((4, 2)), np.empty((4, 4, 2)), np.empty((len(HULL), 2))
    for i in range(4):
        _outline(TREAD, car.angle + car.joint[i], wheel[i, 0], wheel[i, 1], tread[i])
        car.road[i] = 0
    cos, sin = math.cos(car.angle), math.sin(car.angle)
    _outline(
        HULL, car.angle, hx - (cos * HULL_CENTRE[0] - sin * HULL_CENTRE[1]),
        hy - (sin * HULL_CENTRE[0] + cos * HULL_CENTRE[1]), hull,
    )  # fmt: skip
    for k in range(count):
        dx, dy = 0.5 * (edge[k, 0, 0] + edge[k, 1, 0]) - car.x, 0.5 * (edge[k, 0, 1] + edge[k, 1, 1]) - car.y
        if dx * dx + dy * dy > reach * reach:
            continue
        before = k - 1 if k else count - 1
        for j in range(2):
            tile[0, j], tile[1, j] = edge[k, 0, j], edge[k, 1, j]
            tile[2, j], tile[3, j] = edge[before, 1, j], edge[before, 0, j]
        mark = marks[k]
        for i in range(4):
            if (not car.road[i] or not mark & VISITED) and _meet(tread[i], tile):
                car.road[i] = 1
                mark |= VISITED | TOUCHED
        if not mark & TOUCHED and (
            _meet(hull[0:4], tile)
            or _meet(hull[4:8], tile)
            or _meet(hull[8:16], tile)
            or _meet(hull[16:20], tile)
        ):
            mark |= TOUCHED
        if mark & VISITED and not marks[k] & VISITED:
            car.visited += 1
            car.owed += 1000.0 / count
        marks[k] = mark


@compiled
def _outline(shape: Floats, angle: float, x: float, y: float, out: Floats) -> None:
    """A shape [k, 2] turned by `angle` about its origin and put to (x, y)."""
    cos, sin = math.cos(angle), math.sin(angle)
    for i in range(len(shape)):
        out[i, 0] = x + cos * shape[i, 0] - sin * shape[i, 1]
        out[i, 1] = y + sin * shape[i, 0] + cos * shape[i, 1]


@compiled
def _meet(a: Floats, b: Floats) -> bool:
    """Whether two convex polygons [k, 2] are closer than TOUCH along every normal of their edges."""
    return not (_apart(a, b) or _apart(b, a))


@compiled
def _apart(a: Floats, b: Floats) -> bool:
    """Whether a normal of an edge of `a` separates the two."""
    for i in range(len(a)):
        j = i + 1 if i + 1 < len(a) else 0
        nx, ny = a[j, 1] - a[i, 1], a[i, 0] - a[j, 0]
        a_low = a_high = nx * a[0, 0] + ny * a[0, 1]
        for k in range(1, len(a)):
            at = nx * a[k, 0] + ny * a[k, 1]
            a_low, a_high = min(a_low, at), max(a_high, at)
        b_low = b_high = nx * b[0, 0] + ny * b[0, 1]
        for k in range(1, len(b)):
            at = nx * b[k, 0] + ny * b[k, 1]
            b_low, b_high = min(b_low, at), max(b_high, at)
        gap = max(b_low - a_high, a_low - b_high)
        if gap > 0 and gap * gap > TOUCH * TOUCH * (nx * nx + ny * ny):
            return True
    return False
