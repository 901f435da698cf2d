"""Feeds: they hand out the batches that a learner learns from, and hear what was learned.

RolloutFeed is a source of rollouts, each learned from once, with the account of finished episodes. The function
`feed` of an algorithm's file says which feed it learns from (`rlkit.contracts.Experience`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlkit.config.schema import RunConfig
from rlkit.contracts import (
    Experience,
    Feed,
    Policy,
    Replayed,
    Rollouts,
    RolloutSource,
    Saved,
    WholeEpisodes,
)
from rlkit.types import Rollout

if TYPE_CHECKING:
    pass


class RolloutFeed(Feed):
    """Hands out every rollout of a source once, and keeps the account of finished episodes."""

    def __init__(self, source: RolloutSource, window: int = 100) -> None:
        self.source, self.timing = source, source.timing
        self.recent: deque[tuple[float, int]] = deque(maxlen=window)  # (return, length) of finished episodes
        self.episodes = 0

    def next(self) -> tuple[Rollout, int]:
        rollout, finished = self.source.get()
        self.recent.extend(zip(finished.returns, finished.lengths, strict=True))
        self.episodes += len(finished.returns)
        return rollout, int(rollout.valid.sum())

    def learned(self, version: int) -> None:
        self.source.publish(version)

    def report(self) -> dict[str, float]:
        """Return and length of the last finished episodes, nothing before the first one; and what the source says."""
        row: dict[str, float] = {"episodes": self.episodes} | self.source.report()
        if self.recent:
            returns, lengths = np.array(self.recent, dtype=np.float64).T
            row |= {
                "return/mean": float(returns.mean()),
                "return/std": float(returns.std()),
                "return/min": float(returns.min()),
                "return/max": float(returns.max()),
                "length/mean": float(lengths.mean()),
            }
        return row

    def lags(self) -> list[int]:
        return self.source.lags()

    def state_dict(self) -> Saved:
        return {
            "source": self.source.state_dict(),
            "recent": [list(pair) for pair in self.recent],
            "episodes": self.episodes,
        }

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        """Continue; a warning if the environments are not quite what they were."""
        self.recent.extend((pair[0], pair[1]) for pair in state["recent"])
        self.episodes = state["episodes"]
        return self.source.load_state_dict(state["source"])

    def close(self) -> None:
        """End the source and free what lies on disk."""
        self.source.close()


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
    if isinstance(experience, Rollouts):
        return RolloutFeed(source)
    if isinstance(experience, WholeEpisodes):
        from rlkit.learn.episodes import EpisodeFeed

        return EpisodeFeed(source, experience.minimum, device)
    from rlkit.learn.replayed import ReplayFeed
    from rlkit.replay.memory import Replay

    replay = Replay(
        experience.config, policy, lanes=config.env.lanes, steps=experience.steps, gamma=experience.gamma,
        seed=config.seed, device=device, folder=folder / "replay",
    )  # fmt: skip
    say(replay.statement)
    return ReplayFeed(source, replay)
