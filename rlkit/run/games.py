"""Refuses options of games with several agents where they fit nothing: groups of agents, and leagues of self-play."""

from __future__ import annotations

from dataclasses import fields

from rlkit.config.compose import learns, of_group
from rlkit.config.league import LeagueConfig
from rlkit.config.schema import RunConfig
from rlkit.contracts import Algorithm
from rlkit.options import ConfigError, show
from rlkit.turns import seated
from rlkit.types import EnvSpec


def check_league(config: RunConfig, spec: EnvSpec) -> None:
    """Raise ConfigError where options of self-play stand without a game of turns, or do not go together with others."""
    usual = LeagueConfig()
    for each in fields(LeagueConfig):
        given = getattr(config.league, each.name)
        if given != getattr(usual, each.name) and not seated(spec):
            raise ConfigError(
                f"league.{each.name}={show(given)}: {spec.id} is no game of turns, and has no league; leave it out"
            )
    if seated(spec) and config.source.name == "ray" and config.source.inference == "shared":
        raise ConfigError(
            "source.inference=shared: in a game of turns a worker plays the other seats where its lanes are; type "
            "source.inference=local"
        )
    if seated(spec) and config.eyes.run:
        raise ConfigError(
            f"eyes={config.eyes.run}: not in a game of turns, whose other seats have no eyes; leave it out"
        )


def check_groups(config: RunConfig, spec: EnvSpec, algorithm: Algorithm) -> None:
    """Raise ConfigError where options of groups do not fit the game's, or groups of agents other options."""
    names = [name for name, _ in spec.groups]
    for name in config.groups:
        if name not in names:
            allowed = f"allowed: {', '.join(names)}" if names else f"{spec.id} has none; leave it out"
            raise ConfigError(f"groups.{name}: no such group of agents; {allowed}")
    if not names:
        return
    for given, usual, why in (
        ("learner.workers", 1, "groups of agents learn in one process"),
        ("eyes.run", "", "groups of agents see the game themselves"),
        ("init_from", "", "groups of agents begin with new weights"),
    ):
        first, _, last = given.partition(".")
        value = getattr(getattr(config, first), last) if last else getattr(config, first)
        if value != usual:
            raise ConfigError(f"{first if given == 'eyes.run' else given}={show(value)}: {why}; leave it out")
    if not any(learns(config, name) for name in names):
        raise ConfigError(
            f"groups.{names[0]}.learn=false: no group learns; type groups.{names[0]}.learn=true"
        )
    steps = algorithm.feed(config.agent).steps
    for name in names:
        mine = of_group(config, spec, name)
        if mine.network.encoder_from:
            given = f"network.encoder_from={mine.network.encoder_from}"
            raise ConfigError(f"{given}: groups of agents begin with new weights; leave it out")
        own = algorithm.feed(mine.agent).steps
        if own != steps:
            raise ConfigError(
                f"groups.{name}.agent.steps={own}: all groups collect rollouts together; type agent.steps={own} for all"
            )
