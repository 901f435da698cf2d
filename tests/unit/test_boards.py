"""k in a row: the rules by counting whole trees, the search against plain recursion, seats against a slow version."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.contracts import VecEnv
from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.backends.seats import RETRIES, Seats, first_player, random_player
from rlkit.envs.boards.board import Board, Boards
from rlkit.envs.boards.kernels import WIN, search
from rlkit.spaces import MASK
from rlkit.turns import OPPONENT, SEAT, Ints, Rows

CONNECT = {"width": 7, "height": 6, "row": 4, "gravity": True}


def expanded(boards: Boards) -> tuple[Boards, Ints]:
    """Every game one move further, in every way; and who has won in those that are over (-1: nobody yet)."""
    games, moves = np.nonzero(boards.look(np.arange(boards.games))[MASK])
    width, row, gravity = boards.rules
    after = Boards(len(games), width, boards.shape[0], row, gravity)
    after.cells[:], after.count[:], after.winner[:] = (
        getattr(boards, name)[games] for name in ("cells", "count", "winner")
    )
    after._follow(np.arange(after.games))
    after.play(np.arange(after.games), moves)
    return after, np.where(after.over, after.winner, -1)


def left(boards: Boards) -> Boards:
    """The games that are not over."""
    keep = ~boards.over
    width, row, gravity = boards.rules
    found = Boards(int(keep.sum()), width, boards.shape[0], row, gravity)
    found.load_snapshot({name: value[keep] for name, value in boards.snapshot().items()})
    return found


def test_all_games_of_tic_tac_toe_are_counted() -> None:
    """255,168 games, of which the first player wins 131,184 and the second 77,904 (a known count)."""
    boards, results, positions = Boards(1, 3, 3, 3, False), np.zeros(3, np.int64), 1
    for _ in range(9):
        boards, winner = expanded(left(boards))
        results += np.bincount(winner[winner >= 0], minlength=3)
        positions += len(np.unique(boards.cells, axis=0))
    assert results.tolist() == [46_080, 131_184, 77_904]
    assert positions == 5_478


def test_connect_four_has_the_known_numbers_of_positions() -> None:
    """After n moves: the published sequence of distinct positions (1, 7, 49, 238, 1120, 4263)."""
    boards = Boards(1, **CONNECT)
    for count in (7, 49, 238, 1120, 4263):
        boards, _ = expanded(left(boards))
        distinct = np.unique(boards.cells, axis=0, return_index=True)[1]
        assert len(distinct) == count
        kept = {name: value[distinct] for name, value in boards.snapshot().items()}
        boards = Boards(count, **CONNECT)
        boards.load_snapshot(kept)


@pytest.mark.parametrize(("width", "height", "row", "gravity"), [(4, 3, 3, False), (5, 4, 3, True)])
def test_the_search_is_that_of_plain_recursion(width: int, height: int, row: int, gravity: bool) -> None:
    def line(cells: tuple[int, ...], cell: int) -> bool:
        y, x = divmod(cell, width)
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for shift in range(row):
                places = [(y + dy * (i - shift), x + dx * (i - shift)) for i in range(row)]
                if all(0 <= a < height and 0 <= b < width for a, b in places) and all(
                    cells[a * width + b] == cells[cell] for a, b in places
                ):
                    return True
        return False

    @cache
    def values(cells: tuple[int, ...], depth: int) -> dict[int, int]:
        """What each move is worth, by definition."""
        stone, found = (len(cells) - cells.count(0)) % 2 + 1, {}
        for move in range(width if gravity else len(cells)):
            open_ = [c for c in range(move, len(cells), width) if not cells[c]] if gravity else [move]
            if not open_ or cells[open_[-1]]:
                continue
            cell = open_[-1]
            after = (*cells[:cell], stone, *cells[cell + 1 :])
            if line(after, cell):
                found[move] = WIN
            elif depth == 1 or 0 not in after:
                found[move] = 0
            else:
                worst = max(values(after, depth - 1).values())
                found[move] = -worst + (worst > 0) - (worst < 0)  # a ply later
        return found

    generator = np.random.default_rng(0)
    boards = Boards(40, width, height, row, gravity)
    for _ in range(6):
        games = np.flatnonzero(~boards.over)
        boards.play(games, random_player(games, boards.look(games), generator.random(len(games))))
        for game in np.flatnonzero(~boards.over)[:8]:
            found = np.zeros(boards.moves, np.int64)
            depth = min(4, width * height - int(boards.count[game]))
            search(boards.cells[game], int(boards.count[game]), depth, width, row, gravity, found)
            wanted = values(tuple(boards.cells[game].tolist()), depth)
            top = max(wanted.values())
            assert found.max() == top
            assert np.flatnonzero(found == top).tolist() == [m for m, v in wanted.items() if v == top]


def test_the_perfect_player_loses_to_nobody() -> None:
    """Every line of play of the other side, from either seat."""
    for own in (0, 1):
        boards = Boards(1, 3, 3, 3, False)
        while boards.games:
            if boards.mover[0] == own:  # all games have as many stones
                games = np.arange(boards.games)
                boards.play(
                    games, boards.player("perfect")(games, boards.look(games), np.full(len(games), 0.5))
                )
            else:
                boards, _ = expanded(boards)
            assert not (boards.winner == 2 - own).any()
            boards = left(boards)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 0}, "env.kwargs.width=0"),
        ({"row": 4}, "env.kwargs.row=4: longer than a board of 3 x 3; allowed: at most 3"),
        ({"gravity": 1}, "env.kwargs.gravity=1: allowed: true, false"),
        ({"depth": 1}, "depth"),
    ],
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_vec(EnvConfig(id="rlkit/Board", kwargs=kwargs), 0)


def test_wrong_players_and_moves_are_refused() -> None:
    boards = Boards(2, **CONNECT)
    with pytest.raises(
        ValueError, match=r"perfect: no such player here; allowed: random, first, minimax:PLIES"
    ):
        boards.player("perfect")
    with pytest.raises(ValueError, match="move 7 of game 1 is against the rules"):
        boards.play(np.array([1]), np.array([7]))
    for _ in range(6):
        boards.play(np.array([0]), np.array([3]))
    with pytest.raises(ValueError, match="move 3 of game 0 is against the rules: its cell is taken"):
        boards.play(np.array([0]), np.array([3]))


# ---------------------------------------------------------------- seats


def rows(env: VecEnv, steps: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """What lanes show while they move at random, by draws of their own."""
    row, found = env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0)] * env.lanes), []
    first = env.seeds.first_lane  # type: ignore[attr-defined]
    draws = np.random.default_rng(seed).random((steps, 64))[:, first : first + env.lanes]
    for t in range(steps):
        flags = {name: getattr(row, name).clone() for name in ("reward", "first", "last", "terminated")}
        found.append(flags | {name: value.clone() for name, value in row.obs.items()})
        seen: Rows = {MASK: row.obs[MASK].numpy()}
        row = env.step(torch.from_numpy(random_player(np.arange(env.lanes), seen, draws[t])))
    return found


def board(lanes: int, first_lane: int = 0, openings: int = 3, **options: Any) -> Board:
    env = Board(lanes, 5, first_lane=first_lane, **{**CONNECT, **options})
    env.openings = openings
    return env


def test_rows_do_not_depend_on_how_lanes_are_split() -> None:
    whole, parts = rows(board(6), 40), [rows(board(2, first), 40) for first in (0, 2, 4)]
    for t, row in enumerate(whole):
        for name, value in row.items():
            assert torch.equal(value, torch.cat([part[t][name] for part in parts])), (t, name)


def test_a_row_is_an_own_turn_and_seats_alternate() -> None:
    env = board(8, openings=0)
    episode, seats = np.zeros(8, np.int64), []
    for row in rows(env, 80):
        own, other = ((row["board"] == code).sum((1, 2)) for code in (1, 2))
        turn = ~row["last"]
        # who moves first has as many stones as the other at its turn, who moves second one less
        assert torch.equal((other - own)[turn], row[SEAT][turn])
        assert torch.equal(row["terminated"], row["last"])
        assert (row["reward"][turn] == 0).all() and (row["reward"][row["first"]] == 0).all()
        assert (row[OPPONENT] == 0).all()
        episode += row["first"].numpy()
        assert torch.equal(row[SEAT], torch.from_numpy((np.arange(8) + episode - 1) % 2))
        seats.append(row[SEAT])
    assert episode.min() > 3
    ends = torch.cat([row["reward"][row["last"]] for row in rows(board(32, openings=0), 60)])
    assert set(ends.tolist()) >= {-1.0, 1.0}


def test_the_winner_is_paid() -> None:
    """Three in a column against one who takes the first free cell: X in 4, 3, 5 wins; as O in 4, 5, 3 or lost."""
    env = Board(2, 0)

    class First:
        members = 1

        def choose(self, games: Ints, seeds: Ints, numbers: Ints) -> Ints:
            return np.full(len(games), 7)

        def move(self, who: Ints, games: Ints, seen: Rows, begins: Any, draw: Any) -> Ints:
            assert (who == 7).all()
            return first_player(games, seen, draw(1)[:, 0])

        def snapshot(self) -> dict[str, Any]:
            return {}

        def load_snapshot(self, state: dict[str, Any]) -> None:
            return

    env.others = First()
    row = env.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
    assert row.obs[SEAT].tolist() == [0, 1] and row.obs[OPPONENT].tolist() == [7, 7]
    assert row.obs["board"].tolist() == [[[0] * 3] * 3, [[2, 0, 0], [0] * 3, [0] * 3]]
    row = env.step(torch.tensor([4, 8]))
    row = env.step(torch.tensor([3, 7]))
    # lane 0 has 4, 3 against 0, 1; lane 1 has 8, 7 against 0, 1, 2, a line
    assert row.reward.tolist() == [0, -1] and row.last.tolist() == [False, True]
    row = env.step(torch.tensor([5, 0]))
    assert row.reward.tolist() == [1, 0] and row.last.tolist() == [True, False]
    assert row.first.tolist() == [False, True] and row.obs[SEAT].tolist() == [0, 0]


def test_openings_are_random_and_of_both_lengths() -> None:
    env = board(64, openings=3)
    env.restore(np.zeros(64, np.int64), [np.zeros(0)] * 64)
    counts = np.bincount(env.game.count, minlength=5)  # type: ignore[attr-defined]
    assert len(counts) == 5 and counts.min() > 3  # 0 to 3, and the other's answer where it was its turn
    assert (env.game.mover == np.arange(64) % 2).all()  # type: ignore[attr-defined]
    assert len(np.unique(env.game.cells, axis=0)) > 30  # type: ignore[attr-defined]


def test_a_snapshot_brings_games_back() -> None:
    env = board(6)
    rows(env, 9)
    saved = env.snapshot()
    again = board(6)
    again.load_snapshot(saved)
    for _ in range(12):
        row = env.row
        assert all(torch.equal(row.obs[name], again.row.obs[name]) for name in row.obs)
        assert all(torch.equal(getattr(row, n), getattr(again.row, n)) for n in ("reward", "first", "last"))
        action = torch.from_numpy(first_player(np.arange(6), {MASK: row.obs[MASK].numpy()}, np.zeros(6)))
        env.step(action)
        again.step(action.clone())


def test_games_that_end_before_a_turn_end_the_run() -> None:
    """One in a row: who moves first has won, so the second seat never moves."""
    env = Board(2, 0, width=2, height=1, row=1)
    with pytest.raises(ValueError, match="games end before the first turn of a seat"):
        env.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
    assert RETRIES > 1 and isinstance(env, Seats)
