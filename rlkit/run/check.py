"""Checks a run before anything of it exists: `check` refuses it, or makes every choice that is open."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch

from rlkit.collect.eyes import Eyes
from rlkit.config import registry
from rlkit.config.compose import learns, of_group
from rlkit.config.league import LeagueConfig
from rlkit.config.schema import RunConfig
from rlkit.contracts import Algorithm, Experience, Replayed, Saved
from rlkit.device import choose_compile, choose_device, choose_threads
from rlkit.learn import learners
from rlkit.options import ConfigError, show
from rlkit.run.handover import Source, guests_of, sources, through_eyes
from rlkit.run.probe import has_pixels, probe_env, tested_precision
from rlkit.run.sizes import check_threads, fitting_policy
from rlkit.sources.check import check_source
from rlkit.turns import seated
from rlkit.types import EnvSpec


@dataclass(frozen=True)
class Plan:
    """A run that can be started."""

    config: RunConfig  # every choice made: device, precision, threads, how environments are stepped
    spec: EnvSpec
    algorithm: Algorithm
    experience: Experience  # what the algorithm learns from
    device: torch.device
    precision: torch.dtype
    notes: tuple[str, ...]  # what was chosen and why, a line each
    sources: tuple[Source, ...] = ()  # runs whose weights it begins with
    eyes: Eyes | None = None  # through which the agent sees its environment
    guests: Saved = field(default_factory=dict)  # agents of other runs in its league: their parts by name


def check(config: RunConfig, continued: Saved | None = None) -> Plan:
    """Raise ConfigError where a run of this configuration cannot be; makes no file, and one environment.

    continued: part `policy` of the checkpoint that the run goes on from.
    """
    notes: list[str] = []
    check_threads(config)
    device = choose_device(config.device, notes.append)
    probe = probe_env(config, render=bool(config.video.every), distributed=config.source.name == "ray")
    config, algorithm = replace(config, env=probe.config), registry.algorithm(config.agent_name)
    check_groups(config, probe.spec, algorithm)
    config, spec, eyes = through_eyes(config, probe.spec, continued, device, notes.append)
    check_league(config, spec)
    experience = check_agent(config, algorithm, spec)
    check_source(config, experience, spec)
    if isinstance(experience, Replayed) and experience.config.warmup >= config.total_steps:
        notes.append(
            "warning: the run learns nothing: its replay memory warms up for "
            f"{experience.config.warmup:,} transitions, and total_steps={config.total_steps}; "
            "type agent.replay.warmup=NUMBER or a larger total_steps"
        )
    found = sources(config, spec, continued, notes.append)
    guests = guests_of(config, spec, continued, notes.append)
    pixels = has_pixels(spec)
    pictured = [part for part in (spec.group(name) for name, _ in spec.groups) if has_pixels(part)]
    precision = tested_precision(config, pictured[0] if pictured else spec, device, notes)
    if probe.why:
        notes.append(probe.why)
    notes += probe.notes
    config = replace(
        config,
        device=str(device),
        precision=str(precision).removeprefix("torch."),
        threads=choose_threads(config.threads, pixels, config.learner.workers),
        compile=choose_compile(
            config.compile,
            config.total_steps,
            device,
            precision,
            not pixels and config.network.core == "identity",
            notes.append,
        ),
    )
    return Plan(
        config, spec, algorithm, experience, device, precision, tuple(notes), tuple(found), eyes, guests
    )


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


def check_agent(config: RunConfig, algorithm: Algorithm, spec: EnvSpec) -> Experience:
    """What the algorithm learns from. Raises ConfigError where it cannot act in these spaces or with these options."""
    if spec.groups:
        found = {
            group: check_agent(of_group(config, spec, group), algorithm, spec.group(group))
            for group, _ in spec.groups
        }
        return found[spec.groups[0][0]]
    name = config.alias or config.agent_name
    try:
        algorithm.check(spec, config.agent)
    except ValueError as error:
        raise ConfigError(f"agent={name} cannot act in {spec.id}: {error}") from error
    try:
        experience = algorithm.feed(config.agent)
    except AttributeError as error:
        raise ConfigError(
            f"agent={name}: feed(config) reads an option that its Config lacks: {error}"
        ) from error
    try:
        policy = fitting_policy(config, algorithm, spec, choose_device(config.device, lambda text: None))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lacking = [each for each in ("spec", "noise_size", "memoryless") if not hasattr(policy, each)]
    if lacking:
        raise ConfigError(
            f"agent={name}: its Policy sets no {', no '.join(lacking)}; rlkit.contracts.Policy says what one offers"
        )
    if config.learner.workers > 1:
        device = choose_device(config.device, lambda text: None)
        learners.check(config, experience, algorithm.shared(policy, config.agent), device)
    return experience
