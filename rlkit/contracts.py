"""CONTRACTS"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.types import EnvSpec, EnvStep, Obs, Rollout, State


class VecEnv(Protocol):
    """N lanes stepped together. Episode e of lane n starts from a seed that (seed, n, e) alone determine.

    A vector that can save itself offers `snapshot() -> tree of tensors, arrays and numbers` and
    `load_snapshot(tree)`; checkpoints then use these instead of `restore` with actions.
    """

    spec: EnvSpec
    lanes: int
    device: torch.device

    def restore(self, episode: npt.NDArray[np.int64], actions: list[npt.NDArray[Any]]) -> EnvStep:
        """Bring lane n to episode[n] after the environment actions actions[n] ([k_n, ...], k_n may be 0).

        With no actions this is the reset that opens a run; with actions it rebuilds a checkpoint's environments.
        """

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...], in the environment's units).

        A lane whose previous row was `last` ignores its action and opens its next episode.
        """

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture for people, or None where the environment draws none."""

    def close(self) -> None:
        """Free processes and memory; idempotent."""


class Policy(Protocol):
    """What acting needs; pure: the same arguments give the same action."""

    spec: EnvSpec
    noise_size: int  # uniforms per lane and step

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        """Memory before any observation."""

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, noise_size] or None for greedy -> action [N, ...], state, extra."""

    def to_env(self, action: Tensor) -> Tensor:
        """The action in the environment's units."""


@dataclass
class Episodes:
    """Finished episodes of a rollout, in time order."""

    returns: list[float] = field(default_factory=list)  # undiscounted, in the environment's own reward
    lengths: list[int] = field(default_factory=list)


@dataclass
class Timing:
    """Seconds spent since the last reset of these counters."""

    environment: float = 0.0
    policy: float = 0.0
    waiting: float = 0.0  # of the learner, for workers elsewhere


class RolloutSource(Protocol):
    """get, publish, close; and what a checkpoint needs to continue."""

    def get(self) -> tuple[Rollout, Episodes]:
        """The next rollout and the episodes that ended in it. Its tensors may be read-only memory."""

    def publish(self, version: int) -> None:
        """The learner's policy now has the weights of this version."""

    def close(self) -> None:
        """Stop collecting and free the environments; idempotent."""

    @property
    def timing(self) -> Timing:
        """Seconds spent in the environments and in the policy so far."""

    def report(self) -> dict[str, float]:
        """Numbers about the source's own work; {} where there is nothing to tell."""

    def lags(self) -> list[int]:
        """Updates between the weights that acted and those that learned, of what was handed out since the last call."""

    def state_dict(self) -> dict[str, Any]:
        """What the next `get` depends on but the learner's policy, copied."""

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Continue from there; a warning if the environments are not quite what they were."""


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

    def lags(self) -> list[int]:
        """Updates between acting and learning, one per chunk since the last call; [] where nothing lags."""


class Learner(Protocol):
    """What fit needs of an agent or of a supervised model."""

    def learn(self, batch: Any, progress: float) -> dict[str, Tensor]:
        """Learn from one batch at `progress` = step / total_steps; metrics as 0-dim tensors, not read here."""


MAX_STEPS = 20_000  # of one episode; a greedy policy may never end one


class EndlessEpisode(ValueError):
    """An episode that does not end."""
