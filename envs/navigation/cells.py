"""What a cell of a maze can be: a code each, the rules of walking and looking, and what MiniGrid calls it.

    code              what                               walked on    seen through    MiniGrid's kind, colour, state
    0   UNSEEN        (in views only)                                                 0, 0, 0
    1   EMPTY         floor                              yes          yes             1, 0, 0
    2   WALL          wall                               no           no              2, 5, 0
    3   GOAL          the goal                           yes          yes             8, 1, 0
    4   BALL          an obstacle that moves             (a crash)    yes             6, 2, 0
    5   KEY + c       a key of colour c = 0 .. 5         yes          yes             5, c, 0
    11  OPEN + c      an open door                       yes          yes             4, c, 0
    17  SHUT + c      a door that is not locked          no           no              4, c, 1
    23  LOCKED + c    a door that its key opens          no           no              4, c, 2

Cells of a lane lie in one row of bytes, line by line, with a border of PAD more cells of wall around the maze, so that
no view reaches beyond it: the cell in line r and column c is at (r + PAD) * side + c + PAD, side = size + 2 * PAD.
Headings are 0 east, 1 south, 2 west, 3 north (lines count downwards), colours those of COLOURS.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Number: TypeAlias = float | np.float32

UNSEEN, EMPTY, WALL, GOAL, BALL = range(5)
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
KEY, OPEN, SHUT, LOCKED = (BALL + 1 + len(COLOURS) * i for i in range(4))
CODES = LOCKED + len(COLOURS)
PAD = 6  # how far a view reaches

# what a lane's agent is: its cell, its heading, the code of what it carries (EMPTY: nothing), its steps so far, the
# goal's cell, and the number that the moves of obstacles are drawn with
PLACE, HEADING, CARRIED, STEPS, TARGET, CHANCE = range(6)
FIELDS = 6


def side_of(size: int) -> int:
    """Cells in a line of a maze of size x size with its border."""
    return size + 2 * PAD


def steps(side: int) -> Ints:
    """How far the next cell is in the row of bytes, by heading [4]."""
    return np.array([1, side, -1, -side])


def _flags(*codes: int) -> Bools:
    found = np.zeros(CODES, np.bool_)
    found[list(codes)] = True
    return found


def _of_every_colour(first: int) -> range:
    return range(first, first + len(COLOURS))


WALKED = _flags(EMPTY, GOAL, *_of_every_colour(KEY), *_of_every_colour(OPEN))
CLEAR = _flags(EMPTY, GOAL, BALL, *_of_every_colour(KEY), *_of_every_colour(OPEN))  # seen through

TRIPLE: Bytes = np.zeros((CODES, 3), np.uint8)  # MiniGrid's kind, colour and state of every code
TRIPLE[EMPTY], TRIPLE[WALL], TRIPLE[GOAL], TRIPLE[BALL] = (1, 0, 0), (2, 5, 0), (8, 1, 0), (6, 2, 0)
for _colour in range(len(COLOURS)):
    TRIPLE[KEY + _colour] = 5, _colour, 0
    for _state, _first in enumerate((OPEN, SHUT, LOCKED)):
        TRIPLE[_first + _colour] = 4, _colour, _state
HIGHEST = (10, 5, 2)  # of the kinds, colours and states that there are in MiniGrid
