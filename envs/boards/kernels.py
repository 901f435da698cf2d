"""The rules of m,n,k-games and their search, as kernels over games [G, cells].

    cells[g, y * width + x]     0 empty, 1 and 2: a stone of player 0 and of player 1; row 0 is the top
    count[g]                    stones on the board: player count % 2 is to move
    winner[g]                   0 while nobody has won, else the player's stone; a full board without one is a draw

With gravity a move is a column, whose lowest empty cell is filled; without it a move is a cell. The search is negamax
with alpha-beta cuts (Knuth and Moore, "An analysis of alpha-beta pruning", 1975), written as a loop with a stack:

    v(s) = -(WIN - plies) if the move before has won, 0 for a draw and at the depth's end, else max_m -v(s m)
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float32]

WIN = 1000  # of a win at once; later ones are worth a ply less each


@compiled
def place(cells: Bytes, move: int, width: int, gravity: bool) -> int:
    """The cell [cells] that a move fills, -1 where it is taken."""
    if not gravity:
        return move if cells[move] == 0 else -1
    for cell in range(len(cells) - width + move, -1, -width):
        if cells[cell] == 0:
            return cell
    return -1


@compiled
def wins(cells: Bytes, cell: int, width: int, row: int) -> bool:
    """Whether the stone in `cell` is in a line of `row` of its kind."""
    stone, height = cells[cell], len(cells) // width
    y0, x0 = cell // width, cell % width
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        length = 1
        for sign in (-1, 1):
            y, x = y0 + sign * dy, x0 + sign * dx
            while 0 <= y < height and 0 <= x < width and cells[y * width + x] == stone:
                length += 1
                y += sign * dy
                x += sign * dx
        if length >= row:
            return True
    return False


@compiled
def play(
    games: Ints, moves: Ints, cells: Bytes, count: Ints, winner: Ints, width: int, row: int, gravity: bool
) -> int:
    """Make moves [k] in games [k]. Returns the first index of one that cannot be made, -1 where all were."""
    for k in range(len(games)):
        g = games[k]
        ends = width if gravity else cells.shape[1]
        if moves[k] < 0 or moves[k] >= ends or winner[g] or count[g] == cells.shape[1]:
            return k
        cell = place(cells[g], moves[k], width, gravity)
        if cell < 0:
            return k
        stone = count[g] % 2 + 1
        cells[g, cell] = stone
        count[g] += 1
        if wins(cells[g], cell, width, row):
            winner[g] = stone
    return -1


@compiled
def look(
    games: Ints, cells: Bytes, count: Ints, winner: Ints, width: int, gravity: bool, board: Bytes, mask: Bytes
) -> None:
    """board [k, cells]: 0 empty, 1 of who is to move, 2 of the other; mask [k, moves]: 1 where a move is allowed.

    In a game that is over everything is allowed: no move follows.
    """
    for k in range(len(games)):
        g = games[k]
        own = count[g] % 2 + 1
        over = winner[g] != 0 or count[g] == cells.shape[1]
        for cell in range(cells.shape[1]):
            stone = cells[g, cell]
            board[k, cell] = 0 if stone == 0 else (1 if stone == own else 2)
        for move in range(mask.shape[1]):
            mask[k, move] = over or cells[g, move] == 0  # with gravity: of the top row


@compiled
def search(start: Bytes, count: int, depth: int, width: int, row: int, gravity: bool, values: Ints) -> None:
    """values [moves]: what each move is worth to who is to move, `depth` plies deep; -2 WIN where it is not allowed.

    Moves that are worth the most all have their exact value; of others it is a bound.
    """
    cells, moves = start.copy(), len(values)
    alpha, beta = np.empty(depth + 1, np.int64), np.empty(depth + 1, np.int64)
    best, tried, filled = (
        np.empty(depth + 1, np.int64),
        np.empty(depth + 1, np.int64),
        np.empty(depth + 1, np.int64),
    )
    top = -2 * WIN
    for move in range(moves):
        values[move] = -2 * WIN
    ply = 0
    alpha[0], beta[0], best[0], tried[0] = -2 * WIN, 2 * WIN, -2 * WIN, -1
    while True:
        # the next move at this ply, or the value of the position where there is none
        cell, tried[ply] = -1, tried[ply] + 1
        while tried[ply] < moves and best[ply] < beta[ply]:
            cell = place(cells, tried[ply], width, gravity)
            if cell >= 0:
                break
            tried[ply] += 1
        if cell < 0 or best[ply] >= beta[ply]:
            if ply == 0:
                return
            value = -best[ply]
            ply -= 1
            cells[filled[ply]] = 0
        else:
            stones = count + ply + 1
            cells[cell] = (stones - 1) % 2 + 1
            if wins(cells, cell, width, row):
                value = WIN - ply
            elif stones == len(cells) or ply + 1 == depth:
                value = 0
            else:  # one ply deeper; a move as good as the best at the root is to be told from a better one
                filled[ply] = cell
                low = alpha[ply] - 1 if ply == 0 else max(alpha[ply], best[ply])
                ply += 1
                alpha[ply], beta[ply], best[ply], tried[ply] = -beta[ply - 1], -low, -2 * WIN, -1
                continue
            cells[cell] = 0
        # the value of tried[ply], for who moves at `ply`
        best[ply] = max(best[ply], value)
        if ply == 0:
            values[tried[0]] = value
            top = max(top, value)
            alpha[0] = top


@compiled
def choose(
    games: Ints,
    draws: Floats,
    cells: Bytes,
    count: Ints,
    depth: int,
    width: int,
    row: int,
    gravity: bool,
    moves: Ints,
) -> None:
    """moves [k]: of the best moves that a search of `depth` plies finds, one drawn by draws [k] in (0, 1)."""
    ends = width if gravity else cells.shape[1]
    values = np.empty(ends, np.int64)
    for k in range(len(games)):
        g = games[k]
        deep = min(depth, cells.shape[1] - count[g])
        search(cells[g], count[g], deep, width, row, gravity, values)
        top = values.max()
        many = 0
        for move in range(ends):
            many += values[move] == top
        which = int(draws[k] * many)
        for move in range(ends):
            if values[move] == top:
                if which == 0:
                    moves[k] = move
                    break
                which -= 1


@compiled
def over(count: Ints, winner: Ints, cells: int, found: Bools) -> None:
    """found [G]: which games are over."""
    for g in range(len(count)):
        found[g] = winner[g] != 0 or count[g] == cells
