"""Robots: what commands do by hand, what is seen against slow versions, worlds in which goals can be reached, maps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rlkit.checkpoint import pack, unpack
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec, probe
from rlkit.envs.navigation import maps, planner, worlds
from rlkit.envs.navigation import robots as r
from rlkit.envs.navigation.nav import Nav
from rlkit.envs.navigation.scans import ANGLE_INCREMENT, ANGLE_MIN, RAYS

CLEAN: dict[str, Any] = {"slip": 0.0, "noise": 0.0, "dropout": 0.0}
EMPTY: dict[str, Any] = {"walls": 0, "circles": 0, **CLEAN}


def make(lanes: int = 1, seed: int = 5, **kwargs: Any) -> Nav:
    return Nav(lanes, seed, **{"threads": 1} | kwargs)


def reset(env: Nav) -> Any:
    return env.restore(np.zeros(env.lanes, np.int64), [np.zeros((0, 2))] * env.lanes)


def stage(x: float, y: float, theta: float, goal: tuple[float, float] = (9.0, 9.0), **kwargs: Any) -> Nav:
    """A robot that stands in a room of 10 m, empty but for what is asked for."""
    env = make(**EMPTY | kwargs)
    reset(env)
    env.robot[0] = x, y, theta, 0.0, 0.0, *goal
    env._look(0, 1)
    return env


def do(env: Nav, v: float, w: float, steps: int = 1) -> Any:
    for _ in range(steps):
        row = env.step(torch.tensor([[v, w]]).expand(env.lanes, 2))
    return row


# ---- what a command does


def test_speeds_follow_the_command_within_their_limits() -> None:
    env = stage(2.0, 2.0, 0.0)
    do(env, 1.0, -2.0)
    assert env.robot[0, [r.V, r.W]].tolist() == pytest.approx([0.1, -0.3])
    do(env, 5.0, -9.0, 30)  # beyond the highest speeds: those
    assert env.robot[0, [r.V, r.W]].tolist() == [1.0, -2.0]
    assert env.row.obs[0, -2:].tolist() == [1.0, -2.0]
    do(env, -1.0, -1.9)
    assert env.robot[0, [r.V, r.W]].tolist() == pytest.approx([0.9, -1.9])
    do(env, -1.0, 0.0, 30)
    assert env.robot[0, r.V] == -0.5


def test_a_sub_step_by_hand() -> None:
    env = stage(2.0, 2.0, 0.5)
    env.robot[0, [r.V, r.W]] = 0.8, 1.2
    do(env, 0.8, 1.2)
    x, y, theta = 2.0, 2.0, 0.5
    for _ in range(2):
        x += 0.8 * 0.025 * math.cos(theta + 1.2 * 0.0125)
        y += 0.8 * 0.025 * math.sin(theta + 1.2 * 0.0125)
        theta += 1.2 * 0.025
    assert env.robot[0, :3].tolist() == pytest.approx([x, y, theta], abs=1e-6)
    env.robot[0, [r.THETA, r.V]] = 3.13, 0.0
    do(env, 0.0, 1.2)
    assert env.robot[0, r.THETA] == pytest.approx(3.13 + 0.06 - 2 * math.pi, abs=1e-6)  # within half a turn


def test_wheels_slip_by_normal_numbers() -> None:
    lanes = 4000
    env = make(lanes, **EMPTY | {"slip": 0.1, "size": 20.0})
    reset(env)
    env.robot[:] = 10.0, 10.0, 0.0, 1.0, 0.0, 1.0, 1.0
    do(env, 1.0, 0.0)
    # per sub-step each wheel goes 0.025 (1 + 0.1 n): the middle half their sum, the turn their difference over 0.3
    ahead, turn = env.robot[:, r.X] - 10.0, env.robot[:, r.THETA]
    assert ahead.mean() == pytest.approx(0.05, abs=4 * 0.0025 / math.sqrt(lanes))
    assert ahead.std() == pytest.approx(0.0025, rel=0.06)
    assert turn.std() == pytest.approx(0.1 * 0.025 * 2 / 0.3, rel=0.06)
    assert abs(turn.mean()) < 4 * 0.0167 / math.sqrt(lanes)
    assert abs(np.corrcoef(ahead, turn)[0, 1]) < 0.07
    env.robot[:] = 10.0, 10.0, 0.0, 0.0, 0.0, 1.0, 1.0
    do(env, 0.0, 0.0)
    assert (env.robot[:, :3] == [10.0, 10.0, 0.0]).all()  # wheels that stand do not slip


def test_progress_is_paid_by_the_metre() -> None:
    env = stage(2.0, 2.0, 0.0, goal=(8.0, 2.0), progress=0.5)
    env.robot[0, r.V] = 1.0
    row = do(env, 1.0, 0.0)
    assert row.reward.item() == pytest.approx(0.5 * 0.05, abs=1e-6)
    row = do(env, -1.0, 0.0, 20)
    assert row.reward.item() < 0 and not row.last.item()


def test_the_goal() -> None:
    env = stage(2.0, 2.0, 0.0, goal=(2.37, 2.0))
    env.robot[0, r.V] = 1.0
    row = do(env, 1.0, 0.0)
    assert not row.last.item()
    row = do(env, 1.0, 0.0)  # reached in the first sub-step, where the robot stays
    assert row.terminated.item() and row.last.item()
    assert row.reward.item() == pytest.approx(1 + 0.2 * 0.025, abs=1e-6)
    assert row.obs[0, RAYS].item() == pytest.approx(0.295, abs=1e-6)
    row = do(env, 1.0, 0.0)
    assert row.first.item() and row.reward.item() == 0 and not row.last.item() and env.episode[0] == 1
    assert env.count[0, r.STEPS] == 0 and env.robot[0, r.V] == 0


@pytest.mark.parametrize(
    ("box", "circle"),
    [((9.0, 9.0, 9.0, 9.0), (3.9, 4.3, 0.5)), ((3.2, 3.9, 3.4, 7.0), (9.0, 9.0, 0.0)), ((3.15, 0, 3.3, 4), (0, 0, 0))],
)  # fmt: skip
def test_a_crash_ends_the_episode_where_the_robot_was(box: Any, circle: Any) -> None:
    env = stage(2.9, 4.1, 0.0, walls=1, circles=1)
    env.boxes[0, 0], env.circles[0, 0, :3] = box, circle
    near = [max(box[0] - 2.9, 0), max(box[1] - 4.1, 0, 4.1 - box[3])]
    gap = min(math.hypot(*near), math.hypot(circle[0] - 2.9, circle[1] - 4.1) - circle[2])
    row = do(env, 1.0, 0.0)
    t = 1
    while not row.last.item():
        x = env.robot[0, r.X]
        row, t = do(env, 1.0, 0.0), t + 1
    assert row.terminated.item() and row.reward.item() == pytest.approx(-1, abs=0.02) and t < 15
    assert x <= env.robot[0, r.X] <= 2.9 + gap and env.robot[0, r.V] == 0
    touched = env.robot[0, r.X] + 0.025  # with a sub-step more it would have
    box_gap = math.hypot(max(box[0] - touched, 0), max(box[1] - 4.1, 0, 4.1 - box[3]))
    assert min(box_gap, math.hypot(circle[0] - touched, circle[1] - 4.1) - circle[2]) < 0.2


def test_the_rooms_walls_are_a_crash_too() -> None:
    for x, y, theta in ((9.75, 5, 0), (5, 9.75, math.pi / 2), (0.25, 5, math.pi), (5, 0.25, -math.pi / 2)):
        env = stage(x, y, theta, goal=(2.0, 2.0))
        row = do(env, 1.0, 0.0, 5)
        assert row.terminated.item() and row.reward.item() < -0.9


def test_the_limit() -> None:
    env = stage(2.0, 2.0, 0.0, limit=3)
    assert not do(env, 0.0, 0.0, 2).last.item()
    row = do(env, 0.0, 0.0)
    assert row.last.item() and not row.terminated.item()


def test_circles_move_turn_and_run_into_robots() -> None:
    env = stage(5.0, 5.0, 0.0, moving=2, walls=1, circles=1)
    env.boxes[0, 0], env.circles[0, 0] = (7.0, 7.0, 8.0, 8.0), (2.0, 8.0, 0.5, 0.0, 0.0)
    env.circles[0, 1:] = (3.0, 5.0, 0.2, 0.4, 0.0), (6.7, 7.5, 0.2, 0.5, 0.0)
    do(env, 0.0, 0.0)
    assert env.circles[0, 1, :2].tolist() == pytest.approx([3.02, 5.0])
    row = do(env, 0.0, 0.0, 4)
    (x, y, _, vx, vy) = env.circles[0, 2].tolist()  # it would touch the box: it has turned
    assert math.hypot(vx, vy) == pytest.approx(0.5, abs=1e-6) and (vx, vy) != (0.5, 0.0) and x < 6.8
    t = 5
    while not row.last.item():
        t += 1
        before = env.circles[0, 0].copy()
        row = do(env, 0.0, 0.0)
        assert (env.circles[0, 0] == before).all()  # a pillar stands
        for x, y, radius in env.circles[0, 1:, :3]:
            assert radius <= min(x, y, 10 - x, 10 - y) and math.hypot(x - 2, y - 8) >= radius + 0.5 - 1e-5
            assert math.hypot(max(7 - x, 0, x - 8), max(7 - y, 0, y - 8)) >= radius - 1e-5
    assert t == 81 and row.terminated.item()  # 1.6 m of 0.02 m each: touched after the 81st
    assert row.reward.item() == -1.0


# ---- what is seen


def plain_scan(env: Nav, lane: int) -> npt.NDArray[np.float64]:
    """Walking along every ray."""
    x, y, theta = env.robot[lane, :3].astype(float)
    angles = theta + ANGLE_MIN + ANGLE_INCREMENT * np.arange(RAYS)
    found = np.full(RAYS, env.sensor[0])
    for t in np.arange(env.sensor[0], 0.0, -0.01):
        px, py = x + t * np.cos(angles), y + t * np.sin(angles)
        if env.map is None:
            hit = (px < 0) | (py < 0) | (px > env.size) | (py > env.size)
        else:
            lines, columns = (np.array(env.map.near.shape) - 1)[:, None]
            cells = (py // env.map.cell).clip(0, lines), (px // env.map.cell).clip(0, columns)
            hit = env.map.near[cells[0].astype(int), cells[1].astype(int)] == 0
        for x0, y0, x1, y1 in env.boxes[lane]:
            hit |= (px >= x0) & (px <= x1) & (py >= y0) & (py <= y1)
        for cx, cy, radius in env.circles[lane, :, :3]:
            hit |= (px - cx) ** 2 + (py - cy) ** 2 < radius**2
        found[hit] = t
    return found


def test_rays_against_walking_along_them() -> None:
    env = make(8, walls=8, circles=8, moving=3, reach=4.0, **CLEAN)
    reset(env)
    env.robot[:3, r.THETA] = 0.0, math.pi / 2, math.pi  # along the axes
    env._look(0, env.lanes)
    ended = np.stack([plain_scan(env, lane) for lane in range(env.lanes)])
    off = np.abs(env._obs[:, :RAYS] - ended) > 0.012
    assert off.sum() <= 4  # steps pass over what they only graze
    assert (ended == 4.0).any() and (ended < 0.5).any()


def test_rays_are_in_ross_order() -> None:
    env = stage(2.0, 3.0, math.pi / 2, goal=(1.0, 5.0), reach=20.0)
    seen = env.row.obs[0].tolist()
    # looking along y: behind (0) the wall y = 0, to the right (16) x = 10, ahead (32) y = 10, to the left (48) x = 0
    assert [seen[k] for k in (0, 16, 32, 48)] == pytest.approx([3.0, 8.0, 7.0, 2.0], abs=1e-5)
    assert seen[24] == pytest.approx(7 * math.sqrt(2), abs=1e-4)
    assert seen[RAYS:] == pytest.approx([math.sqrt(5), 2 / math.sqrt(5), 1 / math.sqrt(5), 0, 0], abs=1e-6)
    env.robot[0, [r.GOAL_X, r.GOAL_Y]] = 2.0, 3.0
    env._look(0, 1)
    assert env.row.obs[0, RAYS : RAYS + 3].tolist() == [0, 0, 0]


def test_noise_and_lost_rays() -> None:
    lanes = 400
    env = make(lanes, **EMPTY | {"noise": 0.1, "dropout": 0.03, "reach": 4.0})
    reset(env)
    env.robot[:, :3] = 2.5, 2.5, math.pi / 4
    env._look(0, lanes)
    exact = stage(2.5, 2.5, math.pi / 4, reach=20.0)._obs[0, :RAYS]
    seen, far = env._obs[:, :RAYS], exact > 4.0
    assert (seen[:, far] == 4.0).all() and seen.max() == 4.0
    near = exact < 3.5  # noise never brings them to the range's end
    lost = seen[:, near] == 4.0
    count = lost.size
    assert lost.mean() == pytest.approx(0.03, abs=4 * math.sqrt(0.03 * 0.97 / count))
    noise = (seen[:, near] - exact[near])[~lost]
    assert abs(noise.mean()) < 4 * 0.1 / math.sqrt(count) and noise.std() == pytest.approx(0.1, rel=0.03)
    assert np.abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 4 / math.sqrt(count)
    before = env._obs.copy()
    env._look(0, lanes)
    assert (env._obs == before).all()  # of a step there is one scan
    do(env, 0.0, 0.0)
    assert (env._obs[:, :RAYS] != before[:, :RAYS]).mean() > 0.4
    env = make(3, **EMPTY | {"dropout": 1.0})
    assert (reset(env).obs[:, :RAYS] == 3.5).all()


# ---- worlds


def clear_of(env: Nav, lane: int, x: float, y: float) -> float:
    """How far a point is from all that stands."""
    gaps = [x, y, env.size - x, env.size - y]
    gaps += [
        math.hypot(max(a - x, 0, x - c), max(b - y, 0, y - d)) for a, b, c, d in env.boxes[lane].tolist()
    ]
    gaps += [
        math.hypot(x - a, y - b) - radius for a, b, radius, _, _ in env.circles[lane, : env.fixed].tolist()
    ]
    return min(gaps)


@pytest.mark.parametrize(
    "kwargs", [{}, {"walls": 12, "circles": 12, "moving": 3}, {"size": 4.0, "walls": 30}]
)
def test_goals_can_be_reached(kwargs: dict[str, Any]) -> None:
    env = make(12, **kwargs)
    reset(env)
    for lane in range(env.lanes):
        x, y, goal_x, goal_y = env.robot[lane, [r.X, r.Y, r.GOAL_X, r.GOAL_Y]].tolist()
        assert math.hypot(x - goal_x, y - goal_y) >= env.size / 3
        start, goal = (int(x / 0.25), int(y / 0.25)), (int(goal_x / 0.25), int(goal_y / 0.25))
        found, todo = {start}, [start]
        while todo:
            i, j = todo.pop()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if (
                    cell not in found
                    and clear_of(env, lane, (cell[0] + 0.5) / 4, (cell[1] + 0.5) / 4) >= 0.349
                ):
                    found.add(cell)
                    todo.append(cell)
        assert goal in found and clear_of(env, lane, x, y) >= 0.349
        for cx, cy, radius, vx, vy in env.circles[lane, env.fixed :].tolist():
            assert math.hypot(cx - x, cy - y) >= worlds.APART and 0.25 <= math.hypot(vx, vy) <= 0.5 + 1e-6
            assert clear_of(env, lane, cx, cy) > radius


def test_worlds_follow_from_seeds_alone() -> None:
    def shown(env: Nav) -> list[bytes]:
        reset(env)
        return [
            b"".join(part[lane].tobytes() for part in (env.robot, env.boxes, env.circles))
            for lane in range(env.lanes)
        ]

    kwargs: dict[str, Any] = {"moving": 2}
    eight = shown(make(8, **kwargs))
    assert len(set(eight)) == 8
    assert [one for first in (0, 4) for one in shown(make(4, first_lane=first, **kwargs))] == eight
    assert shown(make(8, seed=6, **kwargs)) != eight
    assert not set(shown(make(8, evaluation=True, **kwargs))) & set(eight)


# ---- the vector environment

RICH: dict[str, Any] = {"moving": 3, "limit": 30, "size": 5.0, "walls": 2, "circles": 2}


def played(env: Nav, steps: int, seed: int = 1) -> list[Any]:
    generator, found = np.random.default_rng(seed), []
    for _ in range(steps):
        row = env.step(
            torch.from_numpy(generator.uniform([0, -1], [1, 1], (env.lanes, 2)).astype(np.float32))
        )
        assert isinstance(row.obs, torch.Tensor)
        found.append([part.clone() for part in (row.obs, row.reward, row.terminated, row.first, row.last)])
    return found


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def test_a_snapshot_continues_bit_for_bit() -> None:
    whole, half, other = (make(3, **RICH) for _ in range(3))
    reset(whole), reset(half)
    played(whole, 45), played(half, 45)
    saved = half.snapshot()
    expected = played(whole, 40, 2)
    played(half, 5)  # what happens afterwards does not change what was saved
    document, tensors = pack(saved)  # as a checkpoint stores it
    other.load_snapshot(unpack(json.loads(json.dumps(document)), tensors))
    assert same(played(other, 40, 2), expected)
    assert any(row[-1].any() for row in expected) and any(row[2].any() for row in expected)


def test_threads_and_splits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.envs.navigation.nav.SHARE", 1)
    alone, three = make(5, **RICH), make(5, **RICH | {"threads": 3})
    assert len(three._parts.runs) == 3
    reset(alone), reset(three)
    assert same(played(alone, 40), played(three, 40))
    three.close()
    three.close()


def test_actions_rebuild_what_a_snapshot_holds() -> None:
    env, again = make(2, **RICH), make(2, **RICH)
    reset(env)
    for v in (0.5, 0.7, 0.1):
        do(env, v, 0.5)
    again.restore(np.zeros(2, np.int64), [np.array([[0.5, 0.5], [0.7, 0.5], [0.1, 0.5]]), np.zeros((0, 2))])
    assert isinstance(again.row.obs, torch.Tensor) and isinstance(env.row.obs, torch.Tensor)
    assert torch.equal(again.row.obs[0], env.row.obs[0]) and again.row.first.tolist() == [False, True]


def test_people_see_the_world_from_above() -> None:
    env = stage(2.0, 3.0, 0.0, goal=(7.0, 8.0), walls=1)
    env.boxes[0, 0] = 5.0, 1.0, 6.0, 2.0
    picture = env.render(0)
    assert picture is not None and picture.shape == (480, 480, 3) and picture.dtype == np.uint8
    assert picture[480 - 144 - 4, 96 - 4].tolist() == [40, 90, 200]  # 48 pixels a metre, y upwards
    assert picture[480 - 72, 264].tolist() == [90, 90, 90]
    assert picture[480 - 384, 336].tolist() == [60, 170, 80]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 3}, r"size=3: allowed: a number from 4 to 50$"),
        ({"size": math.nan}, r"size=nan: allowed: a number from 4 to 50$"),
        ({"walls": -1}, r"walls=-1: allowed: a whole number from 0 to 64$"),
        ({"moving": 1.5}, r"moving=1\.5: allowed: a whole number"),
        ({"dropout": 1.1}, r"dropout=1\.1: allowed: a number from 0 to 1$"),
        ({"slip": "much"}, r"slip=much: allowed: a number from 0 to 0\.5$"),
        ({"goal": [1.0, 2.0]}, r"goal=\[1\.0, 2\.0\]: allowed: with a map; type env\.kwargs\.map=PATH$"),
        ({"goal": [1.0]}, r"goal=\[1\.0\]: allowed: \[x, y\] in metres$"),
        ({"map": 3}, r"map=3: allowed: the path of a YAML file"),
        ({"render_mode": "ansi"}, r"render_mode=ansi: allowed: None, rgb_array, human"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^env\.kwargs\." + message):
        make(**kwargs)


def test_commands_that_are_no_numbers_are_refused() -> None:
    env = make(2)
    reset(env)
    with pytest.raises(ValueError, match=r"action \[0\.0, nan\] of lane 1: allowed: finite numbers"):
        env.step(torch.tensor([[0.0, 0.0], [0.0, math.nan]]))


def test_the_registry_makes_it() -> None:
    found = probe(EnvConfig(id="rlkit/Nav", lanes=2))
    assert found.config.backend == "batched" and found.spec.observation.shape == (69,)  # type: ignore[union-attr]
    vector = make_vec(EnvConfig(id="rlkit/Nav", lanes=2), 0, device="meta")
    assert vector.device == torch.device("cpu")
    vector.close()


# ---- maps

ROOM = [  # a metre a sign: two halls with a door between them, and a closet; bottom line last
    "##############",
    "#.....#......#",
    "#.....#......#",
    "#............#",
    "#.....#...####",
    "#.....#...#..#",
    "##############",
]


def draw_map(
    folder: Path, rows: list[str] = ROOM, kind: str = "P5", scale: int = 4, extra: str = "", **fields: Any
) -> str:
    """Write a map of `scale` x `scale` pixels a sign: # wall, ? unknown, . free; the path of its YAML file."""
    grey = np.array([[{"#": 0, "?": 205, ".": 254}[sign] for sign in row] for row in rows], np.uint8)
    grey = grey.repeat(scale, 0).repeat(scale, 1)
    head = f"{kind}\n# by hand\n{grey.shape[1]} {grey.shape[0]}\n255\n".encode()
    body = grey.tobytes() if kind == "P5" else " ".join(map(str, grey.ravel())).encode()
    (folder / "room.pgm").write_bytes(head + body)
    given = {"image": "room.pgm", "resolution": 1 / scale, "origin": [-3.0, 2.0, 0.0]} | fields
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in given.items()) + extra
    (folder / "room.yaml").write_text(text)
    return str(folder / "room.yaml")


@pytest.mark.parametrize("kind", ["P5", "P2"])
def test_a_map_is_a_world(tmp_path: Path, kind: str) -> None:
    env = make(6, map=draw_map(tmp_path, kind=kind), moving=2, reach=6.0, **CLEAN)
    reset(env)
    known = env.map
    assert known is not None and known.near.shape == (30, 58) and known.corner == (-3.25, 1.75)
    walls = known.near == 0
    for j in range(30):  # bottom first, a border of walls around it
        for i in range(58):
            inside = 1 <= j <= 28 and 1 <= i <= 56
            assert walls[j, i] == (not inside or ROOM[6 - (j - 1) // 4][(i - 1) // 4] == "#")
    far = np.abs(np.argwhere(~walls)[:, None] - np.argwhere(walls)).max(2).min(1)
    assert (known.near[~walls] == far).all()
    halls = {(int((x - 0.25) // 1), int((y - 0.25) // 1)) for x, y in env.robot[:, :2].tolist()}
    assert all(ROOM[6 - y][x] == "." for x, y in halls) and not halls & {(11, 1), (12, 1)}
    assert len({tuple(row) for row in env.robot[:, 5:].tolist()}) > 4
    away = env.robot[:, r.GOAL_X : r.GOAL_Y + 1] - env.robot[:, :2]
    assert np.hypot(*away.T).min() >= 1.0
    ended = np.stack([plain_scan(env, lane) for lane in range(env.lanes)])
    assert (np.abs(env._obs[:, :RAYS] - ended) > 0.012).sum() <= 4
    assert env.render(0).shape == (round(480 * 30 / 58), 480, 3)  # type: ignore[union-attr]


def test_a_maps_walls_are_a_crash(tmp_path: Path) -> None:
    env = make(map=draw_map(tmp_path), **CLEAN)
    reset(env)
    env.robot[0] = 6.25 - 0.31, 1.75, 0.0, 1.0, 0.0, 1.75, 1.75  # the wall between the halls begins at 6.25
    row = do(env, 1.0, 0.0, 2)
    assert not row.last.item() and env.robot[0, r.X] == pytest.approx(6.04, abs=1e-5)
    row = do(env, 1.0, 0.0)
    assert row.terminated.item() and env.robot[0, r.X] == pytest.approx(6.04, abs=1e-5)


def test_a_goal_on_a_map(tmp_path: Path) -> None:
    path = draw_map(tmp_path)
    env = make(6, map=path, goal=[-0.5, 7.25])
    reset(env)
    assert (env.robot[:, [r.GOAL_X, r.GOAL_Y]] == [2.75, 5.5]).all() and len(np.unique(env.robot[:, r.X])) > 3
    with pytest.raises(
        ValueError,
        match=r"goal=\[3,3.5\]: cannot be reached: no robot fits there; .* type env\.kwargs\.goal=",
    ):
        make(map=path, goal=[3.0, 3.5])
    with pytest.raises(ValueError, match=r"goal=\[8,3.5\]: cannot be reached: no robot fits there"):
        make(map=path, goal=[8.0, 3.5])  # in the closet
    with pytest.raises(ValueError, match=r"goal=\[99,0\]: cannot be reached: it lies outside the map"):
        make(map=path, goal=[99.0, 0.0])


def test_a_snapshot_is_of_its_map(tmp_path: Path) -> None:
    env = make(map=draw_map(tmp_path))
    reset(env)
    saved = env.snapshot()
    env.load_snapshot(saved)
    changed = [*ROOM[:2], "#..#..#......#", *ROOM[3:]]
    with pytest.raises(ValueError, match=r"not the map of the snapshot"):
        make(map=draw_map(tmp_path, changed)).load_snapshot(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ["###", "#?#", "###"]}, r"no cell of room\.pgm is free: allowed: pixels with a darkness below"),
        ({"rows": ["###", "#.#", "###"]}, r"no goal can be reached: allowed: a map with two places 1 m apart"),
        ({"rows": ["#" * 9, "#.......#", "#" * 9], "resolution": 0.05}, r"no goal can be reached"),
        ({"resolution": 0}, r"resolution: 0: allowed: metres a pixel, from 0\.005 to 5$"),
        ({"origin": [0, 0, 1.5]}, r"origin: \[0, 0, 1\.5\]: allowed: \[x, y, 0\]"),
        ({"origin": "here"}, r"origin: here: allowed"),
        ({"negate": 2}, r"negate: 2: allowed: 0 or 1$"),
        ({"free_thresh": "low"}, r"free_thresh: low: allowed: a number from 0 to 1$"),
        ({"mode": "raw"}, r"mode: raw: allowed: trinary$"),
        ({"image": 3}, r"image: 3: allowed: a file's name$"),
        ({"image": "../room.pgm"}, r"image: '\.\./room\.pgm': allowed: the name of a PGM file in"),
        ({"image": "/etc/passwd"}, r"image: '/etc/passwd': allowed: the name of a PGM file in the map's own folder"),
        ({"image": "none.pgm"}, r"image: none\.pgm: cannot be read: No such file or directory; allowed"),
        ({"image": "room.yaml"}, r"image: room\.yaml: is no PGM; allowed: a picture that begins with P2 or P5"),
        ({"extra": "script: rm\n"}, r"unknown: script; allowed: image, resolution, origin"),
        ({"extra": "a: !!python/object/apply:os.getcwd []\n"}, r"is no YAML; allowed: a map's description"),
        ({"extra": "]["}, r"is no YAML"),
    ],
)  # fmt: skip
def test_wrong_maps_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = draw_map(tmp_path, **fields)
    with pytest.raises(ValueError, match=r"^env\.kwargs\.map=\S+room\.yaml: " + message):
        make(map=path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P5 4 3 255\n" + bytes(11), r"not rectangular: 4 x 3 pixels are announced and 11 are there; allowed: 12$"),
        (b"P5 4 3 255\n" + bytes(14), r"not rectangular: 4 x 3 pixels are announced and 14"),
        (b"P2 4 3 255\n" + b"0 254 " * 7, r"not rectangular: 4 x 3 pixels are announced and 14"),
        (b"P2 2 1 255\n0 -1", r"allowed in a P2 picture: numbers from 0 to 255$"),
        (b"P2 2 1 100\n0 101", r"a pixel of 101: allowed: 0 to 100$"),
        (b"P5 99999 3 255\n", r"99999 x 3 pixels up to 255: allowed: 1 to 4096 pixels"),
        (b"P5 4 3 65535\n", r"4 x 3 pixels up to 65535: allowed"),
        (b"P6 4 3 255\n" + bytes(36), r"is no PGM"),
        (b"", r"is no PGM"),
    ],
)  # fmt: skip
def test_wrong_pictures_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = draw_map(tmp_path)
    (tmp_path / "room.pgm").write_bytes(data)
    with pytest.raises(ValueError, match=r"^env\.kwargs\.map=\S+room\.yaml: image: room\.pgm: " + message):
        make(map=path)


def test_no_link_is_followed_out_of_a_maps_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = draw_map(inner)
    (inner / "room.pgm").rename(tmp_path / "elsewhere.pgm")
    (inner / "room.pgm").symlink_to(tmp_path / "elsewhere.pgm")
    with pytest.raises(
        ValueError, match=r"image: room\.pgm: cannot be read: is a link; allowed: a PGM file in"
    ):
        make(map=path)
    with pytest.raises(
        ValueError, match=r"map=\S+none\.yaml: cannot be read: No such file or directory; allowed"
    ):
        make(map=str(inner / "none.yaml"))
    with pytest.raises(ValueError, match=r"map=\S+inner: cannot be read: Is a directory|is no regular file"):
        make(map=str(inner))


def test_light_is_a_wall_where_a_map_says_so(tmp_path: Path) -> None:
    dark = maps.read_map(draw_map(tmp_path))
    swapped = [row.translate(str.maketrans("#.", ".#")) for row in ROOM]
    light = maps.read_map(draw_map(tmp_path, swapped, negate=1))
    assert np.array_equal(dark.near, light.near)


# ---- the planner


def test_the_planner_reaches_goals_in_empty_worlds() -> None:
    env = make(20, walls=0, circles=0)
    row, reached = reset(env), np.zeros(20, np.bool_)
    for _ in range(400):
        row = env.step(torch.from_numpy(planner.plan(row.obs.numpy(), env.sensor[0])))
        reached |= (row.terminated & (row.reward > 0.5)).numpy() & (env.episode == 0)
    assert reached.sum() >= 18


def test_the_planner_stops_before_walls_and_drives_around_pillars() -> None:
    env = stage(5.0, 5.0, 0.0, goal=(9.0, 5.0), circles=1)
    env.circles[0, 0] = 7.0, 5.0, 0.4, 0.0, 0.0
    env._look(0, 1)
    row = env.row
    for _ in range(200):
        row = env.step(torch.from_numpy(planner.plan(env._obs, env.sensor[0])))
        if row.last.item():
            break
    assert row.terminated.item() and row.reward.item() > 0.9
