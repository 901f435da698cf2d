"""What the learner eats: a feed hands out batches and hears what was learned.

RolloutFeed is a source of rollouts, each learned from once, with the account of finished episodes. An agent's file
names the feed that it learns from (FEED = "rollouts", "episodes" or "replay").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlkit.actor import Timing
from rlkit.config import RunConfig
from rlkit.sources import RolloutSource
from rlkit.types import Rollout


class Feed(Protocol):
    """Batches for `trainer.fit`."""

    @property
    def timing(self) -> Timing:
        """Seconds spent on getting batches."""

    def next(self) -> tuple[Any, int]:
        """A batch and how many environment steps it is worth."""

    def learned(self, version: int) -> None:
        """The learner has now made `version` calls of learn."""

    def report(self) -> dict[str, float]:
        """Numbers about the experience so far."""


class RolloutFeed:
    """Each rollout once, on-policy."""

    def __init__(self, source: RolloutSource, window: int = 100) -> None:
        self.source = source
        self.recent: deque[tuple[float, int]] = deque(maxlen=window)  # (return, length) of finished episodes
        self.episodes = 0

    @property
    def timing(self) -> Timing:
        return self.source.timing

    def next(self) -> tuple[Rollout, int]:
        rollout, finished = self.source.get()
        self.recent.extend(zip(finished.returns, finished.lengths, strict=True))
        self.episodes += len(finished.returns)
        return rollout, int(rollout.valid.sum())

    def learned(self, version: int) -> None:
        self.source.publish(version)

    def report(self) -> dict[str, float]:
        """Return and length of the last finished episodes; nothing before the first one."""
        row: dict[str, float] = {"episodes": self.episodes}
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

    def state_dict(self) -> dict[str, Any]:
        return {
            "source": self.source.state_dict(),
            "recent": [list(pair) for pair in self.recent],
            "episodes": self.episodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Continue; a warning if the environments are not quite what they were."""
        self.recent.extend((pair[0], pair[1]) for pair in state["recent"])
        self.episodes = state["episodes"]
        return self.source.load_state_dict(state["source"])


def make_feed(
    kind: str, source: RolloutSource, policy: Any, config: RunConfig, folder: Path, say: Callable[[str], None]
) -> RolloutFeed:
    """The feed that an agent's file names, for a run in `folder`. Raises ConfigError where it cannot be had."""
    if kind == "rollouts":
        return RolloutFeed(source)
    raise ValueError(f"FEED={kind!r}: no such feed; allowed: rollouts")
