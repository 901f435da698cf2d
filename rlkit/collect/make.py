"""Environments and policies, brought together: the actor of some of a run's lanes, the lanes of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from rlkit.collect.actor import Actor
from rlkit.collect.eyes import see
from rlkit.collect.group_policy import GroupPolicy
from rlkit.collect.league import League, seat, with_league
from rlkit.config import registry
from rlkit.config.compose import of_group
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, VecEnv
from rlkit.turns import Player
from rlkit.types import EnvSpec, Lanes


def make_policy(config: RunConfig, spec: EnvSpec, device: torch.device | str = "cpu") -> Policy:
    """The policy of a run in `spec`; of a game's groups, those of all of them. Its weights are torch's next draws."""
    if spec.groups:
        parts = {name: make_policy(of_group(config, spec, name), spec.group(name)) for name, _ in spec.groups}
        return GroupPolicy(spec, parts).to(device)
    algorithm = registry.algorithm(config.agent_name)
    return with_league(algorithm.Policy(spec, config.network, config.agent).to(device), config.league)


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
    numbers = Lanes(vector.lanes, first_lane, config.env.lanes)
    openings, group = config.league.openings, config.source.group
    return Actor(
        see(seat(vector, policy, numbers, openings=openings, group=group), policy, group),
        policy,
        registry.algorithm(config.agent_name).feed(config.agent).steps,
        seed=config.seed,
        device=device,
        first_lane=first_lane,
        total=config.env.lanes,
        reward_scale=config.env.reward_scale,
        buffers=buffers,
        # groups are put together by operations that the engine has no kernels for
        compile=False if policy.spec.groups and config.compile == "auto" else config.compile,
        group=group,
    )


def meeting(
    vector: VecEnv,
    policy: Policy,
    league: League | None = None,
    only: Sequence[str | Player | Policy] = (),
) -> VecEnv:
    """An evaluation's environment as a policy meets it: seen through its eyes, its other seats taken by its league.

    league: instead of the one that the policy carries; only: who plays instead of a league's members.
    """
    return see(seat(vector, policy, Lanes(vector.lanes), league=league, only=only), policy)
