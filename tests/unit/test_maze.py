"""Mazes: the rules by hand on drawn maps, levels that can be solved, and what is seen against slow versions."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.checkpoint import pack, unpack
from rlkit.envs import seeds
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec, probe
from rlkit.envs.navigation import cells as c
from rlkit.envs.navigation import levels, tiles
from rlkit.envs.navigation.maze import Maze
from rlkit.envs.navigation.rules import FORWARD, LEFT, PICK_UP, RIGHT, TOGGLE
from rlkit.seeding import Seeds

EAST, SOUTH, WEST, NORTH = range(4)
# red is colour 0, green 1; lower case: a key or a door that is locked, upper case: shut or open
SIGNS = {
    "#": c.WALL, ".": c.EMPTY, "*": c.GOAL, "o": c.BALL, "k": c.KEY, "g": c.KEY + 1, "r": c.LOCKED, "n": c.LOCKED + 1,
    "R": c.SHUT, "O": c.OPEN,
}  # fmt: skip
HALL = ["#######", "#.....#", "#.....#", "#.....#", "#.....#", "#.....#", "#######"]


def make(lanes: int = 1, seed: int = 5, **kwargs: Any) -> Maze:
    return Maze(lanes, seed, **{"size": 7, "threads": 1} | kwargs)


def reset(env: Maze) -> Any:
    return env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0)] * env.lanes)


def at(env: Maze, line: int, column: int) -> int:
    return (line + c.PAD) * env.side + column + c.PAD


def stage(rows: list[str], line: int, column: int, heading: int, **kwargs: Any) -> Maze:
    """An agent on a drawn map."""
    env = make(size=len(rows), **kwargs)
    reset(env)
    env._inside()[0] = [[SIGNS[sign] for sign in row] for row in rows]
    env.agent[0, [c.PLACE, c.HEADING]] = at(env, line, column), heading
    goals = np.flatnonzero(env.cells[0] == c.GOAL)
    env.agent[0, c.TARGET] = goals[0] if len(goals) else 0
    env._look(0, 1)
    return env


def put(rows: list[str], line: int, column: int, sign: str) -> list[str]:
    row = rows[line]
    return [*rows[:line], row[:column] + sign + row[column + 1 :], *rows[line + 1 :]]


def do(env: Maze, *actions: int) -> Any:
    for action in actions:
        row = env.step(torch.full((env.lanes,), action))
    return row


def where(env: Maze) -> tuple[int, int, int]:
    place, heading = env.agent[0, [c.PLACE, c.HEADING]].tolist()
    return place // env.side - c.PAD, place % env.side - c.PAD, heading


def cell(env: Maze, line: int, column: int) -> int:
    return int(env._inside()[0, line, column])


# ---- rules


def test_turns_and_steps() -> None:
    env = stage(HALL, 3, 3, EAST)
    do(env, RIGHT)
    assert where(env) == (3, 3, SOUTH)
    do(env, FORWARD)
    assert where(env) == (4, 3, SOUTH)
    do(env, RIGHT, FORWARD)
    assert where(env) == (4, 2, WEST)
    do(env, RIGHT, FORWARD, FORWARD)
    assert where(env) == (2, 2, NORTH)
    do(env, LEFT, LEFT, LEFT, FORWARD)
    assert where(env) == (2, 3, EAST)
    row = do(env, LEFT, FORWARD, FORWARD, FORWARD)  # the second meets the wall
    assert where(env) == (1, 3, NORTH)
    assert not row.last.any() and not row.reward.any() and env.agent[0, c.STEPS] == 15
    do(env, PICK_UP, TOGGLE)  # of a wall: nothing
    assert where(env) == (1, 3, NORTH) and cell(env, 0, 3) == c.WALL


def test_the_goal_pays_less_the_later_it_is_reached() -> None:
    env = stage(put(HALL, 3, 5, "*"), 3, 3, EAST, limit=60)
    do(env, FORWARD)
    row = do(env, FORWARD)
    assert row.reward.item() == pytest.approx(1 - 0.9 * 2 / 60)
    assert row.terminated.item() and row.last.item()
    row = do(env, FORWARD)  # ignored: the next episode's first row
    assert row.first.item() and not row.last.item() and not row.terminated.item() and row.reward.item() == 0
    assert env.episode[0] == 1 and env.agent[0, c.STEPS] == 0


def test_an_episode_ends_at_its_limit() -> None:
    env = stage(put(HALL, 3, 5, "*"), 3, 3, EAST, limit=3)
    row = do(env, LEFT, LEFT)
    assert not row.last.item()
    row = do(env, LEFT)
    assert row.last.item() and not row.terminated.item() and row.reward.item() == 0
    env = stage(put(HALL, 3, 5, "*"), 3, 4, EAST, limit=1)
    row = do(env, FORWARD)  # at the goal in the last step: solved
    assert row.terminated.item() and row.reward.item() == pytest.approx(0.1)
    assert make(size=9).limit == 162


def test_keys_change_places() -> None:
    rows = put(put(HALL, 3, 5, "k"), 2, 4, "g")
    env = stage(rows, 3, 4, EAST)
    do(env, PICK_UP)
    assert cell(env, 3, 5) == c.EMPTY and env.agent[0, c.CARRIED] == c.KEY
    assert env.row.obs[0, 6, 3].tolist() == [5, 0, 0]  # its own cell shows what it carries
    do(env, LEFT, PICK_UP)
    assert cell(env, 2, 4) == c.KEY and env.agent[0, c.CARRIED] == c.KEY + 1
    do(env, FORWARD)  # a key can be walked on, and stays
    assert where(env) == (2, 4, NORTH) and cell(env, 2, 4) == c.KEY
    do(env, PICK_UP)  # nothing ahead
    assert env.agent[0, c.CARRIED] == c.KEY + 1


def test_a_door_needs_the_key_of_its_colour() -> None:
    wall = ["#######", "#..#..#", "#..#..#", "#..n..#", "#..#..#", "#..#..#", "#######"]
    env = stage(wall, 3, 2, EAST)
    do(env, TOGGLE, FORWARD)
    assert cell(env, 3, 3) == c.LOCKED + 1 and where(env) == (3, 2, EAST)
    env.agent[0, c.CARRIED] = c.KEY  # red
    do(env, TOGGLE)
    assert cell(env, 3, 3) == c.LOCKED + 1
    env.agent[0, c.CARRIED] = c.KEY + 1
    do(env, TOGGLE)
    assert cell(env, 3, 3) == c.OPEN + 1 and env.agent[0, c.CARRIED] == c.KEY + 1
    do(env, TOGGLE)
    assert cell(env, 3, 3) == c.SHUT + 1
    do(env, FORWARD)
    assert where(env) == (3, 2, EAST)
    env.agent[0, c.CARRIED] = c.EMPTY
    do(env, TOGGLE, FORWARD, FORWARD)  # unlocked: no key is needed any more
    assert where(env) == (3, 4, EAST)


def test_obstacles_end_the_episode_of_who_walks_into_them() -> None:
    env = stage(put(HALL, 3, 5, "o"), 3, 4, EAST, obstacles=1)
    env.balls[0, 0] = at(env, 3, 5)
    row = do(env, FORWARD)
    assert row.terminated.item() and row.last.item() and row.reward.item() == 0
    assert where(env) == (3, 4, EAST)


def mixed(x: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % 2**32
    return x ^ x >> 16


def test_obstacles_move_by_the_number_of_the_step() -> None:
    env = stage(put(put(HALL, 2, 2, "o"), 5, 5, "o"), 1, 1, EAST, obstacles=2)
    balls, blocked = [(2, 2), (5, 5)], 0
    env.balls[0] = [at(env, *ball) for ball in balls]
    assert [mixed(x) for x in (0, 1, 2**32 - 1)] == [levels.mix(x) for x in (0, 1, 2**32 - 1)]
    for t in range(1, 60):
        do(env, LEFT)
        for i, (line, column) in enumerate(balls):
            direction = mixed(int(env.agent[0, c.CHANCE]) ^ mixed(64 * t + i)) % 4
            down, along = ((0, 1), (1, 0), (0, -1), (-1, 0))[direction]
            to = line + down, column + along
            if HALL[to[0]][to[1]] == "." and to not in [(1, 1), *balls]:
                balls[i] = to
            else:
                blocked += 1
        found = {tuple(place) for place in np.argwhere(env._inside()[0] == c.BALL).tolist()}
        assert found == set(balls)
    assert blocked > 5


def test_actions_that_there_are_not_are_refused() -> None:
    env = make(2)
    reset(env)
    with pytest.raises(ValueError, match=r"action 5 of lane 1: allowed: 0 to 4"):
        env.step(torch.tensor([0, 5]))


# ---- levels


def reached(env: Maze, lane: int, keys: set[int]) -> set[int]:
    """Cells that can be walked to with keys of these colours."""
    codes, found, todo = env.cells[lane], {int(env.agent[lane, c.PLACE])}, [int(env.agent[lane, c.PLACE])]
    while todo:
        here = todo.pop()
        for step in c.steps(env.side).tolist():
            code = int(codes[here + step])
            door = code - c.LOCKED in keys
            if here + step not in found and (door or c.WALKED[code]):
                found.add(here + step)
                todo.append(here + step)
    return found


@pytest.mark.parametrize(
    ("size", "doors", "loops"), [(5, 1, 0.0), (7, 2, 0.5), (11, 0, 0.1), (11, 6, 0.3), (15, 6, 0.0)]
)
def test_levels_can_be_solved(size: int, doors: int, loops: float) -> None:
    env = make(100, size=size, doors=doors, loops=loops, obstacles=2)
    reset(env)
    for lane in range(env.lanes):
        inside = env._inside()[lane]
        assert (inside[[0, -1]] == c.WALL).all() and (inside[:, [0, -1]] == c.WALL).all()
        assert (inside == c.GOAL).sum() == 1 and (inside == c.BALL).sum() == 2
        hues = sorted((inside[inside >= c.LOCKED] - c.LOCKED).tolist())
        assert len(hues) == doors == len(set(hues))
        assert sorted((inside[(inside >= c.KEY) & (inside < c.OPEN)] - c.KEY).tolist()) == hues
        assert not (inside[1::2, 1::2] == c.WALL).any()  # no room is left out
        env.cells[lane][env.cells[lane] == c.BALL] = c.EMPTY  # these move away
        keys: set[int] = set()
        for _ in range(doors + 1):
            cells = reached(env, lane, keys)
            keys |= {int(env.cells[lane, place]) - c.KEY for place in cells} & set(range(6))
        assert int(env.agent[lane, c.TARGET]) in cells and set(hues) <= keys
        assert doors == 0 or int(env.agent[lane, c.TARGET]) not in reached(env, lane, set())


def route(env: Maze, target: int) -> list[int]:
    """Actions that bring the agent to face the cell `target`, or to stand where it is last seen from: breadth first."""
    start = tuple(env.agent[0, [c.PLACE, c.HEADING]].tolist())
    before: dict[Any, Any] = {start: None}
    todo = [start]
    for place, heading in todo:
        ahead = place + c.steps(env.side).tolist()[heading]
        if ahead == target:
            actions, state = [], (place, heading)
            while before[state] is not None:
                state, action = before[state]
                actions.append(action)
            return actions[::-1]
        moves = [(LEFT, (place, (heading + 3) % 4)), (RIGHT, (place, (heading + 1) % 4))]
        if c.WALKED[env.cells[0, ahead]] and env.cells[0, ahead] != c.GOAL:
            moves.append((FORWARD, (ahead, heading)))
        for action, state in moves:
            if state not in before:
                before[state] = ((place, heading), action)
                todo.append(state)
    return [-1]


@pytest.mark.parametrize("seed", range(6))
def test_levels_are_solved_by_their_actions(seed: int) -> None:
    """One key in the hand at a time, carried from door to door."""
    env = make(seed=seed, size=9, doors=3, limit=2000)
    reset(env)
    for _ in range(3):
        for hue in range(6):
            key, door = (np.flatnonzero(env.cells[0] == first + hue) for first in (c.KEY, c.LOCKED))
            if not len(key) or not len(door) or -1 in route(env, int(key[0])):
                continue
            do(env, *route(env, int(key[0])), PICK_UP)
            if -1 not in route(env, int(door[0])):
                do(env, *route(env, int(door[0])), TOGGLE)
    assert not (env.cells[0] >= c.LOCKED).any()
    row = do(env, *route(env, int(env.agent[0, c.TARGET])), FORWARD)
    assert row.terminated.item() and row.reward.item() > 0


def test_loops_open_walls_beyond_the_tree() -> None:
    for loops, walls in ((0.0, 16), (1.0, 0)):  # 5 x 5 rooms have 40 walls between them; a tree opens 24
        env = make(20, size=11, loops=loops)
        reset(env)
        inside = env._inside() == c.WALL
        between = inside[:, 1:-1:2, 2:-1:2].sum((1, 2)) + inside[:, 2:-1:2, 1:-1:2].sum((1, 2))
        assert (between == walls).all()
    env = make(400, size=11, loops=0.25)
    reset(env)
    inside = env._inside() == c.WALL
    closed = inside[:, 1:-1:2, 2:-1:2].sum() + inside[:, 2:-1:2, 1:-1:2].sum()
    assert abs(closed / 400 - 12) < 3 * math.sqrt(16 * 0.25 * 0.75 / 400)


def test_starts_and_goals_are_anywhere() -> None:
    env = make(2000, size=5)
    reset(env)
    _, starts = np.unique(env.agent[:, c.PLACE], return_counts=True)
    _, headings = np.unique(env.agent[:, c.HEADING], return_counts=True)
    pairs = len(np.unique(env.agent[:, [c.PLACE, c.TARGET]], axis=0))
    assert len(starts) == len(headings) == 4 and pairs == 12
    assert min(*starts, *headings) > 500 - 5 * math.sqrt(2000 * 3 / 16)


def test_a_level_follows_from_the_seed_of_its_episode() -> None:
    env = make(5, size=9, doors=2, obstacles=1)
    reset(env)
    two, three = make(2, size=9, doors=2, obstacles=1), make(3, size=9, doors=2, obstacles=1, first_lane=2)
    reset(two), reset(three)
    assert np.array_equal(np.concatenate([two.cells, three.cells]), env.cells)
    assert np.array_equal(np.concatenate([two.agent, three.agent]), env.agent)
    assert len(np.unique(env.cells, axis=0)) == 5
    before = env.cells.copy()
    env.restore(np.ones(5, np.int64), [np.zeros(0)] * 5)
    assert not (env.cells == before).all(1).any()
    evaluated, alone = make(2, evaluation=True), make(1, evaluation=True)
    reset(evaluated)
    alone.restore(np.array([1]), [np.zeros(0)])
    assert np.array_equal(alone.cells[0], evaluated.cells[1])


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 5])
@pytest.mark.parametrize("evaluation", [False, True])
def test_seeds_are_those_of_a_run(seed: int, evaluation: bool) -> None:
    episode, out = np.array([0, 3, 70000, 2**29]), np.zeros(4, np.int64)
    first = 0 if evaluation else 90
    opening = np.array([True, True, False, True])
    seeds.draw_seeds(opening, 0, 4, seeds.words(seed), evaluation, first, episode, out)
    expected = [Seeds(seed, evaluation, first, 4).of(lane, int(episode[lane])) for lane in range(4)]
    assert out.tolist() == [n if opened else 0 for n, opened in zip(expected, opening, strict=True)]


def test_numbered_levels_are_few_and_held_out_ones_are_others() -> None:
    def shown(**kwargs: Any) -> set[bytes]:
        env = make(60, size=9, **kwargs)
        reset(env)
        return {bytes(row) for row in np.concatenate([env.cells, env.agent[:, :2].astype(np.uint8)], 1)}

    few = shown(levels=3)
    assert len(few) == 3 and shown(levels=3, seed=8) == few
    assert shown(levels=3, evaluation=True, held_out=False) == few
    unseen = shown(levels=3, evaluation=True)
    assert len(unseen) == 60 and not unseen & few
    assert len(shown()) == 60


# ---- views


def plain_sight(env: Maze) -> list[list[int]]:
    """MiniGrid's rule, cell by cell."""
    line, column, heading = where(env)
    ahead = ((0, 1), (1, 0), (0, -1), (-1, 0))[heading]
    right = (ahead[1], -ahead[0])
    codes = [[0] * 7 for _ in range(7)]
    for i in range(7):
        for j in range(7):
            y = line + (6 - i) * ahead[0] + (j - 3) * right[0]
            x = column + (6 - i) * ahead[1] + (j - 3) * right[1]
            inside = 0 <= y < env.size and 0 <= x < env.size
            codes[i][j] = cell(env, y, x) if inside else c.WALL
    opaque = [[k == c.WALL or k >= c.SHUT for k in row] for row in codes]
    mask = [[False] * 7 for _ in range(7)]
    mask[6][3] = True
    for i in range(6, -1, -1):
        for direction, order in ((1, range(6)), (-1, range(6, 0, -1))):
            for j in order:
                if mask[i][j] and not opaque[i][j]:
                    mask[i][j + direction] = True
                    if i > 0:
                        mask[i - 1][j] = mask[i - 1][j + direction] = True
    codes[6][3] = int(env.agent[0, c.CARRIED])
    return [
        [code if seen else 0 for code, seen in zip(*rows, strict=True)]
        for rows in zip(codes, mask, strict=True)
    ]


def test_the_view_against_minigrids_rule() -> None:
    generator, kinds = np.random.default_rng(0), set()
    for doors in (2, 0):
        env = make(size=9, doors=doors, obstacles=2, loops=0.4, limit=40)
        reset(env)
        for _ in range(150):
            expected = c.TRIPLE[np.array(plain_sight(env))]
            assert np.array_equal(env.row.obs[0].numpy(), expected)
            kinds |= set(expected[..., 0].ravel().tolist())
            env.step(torch.from_numpy(generator.choice(5, 1, p=[0.15, 0.15, 0.5, 0.1, 0.1])))
    assert kinds == {0, 1, 2, 4, 5, 6, 8}


def test_the_view_by_hand() -> None:
    rows = ["#######", "#.*...#", "#.....#", "###R###", "#..k..#", "#.....#", "#######"]
    env = stage(rows, 5, 3, NORTH)
    kind, colour, state = env.row.obs[0].numpy().transpose(2, 0, 1)
    assert kind[6].tolist() == [2, 1, 1, 1, 1, 1, 2]
    assert kind[5].tolist() == [2, 1, 1, 5, 1, 1, 2]
    assert kind[4].tolist() == [2, 2, 2, 4, 2, 2, 2] and colour[4].tolist() == [5, 5, 5, 0, 5, 5, 5]
    assert state[4].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert not kind[:4].any()
    env.cells[0, at(env, 3, 3)] = c.OPEN
    do(env, PICK_UP)
    kind = env.row.obs[0].numpy()[..., 0]
    assert kind[6, 3] == 5 and kind[5, 3] == 1
    assert kind[3].tolist() == [2, 1, 1, 1, 1, 1, 2] and kind[2].tolist() == [2, 1, 8, 1, 1, 1, 2]
    assert kind[1].tolist() == [2, 2, 2, 2, 2, 2, 2] and not kind[0].any()


def test_rays_against_walking_along_them() -> None:
    """distance, goal, obstacle, key, door, locked, colour; then the colour of what is carried."""
    env = make(16, size=9, view="lidar", doors=2, obstacles=3, loops=0.5)
    reset(env)
    env.agent[::2, c.CARRIED] = c.KEY + 3
    for lane in range(8):  # goals lie behind doors: some more, right ahead
        ahead = env.agent[lane, c.PLACE] + c.steps(env.side)[env.agent[lane, c.HEADING]]
        env.cells[lane, ahead] = c.GOAL if env.cells[lane, ahead] == c.EMPTY else env.cells[lane, ahead]
    env._look(0, env.lanes)
    ended = set()
    for lane in range(env.lanes):
        place, heading = env.agent[lane, [c.PLACE, c.HEADING]].tolist()
        line, column = place // env.side, place % env.side
        for ray in range(16):
            angle = (
                heading * math.pi / 2 + 2 * math.pi * ray / 16
            )  # clockwise from east, lines count downwards
            code, distance = c.EMPTY, 0.0
            while (code == c.EMPTY or c.OPEN <= code < c.SHUT) and distance < 10:
                distance += 0.004
                y, x = line + math.sin(angle) * distance, column + math.cos(angle) * distance
                code = int(env.cells[lane, math.floor(y + 0.5) * env.side + math.floor(x + 0.5)])
            found = env.row.obs[lane, 7 * ray : 7 * ray + 7].tolist()
            assert found[0] == pytest.approx(distance / 10, abs=1e-3)
            key, door = c.KEY <= code < c.OPEN, code >= c.SHUT
            hue = ((code - c.KEY) % 6 + 1) / 6 if key or door else 0
            expected = [code == c.GOAL, code == c.BALL, key, door, code >= c.LOCKED, hue]
            assert found[1:] == pytest.approx([float(sign) for sign in expected])
            ended.add(min(code, c.KEY) if code < c.SHUT else c.LOCKED)
    assert ended == {c.WALL, c.GOAL, c.BALL, c.KEY, c.LOCKED}
    assert env.row.obs[:2, -1].tolist() == pytest.approx([4 / 6, 0])


def test_a_ray_ends_after_ten_cells() -> None:
    env = make(size=25, view="lidar")
    reset(env)
    env._inside()[0, 1:-1, 1:-1] = c.EMPTY
    for column, far in ((13, 1.0), (14, 0.95)):  # the wall in column 24 begins at 23.5
        env.agent[0, [c.PLACE, c.HEADING]] = at(env, 12, column), EAST
        env._look(0, 1)
        assert env.row.obs[0, :2].tolist() == pytest.approx([far, 0.0])


def test_a_plain_maze_has_two_numbers_per_ray() -> None:
    env = stage(put(HALL, 3, 5, "*"), 3, 3, EAST, view="lidar", goal="vector")
    seen = env.row.obs[0].numpy()
    assert seen.shape == (35,)
    assert seen[:2].tolist() == pytest.approx([0.15, 1.0])  # the goal begins a cell and a half ahead
    assert seen[8:10].tolist() == pytest.approx([0.25, 0.0])  # the wall to the right
    assert seen[4:6].tolist() == pytest.approx([0.1 * 2.5 * math.sqrt(2), 0.0])  # the corner
    assert seen[32:].tolist() == pytest.approx([1.0, 0.0, 2 / (7 * math.sqrt(2))])


def test_the_goals_direction() -> None:
    env = stage(HALL, 3, 3, NORTH, goal="vector")
    env.agent[0, c.TARGET] = at(env, 4, 5)
    env._look(0, 1)
    assert list(env.row.obs) == ["view", "goal"]
    # one cell behind and two to the right, of a diagonal of 7 sqrt(2)
    expected = [-1 / math.sqrt(5), 2 / math.sqrt(5), math.sqrt(5 / 98)]
    assert env.row.obs["goal"][0].tolist() == pytest.approx(expected)
    env.agent[0, c.TARGET] = at(env, 3, 3)
    env._look(0, 1)
    assert env.row.obs["goal"][0].tolist() == [0, 0, 0]


def test_the_picture_is_the_view_in_tiles() -> None:
    rows = ["#######", "#.*...#", "#.....#", "###r###", "#..k..#", "#.....#", "#######"]
    env, codes = stage(rows, 5, 3, NORTH, view="picture"), np.array(plain_sight(stage(rows, 5, 3, NORTH)))
    seen = env.row.obs[0].numpy()
    assert seen.shape == (64, 64, 3) and (seen[63] == tiles.LINE).all() and (seen[:, 63] == tiles.LINE).all()
    codes[6, 3] = c.CODES  # the agent
    for i in range(7):
        for j in range(7):
            assert np.array_equal(seen[9 * i : 9 * i + 9, 9 * j : 9 * j + 9], tiles.tiles(9)[codes[i, j]])
    flat = tiles.tiles(9).reshape(c.CODES + 1, -1)
    assert len(np.unique(flat, axis=0)) == c.CODES + 1  # every code looks different


def test_people_see_the_whole_maze() -> None:
    env = stage(put(HALL, 1, 1, "*"), 3, 2, EAST)
    picture = env.render(0)
    assert picture is not None and picture.shape == (168, 168, 3) and picture.dtype == np.uint8
    assert picture[36, 36].tolist() == [0, 255, 0]
    tile = picture[72:96, 48:72, 0]
    assert (
        tile[12, 2:8].min() == 255 and tile[12, -2] == 0
    )  # the triangle's base is in the west, its tip in the east


# ---- the vector environment


def played(env: Maze, steps: int, seed: int = 1) -> list[Any]:
    generator, found = np.random.default_rng(seed), []
    for _ in range(steps):
        action = generator.choice(5, env.lanes, p=[0.15, 0.15, 0.5, 0.1, 0.1])
        row = env.step(torch.from_numpy(action))
        obs = row.obs if isinstance(row.obs, dict) else {"": row.obs}
        parts = (*obs.values(), row.reward, row.terminated, row.first, row.last)
        found.append([part.clone() for part in parts])
    return found


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


RICH = {"size": 9, "doors": 2, "obstacles": 3, "limit": 30, "goal": "vector"}


@pytest.mark.parametrize("view", ["codes", "lidar", "picture"])
def test_a_snapshot_continues_bit_for_bit(view: str) -> None:
    whole, half, other = (make(3, view=view, **RICH) for _ in range(3))
    reset(whole), reset(half)
    played(whole, 45), played(half, 45)
    saved = half.snapshot()
    expected = played(whole, 40, 2)
    played(half, 5)  # what happens afterwards does not change what was saved
    document, tensors = pack(saved)  # as a checkpoint stores it
    other.load_snapshot(unpack(json.loads(json.dumps(document)), tensors))
    assert same(played(other, 40, 2), expected)
    assert any(row[-1].any() for row in expected)


@pytest.mark.parametrize("view", ["codes", "lidar", "picture"])
def test_threads_and_splits_change_nothing(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.envs.navigation.maze.SHARE", {view: 1})
    alone, three = make(5, view=view, **RICH), make(5, view=view, threads=3, **RICH)
    assert len(three._parts.runs) == 3
    reset(alone), reset(three)
    assert same(played(alone, 40), played(three, 40))
    three.close()
    three.close()


def test_actions_rebuild_what_a_snapshot_holds() -> None:
    env, again = make(2, **RICH), make(2, **RICH)
    reset(env)
    actions = [[FORWARD, LEFT], [LEFT, FORWARD], [FORWARD, RIGHT]]
    for action in actions:
        env.step(torch.tensor(action))
    again.restore(np.zeros(2, np.int64), [np.array([a for a, _ in actions]), np.zeros(0)])
    assert torch.equal(again.row.obs["view"][0], env.row.obs["view"][0])
    assert again.row.first.tolist() == [False, True]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 4}, r"size=4: allowed: an odd whole number from 5 to 99; type env\.kwargs\.size=5$"),
        ({"size": 3}, r"size=3: allowed: an odd whole number from 5 to 99; type env\.kwargs\.size=5$"),
        ({"size": 6}, r"size=6: allowed: an odd .*; type env\.kwargs\.size=7$"),
        ({"size": 101}, r"size=101: allowed: an odd .*; type env\.kwargs\.size=99$"),
        ({"size": "big"}, r"size=big: allowed: an odd .*; type env\.kwargs\.size=11$"),
        ({"size": 7.0}, r"size=7\.0: allowed: an odd whole number"),
        ({"view": "map"}, r"view=map: allowed: codes, lidar, picture$"),
        ({"goal": "seen"}, r"goal=seen: allowed: hidden, vector$"),
        ({"loops": 1.5}, r"loops=1\.5: allowed: a number from 0 to 1$"),
        ({"loops": math.nan}, r"loops=nan: allowed: a number from 0 to 1$"),
        ({"size": 5, "doors": 2}, r"doors=2: a maze of size 5 has room for 1; .* 0 to 1; type env\.kwargs\.doors=1$"),
        ({"size": 21, "doors": 7}, r"doors=7: a maze of size 21 has room for 6"),
        ({"doors": -1}, r"doors=-1: .*allowed: a whole number from 0 to 2"),
        ({"size": 5, "obstacles": 3}, r"obstacles=3: a maze of size 5 has room for 2"),
        ({"limit": -1}, r"limit=-1: allowed: a whole number"),
        ({"levels": 0.5}, r"levels=0\.5: allowed: a whole number"),
        ({"render_mode": "ansi"}, r"render_mode=ansi: allowed: None, rgb_array, human"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"env\.kwargs\." + message):
        make(**kwargs)


def test_the_registry_makes_it() -> None:
    config = EnvConfig(id="rlkit/Maze", lanes=2, kwargs={"size": 5})
    found = probe(config)
    assert found.config.backend == "batched" and found.spec.observation.shape == (7, 7, 3)
    vector = make_vec(
        config, 0, device="meta"
    )  # a policy may be anywhere: rows are on the CPU, as all others
    assert vector.device == torch.device("cpu")
    vector.close()
    with pytest.raises(
        ValueError, match=r"no walls; allowed: size, loops, doors, obstacles, levels, held_out, limit"
    ):
        probe(EnvConfig(id="rlkit/Maze", kwargs={"walls": 3}))
