"""Games of turns outside training: against players by name, other agents, people; and tournaments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch

from rlkit import own
from rlkit.collect.league import league_of, with_league
from rlkit.collect.ratings import ratings
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy
from rlkit.device import Say
from rlkit.files import run_named
from rlkit.options import ConfigError
from rlkit.play.evaluate import Episode, Evaluator
from rlkit.play.saved import load
from rlkit.space_json import to_json
from rlkit.spaces import describe
from rlkit.turns import Player, seated

Z = 1.959964  # of a 95% interval
Opponent = str | Player | Policy


def opponent(name: str, policy: Policy, say: Say) -> Opponent:
    """Who `name` is: a run's agent, module:function, or the name of a player, which the game knows.

    Raises ConfigError where a run's agent plays another game than `policy`.
    """
    if own.is_function(name):
        try:
            return own.find_function(name, f"--opponent {name}")
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if not run_named(name).is_dir():
        return name
    other = load(name, say=say).policy
    same_game(policy, "the agent", other, f"--opponent {name}")
    return other


def same_game(policy: Policy, name: str, other: Policy, given: str) -> None:
    """Raise ConfigError where two policies read or choose in different spaces. given: what was typed for the other."""
    for what in ("inputs", "action"):
        mine, its = getattr(policy.spec, what), getattr(other.spec, what)
        if to_json(mine) != to_json(its):
            raise ConfigError(
                f"{given}: plays another game: its {what} are {describe(its)}, those of {name} {describe(mine)}"
            )


def play(
    policy: Policy,
    config: RunConfig,
    only: Sequence[Opponent],
    games: int,
    *,
    seed: int,
    greedy: bool,
) -> list[Episode]:
    """`games` games against each of `only`, or against each member of the policy's league where there are none.

    Both seats are held as often. An episode's `opponent` counts from 1. Raises ConfigError where the game has no seats.
    """
    policy = ready(policy, config)
    evaluator = Evaluator(
        policy, config, games, seed=seed, device=torch.device("cpu"), greedy=greedy, only=only
    )
    try:
        return evaluator.play()
    finally:
        evaluator.close()


def seated_only(policy: Policy, given: str = "--opponent") -> None:
    """Raise ConfigError for a policy of an environment that is no game of turns. given: the option typed."""
    if not seated(policy.spec):
        raise ConfigError(
            f"env.id={policy.spec.id}: is no game of turns, and nobody is played against; leave {given} out"
        )


def ready(policy: Policy, config: RunConfig) -> Policy:
    """The policy with a league, an empty one where it was not trained in one. Raises ConfigError in other games."""
    seated_only(policy)
    return policy if league_of(policy) else with_league(policy, replace(config.league, size=1))


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a probability that was `share` in n trials (Wilson, J. Am. Stat. Assoc., 1927)."""
    middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max((middle - half) / (1 + Z**2 / n), 0.0), min((middle + half) / (1 + Z**2 / n), 1.0)


@dataclass(frozen=True)
class Score:
    """Games against one opponent from one seat."""

    opponent: str
    seat: int
    won: int
    drawn: int
    lost: int

    @property
    def games(self) -> int:
        return self.won + self.drawn + self.lost


def scores(episodes: Sequence[Episode], names: Sequence[str]) -> list[Score]:
    """The results by opponent, names[member - 1], and seat."""
    found = []
    for number, seat in sorted({(each.opponent, each.seat) for each in episodes}):
        results = np.sign([each.result for each in episodes if (each.opponent, each.seat) == (number, seat)])
        found.append(Score(names[number - 1], seat, *(int((results == sign).sum()) for sign in (1, 0, -1))))
    return found


def table(found: Sequence[Score]) -> str:
    """Won, drawn and lost games as a text, with the interval of the share that was won."""
    width = max(len("opponent"), *(len(each.opponent) for each in found))
    lines = [f"{'opponent':<{width}}  seat    games      won    drawn     lost   won, 95% interval"]
    for each in found:
        low, high = wilson(each.won / each.games, each.games)
        lines.append(
            f"{each.opponent:<{width}}  {('first', 'second')[each.seat]:<6}{each.games:>7}{each.won:>9}{each.drawn:>9}"
            f"{each.lost:>9}   {each.won / each.games:.3f}   {low:.3f} to {high:.3f}"
        )
    return "\n".join(lines)


Entrant = tuple[str, Policy, RunConfig, bool]


def tournament(
    entrants: Sequence[Entrant], games: int, *, seed: int
) -> tuple[list[Score], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """`games` games of every pair of entrants (name, policy, configuration, greedy), both seats as often.

    Returns the results of each pair, as of the first of both, and the entrants' Elo ratings around a mean of 0.
    """
    n = len(entrants)
    points, counts, found = np.zeros((n, n)), np.zeros((n, n)), list[Score]()
    for i, j in combinations(range(n), 2):
        name, policy, config, greedy = entrants[i]
        played = play(policy, config, [entrants[j][1]], games, seed=seed, greedy=greedy)
        found += [
            replace(each, opponent=f"{name} - {each.opponent}") for each in scores(played, [entrants[j][0]])
        ]
        won = sum(0.5 + 0.5 * float(np.sign(each.result)) for each in played)
        points[i, j], points[j, i] = won, len(played) - won
        counts[i, j] = counts[j, i] = len(played)
    elo = ratings(points, counts)
    return found, elo - elo.mean()
