"""Checks a run before anything of it exists: `check` refuses it, or makes every choice that is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from rlkit.collect.eyes import Eyes
from rlkit.config import registry
from rlkit.config.compose import of_group
from rlkit.config.schema import RunConfig
from rlkit.contracts import Algorithm, Experience, Replayed, Saved
from rlkit.device import choose_compile, choose_device, choose_threads
from rlkit.learn import learners
from rlkit.nn.encoders import auto_encoder
from rlkit.options import ConfigError
from rlkit.run.games import check_groups, check_league
from rlkit.run.handover import Source, guests_of, sources, through_eyes
from rlkit.run.probe import has_pixels, probe_env, tested_precision
from rlkit.run.sizes import check_threads, fitting_policy
from rlkit.sources.check import check_source
from rlkit.spaces import leaves
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
    how = choose_compile(
        config.compile, config.total_steps, device, precision, simple(config, spec), notes.append
    )
    if probe.why:
        notes.append(probe.why)
    notes += probe.notes
    config = replace(
        config,
        device=str(device),
        precision=str(precision).removeprefix("torch."),
        threads=choose_threads(config.threads, pixels, config.learner.workers),
        compile=how,
    )
    return Plan(
        config, spec, algorithm, experience, device, precision, tuple(notes), tuple(found), eyes, guests
    )


def simple(config: RunConfig, spec: EnvSpec) -> bool:
    """Whether the network is made of linear layers alone, and has no memory."""
    if config.network.core != "identity" or has_pixels(spec):
        return False
    if config.network.encoder != "auto":
        return config.network.encoder == "mlp"
    return {auto_encoder(leaf) for _, leaf in leaves(spec.observation)} == {"mlp"}


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
