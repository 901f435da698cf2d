"""N games of k in a row, stepped together in machine code: tic-tac-toe, connect four, gomoku and all between.

    width, height    of the board
    row              stones in a line that win
    gravity          a move is a column and its stone falls; without it a move is a cell

A player sees the board [height, width] of codes, 0 empty, 1 its own stones, 2 the other's, and which moves are allowed.
A win pays 1 and a loss -1. The rules are those of `kernels`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlkit.envs.backends.seats import PLAYERS, Seats
from rlkit.envs.boards import kernels
from rlkit.envs.kernels import whole
from rlkit.seeding import Seeds
from rlkit.spaces import MASK, Box, Dict, Discrete, MultiBinary
from rlkit.turns import Ints, Player, Rows
from rlkit.types import EnvSpec

PERFECT = 9  # cells of the largest board whose whole tree is searched in a moment
COLOURS = np.array([[238, 232, 213], [220, 50, 47], [38, 139, 210]], np.uint8)  # empty, player 0, player 1
PIXELS = 48  # of a cell's side


class Boards:
    """N games of k in a row (`rlkit.turns.Turns`)."""

    def __init__(self, games: int, width: int, height: int, row: int, gravity: bool) -> None:
        whole("width", width, 1, 32)
        whole("height", height, 1, 32)
        whole("row", row, 1, 32)
        if not isinstance(gravity, bool):
            raise ValueError(f"env.kwargs.gravity={gravity}: allowed: true, false")
        if row > max(width, height):
            raise ValueError(
                f"env.kwargs.row={row}: longer than a board of {width} x {height}; allowed: at most "
                f"{max(width, height)}"
            )
        self.games, self.shape, self.rules = games, (height, width), (width, row, gravity)
        cells, self.moves = width * height, width if gravity else width * height
        self.spec = EnvSpec(
            "rlkit/Board",
            Dict(
                (
                    ("board", Box(self.shape, "uint8", 0.0, 2.0, meaning="codes")),
                    (MASK, MultiBinary(self.moves)),
                )
            ),
            Discrete(self.moves),
        )
        self.cells = np.zeros((games, cells), np.uint8)
        self.count, self.winner = np.zeros(games, np.int64), np.zeros(games, np.int64)
        self.mover, self.over = np.zeros(games, np.int64), np.zeros(games, np.bool_)
        self.reward = np.zeros((games, 2), np.float32)

    def open(self, games: Ints, seeds: Ints) -> None:
        """Empty boards: nothing is drawn."""
        self.cells[games], self.count[games], self.winner[games] = 0, 0, 0
        self.mover[games], self.over[games], self.reward[games] = 0, False, 0.0

    def play(self, games: Ints, moves: Ints) -> None:
        """Make moves. Raises ValueError for one that the rules forbid; those before it in the list are made."""
        width, row, gravity = self.rules
        wrong = kernels.play(games, moves, self.cells, self.count, self.winner, width, row, gravity)
        if wrong >= 0:
            over = bool(self.over[games[wrong]])
            where = "the game is over" if over else "its cell is taken, or there is none"
            raise ValueError(
                f"move {int(moves[wrong])} of game {int(games[wrong])} is against the rules: {where}; allowed: what "
                "the observation's action_mask says"
            )
        self._follow(games)

    def _follow(self, games: Ints) -> None:
        """What follows from boards and winners."""
        winner = self.winner[games]
        self.over[games] = (winner > 0) | (self.count[games] == self.cells.shape[1])
        self.mover[games] = self.count[games] % 2
        sign = np.where(winner == 1, 1.0, np.where(winner == 2, -1.0, 0.0))
        self.reward[games, 0], self.reward[games, 1] = sign, -sign

    def look(self, games: Ints) -> Rows:
        width, _, gravity = self.rules
        board = np.empty((len(games), self.cells.shape[1]), np.uint8)
        mask = np.empty((len(games), self.moves), np.uint8)
        kernels.look(games, self.cells, self.count, self.winner, width, gravity, board, mask)
        return {"board": board.reshape(-1, *self.shape), MASK: mask.astype(np.int8)}

    def player(self, name: str) -> Player:
        """random, first, minimax:D (a search of D plies), perfect where the whole tree can be searched."""
        depth = re.fullmatch(r"minimax:([1-9]\d?)", name)
        cells = self.cells.shape[1]
        if name in PLAYERS:
            return PLAYERS[name]
        if depth or (name == "perfect" and cells <= PERFECT):
            return self._searcher(int(depth[1]) if depth else cells)
        known = [*PLAYERS, *(["perfect"] if cells <= PERFECT else []), "minimax:PLIES (1 to 99)"]
        raise ValueError(f"{name}: no such player here; allowed: {', '.join(known)}")

    def _searcher(self, depth: int) -> Player:
        width, row, gravity = self.rules

        def search(games: Ints, seen: Rows, draws: npt.NDArray[np.float32]) -> Ints:
            moves = np.zeros(len(games), np.int64)
            kernels.choose(games, draws, self.cells, self.count, depth, width, row, gravity, moves)
            return moves

        return search

    def text(self, game: int) -> str:
        """Stones as X (who moves first) and O; with gravity the columns' numbers below, else those of empty cells."""
        (height, width), gravity, cells = self.shape, self.rules[2], self.cells[game]
        digits = len(str(self.moves - 1))
        names = ["." if gravity else str(cell) for cell in range(len(cells))]
        shown = [
            ("XO"[stone - 1] if stone else name).rjust(digits)
            for stone, name in zip(cells, names, strict=True)
        ]
        lines = [" ".join(shown[y * width : (y + 1) * width]) for y in range(height)]
        if gravity:
            lines.append(" ".join(str(x).rjust(digits) for x in range(width)))
        return "\n".join(lines)

    def snapshot(self) -> dict[str, Any]:
        """Boards, how many stones lie there, and who has won."""
        return {name: getattr(self, name).copy() for name in ("cells", "count", "winner")}

    def load_snapshot(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name)[:] = value
        self._follow(np.arange(self.games))

    def render(self, game: int) -> npt.NDArray[np.uint8]:
        """The board with its stones as discs."""
        height, width = self.shape
        y, x = np.mgrid[: height * PIXELS, : width * PIXELS]
        radius = np.hypot(y % PIXELS - PIXELS / 2 + 0.5, x % PIXELS - PIXELS / 2 + 0.5)
        stones = self.cells[game].reshape(self.shape)[y // PIXELS, x // PIXELS]
        picture = COLOURS[np.where(radius < 0.4 * PIXELS, stones, 0)]
        picture[(y % PIXELS == 0) | (x % PIXELS == 0)] = (147, 161, 161)
        return picture

    def lost(self) -> Exception | None:
        return None

    def close(self) -> None:
        return


class Board(Seats):
    """Lanes that are seats of such games. Raises ValueError for arguments out of range."""

    batched = True

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        width: int = 3,
        height: int = 3,
        row: int = 3,
        gravity: bool = False,
    ) -> None:
        super().__init__(
            Boards(lanes, width, height, row, gravity), Seeds(seed, evaluation, first_lane, lanes)
        )
