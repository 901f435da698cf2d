"""Makes the actor of some of a run's lanes."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.collect.actor import Actor
from rlkit.collect.eyes import see
from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, VecEnv


def make_actor(
    config: RunConfig,
    policy: Policy,
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
        see(vector, policy, config.source.group),
        policy,
        registry.algorithm(config.agent_name).feed(config.agent).steps,
        seed=config.seed,
        device=device,
        first_lane=first_lane,
        total=config.env.lanes,
        reward_scale=config.env.reward_scale,
        buffers=buffers,
        compile=config.compile,
        group=config.source.group,
    )
