"""The options of self-play (torch-free, so that a typing error is found before torch is loaded)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import ConfigError, option


@dataclass(frozen=True)
class LeagueConfig:
    """Who plays the other seat in a game of turns (rlkit.collect.league)."""

    newest: float = option(
        0.5, min=0, max=1, help="The share of training games that are played against the newest weights"
    )
    size: int = option(
        32,
        min=1,
        max=128,
        help="How many snapshots the league holds; each evaluation adds one, and the oldest goes where it is full",
    )
    players: tuple[str, ...] = option(
        ("random",),
        help="Players that are in the league from the start and do not learn there: random, first, the game's own "
        "(minimax:2, perfect), and agents of other runs (RUN, RUN:last, RUN:STEP)",
    )
    openings: int = option(
        4, min=0, max=32, help="A training game opens with 0 to so many random moves, as its seed says"
    )

    def __post_init__(self) -> None:
        if not self.players:
            raise ConfigError(
                "league.players=[]: the first of them has the Elo rating 0; allowed: one or more, for example [random]"
            )
