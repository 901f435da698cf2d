"""From a checked configuration to what a session trains: learner, feed, hooks and clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlkit.checkpoint import BEST
from rlkit.config.compose import to_yaml
from rlkit.contracts import Feed, Learner, Policy, Saved, Stateful
from rlkit.device import keep_memory
from rlkit.files import Place, at
from rlkit.learn.learners import Learners
from rlkit.learn.make import make_feed
from rlkit.learn.trainer import Clock, Hook
from rlkit.metrics import MetricsWriter
from rlkit.play.evaluate import Evaluator
from rlkit.play.saved import policy_parts
from rlkit.play.video import Recorder
from rlkit.run.check import Plan
from rlkit.run.console import Console
from rlkit.run.health import require_finite
from rlkit.run.hooks import AverageHook, Best, EvaluateHook, LogHook, StopHook, VideoHook
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
    config, algorithm, device = plan.config, plan.algorithm, plan.device
    torch.set_num_threads(config.threads)
    keep_memory()
    torch.manual_seed(config.seed)

    def new_policy() -> Policy:
        return algorithm.Policy(plan.spec, config.network, config.agent).to(device)

    policy = new_policy()
    agent = algorithm.Agent(
        policy, config.agent, config.optim, seed=config.seed, precision=plan.precision, compile=config.compile
    )
    with ExitStack() as stack:
        source = make_source(config, policy, new_policy, plan.experience, device, console.say)
        stack.callback(source.close)
        feed = make_feed(plan.experience, source, policy, config, place.path, console.say)
        stack.callback(feed.close)
        learner: Learner[Any] = agent
        if config.learner.workers > 1:
            learner = Learners(agent, policy, config, device)
            stack.callback(learner.close)
            console.say(
                f"learner: {config.learner.workers} ranks on {device.type}, torch threads each: {config.threads}"
            )
        clock = Clock(config.total_steps)
        hooks, state = _hooks(plan, place, console, policy, new_policy, feed)
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


def _hooks(
    plan: Plan, folder: Place, console: Console, policy: Policy, another: Callable[[], Policy], feed: Feed
) -> tuple[list[Hook], dict[str, Stateful]]:
    """The hooks in their order, and those that a checkpoint saves by their names there."""
    config, total, say = plan.config, plan.config.total_steps, console.say
    judged = another() if config.evaluate.average else policy  # what is evaluated, filmed and kept
    average = AverageHook(policy, judged, config.evaluate.average) if config.evaluate.average else None
    evaluation = EvaluateHook(
        config.evaluate.every or max(total // 10, 1),
        Evaluator(
            judged,
            config,
            config.evaluate.episodes,
            seed=config.seed,
            device=plan.device,
            greedy=not config.evaluate.sample,
        ),
        Best(folder / BEST, lambda: policy_parts(judged, config)),
        say,
        lambda step: require_finite(judged, step, config.optim),
    )
    writer = MetricsWriter(folder, config.log.tensorboard, say)
    writer.text("config", f"```\n{to_yaml(config)}```")
    hooks: list[Hook] = [
        StopHook(config.stop.reward, config.stop.minutes),
        *([average] if average else []),
        evaluation,
        VideoHook(config.video.every, Recorder(judged, config, folder / "videos", plan.device), writer, say),
        LogHook(config.log.every or max(total // 500, 1), writer, console, feed),
    ]
    return hooks, {"evaluation": evaluation, **({"average": average} if average else {})}
