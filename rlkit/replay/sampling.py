"""From drawn places of a ring to batches: machine code that finds the rows, and the tensors they are gathered into.

A place of a lane is one number, place * N + lane: the row after it lies N further, past the end at the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.replay.priorities import Ints, compiled, uniform
from rlkit.replay.ring import FLAGS, Ring
from rlkit.types import Batch, Span, State, tree_map

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
    closes: Bools,
) -> None:
    """The n-step transitions from the places index [D, B]: their rows [D, R, B], reward and discount [D, B].

    The rows are the k-1 of o_t's history, o_t, o_{t+m} and, for n > 1, the k-1 of o_{t+m}'s history; closes
    [D, 2, B] gets `last` of o_{t+m}. newest: place of the newest row of lane 0, from which no step has been made.
    """
    size = len(last)
    for d in range(index.shape[0]):
        for b in range(index.shape[1]):
            start = place = index[d, b]
            g, sum_, end, close = 1.0, 0.0, False, False
            for _ in range(n):
                # G = r_t + gamma r_{t+1} + ... + gamma^{m-1} r_{t+m-1}
                sum_ += g * reward[place]
                g *= gamma
                end = ended[place]
                place += lanes
                if place >= size:
                    place -= size
                close = last[place]
                if close or end or newest <= place < newest + lanes:
                    break
            total[d, b], discount[d, b], closes[d, 1, b] = sum_, 0.0 if end else g, close
            rows[d, stack - 1, b] = start
            rows[d, stack, b] = place
            if stack > 1:
                _history(start, first, lanes, rows[d, : stack - 1, b])
                if n > 1:
                    _history(place, first, lanes, rows[d, stack + 1 :, b])


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
    """The sequences of the starts index [D, B]: rows [D, R, B], of which the first k-1 are the history of the next."""
    for d in range(index.shape[0]):
        for b in range(index.shape[1]):
            place = start[index[d, b] // lanes] % places * lanes + index[d, b] % lanes
            _history(place, first, lanes, rows[d, : stack - 1, b])
            for t in range(stack - 1, rows.shape[1]):
                rows[d, t, b] = place
                place += lanes
                if place >= places * lanes:
                    place -= places * lanes


@dataclass(frozen=True)
class Shape:
    """What an item is: W rows to warm up and L to learn from, of frames stacked k high."""

    memory: bool  # a sequence, else one transition over up to n_step rows
    warm: int  # W, 0 without memory
    length: int  # L, 1 without memory
    stack: int  # k
    n_step: int
    gamma: float

    @property
    def steps(self) -> int:
        """W + L: an item is as many rows, and one more that comes after them."""
        return self.warm + self.length

    @property
    def frames(self) -> int:
        """R, the observation rows of an item: the k-1 rows of history first, for n-step transitions twice."""
        histories = 1 if self.memory or self.n_step == 1 else 2
        return histories * (self.stack - 1) + self.steps + 1


class Batches:
    """`depth` batches of B = `batch` items of a ring, on `device`; filled again and again, on the host as arrays.

    initial: memory before any observation of B lanes, for what a ring does not store.
    """

    def __init__(
        self, ring: Ring, shape: Shape, depth: int, batch: int, device: torch.device, initial: State
    ) -> None:
        self.ring, self.shape, self.depth, self.device, self.initial = ring, shape, depth, device, initial
        self.host: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        self._staged: list[tuple[Tensor, Tensor]] = []
        self._moved = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        every, learned = shape.steps + 1, shape.length
        rows = {"first": every, "last": every, "action": learned, "reward": learned}
        for field in ring.layout.fields:
            if field.name != "terminated":  # the discount says it
                self._make(field.name, (rows.get(field.name, shape.frames), batch, *field.shape), field.dtype)
        for field in ring.layout.states:
            self._make(field.name, (batch, *field.shape), field.dtype)
        self._make("discount", (shape.length, batch), "float32")
        self._make("index", (batch,), "int64")
        self._make("weight", (batch,), "float32")
        self.host["weight"][:] = 1
        self.host["rows"] = np.zeros((depth, shape.frames, batch), np.int64)
        self.views = [self._view(d) for d in range(depth)]

    def _make(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
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

    def fill(self, count: int, newest: int) -> None:
        """Gather the first `count` batches of the items in host["index"] and bring them to the device.

        newest: the newest row of the ring, from which no step has been made.
        """
        if self.shape.memory:
            self._sequences(count)
        else:
            self._transitions(count, newest)
        for host, tensor in self._staged:
            tensor[:count].copy_(host[:count], non_blocking=True)
        if self._moved is not None:
            self._moved.record()

    def _transitions(self, count: int, newest: int) -> None:
        ring, fields, shape = self.ring, self.ring.fields, self.shape
        host = {name: array[:count] for name, array in self.host.items()}
        lanes, rows = ring.layout.lanes, host["rows"]  # [D, R, B]
        first, last, ended = (fields[name].reshape(-1) for name in FLAGS)
        follow(
            host["index"], newest % ring.layout.rows * lanes, lanes, shape.n_step, shape.gamma, shape.stack,
            first, last, ended, fields["reward"].reshape(-1), rows, host["reward"][:, 0], host["discount"][:, 0],
            host["last"],
        )  # fmt: skip
        for name, array in ring.obs.items():
            gather(array, rows, host[f"obs/{name}"])
        gather(fields["action"], host["index"], host["action"][:, 0])

    def _sequences(self, count: int) -> None:
        ring, fields, before = self.ring, self.ring.fields, self.shape.stack - 1
        host = {name: array[:count] for name, array in self.host.items()}
        rows, index = host["rows"], host["index"]  # [D, k-1 + W+L+1, B], [D, B]
        places, lanes = ring.layout.rows, ring.layout.lanes
        unroll(index, ring.start, places, lanes, before + 1, fields["first"].reshape(-1), rows)
        for name, array in ring.obs.items():
            gather(array, rows, host[f"obs/{name}"])
        every = np.ascontiguousarray(rows[:, before:])  # [D, W+L+1, B]
        for name in ("first", "last"):
            gather(fields[name], every, host[name])
        learned = np.ascontiguousarray(every[:, self.shape.warm : -1])  # [D, L, B]
        for name in ("action", "reward"):
            gather(fields[name], learned, host[name])
        # gamma (1 - terminated)
        terminated = fields["terminated"].reshape(-1)[learned]
        np.multiply(~terminated, np.float32(self.shape.gamma), out=host["discount"])
        for field, array in zip(ring.layout.states, ring.states, strict=True):
            gather(array, index, host[field.name])

    def _view(self, d: int) -> Batch:
        """Batch number d."""
        shape, k = self.shape, self.shape.stack
        each = {name: x[d] for name, x in self.tensors.items()}
        frames = {name: each[f"obs/{name}"] for name in self.ring.obs}  # [R, B, ...]
        stored = iter([each[field.name] for field in self.ring.layout.states])
        remembered = tree_map(lambda x: next(stored), self.initial[1:]) if shape.memory else self.initial[1:]

        def span(begin: int, end: int, history: int) -> Span:
            """Rows `begin` to `end` of the items; the frames before them begin at row `history` of all frames."""
            obs = {name: x[k - 1 + begin : k - 1 + end] for name, x in frames.items()}
            seen = (frames[""][history : history + k - 1].transpose(0, 1),) if k > 1 else self.initial[0]
            first, last = each["first"][begin:end], each["last"][begin:end]
            # one leaf without a name, or named ones
            return Span(obs.get("", obs), first, last, (seen, *remembered))

        if shape.memory:
            later = span(0, shape.steps + 1, 0)
        else:
            later = span(1, 2, 1 if shape.n_step == 1 else k + 1)
        names = ("action", "reward", "discount", "weight", "index")
        return Batch(span(0, shape.steps, 0), later, **{name: each[name] for name in names})


def gather(array: Array, rows: Ints, out: Array) -> None:
    """out [...] = array[rows [...]] for an array [places, lanes, ...] read by places of lanes."""
    array.reshape(-1, *array.shape[2:]).take(rows, 0, out, "clip")  # "raise" would go through a copy
