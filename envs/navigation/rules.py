"""What an action does in a maze.

    0 left, 1 right    turn by a quarter
    2 forward          onto the next cell, where that is floor, the goal, a key or an open door; an obstacle there is a
                       crash, which ends the episode
    3 pick up          the key on the next cell; a key that is carried lies there afterwards
    4 toggle           the door on the next cell: open it, close it, or, carrying the key of its colour, unlock and open
                       it (the key stays in the hand)

    reward       1 - 0.9 t / limit on reaching the goal in step t; 0 for all else
    terminated   at the goal and by a crash
    truncated    after `limit` steps

Then obstacles move (`levels.wander`): an action meets the maze that was seen.
"""

from __future__ import annotations

from rlkit.envs.compiled import compiled
from rlkit.envs.navigation.cells import (
    BALL,
    CARRIED,
    COLOURS,
    GOAL,
    HEADING,
    KEY,
    LOCKED,
    OPEN,
    PLACE,
    SHUT,
    STEPS,
    WALKED,
    Bools,
    Bytes,
    Floats,
    Ints,
)

LEFT, RIGHT, FORWARD, PICK_UP, TOGGLE = range(5)
ACTIONS = 5
HUES = len(COLOURS)


@compiled
def act(
    action: Ints, acting: Bools, low: int, high: int, side: int, limit: int, cells: Bytes, agent: Ints,
    first: Bools, last: Bools, terminated: Bools, reward: Floats,
) -> None:  # fmt: skip
    """One step of those of the lanes low .. high - 1 that are `acting` [N], with `action` [N]."""
    steps = (1, side, -1, -side)
    for lane in range(low, high):
        if not acting[lane]:
            continue
        chosen, heading = action[lane], agent[lane, HEADING]
        agent[lane, STEPS] += 1
        first[lane], over, gain = False, False, 0.0
        if chosen == LEFT:
            agent[lane, HEADING] = (heading + 3) % 4
        elif chosen == RIGHT:
            agent[lane, HEADING] = (heading + 1) % 4
        else:
            there = agent[lane, PLACE] + steps[heading]
            code = cells[lane, there]
            if chosen == FORWARD:
                if WALKED[code]:
                    agent[lane, PLACE] = there
                over = code in (GOAL, BALL)
                if code == GOAL:
                    gain = 1.0 - 0.9 * agent[lane, STEPS] / limit
            elif chosen == PICK_UP:
                if KEY <= code < OPEN:
                    cells[lane, there], agent[lane, CARRIED] = agent[lane, CARRIED], code
            elif chosen == TOGGLE:
                cells[lane, there] = _toggled(code, agent[lane, CARRIED])
        reward[lane], terminated[lane] = gain, over
        last[lane] = over or agent[lane, STEPS] >= limit


@compiled
def _toggled(code: int, carried: int) -> int:
    """What a cell is after a toggle by somebody who carries `carried`."""
    if OPEN <= code < SHUT:
        return code + HUES
    if SHUT <= code < LOCKED:
        return code - HUES
    if code >= LOCKED and carried - KEY == code - LOCKED:
        return code - 2 * HUES
    return code
