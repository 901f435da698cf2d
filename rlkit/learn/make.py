"""The feed of what an algorithm learns from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


def part_names(experience: Experience) -> tuple[str, ...]:
    """The parts of a checkpoint that the feed of this kind saves on its own."""
    return ("replay",) if isinstance(experience, Replayed) else ()


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
    if isinstance(experience, Rollouts):
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
    feed.exploration = make_exploration(policy.spec, config, device)
    if config.env.check == "warn":
        feed.bounds = Bounds(policy.spec, device, say)
    return feed
