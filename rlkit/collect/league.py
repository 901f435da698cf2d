"""The league: who plays the other seat when an agent learns a game of turns by playing against itself.

    member 0            the newest weights, those that act
    members 1 .. F      players that do not learn here (league.players); agents of other runs among them are guests
    members F+1 ..      snapshots: the weights of earlier evaluations

A training game is played against the newest weights with probability `newest`, else against the others with weights

    w_i = (1 - s_i)^2 + 0.01        s_i: the score of recent games against member i, 1/2 before any

so that who is hard to beat is met more often (prioritised fictitious self-play: Vinyals et al., Nature 2019). An
evaluation plays every member as often; its results make the Elo ratings (`ratings`), of which player 1's is 0, and its
weights become a snapshot.

What changes are buffers of the policy: they travel to whoever acts, and are saved and resumed with it. Guests are
policies that were read once, when the run began; a checkpoint holds what makes them again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.collect.ratings import ratings
from rlkit.config import registry
from rlkit.config.league import LeagueConfig
from rlkit.contracts import Policy, Saved, VecEnv
from rlkit.options import ConfigError
from rlkit.turns import OPPONENT, Bools, Draw, Ints, Others, Player, Rows, Turns, seated
from rlkit.types import Lanes, Obs, Rollout, closings, tree_map

FLOOR = 0.01  # of the weight of a member that is always beaten
MEMORY = 200.0  # games that the score against a member looks back
KNOWN_FIRST = 1  # the member whose rating is 0


class League(nn.Module):
    """Snapshots of a policy's weights, and the results of games against them. players: names of members 1 .. F."""

    weights: Tensor  # [size, P] float32, a row per snapshot
    joined: Tensor  # [size] int64, the step of its weights; -1: an empty place
    score: Tensor  # [M, 2] float64: recent training games against each member, and points of them
    games: Tensor  # [M, M] float64: games of evaluations
    points: Tensor  # [M, M] float64: points that the first of both won in them

    def __init__(self, policy: nn.Module, players: Sequence[str], size: int, newest: float = 0.5) -> None:
        super().__init__()
        self.players, self.size, self.newest = tuple(players), size, newest
        # of the players that are guests, by name: what makes them again
        self.invited: Mapping[str, Saved] = {}
        self.guests: dict[str, Policy] = {}
        # what changes its size while a run goes on has no part in acting
        self.names = [name for name, x in policy.state_dict().items() if x.numel()]
        count = sum(x.numel() for name, x in policy.state_dict().items() if name in self.names)
        members = 1 + len(self.players) + size
        self.register_buffer("weights", torch.zeros(size, count))
        self.register_buffer("joined", torch.full((size,), -1))
        self.register_buffer("score", torch.zeros(members, 2, dtype=torch.float64))
        self.register_buffer("games", torch.zeros(members, members, dtype=torch.float64))
        self.register_buffer("points", torch.zeros(members, members, dtype=torch.float64))

    @property
    def first(self) -> int:
        """The member that the first snapshot is."""
        return 1 + len(self.players)

    def invite(self, parts: Mapping[str, Saved], device: torch.device | str = "cpu") -> None:
        """Make the guests among the players of what a checkpoint says of each, by name. Raises ConfigError."""
        self.invited = parts
        self.guests = {name: registry.open_policy(each).to(device) for name, each in parts.items()}

    def present(self) -> Ints:
        """The members beside the newest weights."""
        slots = np.flatnonzero(self.joined.cpu().numpy() >= 0)
        return np.concatenate([np.arange(1, self.first), self.first + slots])

    def name(self, member: int) -> str:
        """A member for people."""
        if member < self.first:
            return "newest" if member == 0 else self.players[member - 1]
        return f"step {int(self.joined[member - self.first]):,}"

    def chances(self) -> npt.NDArray[np.float64]:
        """How likely each member is in a training game, [M]."""
        games, points = self.score.cpu().numpy().T
        others = self.present()
        score = (points + 0.5) / (games + 1)  # [M]
        share = np.zeros(len(games))
        share[others] = (1 - score[others]) ** 2 + FLOOR
        share *= (1 - self.newest) / max(share.sum(), 1e-12)
        share[0] = self.newest if len(others) else 1.0
        return share

    def count(self, rollout: Rollout) -> None:
        """Take in the training games that ended in a rollout: won where the last reward is positive."""
        assert isinstance(rollout.obs, dict), "a row names the opponent"
        ended = closings(rollout.last)  # [T, N]
        member = rollout.obs[OPPONENT][1:][ended].long()
        points = 0.5 + 0.5 * torch.sign(rollout.reward[ended]).double()
        new = torch.zeros_like(self.score)
        new[:, 0].index_add_(0, member, torch.ones_like(points))
        new[:, 1].index_add_(0, member, points)
        self.score.mul_((1 - new[:, :1] / MEMORY).clamp(min=0)).add_(new)

    def record(self, member: Ints, points: npt.NDArray[np.float64]) -> None:
        """Take in an evaluation: the newest weights won points [k] against members [k]; older ones of theirs go."""
        for table in (self.games, self.points):
            table[0], table[:, 0] = 0, 0
        for m in np.unique(member):
            won, number = float(points[member == m].sum()), int((member == m).sum())
            self.games[0, m] = self.games[m, 0] = number
            self.points[0, m], self.points[m, 0] = won, number - won

    def elo(self) -> npt.NDArray[np.float64]:
        """[M] the rating of every member, nan where there is none."""
        return ratings(self.points.cpu().numpy(), self.games.cpu().numpy(), KNOWN_FIRST)

    @torch.no_grad()
    def join(self, policy: nn.Module, step: int) -> None:
        """Make the policy's weights of this step a snapshot, with the results of its evaluation."""
        empty = (self.joined < 0).nonzero()
        slot = int(empty[0]) if len(empty) else int(self.joined.argmin())
        state = policy.state_dict()
        self.weights[slot] = torch.cat([state[name].flatten().float() for name in self.names])
        self.joined[slot] = step
        member = self.first + slot
        self.score[member] = 0
        for table in (self.games, self.points):
            table[member], table[:, member] = table[0].clone(), table[:, 0].clone()
            table[member, member] = 0
            table[0], table[:, 0] = 0, 0

    @torch.no_grad()
    def dress(self, policy: nn.Module, member: int) -> None:
        """Give a policy the weights of a snapshot."""
        state, row, at = policy.state_dict(), self.weights[member - self.first], 0
        for name in self.names:
            value = state[name]
            value.copy_(row[at : at + value.numel()].view(value.shape))
            at += value.numel()


def league_of(policy: nn.Module) -> League | None:
    """The league that a policy carries."""
    found = getattr(policy, "league", None)
    return found if isinstance(found, League) else None


def with_league(policy: Policy, config: LeagueConfig) -> Policy:
    """The policy with an empty league, where its environment has seats."""
    if seated(policy.spec):
        device = next(policy.parameters()).device
        policy.league = League(policy, config.players, config.size, config.newest).to(device)
    return policy


def without_league(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A policy's state without its league's."""
    return {name: value for name, value in state.items() if not name.startswith("league.")}


class Field(Others):
    """The members of a league at the games of a vector: each remembers its game, and moves when it is asked.

    policy: with the newest weights; lanes: of the run; group: how many lanes a policy sees at once, each at its own
    place, so that a lane's numbers do not depend on who plays beside it, 0: all that are to move; only: members 1, 2,
    ... of an evaluation that is not against the league.
    """

    def __init__(
        self,
        league: League,
        policy: Policy,
        game: Turns,
        lanes: Lanes,
        device: torch.device,
        group: int = 0,
        only: Sequence[Player | Policy] = (),
    ) -> None:
        self.league, self.policy, self.lanes, self.device, self.group = league, policy, lanes, device, group
        self.only = list(only)
        self.fixed = self.only or [
            league.guests[name] if name in league.guests else player_of(game, name) for name in league.players
        ]
        self._snapshots: dict[
            int, tuple[int, Policy]
        ] = {}  # member -> step of its weights, a policy with them
        # hidden states of whoever plays in each lane: of the newest weights and snapshots, and of each other policy
        self.states = {0: policy.initial_state(lanes, device)}
        for number, each in enumerate(self.fixed, 1):
            if isinstance(each, Policy):
                self.states[number] = each.initial_state(lanes, device)

    @property
    def members(self) -> int:
        """How many there are for an evaluation to be played against."""
        return len(self._against())

    def _against(self) -> Ints:
        return np.arange(1, 1 + len(self.only)) if self.only else self.league.present()

    def choose(self, games: Ints, seeds: Ints, numbers: Ints) -> Ints:
        """Members by their chances in training; one after the other in an evaluation."""
        if len(numbers) and numbers[0] >= 0:
            against = self._against()
            found: Ints = against[numbers % len(against)]
            return found
        chances = np.cumsum(self.league.chances())
        draws = _fractions(seeds) * chances[-1]
        members: Ints = np.searchsorted(chances, draws, side="right")
        return np.minimum(members, len(chances) - 1)

    @torch.no_grad()
    def move(self, who: Ints, games: Ints, seen: Rows, begins: Bools, draw: Draw) -> Ints:
        moves = np.zeros(len(games), np.int64)
        for number in np.unique(who):
            mine = np.flatnonzero(who == number)
            member = self._member(int(number))
            size = member.noise_size if isinstance(member, Policy) else 1
            draws = draw(size)[mine]
            rows = {name: value[mine] for name, value in seen.items()}
            if isinstance(member, Policy):
                key = int(number) if self._fixed(int(number)) else 0
                moves[mine] = self._act(member, key, games[mine], rows, begins[mine], draws)
            else:
                moves[mine] = member(games[mine], rows, draws[:, 0])
        return moves

    def _fixed(self, number: int) -> bool:
        """Whether a number is of a player that stays the same, not of the newest weights or a snapshot."""
        return bool(number) and (bool(self.only) or number < self.league.first)

    def _member(self, number: int) -> Player | Policy:
        """Who a number is."""
        if number == 0:
            return self.policy
        if self._fixed(number):
            return self.fixed[number - 1]
        step = int(self.league.joined[number - self.league.first])
        known = self._snapshots.get(number)
        if known is None or known[0] != step:
            # a copy without the league, which has copies of all weights
            twin = copy.deepcopy(self.policy, {id(league_of(self.policy)): None})
            self.league.dress(twin, number)
            self._snapshots[number] = known = (step, twin)
        return known[1]

    def _act(
        self, policy: Policy, key: int, games: Ints, rows: Rows, begins: Bools, draws: npt.NDArray[np.float32]
    ) -> Ints:
        """A policy's moves [k] in games [k]; the hidden state that it has of them, states[key], goes on."""
        lanes = torch.from_numpy(games)
        obs = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in rows.items()}
        inputs = (obs, torch.from_numpy(begins), torch.from_numpy(draws))
        if not self.group:
            places = torch.arange(len(lanes))
            return self._forward(policy, key, lanes, *inputs, places, len(lanes)).numpy()
        moves = torch.zeros(len(lanes), dtype=torch.int64)
        for number in torch.unique(lanes // self.group):
            mine = (lanes // self.group == number).nonzero()[:, 0]
            part = tree_map(lambda x: x[mine], inputs)  # noqa: B023
            places = lanes[mine] % self.group
            moves[mine] = self._forward(policy, key, lanes[mine], *part, places, self.group)
        return moves.numpy()

    def _forward(
        self,
        policy: Policy,
        key: int,
        lanes: Tensor,
        obs: Obs,
        first: Tensor,
        noise: Tensor,
        places: Tensor,
        size: int,
    ) -> Tensor:
        """Rows [k] at their places of a batch of `size` rows, the others of which are copies of row 0: moves [k]."""
        source = torch.zeros(size, dtype=torch.int64).index_copy_(0, places, torch.arange(len(lanes)))
        obs, first, noise = tree_map(lambda x: x[source].to(self.device), (obs, first, noise))
        before = self.states[key]
        state = tree_map(lambda x: x[lanes[source].to(x.device)], before)
        action, state, _ = policy.act(obs, first, state, noise)
        at, to = places.to(self.device), lanes.to(self.device)
        self.states[key] = tree_map(lambda old, new: old.index_copy(0, to, new[at]), before, state)
        return policy.to_env(action)[at].cpu().long()

    def snapshot(self) -> dict[str, Any]:
        return {"states": {str(key): tree_map(torch.clone, state) for key, state in self.states.items()}}

    def load_snapshot(self, state: dict[str, Any]) -> None:
        for key, saved in state["states"].items():
            self.states[int(key)] = tree_map(lambda x: x.to(self.device), saved)


def seat(
    env: VecEnv,
    policy: Policy,
    lanes: Lanes,
    *,
    openings: int = 0,
    group: int = 0,
    only: Sequence[str | Player | Policy] = (),
    league: League | None = None,
) -> VecEnv:
    """Let a policy's league play the other seats of an environment of games of turns; any other stays as it is.

    only, group: as of `Field`, players by their names, too; league: instead of the one that the policy carries. Raises
    ConfigError for an unknown player.
    """
    game, found = getattr(env, "game", None), league or league_of(policy)
    if game is None or found is None or not seated(env.spec):
        return env
    device = next(policy.parameters()).device
    against = [player_of(game, each, "--opponent") if isinstance(each, str) else each for each in only]
    field = Field(found, policy, game, lanes, device, group, against)
    env.others, env.openings = field, openings  # type: ignore[attr-defined]
    return env


def player_of(game: Turns, name: str, given: str = "league.players") -> Player:
    """A player that needs no learning, by its name. Raises ConfigError, which says what is allowed."""
    try:
        return game.player(name)
    except ValueError as error:
        raise ConfigError(f"{given} {error}, or the folder of a run") from error


def _fractions(seeds: Ints) -> npt.NDArray[np.float64]:
    """A number in (0, 1) of each seed [k], by the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
