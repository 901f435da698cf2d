"""A feed that puts every rollout into a replay buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlkit.contracts import (
    RolloutSource,
    Saved,
)
from rlkit.learn.feeds import RolloutFeed
from rlkit.types import Rollout

if TYPE_CHECKING:
    from rlkit.replay.memory import Replay


class ReplayFeed(RolloutFeed):
    """Every rollout goes into a replay buffer; the batch is the memory itself, which knows how many updates are due."""

    def __init__(self, source: RolloutSource, replay: Replay, window: int = 100) -> None:
        super().__init__(source, window)
        self.replay = replay

    def take(self, rollout: Rollout) -> Replay:
        self.replay.add(super().take(rollout))
        return self.replay

    def state_dict(self) -> Saved:
        return super().state_dict() | {"replay": self.replay.snapshot()}

    @property
    def urgent(self) -> bool:
        return self.replay.urgent

    def parts(self, state: Saved) -> dict[str, Saved]:
        return {"replay": self.replay.saved(state["replay"])}

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        self.replay.load(state["replay"], parts["replay"])
        return super().load(state, parts)

    def close(self) -> None:
        super().close()
        self.replay.close()
