"""From a checked configuration to what a session trains: learner, feed, hooks and clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlkit.collect.group_policy import GroupPolicy
from rlkit.collect.league import league_of
from rlkit.collect.make import make_policy
from rlkit.config.compose import learns, of_group
from rlkit.contracts import Feed, Learner, Policy, Saved, Stateful
from rlkit.device import keep_memory
from rlkit.files import Place, at
from rlkit.learn.groups import GroupLearner
from rlkit.learn.learners import Learners
from rlkit.learn.make import make_feed
from rlkit.learn.trainer import Clock, Hook
from rlkit.play.saved import policy_parts
from rlkit.run.check import Plan
from rlkit.run.console import Console
from rlkit.run.handover import hand_over
from rlkit.run.hooks import make_hooks
from rlkit.sources.make import make_source


@dataclass
class Built:
    """What a session trains, saves and continues. Nothing in it says what is learned, or where experience is from."""

    model: nn.Module  # whose weights are trained and saved
    describe: Callable[[], Saved]  # what rebuilds the model: part `policy` of a checkpoint
    learner: Learner[Any]
    feed: Feed
    clock: Clock
    hooks: list[Hook]  # in their order; the session adds the one that saves
    state: Mapping[str, Stateful]  # what part `state` of a checkpoint holds beside the feed's, by name
    close: Callable[[], None]  # ends processes, frees environments


def build(plan: Plan, folder: Path | Place, console: Console) -> Built:
    """The run of an agent: its policy from the configuration's seed, its experience, and what happens beside learning.

    Raises ConfigError where a replay buffer does not fit into this machine.
    """
    place = at(folder)
    config, device = plan.config, plan.device
    torch.set_num_threads(config.threads)
    keep_memory()
    torch.manual_seed(config.seed)

    def new_policy() -> Policy:
        made = make_policy(config, plan.spec, device)
        made.eyes = plan.eyes
        league = league_of(made)
        if league is not None:
            league.invite(plan.guests, device)
        return made

    policy = new_policy()
    hand_over(list(plan.sources), policy, config, console.say)
    agent = _learner(plan, policy)
    with ExitStack() as stack:
        source = make_source(config, policy, new_policy, plan.experience, device, console.say)
        stack.callback(source.close)
        feed = make_feed(plan.experience, source, policy, config, place.path, console.say)
        stack.callback(feed.close)
        feed.league = league_of(policy)
        learner: Learner[Any] = agent
        if config.learner.workers > 1:
            learner = Learners(agent, policy, config, device)
            stack.callback(learner.close)
            console.say(
                f"learner: {config.learner.workers} ranks on {device.type}, torch threads each: {config.threads}"
            )
        clock = Clock(config.total_steps)
        hooks, state = make_hooks(plan, place, console, policy, new_policy, feed)
        state = {"clock": clock, "agent": agent, **state}
        return Built(
            policy,
            lambda: policy_parts(policy, config),
            learner,
            feed,
            clock,
            hooks,
            state,
            stack.pop_all().close,
        )


def _learner(plan: Plan, policy: Policy) -> Learner[Any]:
    """The agent that trains a policy; of a game's groups, one for each that learns."""
    config = plan.config
    if isinstance(policy, GroupPolicy):
        return GroupLearner(
            {
                name: _learner(replace(plan, config=of_group(config, plan.spec, name)), policy.of(name))
                for name, _ in plan.spec.groups
                if learns(config, name)
            }
        )
    made: Learner[Any] = plan.algorithm.Agent(
        policy, config.agent, config.optim, seed=config.seed, precision=plan.precision, compile=config.compile
    )
    return made
