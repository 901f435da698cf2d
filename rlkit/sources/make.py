"""Where rollouts come from: get, publish and close around the same actor, and its state for checkpoints.

sync: the learner's own policy collects, then learns: every rollout is of the newest weights (lag 0).
thread: the next rollout is collected by a copy of the policy while the learner learns (lag exactly 1 update).
ray: the lanes are split over Ray actors, on this machine or on many (lag 0, or bounded by source.max_lag), which act
for environments of their own or (source.inference=shared) for those of other actors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rlkit.collect.make import make_actor
from rlkit.config.schema import RunConfig
from rlkit.contracts import Experience, Policy, RolloutSource


def make_source(
    config: RunConfig,
    policy: Policy,
    another: Callable[[], Policy],
    experience: Experience,
    device: torch.device,
    say: Callable[[str], None],
) -> RolloutSource:
    """The source that config.source names, checked before by `check_source`.

    policy: the learner's; another(): a second one like it; experience: what the algorithm learns from.
    """
    source = config.source
    if source.name == "ray":
        from rlkit.sources.ray.source import RaySource

        return RaySource(config, policy, experience, device, say)
    if source.name == "thread":
        from rlkit.sources.thread import ThreadSource

        return ThreadSource(make_actor(config, another(), device, buffers=2), policy)
    from rlkit.sources.sync import SyncSource

    return SyncSource(make_actor(config, policy, device))
