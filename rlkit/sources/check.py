"""Whether the options of a source fit one another and what an algorithm learns from."""

from __future__ import annotations

import math

from rlkit.config.schema import RunConfig
from rlkit.contracts import Experience, Rollouts
from rlkit.machine import most
from rlkit.options import ConfigError
from rlkit.types import EnvSpec

ACTOR = 128 * 2**20  # bytes of memory that a Ray actor takes at least


def check_source(config: RunConfig, experience: Experience, spec: EnvSpec) -> None:
    """Raise ConfigError where the options of the source do not fit one another or what the algorithm learns from."""
    check_lanes(config, len(spec.agents), bool(spec.groups))
    if config.source.name == "ray":
        _check_actors(config)
        _check_min_workers(config, experience)


def check_lanes(config: RunConfig, agents: int = 1, apart: bool = False) -> None:
    """Raise ConfigError where env.lanes cannot be dealt out in whole groups to equal workers and environment actors.

    agents: of a game, which is not shared by workers; apart: they have policies of their own, so that what acts
    together is whole games, too.
    """
    lanes, source = config.env.lanes, config.source
    shared = source.inference == "shared"
    if shared and source.name != "ray":
        raise ConfigError(
            f"source.inference=shared: environment actors are Ray's, given source={source.name}; allowed: local; "
            "type source=ray or source.inference=local"
        )
    workers, actors = source.workers if source.name == "ray" else 1, source.env_actors if shared else 1
    if apart and source.group % agents:
        raise ConfigError(
            f"source.group={source.group}: a game has {agents} agents with policies of their own, which act together; "
            f"type source.group={max(round(source.group / agents), 1) * agents}"
        )
    unit = workers * math.lcm(max(source.group, 1), actors * agents)
    if lanes % unit == 0:
        return
    nearest = max(round(lanes / unit), 1) * unit
    what = f"env.lanes={lanes}: "
    if workers > 1:
        what += f"source.workers={workers} each take as many lanes"
        what += f" in groups of source.group={source.group}" if source.group else ""
        what += f" in whole games of {agents} agents" if agents > 1 else ""
    elif source.group:
        what += f"source.group={source.group} lanes act together"
    elif agents > 1:
        what += f"a game has {agents} agents, each a lane"
    if shared:
        what += " and " if not what.endswith(": ") else ""
        what += f"source.env_actors={actors} of a worker each step as many"
    raise ConfigError(f"{what}, so it must be a multiple of {unit}; type env.lanes={nearest}")


def _check_actors(config: RunConfig) -> None:
    """Raise ConfigError where a Ray of the run's own would have more actors than this machine carries."""
    source = config.source
    beside = source.env_actors if source.inference == "shared" else 0  # of each worker
    limit = most(ACTOR)
    if config.ray.address != "local" or source.workers * (1 + beside) <= limit:
        return
    what = f"source.workers={source.workers}" + (f" with source.env_actors={beside} each" if beside else "")
    fitting = max(limit // (1 + beside), 1)
    less = (
        f"source.workers={fitting}" if fitting < source.workers else f"source.env_actors={max(limit - 1, 1)}"
    )
    raise ConfigError(
        f"{what}: this machine carries {limit} actors; type {less} or less, or ray.address=HOST:PORT of a cluster"
    )


def _check_min_workers(config: RunConfig, experience: Experience) -> None:
    """Raise ConfigError where source.min_workers is given and the run needs chunks of all workers."""
    source = config.source
    what = f"source.min_workers={source.min_workers}: "
    if source.min_workers > source.workers:
        raise ConfigError(
            f"{what}there are only source.workers={source.workers}; allowed: 0 (all) to {source.workers}; "
            f"type source.workers={source.min_workers}"
        )
    if not 0 < source.min_workers < source.workers:
        return
    if source.mode != "async":
        raise ConfigError(
            f"{what}in source.mode={source.mode} every batch has a chunk of each worker; "
            "type source.mode=async, or source.min_workers=0"
        )
    if not isinstance(experience, Rollouts):
        raise ConfigError(
            f"{what}agent={config.agent_name} needs the chunks of each lane in their order, so it waits for all "
            "workers; allowed for agents that learn from rollouts; type source.min_workers=0"
        )
    if config.learner.workers > 1:
        raise ConfigError(
            f"{what}learner.workers={config.learner.workers} share batches of one size, and these grow; "
            "type learner.workers=1, or source.min_workers=0"
        )
