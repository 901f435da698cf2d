"""The batched driving environment: against CarRacing-v3, against numbers by hand, and against slow versions."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rlkit.checkpoint import pack, unpack
from rlkit.envs.config import EnvConfig
from rlkit.envs.driving.batched import paint, sensors, tyres
from rlkit.envs.driving.batched.driving import Driving
from rlkit.envs.driving.batched.track import CHECKPOINTS, RADIUS, TILES, Tracks, lay
from rlkit.envs.kernels import split
from rlkit.envs.make import make_vec, probe
from rlkit.space_json import to_json

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


RETRIED = (36, 100)  # seeds whose first attempts at a track fail


@pytest.fixture(scope="module")
def stock() -> Any:
    """CarRacing-v3 without wrappers."""
    import gymnasium

    env = gymnasium.make("CarRacing-v3", disable_env_checker=True).unwrapped
    yield env
    env.close()  # type: ignore[no-untyped-call]


class One:
    """One car on the track of a seed, without the class around it."""

    def __init__(self, seed: int) -> None:
        self.tracks, self.cars = Tracks(1), np.zeros(1, tyres.CAR)
        self.marks = np.zeros((1, TILES), np.uint8)
        self.reward, self.terminated, self.last = (
            np.zeros(1, np.float32),
            np.zeros(1, bool),
            np.zeros(1, bool),
        )
        self.tracks.open(0, seed)
        self.count = int(self.tracks.count[0])
        tyres.place(self.cars[0], self.tracks.path[0], self.tracks.edge[0], self.marks[0], self.count)

    @property
    def car(self) -> Any:
        return self.cars[0]

    def drive(self, action: Any, skip: int = 1, frames: int = 1000) -> float:
        tyres.drive(
            self.cars, self.tracks.edge, self.tracks.count, self.marks, np.array([action], np.float64),
            np.ones(1, bool), 0, 1, skip, frames, 0.95, self.reward, self.terminated, self.last,
        )  # fmt: skip
        return float(self.reward[0])

    def picture(self, size: int = 64) -> Any:
        lens, out = paint.Lens.shown(size), np.zeros((1, size, size), np.uint8)
        paint.pictures(
            self.cars, self.tracks.edge, self.tracks.kerb, self.tracks.count, self.marks, 0, 1, paint.LUMINANCE,
            np.zeros(lens.canvas, np.uint8),
            lens.row, lens.row_weight, lens.column, lens.column_weight, out,
        )  # fmt: skip
        return out[0]

    def stand(self, x: float, y: float, angle: float) -> None:
        """Move the hull's origin to (x, y)."""
        cos, sin = math.cos(angle), math.sin(angle)
        self.car["x"] = x + cos * tyres.CENTRE[0] - sin * tyres.CENTRE[1]
        self.car["y"] = y + sin * tyres.CENTRE[0] + cos * tyres.CENTRE[1]
        self.car["angle"], self.car["turned"] = angle, 0.0


# ---- tracks


def test_tracks_are_those_of_carracing(stock: Any) -> None:
    tracks, retried, kerbs = Tracks(1), 0, 0
    for seed in (*range(20), *RETRIED):
        stock.reset(seed=seed)
        tracks.open(0, seed)
        count = int(tracks.count[0])
        assert np.array_equal(tracks.path[0, :count], np.array(stock.track)[:, 1:])
        edge = tracks.edge[0, :count]
        theirs = iter(stock.road_poly)
        for i in range(count):
            assert np.array_equal(next(theirs)[0], [edge[i, 0], edge[i, 1], edge[i - 1, 1], edge[i - 1, 0]])
            side = int(tracks.kerb[0, i])
            if side:  # from the edge outwards: (width + kerb) / width = 48/40 of the way from the middle
                polygon, colour = next(theirs)
                middle, at = edge[i].mean(0), edge[i, (side + 1) // 2]
                np.testing.assert_allclose(polygon[:2], [at, middle + 1.2 * (at - middle)], atol=1e-9)
                assert colour == ((255, 0, 0) if i % 2 else (255, 255, 255))
                kerbs += 1
        assert next(theirs, None) is None
        retried += _attempts(seed) > 1
    assert retried == len(RETRIED)
    assert kerbs > 100


def _attempts(seed: int) -> int:
    generator, scratch = np.random.default_rng(seed), Tracks(1)
    count = 0
    while True:
        count += 1
        pairs = [
            (generator.uniform(0, 2 * math.pi / CHECKPOINTS), generator.uniform(RADIUS / 3, RADIUS))
            for _ in range(CHECKPOINTS)
        ]
        if lay(np.array(pairs), scratch.path[0], scratch.edge[0], scratch.kerb[0]):
            return count


# ---- the car


def test_masses_are_those_of_box2d(stock: Any) -> None:
    stock.reset(seed=0)
    hull, wheel = stock.car.hull, stock.car.wheels[0]
    assert pytest.approx(hull.mass, rel=1e-6) == tyres.HULL_MASS
    np.testing.assert_allclose(tyres.HULL_CENTRE, hull.localCenter, atol=1e-6)
    # Box2D's inertia is about the body's origin
    about_origin = tyres.HULL_INERTIA + tyres.HULL_MASS * float((tyres.HULL_CENTRE**2).sum())
    assert about_origin == pytest.approx(hull.inertia, rel=1e-6)
    assert pytest.approx(wheel.mass, rel=1e-6) == tyres.WHEEL_MASS
    assert pytest.approx(wheel.inertia, rel=1e-6) == tyres.WHEEL_INERTIA
    # a wheel is a plate of 0.56 x 1.08: m = 0.1 * 0.6048, J = m (0.56^2 + 1.08^2) / 12
    assert pytest.approx(0.06048) == tyres.WHEEL_MASS
    assert pytest.approx(0.06048 * (0.56**2 + 1.08**2) / 12) == tyres.WHEEL_INERTIA


def test_a_tyre_by_hand() -> None:
    # At rest, full gas: omega = 0.02 * 40000 / 1.6 / 5 = 100; the rim at 54 m/s asks for 82 * 54 = 4428 N, the road
    # gives 400; omega -= 0.02 * 400 * 0.54 / 1.6 = 2.7
    assert tyres.tyre(0.0, 1.0, 0.0, 0.0, 0.0, 400.0) == pytest.approx((97.3, 400.0, 0.0))
    # Rolling at 10 rad/s = 5.4 m/s with the ground: no force along; 1 m/s to the right: 82 N to the left
    assert tyres.tyre(10.0, 0.0, 0.0, 5.4, 1.0, 400.0) == pytest.approx((10.0, 0.0, -82.0))
    # Beyond the limit the direction stays: (3, -4) * 82 = 410 N long is cut to 240 on grass, (144, -192)
    omega, along, across = tyres.tyre(10.0, 0.0, 0.0, 2.4, 4.0, tyres.GRASS_GRIP)
    assert (along, across) == pytest.approx((144.0, -192.0))
    assert omega == pytest.approx(10.0 - 0.02 * 144.0 * 0.54 / 1.6)
    # Half a brake takes 7.5 rad/s, never more than there is; from 0.9 on all of it. Free of the ground (grip 0):
    assert tyres.tyre(10.0, 0.0, 0.5, 0.0, 0.0, 1e-9)[0] == pytest.approx(2.5)
    assert tyres.tyre(-10.0, 0.0, 0.5, 0.0, 0.0, 1e-9)[0] == pytest.approx(-2.5)
    assert tyres.tyre(5.0, 0.0, 0.5, 0.0, 0.0, 1e-9)[0] == pytest.approx(0.0)
    assert tyres.tyre(50.0, 0.0, 0.9, 0.0, 0.0, 1e-9)[0] == pytest.approx(0.0)


def test_gas_rises_slowly_and_the_rear_wheels_push() -> None:
    one = One(0)
    one.car["angle"], one.car["joint"] = 0.0, 0.0
    one.drive((0.0, 1.0, 0.0))
    assert one.car["gas"] == pytest.approx(0.1)
    # omega = 0.02 * 40000 * 0.1 / 1.6 / 5 = 10; two tyres with 82 * 5.4 = 442.8 N, cut to 400: 800 N on 7.3 kg
    assert one.car["vy"] == pytest.approx(0.02 * 800 / tyres.MASS)
    assert one.car["omega"] == pytest.approx([0, 0, 10 - 2.7, 10 - 2.7])
    one.drive((0.0, 0.15, 0.0))
    assert one.car["gas"] == pytest.approx(0.15)
    one.drive((0.0, 0.0, 0.0))
    assert one.car["gas"] == 0.0


def test_steering_turns_at_three_rad_per_second_up_to_its_lock() -> None:
    one = One(0)
    one.car["joint"] = 0.0
    angles = []
    for _ in range(10):
        one.drive((1.0, 0.0, 0.0))
        angles.append(float(one.car["joint"][0]))
    assert angles == pytest.approx([-0.06, -0.12, -0.18, -0.24, -0.30, -0.36, -0.42, -0.42, -0.42, -0.42])
    one.drive((-0.4, 0.0, 0.0))  # 50 * 0.82 is more than 3
    assert one.car["joint"][0] == pytest.approx(-0.36)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_it_drives_like_carracing(stock: Any, seed: int) -> None:
    """Two seconds of gas, bends, slides and a braking: within 1 % of speed and 0.02 rad/s, 3 cm; rewards agree."""
    generator = np.random.default_rng(seed)
    actions = np.repeat(generator.uniform([-0.4, 0.0, 0.0], [0.4, 0.8, 0.0], (16, 3)), 5, 0)
    actions = np.vstack([actions, np.repeat([[0.0, 0.0, 0.6]], 20, 0)]).astype(np.float32)
    stock.reset(seed=seed)
    one, hull, drawing = One(seed), stock.car.hull, stock._render
    stock._render = lambda mode: None
    fastest = 0.0
    try:
        for action in actions:
            reward = stock.step(action)[1]
            assert one.drive(action) == pytest.approx(reward, abs=1e-4)
            speed = math.hypot(*hull.linearVelocity)
            fastest = max(fastest, speed)
            assert math.hypot(one.car["vx"], one.car["vy"]) == pytest.approx(speed, rel=0.01, abs=0.05)
            assert one.car["spin"] == pytest.approx(hull.angularVelocity, abs=0.02)
            assert [bool(road) for road in one.car["road"]] == [
                bool(wheel.tiles) for wheel in stock.car.wheels
            ]
    finally:
        stock._render = drawing
    cos, sin = math.cos(one.car["angle"]), math.sin(one.car["angle"])
    x, y = tyres.CENTRE
    origin = np.array([one.car["x"] - cos * x + sin * y, one.car["y"] - sin * x - cos * y])
    assert np.abs(origin - hull.position).max() < 0.03
    assert one.car["angle"] == pytest.approx(hull.angle, abs=0.003)
    assert fastest > 20
    visited = [bool(mark & tyres.VISITED) for mark in one.marks[0, : one.count]]
    assert visited == [tile.road_visited for tile in stock.road]


# ---- rewards and endings


def test_every_tile_pays_once() -> None:
    one = One(0)
    assert one.car["visited"] == 2  # those it stands on, paid with the first frame
    assert one.drive((0.0, 0.0, 0.0)) == pytest.approx(2000.0 / one.count - 0.1)
    assert one.drive((0.0, 0.0, 0.0)) == pytest.approx(-0.1)
    total = sum(one.drive((0.0, 0.3, 0.0), skip=4) for _ in range(15))
    visited = int(one.car["visited"])
    assert visited > 5
    assert total == pytest.approx((visited - 2) * 1000 / one.count - 0.1 * 60, abs=1e-3)
    assert visited == int((one.marks[0] & tyres.VISITED).sum())


def test_the_last_tile_ends_the_episode() -> None:
    one = One(0)
    one.marks[0, 2 : one.count] = tyres.VISITED
    one.marks[0, 5] = 0
    one.car["visited"] = one.count - 1
    x, y = one.tracks.path[0, 5, 1:]
    one.drive((0.0, 0.0, 0.0))
    assert not one.terminated[0]
    one.stand(x, y, float(one.tracks.path[0, 5, 0]))
    assert one.drive((0.0, 0.0, 0.0), skip=4) == pytest.approx(
        1000 / one.count - 0.1
    )  # in the first of the four
    assert one.terminated[0] and one.last[0]


def test_beyond_the_playfield_100_are_lost() -> None:
    one = One(0)
    one.stand(333.0, 0.0, -math.pi / 2)  # to the right; 333.33 is the end
    one.car["vx"] = 10.0
    one.car["omega"] = 10 / 0.54
    one.car["owed"] = 0.0
    assert one.drive((0.0, 0.0, 0.0), skip=8) == pytest.approx(-0.1 - 100)  # 333.2, then 333.4
    assert one.terminated[0] and one.last[0]


def test_frames_truncate() -> None:
    one = One(0)
    for frame in range(1, 13):
        one.drive((0.0, 0.0, 0.0), frames=12)
        assert bool(one.last[0]) == (frame == 12)
    assert not one.terminated[0]


# ---- pictures


@pytest.mark.parametrize(("size", "bound"), [(64, 1.0), (96, 1.2)])
def test_the_picture_is_carracings(stock: Any, size: int, bound: float) -> None:
    """Poses on and off the road, far away and near, slow and fast: mean |difference| of grey in 0 .. 255."""
    stock.reset(seed=3)
    one = One(3)
    poses = [
        (0, 0.0, 0.0, 0.02),
        (20, 1.0, 0.3, 0.5),
        (90, -3.0, 2.0, 2.0),
        (150, 9.0, -0.7, 2.0),
        (200, 40.0, 1.0, 3.0),
    ]
    for tile, aside, turn, seconds in poses:
        beta, x, y = one.tracks.path[0, tile]
        angle, x, y = beta + turn, x + aside * math.cos(beta), y + aside * math.sin(beta)
        one.stand(x, y, angle)
        car, hull = stock.car, stock.car.hull
        hull.position, hull.angle = (x, y), angle
        one.car["vx"], one.car["vy"], one.car["spin"], one.car["frame"] = (
            10 * seconds,
            5.0,
            turn,
            round(50 * seconds),
        )
        one.car["joint"] = (turn / 5, turn / 5, 0, 0)
        one.car["omega"], one.car["phase"] = (20, 21, 60, 61), (0, 2, 4, 5)
        one.car["total"], one.car["owed"] = stock.reward, 0.0
        stock.t = seconds
        hull.linearVelocity, hull.angularVelocity = (10 * seconds, 5.0), turn
        for i, wheel in enumerate(car.wheels):
            wheel.angle = angle + float(one.car["joint"][i])
            wheel.position = hull.GetWorldPoint(tuple(tyres.WHEELS[i]))
            wheel.omega, wheel.phase = float(one.car["omega"][i]), float(one.car["phase"][i])
        frame = stock._render("state_pixels")
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA).astype(float)
        mine = one.picture(size).astype(float)
        assert np.abs(mine - grey).mean() < bound
        assert abs((mine - grey).mean()) < 0.5
        assert np.corrcoef(mine.ravel(), grey.ravel())[0, 1] > 0.99


def test_touched_tiles_lose_their_shade() -> None:
    one = One(0)
    one.car["frame"] = 100
    beta, x, y = one.tracks.path[0, 40]
    one.stand(x, y, beta)
    # tile 41 lies ahead: 107 shown as 105, 102 as 100
    before, at = one.picture(96), (96 * 6 // 8 - 8, 48)
    one.marks[0, :60] = tyres.TOUCHED
    after = one.picture(96)
    assert {int(v) for v in np.unique(before[at[0] - 30 : at[0], 44:52])} >= {100, 102, 105}
    assert before[at] >= after[at] == 100


def test_polygons_are_filled_where_a_samples_centre_lies_inside() -> None:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:20, 0:30] + 0.5
    for _ in range(50):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 5))
        centre = generator.uniform([-2, -2], [32, 22])
        points = centre + generator.uniform(1, 12) * np.stack([np.cos(angles), np.sin(angles)], 1)
        canvas = np.zeros((20, 30), np.uint8)
        paint.fill(canvas, points, 5, 7, np.empty(20, np.int64), np.empty(20, np.int64))
        inside = np.ones(canvas.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
            inside &= (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0) >= 0
        assert np.array_equal(canvas == 7, inside)


def test_the_lens_shrinks_as_gymnasium_and_opencv_do() -> None:
    # 64 from 96: a pixel is 1.5 of them, each of two samples: 2/3 and 1/3 of their halves
    lens = paint.Lens.shown(64)
    assert lens.row_weight[0] == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    assert lens.row_weight[1] == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    assert list(lens.row[:4]) == [0, 2, 6, 8]
    canvas = np.random.default_rng(0).integers(0, 256, lens.canvas).astype(np.uint8)
    small = canvas.reshape(96, 2, 96, 2).mean((1, 3), dtype=np.float32)
    expected = cv2.resize(small, (64, 64), interpolation=cv2.INTER_AREA)
    out = np.zeros((64, 64), np.uint8)
    line = np.zeros(lens.canvas[1], np.float32)
    paint._shrink(canvas, lens.row, lens.row_weight, lens.column, lens.column_weight, line, out)
    assert np.abs(out - expected).max() < 0.51


# ---- vector


def test_the_vector_against_a_slow_version() -> None:
    rays, generator = 16, np.random.default_rng(0)
    least, most = sensors.bounds(rays)
    off_road = 0
    for seed in range(3):
        one = One(seed)
        for _ in range(6):
            tile = int(generator.integers(one.count))
            beta, x, y = one.tracks.path[0, tile]
            aside = generator.uniform(-9, 9)
            off_road += abs(aside) > 20 / 3
            x, y, angle = (
                x + aside * math.cos(beta),
                y + aside * math.sin(beta),
                beta + generator.uniform(-2, 2),
            )
            one.stand(x, y, angle)
            one.car["vx"], one.car["vy"], one.car["spin"] = generator.uniform(-60, 60, 3) / (1, 1, 20)
            one.car["joint"], one.car["omega"] = generator.uniform(-0.4, 0.4, 4), generator.uniform(0, 100, 4)
            out = np.zeros((1, rays + sensors.OTHERS), np.float32)
            sensors.sense(
                one.cars, one.tracks.path, one.tracks.edge, one.tracks.count, 0, 1,
                sensors.directions(rays), least, most, out,
            )  # fmt: skip
            expected = np.clip(_slow_vector(one, x, y, angle, rays), least, most)
            np.testing.assert_allclose(out[0], expected, atol=2e-5)
    assert off_road > 2


def _slow_vector(one: One, x: float, y: float, angle: float, rays: int) -> Any:
    count, car = one.count, one.car
    path, edge = one.tracks.path[0, :count], one.tracks.edge[0, :count]
    found = []
    for ray in np.radians(np.linspace(-120, 120, rays)):
        u, best = np.array([-math.sin(angle + ray), math.cos(angle + ray)]), 60.0
        for side in range(2):
            for i in range(count):
                p, q = edge[i - 1, side] - (x, y), edge[i, side] - (x, y)
                t, s = np.linalg.solve(np.stack([u, p - q], 1), p)  # t u = p + s (q - p)
                if t >= 0 and 0 <= s <= 1:
                    best = min(best, t)
        found.append(best / 60)
    ahead, right = np.array([-math.sin(angle), math.cos(angle)]), np.array([math.cos(angle), math.sin(angle)])
    arm = -(right * tyres.CENTRE[0] + ahead * tyres.CENTRE[1])
    v = np.array([car["vx"], car["vy"]]) + car["spin"] * np.array([-arm[1], arm[0]])
    found += [v @ ahead / 50, v @ right / 50, car["spin"] / 5, car["joint"][0] / 0.4]
    found += list(0.54 * car["omega"] / 50) + list(car["road"])
    k = int(np.hypot(*(path[:, 1:] - (x, y)).T).argmin())
    turn = angle - path[k, 0]
    road_right = np.array([math.cos(path[k, 0]), math.sin(path[k, 0])])
    found += [((x, y) - path[k, 1:]) @ road_right / (20 / 3), math.sin(turn), math.cos(turn)]
    for steps in (0, 2, 4, 6, 10, 14):
        bend = path[(k + steps + 1) % count, 0] - path[(k + steps - 1) % count, 0]
        found.append((bend + math.pi) % (2 * math.pi) - math.pi)
        found[-1] /= 7.0 * 0.31 / 3.5
    return np.array(found)


def test_outlines_meet_at_a_gap_of_two_hundredths() -> None:
    square = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    diamond = np.array([(0.5, 1.0), (1.0, 1.5), (0.5, 2.0), (0.0, 1.5)])
    assert tyres._meet(square, np.add(square, (1.019, 0.0)))
    assert not tyres._meet(square, np.add(square, (1.021, 0.0)))
    assert tyres._meet(square, np.add(diamond, (0.0, 0.019)))
    assert not tyres._meet(square, np.add(diamond, (0.0, 0.021)))
    assert tyres._meet(square, square * 0.1 + 0.4)  # one inside the other


# ---- the vector environment


def make(lanes: int = 4, seed: int = 5, **kwargs: Any) -> Driving:
    return Driving(lanes, seed, **{"observation": "vector", "frames": 40, "rays": 4} | kwargs)


def reset(env: Driving) -> Any:
    return env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0)] * env.lanes)


def actions(steps: int, lanes: int) -> torch.Tensor:
    drawn = np.random.default_rng(1).uniform([-1, 0, 0], [1, 1, 0.2], (steps, lanes, 3))
    return torch.from_numpy(drawn.astype(np.float32))


def rows(env: Driving, commands: torch.Tensor) -> list[tuple[Any, ...]]:
    found = []
    for command in commands:
        row = env.step(command)
        found.append([x.clone() for x in (row.obs, row.reward, row.terminated, row.first, row.last)])
    return found


def same(a: Any, b: Any) -> bool:
    pairs = [pair for p, q in zip(a, b, strict=True) for pair in zip(p, q, strict=True)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_row_rule() -> None:
    env = make(lanes=2)  # 40 frames: ten decisions
    row = reset(env)
    assert row.first.all() and not row.last.any() and not row.reward.any()
    commands = actions(25, 2)
    for t, command in enumerate(commands, 1):
        row = env.step(command)
        assert row.last.tolist() == [t % 11 == 10] * 2
        assert row.first.tolist() == [t % 11 == 0] * 2
        if t % 11 == 0:  # the action was ignored: the next episode's first row
            fresh = make(lanes=2).restore(np.full(2, t // 11), [np.zeros(0)] * 2)
            assert not row.reward.any() and torch.equal(fresh.obs, row.obs)
        else:
            assert row.reward.all()
    assert not row.terminated.any()
    assert env.episode.tolist() == [2, 2]


@pytest.mark.parametrize("observation", ["picture", "vector"])
def test_a_snapshot_continues_bit_for_bit(observation: str) -> None:
    commands = actions(26, 3)
    whole = make(3, observation=observation, size=32)
    reset(whole)
    expected = rows(whole, commands)
    half = make(3, observation=observation, size=32)
    reset(half)
    rows(half, commands[:13])
    saved = half.snapshot()
    rows(half, commands[13:20])  # what happens afterwards does not change what was saved
    document, tensors = pack(saved)  # as a checkpoint stores it
    saved = unpack(json.loads(json.dumps(document)), tensors)
    other = make(3, observation=observation, size=32)
    other.load_snapshot(saved)
    assert torch.equal(other.row.obs, expected[12][0])
    assert same(rows(other, commands[13:]), expected[13:])


def test_actions_rebuild_what_a_snapshot_holds() -> None:
    commands = actions(15, 3)
    env = make(3)
    reset(env)
    rows(env, commands)
    # an episode is a first row and ten decisions: row 11 opened episode 1, so 12 .. 15 are its decisions
    histories = [commands[11:15, lane].numpy() for lane in range(3)]
    histories[1] = histories[1][:0]
    again = make(3)
    row = again.restore(env.episode, histories)
    for lane in (0, 2):
        assert torch.equal(row.obs[lane], env.row.obs[lane]) and row.reward[lane] == env.row.reward[lane]
    assert row.first.tolist() == [False, True, False]


@pytest.mark.parametrize("observation", ["picture", "vector"])
def test_threads_and_splits_change_nothing(observation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.envs.driving.batched.driving.SHARE", {"picture": 1, "vector": 1})
    commands, kwargs = actions(13, 5), {"observation": observation, "size": 32}
    alone = make(5, threads=1, **kwargs)
    reset(alone)
    expected = rows(alone, commands)
    three = make(5, threads=3, **kwargs)
    assert len(three._parts.runs) == 3
    reset(three)
    assert same(rows(three, commands), expected)
    three.close()
    three.close()
    parts = [make(2, threads=1, **kwargs), make(3, first_lane=2, threads=1, **kwargs)]
    for part in parts:
        reset(part)
    split = [rows(parts[0], commands[:, :2]), rows(parts[1], commands[:, 2:])]
    joined = [[torch.cat(pair) for pair in zip(a, b, strict=True)] for a, b in zip(*split, strict=True)]
    assert same(joined, expected)


def test_lanes_are_shared_out_evenly() -> None:
    assert split(10, 3, 2) == [(0, 3), (3, 6), (6, 10)]
    assert split(3, 8, 2) == [(0, 3)]
    assert split(1, 8, 2) == [(0, 1)]


def test_evaluation_episodes_do_not_depend_on_the_lanes() -> None:
    two, one = make(2, evaluation=True), make(1, evaluation=True)
    obs = reset(two).obs.clone()
    assert torch.equal(one.restore(np.array([0]), [np.zeros(0)]).obs[0], obs[0])
    assert torch.equal(one.restore(np.array([1]), [np.zeros(0)]).obs[0], obs[1])
    assert not torch.equal(reset(make(2)).obs, obs)


def test_observations_lie_in_their_space() -> None:
    env = make(4, frames=200)
    reset(env)
    space: Any = env.spec.observation
    for obs, *_ in rows(env, actions(60, 4)):
        assert (obs.numpy() >= space.low).all() and (obs.numpy() <= space.high).all()


def test_actions_are_clamped_and_finite() -> None:
    a, b = make(1), make(1)
    reset(a), reset(b)
    first, second = a.step(torch.tensor([[3.0, 2.0, -1.0]])), b.step(torch.tensor([[1.0, 1.0, 0.0]]))
    assert torch.equal(first.obs, second.obs)
    with pytest.raises(ValueError, match=r"action \[0\.0, nan, 0\.0\] of lane 0: allowed: finite numbers"):
        a.step(torch.tensor([[0.0, math.nan, 0.0]]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"skip": 0}, r"env\.kwargs\.skip=0: allowed: a whole number from 1 to 1000"),
        ({"skip": "fast"}, r"env\.kwargs\.skip=fast: allowed: a whole number from 1 to 1000"),
        ({"size": 4}, r"env\.kwargs\.size=4: allowed: a whole number from 8 to 512"),
        ({"size": 64.5}, r"env\.kwargs\.size=64\.5: allowed: a whole number"),
        ({"observation": "lidar"}, r"env\.kwargs\.observation=lidar: allowed: picture, vector"),
        ({"render_mode": "ansi"}, r"env\.kwargs\.render_mode=ansi: allowed: None, rgb_array, human"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_the_registry_makes_it() -> None:
    config = EnvConfig(id="rlkit/Driving", lanes=2, stack=4, kwargs={"size": 48})
    spec = probe(config).spec
    assert spec.observation.shape == (48, 48) and spec.stack == 4
    vector = make_vec(
        config, 0, device="meta"
    )  # a policy may be anywhere: rows are on the CPU, as all others
    assert vector.device == torch.device("cpu") and reset(vector).obs.device == torch.device("cpu")
    vector.close()


def test_an_agent_of_one_can_act_in_the_other() -> None:
    """`rlkit evaluate RUN env=carracing` compares what a policy folder says of the spaces."""
    batched = probe(EnvConfig(id="rlkit/Driving", kwargs={"size": 64})).spec
    exact = probe(EnvConfig(id="rlkit/CarRacing", skip=4, gray=True, size=64)).spec
    for what in ("observation", "action"):
        assert to_json(getattr(batched, what)) == to_json(getattr(exact, what))


@pytest.mark.parametrize("option", [{"skip": 8}, {"size": 96}, {"reward_scale": 0.1}])
def test_options_of_other_backends_are_refused(option: dict[str, Any]) -> None:
    for use in (probe, lambda config: make_vec(config, 0)):
        with pytest.raises(
            ValueError, match=r"env\.backend=batched takes its environment as it is; .* env\.kwargs"
        ):
            use(EnvConfig(id="rlkit/Driving", **option))


def test_arguments_that_there_are_not_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"env\.kwargs={'beams': 3}: rlkit/Driving refuses them: no beams; "
        r"allowed: observation, skip, size, rays, frames, threads$",
    ):
        probe(EnvConfig(id="rlkit/Driving", kwargs={"beams": 3}))


def test_people_see_it_in_colour() -> None:
    env = make(2, skip=50, frames=1000)
    reset(env)
    for _ in range(2):
        env.step(torch.tensor([[0.0, 0.2, 0.0]] * 2))
    picture = env.render(1)
    assert picture is not None and picture.shape == (400, 600, 3) and picture.dtype == np.uint8
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(102, 204, 102), (102, 230, 102), (102, 102, 102), (204, 0, 0), (255, 255, 255)} <= colours
    # three quarters down, in the middle: the hull
    assert picture[297:303, 298:302].reshape(-1, 3).tolist().count([204, 0, 0]) > 12


def test_a_window_shows_the_first_lane() -> None:
    import pygame

    env = make(2, skip=1, render_mode="human")
    reset(env)
    env.step(torch.zeros(2, 3))
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    assert np.array_equal(shown, env.render(0))
    env.close()
    assert pygame.display.get_surface() is None
