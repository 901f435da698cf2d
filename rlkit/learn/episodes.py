"""Whole episodes out of rollouts, each once, as soon as they are complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import (
    MAX_STEPS,
    EndlessEpisode,
    RolloutSource,
    Saved,
)
from rlkit.learn.feeds import RolloutFeed
from rlkit.types import Rollout, closings, tree_map


class EpisodeFeed(RolloutFeed):
    """Whole episodes, each once, as soon as they are complete.

    `take` keeps rollouts until at least `minimum` episodes that nobody has learned from are complete, and returns the
    rollouts that they lie in, joined in time, as one [T, N]; extra["weight"] [T, N] (float32) is 1 in their
    transitions and 0 elsewhere (episodes that still run, those that were learned from before, rows that are no
    transitions). Every weighted episode opens in the batch. Rollouts that hold the beginning of a running episode are
    kept, and saved in checkpoints. A transition is counted when it is collected, so the run's clock is exact.

    longest: transitions after which an episode is taken to be endless (EndlessEpisode).
    """

    def __init__(
        self,
        source: RolloutSource,
        minimum: int,
        device: torch.device | str = "cpu",
        window: int = 100,
        longest: int = MAX_STEPS,
    ) -> None:
        super().__init__(source, window)
        self.minimum, self.device, self.longest = minimum, device, longest
        self.kept: list[Rollout] = []  # consecutive, all of one length
        self.learned_to: npt.NDArray[np.int64] | int = 0  # [N] the first of their rows not learned from
        self.opened: npt.NDArray[np.int64] | int = (
            0  # [N] row in which the running episode of each lane opened
        )
        self.complete = 0  # episodes in them that nobody has learned from

    def take(self, rollout: Rollout) -> Rollout | None:
        rollout = super().take(rollout)
        row = len(self.kept) * rollout.size[0] + np.arange(len(rollout.last))[:, None]  # [T+1, 1]
        self.opened = np.maximum(self.opened, np.where(rollout.last.cpu().numpy(), row + 1, 0).max(0))
        self.kept.append(rollout.map(torch.clone))  # the source writes into the same storage again
        self.complete += int(closings(rollout.last).sum())
        if row[-1] - np.min(self.opened) > self.longest:
            raise EndlessEpisode(
                f"an episode did not end in {self.longest:,} steps, and this agent learns from whole ones; "
                "give it a time limit, for example env.time_limit=1000"
            )
        return self._batch() if self.complete >= self.minimum else None

    def _batch(self) -> Rollout:
        """The complete episodes among the rollouts kept, which are dropped as far as no episode goes on in them."""
        first, last = (
            torch.cat([*(getattr(each, name)[:-1] for each in self.kept), getattr(self.kept[-1], name)[-1:]])
            for name in ("first", "last")
        )  # [T+1, N]
        weight = complete(first.cpu().numpy(), last.cpu().numpy())  # [T, N]
        weight &= np.arange(len(weight))[:, None] >= self.learned_to
        length = self.kept[0].size[0]
        start = int(weight.any(1).argmax()) // length  # of the rollouts kept, the first that is needed
        batch = join(self.kept[start:])
        batch.extra["weight"] = torch.from_numpy(weight[start * length :]).to(batch.reward)
        done = min(int(np.min(self.opened)) // length, len(self.kept))
        self.kept, self.complete = self.kept[done:], 0
        self.learned_to = self.opened = self.opened - done * length
        return batch

    def state_dict(self) -> Saved:
        state = super().state_dict() | {
            "kept": [dict(vars(rollout)) for rollout in self.kept],
            "learned_to": self.learned_to,
        }
        # where another group of agents has learned, rollouts have come since the latest batch
        later = self.complete or not np.array_equal(self.opened, self.learned_to)
        return state | ({"opened": self.opened, "complete": self.complete} if later else {})

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        self.kept = [Rollout(**each).map(lambda x: x.to(self.device)) for each in state["kept"]]
        self.learned_to = state["learned_to"]
        self.opened, self.complete = state.get("opened", self.learned_to), state.get("complete", 0)
        return super().load(state, parts)


def complete(first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """first, last [T+1, N] -> [T, N]: transitions of episodes that open and close within these rows."""
    row, end = np.arange(len(first))[:, None], len(first)
    opened = np.maximum.accumulate(np.where(first, row, -1))  # the latest opening up to this row
    closes = np.minimum.accumulate(np.where(last, row, end)[::-1])[::-1]  # the next closing, from this row on
    opens = np.minimum.accumulate(np.where(first, row, end)[::-1])[::-1]
    opens = np.concatenate([opens[1:], np.full_like(opens[:1], end)])  # the next opening after this row
    # an episode that was lost (a lane restarted on resume) is followed by an opening without a closing
    return ((opened >= 0) & (closes < np.minimum(opens, end)) & ~last)[:-1]


def join(rollouts: list[Rollout]) -> Rollout:
    """Consecutive rollouts as one: the last row of each is the first of the next."""

    def rows(*parts: Tensor) -> Tensor:  # [T+1, N, ...] each
        return torch.cat([*(part[:-1] for part in parts), parts[-1][-1:]])

    def steps(*parts: Tensor) -> Tensor:  # [T, N, ...] each
        return torch.cat(parts)

    return replace(
        rollouts[-1],
        **{
            name: tree_map(rows, *(getattr(each, name) for each in rollouts))
            for name in ("obs", "first", "last")
        },
        **{
            name: tree_map(steps, *(getattr(each, name) for each in rollouts))
            for name in ("action", "reward", "terminated", "extra")
        },
        state=rollouts[0].state,
    )
