"""From drawn places of a ring to batches: machine code that finds the rows, and the tensors they are gathered into.

A place of a lane is one number, place * N + lane: the row after it lies N further, past the end at the beginning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.priorities import Ints, compiled, uniform
from rlkit.types import Rollout, State

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


@compiled
def draw(
    key: np.uint64, counter: int, low: int, high: int, places: int, lanes: int, refused: Bools, index: Ints
) -> int:
    """Fill index [B] with places of the rows [low, high), each equally likely but for those marked in `refused`.

    Uses random numbers from `counter` on; returns the next counter.
    """
    for i in range(len(index)):
        while True:
            item = low * lanes + np.int64(uniform(key, np.uint64(counter)) * ((high - low) * lanes))
            counter += 1
            place = item % (places * lanes)
            if not refused[place]:
                index[i] = place
                break
    return counter


@compiled
def follow(
    index: Ints,
    newest: int,
    lanes: int,
    n: int,
    gamma: float,
    stack: int,
    first: Bools,
    last: Bools,
    ended: Bools,
    reward: npt.NDArray[np.float32],
    rows: Ints,
    total: npt.NDArray[np.float32],
    discount: npt.NDArray[np.float32],
    terminated: Bools,
) -> None:
    """The n-step transitions from the places index [D, B]: their rows [D, R, B], reward, discount, terminated [D, B].

    R counts the k-1 rows of history of o_t, o_t, o_{t+m} and, for n > 1, the k-1 rows of history of o_{t+m}.
    newest: place of the newest row of lane 0, from which no step has been made.
    """
    size = len(last)
    for d in range(index.shape[0]):
        for b in range(index.shape[1]):
            place = index[d, b]
            rows[d, stack - 1, b] = place
            _history(place, first, lanes, rows[d, : stack - 1, b])
            g, sum_, end = 1.0, 0.0, False
            for _ in range(n):
                # G = r_t + gamma r_{t+1} + ... + gamma^{m-1} r_{t+m-1}
                sum_ += g * reward[place]
                g *= gamma
                end = ended[place]
                place += lanes
                if place >= size:
                    place -= size
                if last[place] or newest <= place < newest + lanes:
                    break
            rows[d, stack, b] = place
            if n > 1:
                _history(place, first, lanes, rows[d, stack + 1 :, b])
            total[d, b], terminated[d, b] = sum_, end
            discount[d, b] = 0.0 if end else g


@compiled
def _history(place: int, first: Bools, lanes: int, rows: Ints) -> None:
    """The rows before `place`, oldest first; before an episode's start its first row again."""
    for j in range(len(rows) - 1, -1, -1):
        if not first[place]:
            place -= lanes
            if place < 0:
                place += len(first)
        rows[j] = place


@compiled
def unroll(index: Ints, start: Ints, places: int, lanes: int, stack: int, first: Bools, rows: Ints) -> None:
    """The sequences of the starts index [D, B]: rows [D, k-1 + L+1, B], of which the first k-1 are row 0's history."""
    for d in range(index.shape[0]):
        for b in range(index.shape[1]):
            place = start[index[d, b] // lanes] % places * lanes + index[d, b] % lanes
            _history(place, first, lanes, rows[d, : stack - 1, b])
            for t in range(stack - 1, rows.shape[1]):
                rows[d, t, b] = place
                place += lanes
                if place >= places * lanes:
                    place -= places * lanes


class Batches:
    """Tensors for `depth` batches of B items on `device`, filled again and again; on the host they are NumPy arrays."""

    def __init__(self, depth: int, device: torch.device) -> None:
        self.depth, self.device = depth, device
        self.host: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        self.rollouts: list[Rollout] = []  # `depth` views of the tensors
        self._staged: list[tuple[Tensor, Tensor]] = []
        self._moved = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def make(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """A tensor [depth, *shape] of zeros, and its array."""
        pinned = self.device.type == "cuda"  # from where the device fetches by itself
        host = torch.zeros((self.depth, *shape), dtype=getattr(torch, dtype), pin_memory=pinned)
        self.host[name] = host.numpy()
        self.tensors[name] = host if self.device.type == "cpu" else torch.zeros_like(host, device=self.device)
        if self.tensors[name] is not host:
            self._staged.append((host, self.tensors[name]))

    def wait(self) -> None:
        """Until the arrays may be written again."""
        if self._moved is not None:
            self._moved.synchronize()

    def move(self, count: int) -> None:
        """Bring the first `count` batches to the device."""
        for host, tensor in self._staged:
            tensor[:count].copy_(host[:count], non_blocking=True)
        if self._moved is not None:
            self._moved.record()


def gather(array: Array, rows: Ints, out: Array) -> None:
    """out [...] = array[rows [...]] for an array [places, lanes, ...] read by places of lanes."""
    np.take(array.reshape(-1, *array.shape[2:]), rows, 0, out, "clip")  # "raise" would go through a copy


def following(batch: Rollout) -> State:
    """Memory before the second row of a memoryless batch, o_{t+m}: its frame history if frames are stacked."""
    if not batch.state or not batch.state[0]:
        return batch.state
    return ((batch.extra["history"],), *batch.state[1:])
