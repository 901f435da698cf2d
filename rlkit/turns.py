"""Games of turns: what a vector of them offers (`Turns`), and who moves for the seats that no lane holds (`Others`).

A lane of such a vector (`rlkit.envs.backends.seats`) is one *seat* of its game, and a row is a turn of that seat: what
the others do between two own turns happens inside a step. The reward of a row is the sum of the seat's rewards since
its last turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.spaces import Array
from rlkit.types import EnvSpec

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = dict[str, Array]  # what those who are to move see: leaf -> [k, ...]
# (games [k], what is seen there, a number in (0, 1) for each [k]) -> moves [k]
Player: TypeAlias = Callable[[Ints, Rows, "npt.NDArray[np.float32]"], Ints]
# size -> numbers in (0, 1) for the moves that are asked for, [k, size] float32
Draw: TypeAlias = Callable[[int], "npt.NDArray[np.float32]"]

OPPONENT, SEAT = (
    "label.opponent",
    "label.seat",
)  # leaves of every row: who plays against the seat, and which seat it is
MOST = 256  # opponents that a label can tell apart


class Turns(Protocol):
    """N games of two players in which one player moves at a time."""

    spec: EnvSpec  # what who is to move sees, with an entry action_mask, and chooses from
    games: int  # N
    mover: Ints  # [N] who is to move, 0 or 1
    over: Bools  # [N]
    reward: npt.NDArray[np.float32]  # [N, 2] of the latest move, for both players

    def open(self, games: Ints, seeds: Ints) -> None:
        """Begin new ones in these places [k], with a seed each."""

    def play(self, games: Ints, moves: Ints) -> None:
        """Make a move [k] in each of these games [k]. Raises ValueError for one that the rules forbid."""

    def look(self, games: Ints) -> Rows:
        """What those who are to move see, [k, ...]; where a game is over, what its next player would see."""

    def player(self, name: str) -> Player:
        """A player that needs no learning, by name: random, first (legal move), and the game's own.

        Raises ValueError, which names those that there are.
        """

    def text(self, game: int) -> str:
        """The game as it stands, for a person at a terminal, with the numbers of moves."""

    def snapshot(self) -> dict[str, Any]:
        """The state of all games, copied."""

    def load_snapshot(self, state: dict[str, Any]) -> None:
        """Continue from `snapshot`'s value."""

    def render(self, game: int) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture for people, or None."""

    def lost(self) -> Exception | None:
        """The fault of a move in another thread that will not return."""

    def close(self) -> None:
        """Free what is held; idempotent."""


class Others(Protocol):
    """Who plays against the seats of a vector's lanes: members that are told apart by their number."""

    @property
    def members(self) -> int:
        """How many of them an evaluation is played against, one after the other."""

    def choose(self, games: Ints, seeds: Ints, numbers: Ints) -> Ints:
        """Who plays in new games [k] with these seeds: [k]. numbers: of an evaluation's episodes, else -1."""

    def move(self, who: Ints, games: Ints, seen: Rows, begins: Bools, draw: Draw) -> Ints:
        """The moves [k] of members `who` [k] in these games [k]; begins [k]: it is their first move of the game."""

    def snapshot(self) -> dict[str, Any]:
        """What their next moves depend on, copied."""

    def load_snapshot(self, state: dict[str, Any]) -> None:
        """Continue from `snapshot`'s value."""


def seated(spec: EnvSpec) -> bool:
    """Whether lanes of an environment are seats of games of turns."""
    return OPPONENT in spec.labels
