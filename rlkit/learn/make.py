"""The feed of what an algorithm learns from."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from rlkit.collect.group_policy import GroupPolicy
from rlkit.config import registry
from rlkit.config.compose import learns, of_group
from rlkit.config.schema import RunConfig
from rlkit.contracts import (
    Experience,
    Policy,
    Replayed,
    Rollouts,
    RolloutSource,
    WholeEpisodes,
)
from rlkit.learn.bounds import Bounds
from rlkit.learn.exploration import make_exploration
from rlkit.learn.feeds import RolloutFeed
from rlkit.learn.groups import GroupFeed, Handed, part_of


def part_names(experience: Experience, groups: Collection[str] = ()) -> tuple[str, ...]:
    """The parts of a checkpoint that the feed of this kind saves on its own; groups: of agents that learn."""
    names = ("replay",) if isinstance(experience, Replayed) else ()
    return tuple(part_of(group, name) for group in groups for name in names) if groups else names


def make_feed(
    experience: Experience,
    source: RolloutSource,
    policy: Policy,
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
) -> RolloutFeed:
    """The feed of an algorithm that learns from `experience`, for a run in `folder`.

    Raises ConfigError where it cannot be had.
    """
    device = next(policy.parameters()).device
    feed: RolloutFeed
    if isinstance(policy, GroupPolicy):
        feed = _make_groups(source, policy, config, folder, say)
    elif isinstance(experience, Rollouts):
        feed = RolloutFeed(source)
    elif isinstance(experience, WholeEpisodes):
        from rlkit.learn.episodes import EpisodeFeed

        feed = EpisodeFeed(source, experience.minimum, device)
    else:
        from rlkit.learn.replayed import ReplayFeed
        from rlkit.replay.memory import Replay

        replay = Replay(
            experience.config, policy, lanes=config.env.lanes, steps=experience.steps, gamma=experience.gamma,
            seed=config.seed, device=device, folder=folder / "replay",
        )  # fmt: skip
        say(replay.statement)
        feed = ReplayFeed(source, replay)
    if not isinstance(policy, GroupPolicy):  # each group has its own
        feed.exploration = make_exploration(policy.spec, config, device)
    if config.env.check == "warn":
        feed.bounds = Bounds(policy.spec, device, say)
    return feed


def _make_groups(
    source: RolloutSource, policy: GroupPolicy, config: RunConfig, folder: Path, say: Callable[[str], None]
) -> GroupFeed:
    """A feed for each group of a game's agents; one that does not learn only counts episodes."""
    feeds: dict[str, RolloutFeed] = {}
    learning = {member.name for member in policy.members if learns(config, member.name)}
    for name in (member.name for member in policy.members):
        own = of_group(config, policy.spec, name)
        own = replace(own, env=replace(own.env, check="none"))  # what is seen is looked at once, for all
        experience = registry.algorithm(own.agent_name).feed(own.agent)
        feeds[name] = (
            make_feed(experience, Handed(), policy.of(name), own, folder / name, partial(_said, say, name))
            if name in learning
            else RolloutFeed(Handed())
        )
    return GroupFeed(source, policy, feeds, learning)


def _said(say: Callable[[str], None], name: str, text: str) -> None:
    say(f"{name}: {text}")
