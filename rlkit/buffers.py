"""From a rollout to minibatches of sequences: a transition is a sequence of length 1.

T rows of N lanes are cut into sequences of L rows that are learned from as if they were lanes of their own. Sequence
s = c N + n holds rows c L .. c L + L - 1 of lane n and begins with the memory that lane n had there: its frame
history, gathered from frames that are stored once, and the state of each core. A memoryless network has L = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

from rlkit import ranks
from rlkit.nn.stack import frame_index, take, with_history
from rlkit.types import Obs, Rollout, State, tree_leaves, tree_map

# obs [L, N, ...], first [L, N], state before -> state after
Unroll: TypeAlias = Callable[[Obs, Tensor, State], State]


class Rows(TypedDict, total=False):
    """The rows of a rollout in S sequences of length L (`sequences`)."""

    first: Tensor  # [L, S] bool
    cores: State  # [S, ...] the cores' states before each sequence
    obs: Obs  # [L, S, ...]; not with a frame stack and L = 1
    frames: Tensor  # [(k-1+T+1)*N, ...] with a frame stack of k: every frame, once
    history: Tensor  # [S, k-1] places in `frames` of what was seen before each sequence; L > 1
    stacks: Tensor  # [S, k] places in `frames` of the stack in each row; L = 1


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
    row T, which fill up the last sequences, repeat it. Raises ValueError where T is no multiple of L.
    """
    steps, _ = rollout.size
    if steps % length:
        raise ValueError(f"sequences of {length} rows: {steps} rows are no multiple of it")

    def fill(x: Tensor) -> Tensor:  # [T+1, N, ...] -> [L, S, ...]
        return cut(torch.cat([x, x[-1:].expand(length - 1, *x.shape[1:])]) if length > 1 else x, length)

    rows: Rows = {"first": fill(rollout.first), "cores": _memories(rollout, length, unroll)}
    if not rollout.state[0]:
        return rows | {"obs": tree_map(fill, rollout.obs)}
    history = rollout.state[0][0]  # [N, k-1, ...]
    assert isinstance(history, Tensor) and isinstance(rollout.obs, Tensor), "frames are stacked of one tensor"
    frames = with_history(rollout.obs, history).flatten(0, 1)
    index = frame_index(rollout.first, history.shape[1] + 1)[::length].flatten(0, 1)  # [S, k]
    if length == 1:
        return rows | {"frames": frames, "stacks": index}
    return rows | {"obs": tree_map(fill, rollout.obs), "frames": frames, "history": index[:, :-1]}


def _memories(rollout: Rollout, length: int, unroll: Unroll) -> State:
    """The cores' states before rows 0, L, ..., T: [(T/L + 1)*N, ...]."""
    if not any(True for _ in tree_leaves(rollout.state[1:])):
        return rollout.state[1:]  # one () per trunk
    state, states = rollout.state, [rollout.state[1:]]
    for t in range(0, rollout.size[0], length):
        piece = slice(t, t + length)
        state = unroll(tree_map(lambda x: x[piece], rollout.obs), rollout.first[piece], state)  # noqa: B023
        states.append(state[1:])
    return tree_map(lambda *x: torch.cat(x), *states)


def select(rows: Rows, index: Tensor) -> tuple[Obs, Tensor, State]:
    """Sequences `index` [B] -> obs [L, B, ...], first [L, B], state of B lanes.

    With a frame stack and L = 1 obs are stacked already, [1, B, k, ...], and the state has no frames.
    """
    first = rows["first"].index_select(1, index)
    cores = tree_map(lambda x: take(x, index), rows["cores"])
    if "stacks" in rows:
        return take(rows["frames"], take(rows["stacks"], index))[None], first, ((), *cores)
    obs = tree_map(lambda x: x.index_select(1, index), rows["obs"])
    frames: State = (take(rows["frames"], take(rows["history"], index)),) if "frames" in rows else ()
    return obs, first, (frames, *cores)


def pieces(total: int, size: float) -> int:
    """How many minibatches of about `size` a pass over `total` sequences has: 1 to total."""
    return max(1, min(round(total / size), total))


def minibatches(total: int, size: float, generator: torch.Generator) -> list[Tensor]:
    """A random partition of 0..total-1 into `pieces(total, size)` whose sizes differ by at most 1.

    Of each piece, this rank's share: the order is drawn for all ranks together.
    """
    order = torch.randperm(total, generator=generator, device=generator.device)
    return [piece[ranks.share(len(piece))] for piece in order.tensor_split(pieces(total, size))]
