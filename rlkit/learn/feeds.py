"""Feeds: they hand out the batches that a learner learns from, and hear what was learned.

RolloutFeed is a source of rollouts, each learned from once, with the account of finished episodes. The function
`feed` of an algorithm's file says which feed it learns from (`rlkit.contracts.Experience`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlkit.collect.league import League
from rlkit.contracts import (
    Episodes,
    Feed,
    RolloutSource,
    Saved,
)
from rlkit.learn.bounds import Bounds
from rlkit.learn.exploration import Exploration
from rlkit.types import Rollout


class RolloutFeed(Feed):
    """Hands out every rollout of a source once, and keeps the account of finished episodes."""

    def __init__(self, source: RolloutSource, window: int = 100) -> None:
        self.source, self.timing = source, source.timing
        self.recent: deque[tuple[float, int]] = deque(maxlen=window)  # (return, length) of finished episodes
        self.episodes = 0
        self.bounds: Bounds | None = None  # looks at every rollout that is handed out
        self.league: League | None = None  # counts the games that ended in it
        self.exploration: Exploration | None = None  # adds rewards to it

    def next(self) -> tuple[Any, int]:
        batch, steps = None, 0
        while batch is None:
            rollout, finished = self.source.get()
            self.hear(finished)
            if self.bounds is not None:
                self.bounds.look(rollout)
            if self.league is not None:
                self.league.count(rollout)
            steps += int(rollout.valid.sum())
            batch = self.take(rollout)
        return batch, steps

    def hear(self, finished: Episodes) -> None:
        """Enter finished episodes into the account."""
        self.recent.extend(zip(finished.returns, finished.lengths, strict=True))
        self.episodes += len(finished.returns)

    def take(self, rollout: Rollout) -> Any:
        """What is to be learned from now that this rollout has come; None: nothing yet."""
        return rollout if self.exploration is None else self.exploration(rollout)

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
        return row | (self.exploration.report() if self.exploration is not None else {})

    def lags(self) -> list[int]:
        return self.source.lags()

    def state_dict(self) -> Saved:
        return {
            "source": self.source.state_dict(),
            "recent": [list(pair) for pair in self.recent],
            "episodes": self.episodes,
        } | ({"exploration": self.exploration.state_dict()} if self.exploration is not None else {})

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        """Continue; a warning if the environments are not quite what they were."""
        self.recent.extend((pair[0], pair[1]) for pair in state["recent"])
        self.episodes = state["episodes"]
        if self.exploration is not None and "exploration" in state:
            self.exploration.load_state_dict(state["exploration"])
        return self.source.load_state_dict(state["source"])

    def close(self) -> None:
        """End the source and free what lies on disk."""
        self.source.close()
        if self.bounds is not None:
            self.bounds.close()
