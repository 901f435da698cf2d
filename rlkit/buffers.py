"""From a rollout to minibatches of sequences: a transition is a sequence of length 1.

T rows of N lanes are cut into sequences of L rows that are learned from as if they were lanes of their own. Sequence
s = c N + n holds rows c L .. c L + L - 1 of lane n and begins with the memory that lane n had there: its frame
history, gathered from frames that are stored once, and the state of each core. A memoryless network has L = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlkit import ranks
from rlkit.nn.stack import history_index, with_history
from rlkit.types import Obs, Rollout, State, tree_leaves, tree_map

Rows = dict[str, Any]
Unroll = Callable[[Obs, Tensor, State], State]  # obs [L, N, ...], first [L, N], state before -> state after


def cut(x: Tensor, length: int) -> Tensor:
    """T rows as sequences of L = `length`: [T, N, ...] -> [L, T/L*N, ...]; T is a multiple of L."""
    chunks = x.reshape(-1, length, *x.shape[1:])  # [C, L, N, ...]
    return chunks.transpose(0, 1).flatten(1, 2)


def uncut(x: Tensor, lanes: int) -> Tensor:
    """Inverse of `cut`: [L, C*N, ...] -> [C*L, N, ...]."""
    return x.reshape(x.shape[0], -1, lanes, *x.shape[2:]).transpose(0, 1).flatten(0, 1)


def sequences(rollout: Rollout, length: int, unroll: Unroll) -> Rows:
    """The T+1 rows of a rollout as (T/L + 1) N sequences to `select` from; the last N begin with row T.

    unroll: moves the memory of all lanes over some rows; called where the network has cores that remember. Rows after
    row T, which fill up the last sequences, repeat it. Returns a nested dict of tensors: obs and first [L, S, ...],
    cores [S, ...], and for a frame stack of k the stored frames [(k-1+T+1)*N, ...] with the places [S, k-1] of each
    sequence's history in them. Raises ValueError where T is no multiple of L.
    """
    steps, lanes = rollout.size
    if steps % length:
        raise ValueError(f"sequences of {length} rows: {steps} rows are no multiple of it")

    def fill(x: Tensor) -> Tensor:  # [T+1, N, ...] -> [L, S, ...]
        return cut(torch.cat([x, x[-1:].expand(length - 1, *x.shape[1:])]) if length > 1 else x, length)

    rows: Rows = {
        "obs": tree_map(fill, rollout.obs),
        "first": fill(rollout.first),
        "cores": _memories(rollout, length, unroll),
    }
    if rollout.state[0]:
        history: Any = rollout.state[0][0]  # [N, k-1, ...]
        k = history.shape[1] + 1
        rows["frames"] = with_history(rollout.obs, history).flatten(0, 1)  # type: ignore[arg-type]
        row = history_index(rollout.first, k)[::length, :, :-1]  # [T/L + 1, N, k-1]
        lane = torch.arange(lanes, device=row.device)[:, None]
        rows["history"] = (row * lanes + lane).flatten(0, 1)
    return rows


def _memories(rollout: Rollout, length: int, unroll: Unroll) -> State:
    """The cores' states before rows 0, L, ..., T: [(T/L + 1)*N, ...]."""
    if not any(True for _ in tree_leaves(rollout.state[1:])):
        return rollout.state[1:]  # one () per trunk
    state, states = rollout.state, [rollout.state[1:]]
    for t in range(0, rollout.size[0], length):
        piece = slice(t, t + length)
        state = unroll(tree_map(lambda x: x[piece], rollout.obs), rollout.first[piece], state)  # noqa: B023
        states.append(state[1:])
    cores: State = tree_map(lambda *x: torch.cat(x), *states)
    return cores


def select(rows: Rows, index: Tensor) -> tuple[Obs, Tensor, State]:
    """Sequences `index` [B] -> obs [L, B, ...], first [L, B], state of B lanes."""
    obs = tree_map(lambda x: x[:, index], rows["obs"])
    first = rows["first"][:, index]
    frames: State = (rows["frames"][rows["history"][index]],) if "frames" in rows else ()
    return obs, first, (frames, *tree_map(lambda x: x[index], rows["cores"]))


def pieces(total: int, size: float) -> int:
    """How many minibatches of about `size` a pass over `total` sequences has: 1 to total."""
    return max(1, min(round(total / size), total))


def minibatches(total: int, size: float, generator: torch.Generator) -> list[Tensor]:
    """A random partition of 0..total-1 into `pieces(total, size)` whose sizes differ by at most 1.

    Of each piece, this rank's share: the order is drawn for all ranks together.
    """
    order = torch.randperm(total, generator=generator, device=generator.device)
    return [piece[ranks.share(len(piece))] for piece in order.tensor_split(pieces(total, size))]
