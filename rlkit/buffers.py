"""From a rollout to minibatches: a transition is a rollout of length 1.

Rows of a rollout of a memoryless network are picked as if they were lanes of length 1, frame stacks included: each
frame is stored once, and stacks are gathered when they are read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.nn.stack import history_index, with_history
from rlkit.types import Obs, Rollout, State, tree_map

Rows = dict[str, Any]


def transitions(rollout: Rollout) -> Rows:
    """The T+1 rows of a rollout of a memoryless network, to `select` from by flat index t * N + n.

    A nested dict of tensors: obs and first [(T+1)*N, ...], and for a frame stack of k the stored frames
    [(k-1+T+1)*N, ...] with the places [(T+1)*N, k-1] of each row's history in them.
    """
    rows: Rows = {
        "obs": tree_map(lambda x: x.flatten(0, 1), rollout.obs),
        "first": rollout.first.flatten(),
        "cores": rollout.state[1:],  # one () per trunk
    }
    if rollout.state[0]:
        history: Any = rollout.state[0][0]  # [N, k-1, ...]
        lanes, k = history.shape[0], history.shape[1] + 1
        rows["frames"] = with_history(rollout.obs, history).flatten(0, 1)  # type: ignore[arg-type]
        row = history_index(rollout.first, k)[..., :-1]  # [T+1, N, k-1]
        lane = torch.arange(lanes, device=row.device)[:, None]
        rows["history"] = (row * lanes + lane).flatten(0, 1)
    return rows


def select(rows: Rows, index: Tensor) -> tuple[Obs, Tensor, State]:
    """index [B] -> obs [1, B, ...], first [1, B], state of B lanes."""
    obs = tree_map(lambda x: x[index][None], rows["obs"])
    first = rows["first"][index][None]
    frames: State = (rows["frames"][rows["history"][index]],) if "frames" in rows else ()
    return obs, first, (frames, *rows["cores"])


def minibatches(total: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """A random partition of 0..total-1 into round(total / size) pieces whose sizes differ by at most 1."""
    order = torch.randperm(total, generator=generator, device=generator.device)
    return list(order.tensor_split(max(1, round(total / size))))
