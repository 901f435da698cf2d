"""The learner's own policy collects, then learns: lag 0."""

from __future__ import annotations

from rlkit.collect.actor import Actor
from rlkit.contracts import Episodes, RolloutSource, Saved
from rlkit.types import Rollout


class SyncSource(RolloutSource):
    """Collects a rollout when it is asked for one."""

    def __init__(self, actor: Actor) -> None:
        self.actor, self.timing = actor, actor.timing
        self.version = 0

    def get(self) -> tuple[Rollout, Episodes]:
        rollout, episodes = self.actor.collect()
        rollout.version = self.version
        return rollout, episodes

    def publish(self, version: int) -> None:
        self.version = version

    def report(self) -> dict[str, float]:
        return self.actor.report()

    def lags(self) -> list[int]:
        return []

    def close(self) -> None:
        self.actor.env.close()

    def state_dict(self) -> Saved:
        return {"actor": self.actor.state_dict(), "version": self.version}

    def load_state_dict(self, state: Saved) -> str | None:
        self.version = state["version"]
        return self.actor.load_state_dict(state["actor"])
