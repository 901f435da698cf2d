"""Learning of a game's groups of agents: every group has its own feed and its own learner, on one stream of rollouts.

    rollout [T, N] -> part of each group [T, its lanes] -> the group's feed -> its batch, or none yet -> its learner

A group that does not learn (groups.NAME.learn=false) keeps the weights it has; its episodes are counted as those of the
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rlkit.collect.group_policy import GroupPolicy
from rlkit.contracts import Episodes, Learner, RolloutSource, Saved, Timing
from rlkit.learn.feeds import RolloutFeed
from rlkit.types import Rollout


class Handed(RolloutSource):
    """The source of a feed that is handed its rollouts: it has nothing of its own."""

    def __init__(self) -> None:
        self.timing = Timing()

    def get(self) -> tuple[Rollout, Episodes]:
        raise AssertionError("its feed takes what it is handed")

    def publish(self, version: int) -> None:
        return

    def report(self) -> dict[str, float]:
        return {}

    def lags(self) -> list[int]:
        return []

    def close(self) -> None:
        return

    def state_dict(self) -> Saved:
        return {}

    def load_state_dict(self, state: Saved) -> None:
        return


class GroupFeed(RolloutFeed):
    """Hands out {group: batch} of the groups that have one. feeds: of all groups; those of `learning` make batches."""

    def __init__(
        self, source: RolloutSource, policy: GroupPolicy, feeds: Mapping[str, RolloutFeed], learning: set[str]
    ) -> None:
        super().__init__(source)
        self.policy, self.feeds, self.learning = policy, feeds, learning

    def hear(self, finished: Episodes) -> None:
        super().hear(finished)
        every = list(zip(finished.returns, finished.lengths, finished.lanes, strict=True))
        for member in self.policy.members:
            own = [each for each in every if each[2] % self.policy.agents in member.agents]
            returns, lengths, lanes = (
                (list(column) for column in zip(*own, strict=True)) if own else ([], [], [])
            )
            self.feeds[member.name].hear(Episodes(returns, lengths, lanes))

    def take(self, rollout: Rollout) -> dict[str, Any] | None:
        batches = {
            name: self.feeds[name].take(self.policy.part(name, rollout))
            for name in self.feeds
            if name in self.learning
        }
        return {name: batch for name, batch in batches.items() if batch is not None} or None

    def report(self) -> dict[str, float]:
        own = {f"{name}/{key}": x for name, feed in self.feeds.items() for key, x in feed.report().items()}
        return super().report() | own

    @property
    def urgent(self) -> bool:
        return any(feed.urgent for feed in self.feeds.values())

    def state_dict(self) -> Saved:
        return super().state_dict() | {
            "groups": {name: feed.state_dict() for name, feed in self.feeds.items()}
        }

    def parts(self, state: Saved) -> dict[str, Saved]:
        return {
            part_of(name, part): saved
            for name, feed in self.feeds.items()
            for part, saved in feed.parts(state["groups"][name]).items()
        }

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        for name, feed in self.feeds.items():
            own = {
                part.removesuffix(f"-{name}"): saved
                for part, saved in parts.items()
                if part.endswith(f"-{name}")
            }
            feed.load(state["groups"][name], own)
        return super().load(state, parts)

    def close(self) -> None:
        super().close()
        for feed in self.feeds.values():
            feed.close()


def part_of(group: str, part: str) -> str:
    """What a part of a checkpoint is called that a group has for itself."""
    return f"{part}-{group}"


class GroupLearner(Learner[dict[str, Any]]):
    """The learners of the groups that learn, by name; metrics are called NAME/metric."""

    def __init__(self, learners: Mapping[str, Learner[Any]]) -> None:
        self.learners = learners

    def learn(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value
            for name, each in batch.items()
            for key, value in self.learners[name].learn(each, progress).items()
        }

    def state_dict(self) -> Saved:
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, state: Saved) -> None:
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])
