"""A lane is a seat: games of turns as rows, one for every turn of the seat that the lane holds.

    step     the seat's own move; then the others' moves, until it is the seat's turn again or the game is over
    seat     episode e of lane n holds seat (n + e) % 2, so that each is held as often as the other
    reward   the sum of the seat's rewards since its last turn

Everything a game does follows from (seed, lane, episode, number of the move): a game's seed opens it, its first
`openings` moves at most are random (in training; as many as its seed says), and numbers for the others' moves are
hashes of (seed of the game, number of the move). Who the others are is for `others` to say; without any they move at
random.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Saved, VecEnv
from rlkit.envs.chance import mix
from rlkit.envs.compiled import compiled
from rlkit.envs.seeds import draw_seeds, words
from rlkit.seeding import Seeds
from rlkit.spaces import MASK, Array, Dict, Discrete, leaves, row_dtype
from rlkit.turns import MOST, OPPONENT, SEAT, Bools, Draw, Ints, Others, Player, Rows, Turns
from rlkit.types import EnvStep

Floats: TypeAlias = npt.NDArray[np.float32]
RETRIES = 64  # games that end before the seat's first turn, one after the other
PER_MOVE = 64  # numbers that a move may draw
OF_OPENINGS = 1 << 20  # where the numbers of a game's opening begin


@compiled
def chances(seeds: Ints, counts: Ints, out: Floats) -> None:
    """out [k, size]: numbers in (0, 1) number counts[k], counts[k] + 1, ... of the games with these seeds [k]."""
    for k in range(len(seeds)):
        for i in range(out.shape[1]):
            word = mix(seeds[k] ^ mix(counts[k] + i))
            out[k, i] = (np.float32(word >> 9) + np.float32(0.5)) * np.float32(2.0**-23)


def random_player(games: Ints, seen: Rows, draws: Floats) -> Ints:
    """Any allowed move, each as likely."""
    mask = seen[MASK] != 0  # [k, moves]
    rank = np.floor(draws * mask.sum(1)).astype(np.int64)  # which of the allowed ones
    moves: Ints = np.argmax(mask & (np.cumsum(mask, 1) == rank[:, None] + 1), 1)
    return moves


def first_player(games: Ints, seen: Rows, draws: Floats) -> Ints:
    """The first allowed move."""
    moves: Ints = np.argmax(seen[MASK] != 0, 1)
    return moves


PLAYERS: dict[str, Player] = {"random": random_player, "first": first_player}


class Random:
    """Others who move at random."""

    members = 1

    def choose(self, games: Ints, seeds: Ints, numbers: Ints) -> Ints:
        return np.zeros(len(games), np.int64)

    def move(self, who: Ints, games: Ints, seen: Rows, begins: Bools, draw: Draw) -> Ints:
        return random_player(games, seen, draw(1)[:, 0])

    def snapshot(self) -> dict[str, Any]:
        return {}

    def load_snapshot(self, state: dict[str, Any]) -> None:
        return


class Seats(VecEnv):
    """N lanes, each a seat of one of N games; its rows are CPU tensors that every step overwrites.

    others: who plays against the seats; openings: how many random moves a game may open with. Both may be changed
    before the first row is asked for.
    """

    exact = "snapshot"
    fps = 2.0

    def __init__(self, game: Turns, seeds: Seeds) -> None:
        self.game, self.seeds, self.lanes, self.device = game, seeds, game.games, torch.device("cpu")
        self.others: Others = Random()
        self.openings = 0
        observation = game.spec.observation
        assert isinstance(observation, Dict), "with an entry action_mask"
        label = Dict((("opponent", Discrete(MOST)), ("seat", Discrete(2))))
        self.spec = replace(
            game.spec, observation=Dict((*observation.entries, ("label", label))), labels=(OPPONENT, SEAT)
        )
        n = self.lanes
        self._everyone = np.arange(n)
        # of each lane's game: its seed, moves so far, own seat, who plays against it, whether they have moved
        self._seed, self._moves, self._seat, self._who = (np.zeros(n, np.int64) for _ in range(4))
        self._met, self._words = np.zeros(n, np.bool_), words(seeds.seed)
        self.episode = np.full(n, -1)
        obs = {
            name: torch.zeros(n, *leaf.shape, dtype=getattr(torch, row_dtype(leaf)))
            for name, leaf in leaves(self.spec.observation)
        }
        self.row = EnvStep(obs, torch.zeros(n), *(torch.zeros(n, dtype=torch.bool) for _ in range(3)))
        self._obs = {name: value.numpy() for name, value in obs.items()}
        self._reward = self.row.reward.numpy()
        self._terminated, self._first, self._last = (
            getattr(self.row, name).numpy() for name in ("terminated", "first", "last")
        )

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Open episode[n] on lane n, and bring it to after actions[n] (which replays need: the others as they are)."""
        self.episode[:] = episode
        self._reward[:] = 0.0
        self._open(np.ones(self.lanes, np.bool_))
        counts = np.array([len(history) for history in actions])
        for t in range(int(counts.max(initial=0))):
            acting = np.flatnonzero(counts > t)
            self._reward[acting] = 0.0
            self._play(acting, np.array([actions[lane][t] for lane in acting], np.int64))
            self._answer()
        self._see(np.array(counts == 0))
        return self.row

    def step(self, action: Tensor) -> EnvStep:
        """The seats' moves [N]. Raises ValueError for one that the rules forbid."""
        assert tuple(action.shape) == (self.lanes,), (
            f"actions {tuple(action.shape)}, expected {(self.lanes,)}"
        )
        opening = self._last.copy()
        acting = np.flatnonzero(~opening)
        self._reward[:] = 0.0
        self._play(acting, action.detach().cpu().numpy().astype(np.int64)[acting])
        self.episode += opening
        if opening.any():
            self._open(opening)
        else:
            self._answer()
        self._see(opening)
        return self.row

    def _play(self, lanes: Ints, moves: Ints) -> None:
        """Make moves, and pay the seats for them."""
        if len(lanes):
            self.game.play(lanes, moves)
            self._moves[lanes] += 1
            self._reward[lanes] += self.game.reward[lanes, self._seat[lanes]]

    def _answer(self) -> None:
        """Let the others move until every game is over or at its own seat's turn."""
        while True:
            lanes = np.flatnonzero(~self.game.over & (self.game.mover != self._seat))
            if not len(lanes):
                return
            counts = self._moves[lanes] * PER_MOVE
            moves = self.others.move(
                self._who[lanes],
                lanes,
                self.game.look(lanes),
                ~self._met[lanes],
                lambda size: self._draw(lanes, counts, size),  # noqa: B023
            )
            self._met[lanes] = True
            self._play(lanes, moves)

    def _draw(self, lanes: Ints, counts: Ints, size: int) -> Floats:
        """Numbers in (0, 1) for moves in these lanes: [k, size]."""
        assert size <= PER_MOVE, f"a move draws {size} numbers"
        out = np.empty((len(lanes), size), np.float32)
        chances(self._seed[lanes], counts, out)
        return out

    def _open(self, opening: Bools) -> None:
        """Begin the present episodes of the lanes that are `opening` [N]; all others' answers are made, too."""
        lanes, evaluation = np.flatnonzero(opening), self.seeds.evaluation
        draw_seeds(
            opening,
            0,
            self.lanes,
            self._words,
            evaluation,
            self.seeds.first_lane,
            self.episode,
            self._seed,
        )
        # an evaluation's episodes, of all lanes: one against each member from one seat, then from the other
        number = self.episode * self.lanes + self._everyone
        held = (
            number // self.others.members
            if evaluation
            else self.seeds.first_lane + self._everyone + self.episode
        )
        self._seat[lanes] = held[lanes] % 2
        self._who[lanes] = self.others.choose(
            lanes, self._seed[lanes], number[lanes] if evaluation else np.full(len(lanes), -1)
        )
        for attempt in range(RETRIES):
            self.game.open(lanes, self._seed[lanes])
            self._moves[lanes], self._met[lanes] = 0, False
            if self.openings and not attempt:
                self._random_moves(lanes)
            self._reward[lanes] = 0.0
            self._answer()
            lanes = np.flatnonzero(opening & self.game.over)  # over before the seat's first turn
            if not len(lanes):
                break
            self._seed[lanes] ^= attempt + 1
        else:
            raise ValueError(f"env.id={self.spec.id}: games end before the first turn of a seat")
        self._reward[opening] = 0.0

    def _random_moves(self, lanes: Ints) -> None:
        """0 to `openings` moves of both players, by a game's seed."""
        draws = self._draw(lanes, np.full(len(lanes), OF_OPENINGS), self.openings + 1)  # [k, openings + 1]
        wanted = np.floor(draws[:, 0] * (self.openings + 1)).astype(np.int64)
        for t in range(self.openings):
            left = np.flatnonzero((wanted > t) & ~self.game.over[lanes])
            if len(left):
                where = lanes[left]
                self._play(where, random_player(where, self.game.look(where), draws[left, t + 1]))

    def _see(self, opening: Bools) -> None:
        """Write what the seats see. A game that is over is shown as its next player would see it."""
        for name, value in self.game.look(self._everyone).items():
            self._obs[name][:] = value
        self._obs[OPPONENT][:], self._obs[SEAT][:] = self._who, self._seat
        self._first[:], self._last[:] = opening, self.game.over
        self._terminated[:] = self._last

    def snapshot(self) -> Saved:
        """The state of all lanes, copied: games, seats, and what the others remember."""
        names = ("_seed", "_moves", "_seat", "_who", "_met", "episode")
        return {
            "games": self.game.snapshot(),
            "others": self.others.snapshot(),
            "lanes": {name.lstrip("_"): getattr(self, name).copy() for name in names},
            "row": {"reward": self.row.reward.clone(), "first": self.row.first.clone()},
        }

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        self.game.load_snapshot(state["games"])
        self.others.load_snapshot(state["others"])
        for name, value in state["lanes"].items():
            getattr(self, name if name == "episode" else f"_{name}")[:] = value
        self.row.reward.copy_(state["row"]["reward"])
        self._see(state["row"]["first"].numpy())

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        return self.game.render(lane)

    def lost(self) -> Exception | None:
        return self.game.lost()

    def close(self) -> None:
        self.game.close()
