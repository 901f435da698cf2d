"""Where rollouts come from: get, publish and close around the same actor, and its state for checkpoints.

sync: the learner's own policy collects, then learns: every rollout is of the newest weights (lag 0).
thread: the next rollout is collected by a copy of the policy while the learner learns (lag exactly 1 update).
ray: the lanes are split over Ray actors, on this machine or on many (lag 0, or bounded by source.max_lag), which act
for environments of their own or (source.inference=shared) for those of other actors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from rlkit import registry
from rlkit.actor import Actor, Episodes, Timing
from rlkit.config import RunConfig
from rlkit.options import ConfigError
from rlkit.types import Rollout, VecEnv


class RolloutSource(Protocol):
    """get, publish, close; and what a checkpoint needs to continue."""

    def get(self) -> tuple[Rollout, Episodes]:
        """The next rollout and the episodes that ended in it. Its tensors may be read-only memory."""

    def publish(self, version: int) -> None:
        """The learner's policy now has the weights of this version."""

    def close(self) -> None:
        """Stop collecting and free the environments; idempotent."""

    @property
    def timing(self) -> Timing:
        """Seconds spent in the environments and in the policy so far."""

    def report(self) -> dict[str, float]:
        """Numbers about the source's own work; {} where there is nothing to tell."""

    def lags(self) -> list[int]:
        """Updates between the weights that acted and those that learned, of what was handed out since the last call."""

    def state_dict(self) -> dict[str, Any]:
        """What the next `get` depends on but the learner's policy, copied."""

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Continue from there; a warning if the environments are not quite what they were."""


def make_source(
    config: RunConfig,
    learner: nn.Module,
    another: Callable[[], nn.Module],
    feed: str,
    device: torch.device,
    say: Callable[[str], None],
) -> RolloutSource:
    """The source that config.source names.

    another(): a second policy like the learner's; feed: what the agent learns from (rlkit.feeds). Raises ConfigError.
    """
    source = config.source
    check_lanes(config)
    if source.name == "ray":
        from rlkit.sources.ray import RaySource

        return RaySource(config, learner, feed, device, say)
    if source.name == "thread":
        from rlkit.sources.thread import ThreadSource

        return ThreadSource(make_actor(config, another(), device, buffers=2), learner)
    from rlkit.sources.sync import SyncSource

    return SyncSource(make_actor(config, learner, device))


def make_actor(
    config: RunConfig,
    policy: Any,
    device: torch.device,
    *,
    first_lane: int = 0,
    lanes: int = 0,
    buffers: int = 1,
    vector: VecEnv | None = None,
) -> Actor:
    """The actor of `lanes` of a run's lanes from `first_lane` on (0: all of them). policy: see `Actor`.

    vector: what steps them (None: made here).
    """
    if vector is None:
        env = replace(config.env, lanes=lanes or config.env.lanes)
        vector = registry.env_package().make_vec(env, config.seed, first_lane=first_lane, device=device)
    return Actor(
        vector,
        policy,
        config.agent.steps,
        seed=config.seed,
        device=device,
        first_lane=first_lane,
        total=config.env.lanes,
        reward_scale=config.env.reward_scale,
        buffers=buffers,
        compile=config.compile,
        group=config.source.group,
    )


def check_lanes(config: RunConfig) -> None:
    """Raise ConfigError where env.lanes cannot be dealt out in whole groups to equal workers and environment actors."""
    lanes, source = config.env.lanes, config.source
    shared = source.inference == "shared"
    if shared and source.name != "ray":
        raise ConfigError(
            f"source.inference=shared: environment actors are Ray's, given source={source.name}; allowed: local; "
            "type source=ray or source.inference=local"
        )
    workers, actors = source.workers if source.name == "ray" else 1, source.env_actors if shared else 1
    unit = workers * math.lcm(max(source.group, 1), actors)
    if lanes % unit == 0:
        return
    nearest = max(round(lanes / unit), 1) * unit
    what = f"env.lanes={lanes}: "
    if workers > 1:
        what += f"source.workers={workers} each take as many lanes"
        what += f" in groups of source.group={source.group}" if source.group else ""
    elif source.group:
        what += f"source.group={source.group} lanes act together"
    if shared:
        what += " and " if not what.endswith(": ") else ""
        what += f"source.env_actors={actors} of a worker each step as many"
    raise ConfigError(f"{what}, so it must be a multiple of {unit}; type env.lanes={nearest}")
