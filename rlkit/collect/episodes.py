"""Where episodes open and close in rows, and rollouts joined in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.types import Rollout, tree_map


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
