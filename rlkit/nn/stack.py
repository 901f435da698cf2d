"""Frame stacks: the policy sees the last k observations, each of which is stored once.

Before an episode's start the history repeats its first observation, as Gymnasium's FrameStackObservation does. The
last k-1 frames are memory like any other (`State`), so stepping, unrolling and minibatches agree.
"""

from __future__ import annotations

import torch
from torch import Tensor


def history_index(first: Tensor, k: int) -> Tensor:
    """Where the k frames seen at each row lie in [history of k-1 rows; rows 0..T-1]: first [T, N] -> [T, N, k].

    index[t, n, j] = max(t - (k - 1) + j, start of the episode of row t) + k - 1,   j = 0 .. k-1 (newest last)
    """
    time = torch.arange(first.shape[0], device=first.device)[:, None]  # [T, 1]
    # the row in which the current episode opened; -(k-1) while it opened before row 0
    start = torch.where(first, time, -(k - 1)).cummax(0).values  # [T, N]
    back = torch.arange(-(k - 1), 1, device=first.device)  # [k]
    return torch.maximum(time[..., None] + back, start[..., None]) + (k - 1)


def frame_index(first: Tensor, k: int) -> Tensor:
    """`history_index` into the frames of all lanes [(k-1+T)*N, ...]: first [T, N] -> [T, N, k]."""
    lanes = first.shape[1]
    return history_index(first, k) * lanes + torch.arange(lanes, device=first.device)[:, None]


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[index] for index [...] into the first axis: whole rows at once, where indexing copies element by element."""
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:])


def with_history(obs: Tensor, history: Tensor) -> Tensor:
    """[history; rows]: obs [T, N, ...], history [N, k-1, ...] -> [k-1+T, N, ...]."""
    return torch.cat([history.transpose(0, 1), obs])


def stack_step(obs: Tensor, first: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """One row: obs [N, ...], first [N], history [N, k-1, ...] -> stacked [N, k, ...], next history [N, k-1, ...]."""
    frames = torch.cat([history, obs[:, None]], 1)  # [N, k, ...]
    lanes, k = frames.shape[:2]
    # where an episode opens, every frame is the newest
    index = torch.where(first[:, None], k - 1, torch.arange(k, device=obs.device))  # [N, k]
    stacked = take(frames.flatten(0, 1), index + torch.arange(lanes, device=obs.device)[:, None] * k)
    return stacked, stacked[:, 1:]


def stack_rows(obs: Tensor, first: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """T rows: obs [T, N, ...], first [T, N], history [N, k-1, ...] -> stacked [T, N, k, ...], next history."""
    if obs.shape[0] == 1:
        stacked, history = stack_step(obs[0], first[0], history)
        return stacked[None], history
    index = frame_index(first, history.shape[1] + 1)
    stacked = take(with_history(obs, history).flatten(0, 1), index)  # [T, N, k, ...]
    return stacked, stacked[-1][:, 1:]
