"""The rules of the batched car one by one, as the class plays them."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.envs.driving.batched import tyres
from rlkit.envs.driving.batched.driving import Driving
from rlkit.envs.driving.batched.track import PLAYFIELD

STILL, STRAIGHT = (0.0, 0.0, 0.0), (0.0, 0.6, 0.0)


def make(lanes: int = 1, **kwargs: Any) -> Driving:
    env = Driving(lanes, seed=0, observation="vector", threads=1, **{"skip": 1, **kwargs})
    env.restore(np.zeros(lanes, np.int64), [np.zeros(0)] * lanes)
    return env


def drive(env: Driving, *action: float) -> float:
    """One decision of all lanes; the first lane's reward."""
    return float(env.step(torch.tensor([action] * env.lanes)).reward[0])


@pytest.mark.parametrize(("share", "ends"), [(0.94, False), (0.95, False), (0.951, True), (0.99, True)])
def test_a_lap_ends_at_its_first_tile_after_95_percent(share: float, ends: bool) -> None:
    """The car stands on tile 0, which is made new; `share` of all tiles are visited with it."""
    env = make()
    count = int(env.tracks.count[0])
    visited = math.ceil(share * count) if ends else math.floor(share * count)
    drive(env, *STILL)
    env.marks[0, :visited] = tyres.VISITED | tyres.TOUCHED
    env.marks[0, 0] = 0
    env.cars["visited"][0] = visited - 1
    reward = drive(env, *STILL)
    assert env.cars["visited"][0] == visited and visited < count
    assert reward == pytest.approx(1000 / count - 0.1)
    assert (bool(env.row.terminated[0]), bool(env.row.last[0])) == (ends, ends)


def test_another_tile_ends_no_lap() -> None:
    env = make()
    count = int(env.tracks.count[0])
    drive(env, *STILL)
    env.marks[0, :count] = tyres.VISITED | tyres.TOUCHED
    env.marks[0, 1], env.marks[0, count // 2] = 0, 0  # it stands on tile 1 too
    env.cars["visited"][0] = count - 2
    assert drive(env, *STILL) == pytest.approx(1000 / count - 0.1)
    assert not env.row.terminated[0]


@pytest.mark.parametrize("speed", [99.0, 101.0, 350.0])
def test_nothing_is_faster_than_two_metres_a_frame(speed: float) -> None:
    """As Box2D's bodies. On grass, where a tyre's force of 240 N changes little; the direction stays."""
    env = make()
    car = env.cars[0]
    car["vx"], car["vy"], car["joint"], car["angle"] = 0.8 * speed, -0.6 * speed, 0.0, 0.0
    before = float(car["x"]), float(car["y"])
    # what the tyres take off at most: 4 * 400 N on the car's mass for a frame
    most = 0.02 * 4 * tyres.GRIP / tyres.MASS
    drive(env, *STILL)
    now = math.hypot(car["vx"], car["vy"])
    if speed > 100 + most:
        assert now == pytest.approx(100.0)
    else:
        assert min(speed, 100.0) - most <= now <= 100.0 + 1e-9
    moved = math.hypot(car["x"] - before[0], car["y"] - before[1])
    assert moved == pytest.approx(0.02 * now) and moved <= 2.0 + 1e-9


@pytest.mark.parametrize(("x", "y"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_beyond_each_side_of_the_playfield_100_are_lost(x: int, y: int) -> None:
    for inside in (True, False):
        env = make()
        drive(env, *STILL)
        car = env.cars[0]
        car["angle"], car["turned"], car["spin"], car["vx"], car["vy"], car["owed"] = (
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
        )
        at = PLAYFIELD - 1.0 if inside else PLAYFIELD + 1.0
        car["x"], car["y"] = x * at + tyres.CENTRE[0], y * at + tyres.CENTRE[1]
        assert drive(env, *STILL) == pytest.approx(-0.1 if inside else -100.0)
        assert bool(env.row.terminated[0]) is not inside


def test_tiles_are_paid_once_also_over_a_snapshot() -> None:
    """Driven over again from where it began, the tiles of before pay nothing; other lanes keep their own."""
    env = make(2, skip=4)
    for _ in range(25):
        drive(env, *STRAIGHT)
    visited = int(env.cars["visited"][0])
    assert visited > 8
    saved = env.snapshot()
    other = make(2, skip=4)
    other.load_snapshot(saved)
    assert np.array_equal(other.marks, env.marks) and not np.array_equal(env.marks[0], env.marks[1])
    fresh = make(2, skip=4)
    for name in ("x", "y", "angle", "turned", "vx", "vy", "spin", "joint", "rate", "omega", "gas"):
        other.cars[name] = fresh.cars[name]  # back to the start
    other.cars["owed"] = 0.0
    total = sum(drive(other, *STRAIGHT) for _ in range(20))
    assert int(other.cars["visited"][0]) == visited
    assert total == pytest.approx(-0.1 * 80, abs=1e-3)


# Those shown in pictures alone (how far the wheels have turned, the score), and one that ends its episode at once.
NOT_NEEDED = {"cars.phase", "cars.total", "cars.lap"}


def test_every_field_of_a_snapshot_is_needed() -> None:
    """A lane that turns its wheels near the end of its frames, one that is lost: whatever is left out is missed."""
    env = make(2, skip=4, frames=100)
    for t in range(20):
        env.step(torch.tensor([[0.1, 0.5, 0.0], [-0.3, 0.3, 0.1 * (t % 2)]]))
    env.cars["frame"][0] = 90
    env.cars["x"][1] = PLAYFIELD + 5
    env.step(torch.tensor([[-0.9, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    env.cars["owed"][0] = 3.0
    saved = env.snapshot()
    assert env.row.terminated.tolist() == [False, True]

    def ride(state: Any) -> list[torch.Tensor]:
        again = make(2, skip=4, frames=100)
        again.load_snapshot(copy.deepcopy(state))
        row = again.row
        found = [
            row.obs.clone(),
            row.reward.clone(),
            row.terminated.clone(),
            row.first.clone(),
            row.last.clone(),
        ]
        for _ in range(3):
            row = again.step(torch.tensor([[0.2, 0.4, 0.0]] * 2))
            found += [row.obs.clone(), row.reward.clone(), row.first.clone(), row.last.clone()]
            found.append(torch.from_numpy(again.cars["visited"].copy()))
        return found

    whole, harmless = ride(saved), set()
    for group, fields in saved.items():
        for name in fields if isinstance(fields, dict) else [None]:
            changed = copy.deepcopy(saved)
            del (changed if name is None else changed[group])[group if name is None else name]
            try:
                found = ride(changed)
            except KeyError:
                continue
            if all(torch.equal(a, b) for a, b in zip(found, whole, strict=True)):
                harmless.add(f"{group}.{name}")
    assert harmless == NOT_NEEDED
