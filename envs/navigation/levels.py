"""Levels: what is drawn when an episode begins, and where its obstacles go.

    rooms      the cells in odd lines and columns; a maze of n x n has (n - 1) / 2 of them in a line and in a column
    a tree     through all rooms: from a random one to a random neighbour that is not in the tree yet, and back where
               there is none (depth first); so there is one way between any two rooms
    doors      k of the tree's corridors, locked, in different colours. They cut the maze into k + 1 regions
    keys       the start's region is reached. A random door at its edge gets its key in a random empty room of what is
               reached, and what lies behind it is reached too; and so on. So a door's key lies before the door
    goal       in a random empty room of the region behind the last door (without doors: any but the start's)
    loops      each wall between two rooms of one region is opened with the probability `loops`
    obstacles  on random empty cells

Numbers are drawn by counting (`chance.py`).
"""

from __future__ import annotations

import numpy as np

from rlkit.envs.chance import WORD, draw, mix
from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import (
    BALL,
    CARRIED,
    CHANCE,
    COLOURS,
    EMPTY,
    GOAL,
    HEADING,
    KEY,
    LOCKED,
    PAD,
    PLACE,
    STEPS,
    TARGET,
    UNSEEN,
    WALL,
    Bools,
    Bytes,
    Floats,
    Ints,
)

HUES = len(COLOURS)
FIXED, FREE, MOVES = (
    0x1B873593,
    0x2545F491,
    0x7F4A7C15,
)  # keys of numbered levels, of others, and of obstacles' moves


@compiled
def open_levels(
    opening: Bools, low: int, high: int, seed: Ints, levels: int, size: int, doors: int, loops: float,
    cells: Bytes, agent: Ints, balls: Ints, first: Bools, last: Bools, terminated: Bools, reward: Floats,
) -> None:  # fmt: skip
    """Begin episodes from `seed` [N] in those of the lanes low .. high - 1 that are `opening` [N].

    levels: how many mazes there are, numbered, the same for every seed of a run; 0: one per episode. Writes
    cells [N, side * side], agent [N, FIELDS], balls [N, m] and the lanes' first rows.
    """
    rooms, stream = size // 2, np.zeros(2, np.int64)
    edges, stack = np.empty(rooms * rooms, np.int64), np.empty(cells.shape[1], np.int64)
    region = np.empty(cells.shape[1], np.int64)
    for lane in range(low, high):
        if not opening[lane]:
            continue
        stream[0] = mix(FREE ^ mix(seed[lane]))
        if levels:
            stream[0] = mix(FIXED ^ mix(seed[lane]) % levels)
        stream[1] = 0
        while not _lay(
            cells[lane], agent[lane], balls[lane], rooms, doors, loops, stream, edges, stack, region
        ):
            pass
        agent[lane, CARRIED], agent[lane, STEPS], agent[lane, CHANCE] = EMPTY, 0, mix(MOVES ^ mix(seed[lane]))
        reward[lane] = 0.0
        first[lane], last[lane], terminated[lane] = True, False, False


@compiled
def _lay(
    cells: Bytes, agent: Ints, balls: Ints, rooms: int, doors: int, loops: float, stream: Ints,
    edges: Ints, stack: Ints, region: Ints,
) -> bool:  # fmt: skip
    """One attempt at a level; False where a key found no room. edges, stack and region are scratch."""
    side = 2 * rooms + 1 + 2 * PAD
    _carve(cells, side, rooms, stream, edges, stack)
    start = _room(draw(stream, rooms * rooms), side, rooms)
    agent[PLACE], agent[HEADING] = start, draw(stream, 4)
    hues = np.arange(HUES)
    for i in range(doors):
        j = i + draw(stream, rooms * rooms - 1 - i)
        edges[i], edges[j] = edges[j], edges[i]
        j = i + draw(stream, HUES - i)
        hues[i], hues[j] = hues[j], hues[i]
        cells[edges[i]] = LOCKED + hues[i]
    region[:] = -1
    _reach(cells, side, start, 0, region, stack)
    for number in range(1, doors + 1):
        door = _next_door(edges, doors, region, side, stream)
        room = _empty_room(cells, side, rooms, start, region, 0, stream)
        if room < 0:
            return False
        cells[room] = KEY + hues[door]
        step = _across(edges[door], side)
        behind = edges[door] + (step if region[edges[door] + step] < 0 else -step)
        _reach(cells, side, behind, number, region, stack)
    agent[TARGET] = _empty_room(cells, side, rooms, start, region, doors, stream)
    cells[agent[TARGET]] = GOAL
    _loop(cells, side, rooms, region, loops, stream)
    for i in range(len(balls)):
        balls[i] = _empty_cell(cells, start, stream)
        cells[balls[i]] = BALL
    return True


@compiled
def _room(number: int, side: int, rooms: int) -> int:
    """The cell of a room."""
    return (2 * (number // rooms) + 1 + PAD) * side + 2 * (number % rooms) + 1 + PAD


@compiled
def _across(edge: int, side: int) -> int:
    """From a corridor between two rooms to one of them: +1 in a line of rooms, +side in a column."""
    return 1 if (edge // side - PAD) % 2 == 1 else side


@compiled
def _carve(cells: Bytes, side: int, rooms: int, stream: Ints, edges: Ints, stack: Ints) -> None:
    """A tree through all rooms; edges [rooms^2 - 1]: its corridors."""
    steps, ways = (1, side, -1, -side), np.empty(4, np.int64)
    cells[:] = WALL
    for number in range(rooms * rooms):
        cells[_room(number, side, rooms)] = UNSEEN  # not in the tree yet
    stack[0] = _room(draw(stream, rooms * rooms), side, rooms)
    cells[stack[0]] = EMPTY
    depth, count = 1, 0
    while depth:
        here, open_ = stack[depth - 1], 0
        for step in steps:
            if cells[here + 2 * step] == UNSEEN:
                ways[open_] = step
                open_ += 1
        if open_ == 0:
            depth -= 1
            continue
        step = ways[draw(stream, open_)]
        cells[here + step] = cells[here + 2 * step] = EMPTY
        edges[count], stack[depth] = here + step, here + 2 * step
        count += 1
        depth += 1


@compiled
def _reach(cells: Bytes, side: int, start: int, number: int, region: Ints, stack: Ints) -> None:
    """Give all cells that are reached from `start` without passing a door the region `number`."""
    region[start], stack[0], depth = number, start, 1
    while depth:
        depth -= 1
        here = stack[depth]
        for step in (1, side, -1, -side):
            there = here + step
            if region[there] < 0 and cells[there] != WALL and cells[there] < LOCKED:
                region[there], stack[depth] = number, there
                depth += 1


@compiled
def _next_door(edges: Ints, doors: int, region: Ints, side: int, stream: Ints) -> int:
    """A random door with one side in what is reached (region >= 0) and one side beyond."""
    found, count = np.empty(doors, np.int64), 0
    for door in range(doors):
        step = _across(edges[door], side)
        if (region[edges[door] + step] < 0) != (region[edges[door] - step] < 0):
            found[count] = door
            count += 1
    return int(found[draw(stream, count)])


@compiled
def _empty_room(
    cells: Bytes, side: int, rooms: int, start: int, region: Ints, lowest: int, stream: Ints
) -> int:
    """A random empty room, not the start, in a region from `lowest` on; -1 where there is none."""
    count = 0
    for number in range(rooms * rooms):
        room = _room(number, side, rooms)
        count += region[room] >= lowest and cells[room] == EMPTY and room != start
    if count == 0:
        return -1
    left = draw(stream, count)
    for number in range(rooms * rooms):
        room = _room(number, side, rooms)
        if region[room] >= lowest and cells[room] == EMPTY and room != start:
            if left == 0:
                return room
            left -= 1
    return -1


@compiled
def _loop(cells: Bytes, side: int, rooms: int, region: Ints, loops: float, stream: Ints) -> None:
    """Open walls between neighbouring rooms of one region, each with the probability `loops`."""
    if loops == 0.0:
        return
    for number in range(rooms * rooms):
        room = _room(number, side, rooms)
        for ahead, step in ((number % rooms + 1, 1), (number // rooms + 1, side)):
            if ahead == rooms or cells[room + step] != WALL or region[room] != region[room + 2 * step]:
                continue
            if draw(stream, 1 << 20) < loops * (1 << 20):
                cells[room + step] = EMPTY


@compiled
def _empty_cell(cells: Bytes, start: int, stream: Ints) -> int:
    """A random empty cell, not the start."""
    left = draw(stream, (cells == EMPTY).sum() - 1)
    for cell in range(len(cells)):
        if cells[cell] == EMPTY and cell != start:
            if left == 0:
                return cell
            left -= 1
    return -1


@compiled
def wander(
    acting: Bools, last: Bools, low: int, high: int, side: int, cells: Bytes, agent: Ints, balls: Ints
) -> None:
    """Move the obstacles of the lanes that are `acting` [N] and not over: each a cell in a random direction.

    One that would leave the empty floor, or step onto the agent, stays.
    """
    steps = (1, side, -1, -side)
    for lane in range(low, high):
        if not acting[lane] or last[lane]:
            continue
        for i in range(balls.shape[1]):
            word = mix(agent[lane, CHANCE] ^ mix(agent[lane, STEPS] * 64 + i & WORD))
            there = balls[lane, i] + steps[word % 4]
            if cells[lane, there] == EMPTY and there != agent[lane, PLACE]:
                cells[lane, balls[lane, i]], cells[lane, there] = EMPTY, BALL
                balls[lane, i] = there
