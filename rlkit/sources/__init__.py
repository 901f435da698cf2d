"""Where rollouts come from: get, publish and close around the same actor, and its state for checkpoints.

sync: the learner's own policy collects, then learns: every rollout is of the newest weights (lag 0).
thread: the next rollout is collected by a copy of the policy while the learner learns (lag exactly 1 update).
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from rlkit.actor import Actor, Episodes, Timing
from rlkit.config import SourceConfig
from rlkit.types import Rollout


class RolloutSource(Protocol):
    """get, publish, close; and what a checkpoint needs to continue."""

    def get(self) -> tuple[Rollout, Episodes]:
        """The next rollout and the episodes that ended in it."""

    def publish(self, version: int) -> None:
        """The learner's policy now has the weights of this version."""

    def close(self) -> None:
        """Stop collecting and free the environments; idempotent."""

    @property
    def timing(self) -> Timing:
        """Seconds spent in the environments and in the policy so far."""

    def state_dict(self) -> dict[str, Any]:
        """What the next `get` depends on but the learner's policy, copied."""

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Continue from there; a warning if the environments are not quite what they were."""


def make_source(config: SourceConfig, actor: Actor, learner: nn.Module) -> RolloutSource:
    """The source that `config` names, around `actor`."""
    from rlkit.sources.sync import SyncSource
    from rlkit.sources.thread import ThreadSource

    return ThreadSource(actor, learner) if config.name == "thread" else SyncSource(actor)
