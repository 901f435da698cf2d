"""What cars on roads say of themselves: against the picture's colours, numbers by hand, and the other environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_env, make_vec
from rlkit.envs.driving.batched.track import STEP, WIDTH
from rlkit.envs.labels import road

ALL = ("mask", "pose", "boxes", "expert")
NONE = np.zeros((0, 3), np.float32)


def car_racing(labels: tuple[str, ...], **options: Any) -> Any:
    """One CarRacing environment, of RGB pictures of 96 x 96 where nothing else is said."""
    return make_env(EnvConfig(id="rlkit/CarRacing", labels=labels, **{"skip": 4, **options}))


def driving(labels: tuple[str, ...], lanes: int = 4, seed: int = 3, **kwargs: Any) -> Any:
    """N lanes of the batched environment in one thread."""
    config = EnvConfig(id="rlkit/Driving", lanes=lanes, labels=labels, kwargs={"threads": 1, **kwargs})
    return make_vec(config, seed)


def opened(vector: Any) -> Any:
    """The first row of a vector's first episodes."""
    return vector.restore(np.zeros(vector.lanes, np.int64), [NONE] * vector.lanes)


def colours_of(core: Any, picture: np.ndarray) -> np.ndarray:
    """[H, W] codes from the picture's colours alone; the car, and kerbs that look like it, are all CAR."""

    picture = picture.astype(float) + 2  # which shrinking took

    def between(low: Any, high: Any) -> np.ndarray:
        return ((picture >= np.floor(low) - 4) & (picture <= np.floor(high) + 4)).all(2)

    codes = np.full(picture.shape[:2], road.CAR)
    codes[between(core.bg_color, core.grass_color)] = road.GRASS
    codes[between(core.road_color, core.road_color + 5)] = road.ROAD  # tiles are in three shades
    codes[picture.shape[0] * 7 // 8 :] = road.PANEL
    return codes


@pytest.mark.parametrize("randomize", [False, True])
def test_the_mask_is_what_the_colours_say(randomize: bool) -> None:
    """Away from edges, where a pixel mixes two colours, at least 99.5 % of the pixels agree."""
    env, core_codes, drawn = car_racing(("mask", "expert"), kwargs={"domain_randomize": randomize}), [], []
    for seed in (3, 5):
        obs, _ = env.reset(seed=seed)
        for decision in range(45):
            obs, *_ = env.step(obs["label"]["expert"])
            if decision % 5 == 4 and decision > 12:  # the zoom is over
                core_codes.append(colours_of(env.unwrapped, obs["image"]))
                drawn.append(obs["label"]["mask"])
    env.close()
    codes, mask = np.stack(core_codes), np.stack(drawn)
    # pixels whose neighbours all show the same thing
    inner = np.ones((len(mask), 94, 94), bool)
    for dy in range(3):
        for dx in range(3):
            inner &= mask[:, dy : dy + 94, dx : dx + 94] == mask[:, 1:-1, 1:-1]
    told, seen = mask[:, 1:-1, 1:-1], codes[:, 1:-1, 1:-1]
    alike = np.where(told == road.KERB, road.CAR, told) == seen
    assert alike[inner].mean() >= 0.995
    for code in (road.GRASS, road.ROAD, road.PANEL):  # of each kind, too
        assert alike[inner & (told == code)].mean() >= 0.99 and (inner & (told == code)).sum() > 5000
    for code in (road.CAR, road.KERB):  # too narrow to have an inside: mixed pixels count as theirs
        assert alike[told == code].mean() >= 0.9 and (told == code).sum() > 100


def circle(radius: float) -> road.Road:
    """A road around the origin, driven counter-clockwise."""
    count = round(2 * np.pi * radius / STEP)
    beta = np.arange(count) * 2 * np.pi / count
    out = np.stack([np.cos(beta), np.sin(beta)], 1)
    edge = np.stack([(radius - WIDTH) * out, (radius + WIDTH) * out], 1)
    path = np.concatenate([beta[:, None], radius * out], 1)
    return road.Road(path[None], edge[None], np.zeros((1, count), np.int8), np.array([count]))


def placed(x: float, y: float, angle: float, speed: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """A car there, the zoom over: its body (wheels left out) and motion."""
    body = np.zeros((1, 5, 4))
    body[0, 4] = x, y, np.sin(angle), np.cos(angle)
    return body, np.array([[speed, 0.5, 2.0]])


def test_a_pose_by_hand() -> None:
    """A metre and a half outside the middle of a circle of 100 m, turned 0.1 rad further to the left than the road."""
    track = circle(100.0)
    beta = float(track.path[0, 30, 0])
    body, motion = placed(101.5 * np.cos(beta), 101.5 * np.sin(beta), beta + 0.1 + 6 * np.pi)
    out = np.zeros((1, road.POSE), np.float32)
    road.locate(0, 1, body, motion, track.path, track.count, out)
    step = 2 * np.pi * 100.0 / track.count[0]
    np.testing.assert_allclose(out[0, :4], [1.5, 0.1, 20.0, 0.5], atol=1e-5)
    np.testing.assert_allclose(out[0, 4:], step / STEP / 100.0, rtol=1e-5)  # curvature, positive to the left


def test_boxes_by_hand() -> None:
    """On a straight road the next tile reaches from the car 3.5 m ahead, 16.2 of 800 rows a metre."""
    y = STEP * np.arange(40.0)
    path = np.stack([np.zeros(40), np.zeros(40), y], 1)[None]
    edge = np.stack([np.stack([side * WIDTH + 0 * y, y], 1) for side in (-1, 1)], 1)[None]
    body, motion = placed(0.0, 5 * STEP, 0.0)
    out = np.ones((1, road.TILES_AHEAD, 5), np.float32)
    road.box(0, 1, body, motion, path, edge, np.array([40]), out)
    half, high = WIDTH * 16.2 / 1000, STEP * 16.2 / 800
    np.testing.assert_allclose(out[0, 0], [0.5 - half, 0.75 - high, 0.5 + half, 0.75, 1.0], rtol=1e-5)
    np.testing.assert_allclose(out[0, 1, [1, 3]], [0.75 - 2 * high, 0.75 - high], rtol=1e-5)
    body, motion = placed(500.0, 0.0, 0.0)  # far away nothing is seen, and nothing is said
    road.box(0, 1, body, motion, path, edge, np.array([40]), out)
    assert not out.any()


def test_the_driver_by_hand() -> None:
    """It steers back to the road, gives gas below its speed and brakes above."""
    track = circle(1000.0)

    def drive(offset: float, angle: float, speed: float) -> np.ndarray:
        body, motion = placed(1000.0 + offset, 0.0, angle, speed)
        motion[0, 1] = 0.0
        out = np.zeros((1, 3), np.float32)
        road.pursue(0, 1, body, motion, track.path, track.count, out)
        return out[0]

    assert drive(3.0, 0.0, 20.0)[0] < -0.05 and drive(-3.0, 0.0, 20.0)[0] > 0.05  # right is positive
    assert drive(0.0, 0.5, 20.0)[0] > 0.2 and drive(0.0, -0.5, 20.0)[0] < -0.2
    assert abs(drive(0.0, np.pi, 5.0)[0]) == 1.0  # turned round
    slow, fast = drive(0.0, 0.0, 20.0), drive(0.0, 0.0, 90.0)
    assert slow[1] > 0.8 and slow[2] == 0.0 and fast[1] == 0.0 and fast[2] > 0.2


def test_the_driver_of_many_lanes_finishes_its_laps() -> None:
    vector = driving(("expert",), lanes=12)
    row, total = opened(vector), torch.zeros(12)
    alive = torch.ones(12, dtype=torch.bool)
    while alive.any():
        row = vector.step(row.obs["label.expert"].clone())
        total += torch.where(alive, row.reward, 0.0)
        alive &= ~row.last
    vector.close()
    assert total.mean() > 880 and total.min() > 800, total


@pytest.mark.parametrize("continuous", [True, False])
def test_the_driver_of_car_racing(continuous: bool) -> None:
    """A little less than half an episode, in colours that it does not see; its actions are the environment's own."""
    env = car_racing(("expert",), kwargs={"domain_randomize": True, "continuous": continuous}, time_limit=400)
    obs, _ = env.reset(seed=100)
    total, over = 0.0, False
    while not over:
        assert env.action_space.contains(obs["label"]["expert"])
        obs, reward, terminated, truncated, _ = env.step(obs["label"]["expert"])
        total, over = total + float(reward), terminated or truncated
    env.close()
    assert total > (400 if continuous else 250)


def test_the_batched_environment_says_what_car_racing_says() -> None:
    """The same track and the same actions; the cars' physics differ in float32 and joints that give."""
    vector, env = driving(ALL, lanes=1, size=96), car_racing(ALL)
    row = opened(vector)
    obs, _ = env.reset(seed=vector.seeds.of(0, 0))
    for _ in range(15):
        action = row.obs["label.expert"].clone()
        row = vector.step(action)
        obs, *_ = env.step(action[0].numpy())
    mine, theirs = row.obs, obs["label"]
    np.testing.assert_allclose(mine["label.pose"][0], theirs["pose"], atol=0.3)
    np.testing.assert_allclose(mine["label.boxes"][0], theirs["boxes"], atol=0.02)
    assert (mine["label.mask"][0].numpy() == theirs["mask"]).mean() > 0.99
    env.close()
    vector.close()


def test_vector_is_the_other_observation() -> None:
    picture, numbers = driving(("vector",)), driving((), observation="vector")
    one, other = opened(picture), opened(numbers)
    space = dict(dict(picture.spec.observation)["label"])["vector"]
    np.testing.assert_array_equal(space.low, numbers.spec.observation.low)
    np.testing.assert_array_equal(space.high, numbers.spec.observation.high)
    for _ in range(8):
        assert torch.equal(one.obs["label.vector"], other.obs)
        action = torch.rand(4, 3)
        one, other = picture.step(action), numbers.step(action)


def test_lanes_are_labelled_in_one_call_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code goes over the lanes; what it says of one does not depend on the others."""
    calls: list[tuple[int, int]] = []
    paint = road.paint
    monkeypatch.setattr(
        road, "paint", lambda low, high, *rest: calls.append((low, high)) or paint(low, high, *rest)
    )
    many, few = driving(ALL, lanes=6), driving(ALL, lanes=2)
    a, b = opened(many), opened(few)
    calls.clear()
    for _ in range(3):
        a, b = many.step(a.obs["label.expert"].clone()), few.step(b.obs["label.expert"].clone())
    assert calls == [(0, 6), (0, 2)] * 3
    for name in many.spec.labels:
        assert torch.equal(a.obs[name][:2], b.obs[name])


def test_a_snapshot_brings_the_labels_back() -> None:
    vector = driving((*ALL, "vector"), lanes=8, frames=40)
    other = driving((*ALL, "vector"), lanes=8, frames=40, threads=2)
    row = opened(vector)
    for _ in range(7):
        row = vector.step(row.obs["label.expert"].clone())
    other.load_snapshot(vector.snapshot())
    for _ in range(6):  # over the end of an episode
        for name in vector.row.obs:
            assert torch.equal(vector.row.obs[name], other.row.obs[name]), name
        action = vector.row.obs["label.expert"].clone()
        vector.step(action), other.step(action)
