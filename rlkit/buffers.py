"""From a rollout to minibatches: a transition is a rollout of length 1.

`Transitions` picks rows of a rollout of a memoryless network as if they were lanes of length 1, frame stacks included;
each frame is stored once and stacks are gathered when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rlkit.nn.stack import history_index, with_history
from rlkit.types import Obs, Rollout, State, tree_map


class Transitions:
    """Rows of a rollout, by flat index t * N + n over its T+1 rows.

    state: of a memoryless network, (frame history or (), one () per trunk).
    """

    def __init__(self, rollout: Rollout) -> None:
        self.obs = tree_map(lambda x: x.flatten(0, 1), rollout.obs)  # [(T+1)*N, ...]
        self.first = rollout.first.flatten()  # [(T+1)*N]
        self.state = rollout.state
        self.rows = len(self.first)
        if rollout.state[0]:
            history = rollout.state[0][0]  # [N, k-1, ...]
            lanes = history.shape[0]
            k = history.shape[1] + 1
            self.frames = with_history(rollout.obs, history).flatten(0, 1)  # type: ignore[arg-type]
            row = history_index(rollout.first, k)[..., :-1]  # [T+1, N, k-1]
            lane = torch.arange(lanes, device=row.device)[:, None]
            self.history = (row * lanes + lane).flatten(0, 1)  # [(T+1)*N, k-1] into frames

    def select(self, index: Tensor) -> tuple[Obs, Tensor, State]:
        """index [B] -> obs [1, B, ...], first [1, B], state of B lanes."""
        obs = tree_map(lambda x: x[index][None], self.obs)
        first = self.first[index][None]
        if not self.state[0]:
            return obs, first, self.state
        return obs, first, ((self.frames[self.history[index]],), *self.state[1:])

    def split(self, rows: int) -> Iterator[Any]:
        """All rows in order, in pieces of at most `rows`."""
        index = torch.arange(self.rows, device=self.first.device)
        for piece in index.split(rows):
            yield self.select(piece)


def minibatches(total: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """A random partition of 0..total-1 into round(total / size) pieces whose sizes differ by at most 1."""
    order = torch.randperm(total, generator=generator, device=generator.device)
    return list(order.tensor_split(max(1, round(total / size))))
