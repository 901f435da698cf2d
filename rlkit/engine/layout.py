"""Where the numbers of a traced graph lie: parts of memory, tensors in them, and the sizes that kernels run over.

A tensor's layout is a torch tensor on the device `meta`: torch itself says what a view of it is. Addresses of inputs
and outputs change from call to call, so an operand names its part of memory (WORK: what is computed; CONSTANTS; ZEROS;
then the inputs and the outputs) and the offset there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

WORK, CONSTANTS, ZEROS, INPUTS = 0, 1, 2, 3
ALIGNED = 64  # bytes
_ENDLESS = torch.empty(1 << 40, device="meta")  # whose views any layout is


class Unsupported(Exception):
    """What the graph does is in none of the kernels; the message says what."""


@dataclass
class Descent:
    """What a step of Adam changes and follows from; the tensors keep their memory."""

    flat: Tensor  # theta
    mean: Tensor  # the moments
    square: Tensor
    count: Tensor  # of steps, one float32 number
    settings: npt.NDArray[np.float64]  # learning rate, betas, eps, weight decay, whether AdamW's, clip_norm


@dataclass(eq=False)
class Room:
    """Memory for numbers of a graph, which others may use before `first` and after `last` (instructions)."""

    bytes: int
    first: int = -1
    last: int = -1
    offset: int = 0

    def used(self, instruction: int) -> None:
        """Note that an instruction reads or writes here."""
        self.first = instruction if self.first < 0 else self.first
        self.last = instruction


@dataclass(eq=False)
class Value:
    """A tensor of the graph: in which part of memory, in which room there if it is computed, and its layout."""

    part: int
    layout: Tensor
    room: Room | None = None

    @property
    def shape(self) -> torch.Size:
        """As torch has it."""
        return self.layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """In numbers."""
        return self.layout.stride()

    @property
    def offset(self) -> int:
        """Of its first number in its part or room, in numbers."""
        return int(self.layout.storage_offset())

    def like(self, layout: Tensor) -> Value:
        """Another view of the same memory."""
        return Value(self.part, layout, self.room)


@dataclass(eq=False)
class Instruction:
    """A kernel, the sizes that it runs over, and its operands with their strides along these."""

    kernel: str
    sizes: Sequence[int]
    operands: Sequence[tuple[Value, Sequence[int]]]
    extra: int = 0
    spare: Room | None = None  # whose offset is the last word
    rooms: list[Room] = field(default_factory=list)


def lay(shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> Tensor:
    """A layout."""
    return _ENDLESS.as_strided(shape, strides, offset)


def dense(shape: Sequence[int], offset: int = 0) -> Tensor:
    """The layout of a contiguous tensor."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return lay(shape, strides[::-1], offset)


def merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]], most: int
) -> tuple[list[int], list[list[int]]]:
    """The same numbers in the same order over exactly `most` axes, those that lie behind one another as one."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        here = [s[axis] for s in strides]
        if n == 1:
            continue
        if sizes and all(step[-1] == h * n for step, h in zip(steps, here, strict=True)):
            sizes[-1] *= n
            for step, h in zip(steps, here, strict=True):
                step[-1] = h
        else:
            sizes.append(n)
            for step, h in zip(steps, here, strict=True):
                step.append(h)
    missing = most - len(sizes)
    if missing < 0:
        raise Unsupported(f"an operation over {len(sizes)} axes")
    # an axis of one number keeps the inner stride 1, by which kernels choose their fast loops
    inner = [1] if missing and not sizes else []
    return (
        [1] * missing + sizes,
        [[0] * (missing - len(inner)) + inner + step for step in steps],
    )


def assign(rooms: Iterable[Room]) -> int:
    """Give every room an offset where none overlaps another that is used at the same time; how many bytes it takes."""
    placed: list[Room] = []
    top = 0
    for room in sorted((r for r in rooms if r.first >= 0), key=lambda r: (r.first, -r.bytes)):
        beside = sorted((r for r in placed if r.last >= room.first), key=lambda r: r.offset)
        offset = 0
        for other in beside:
            if offset + room.bytes <= other.offset:
                break
            offset = max(offset, -(-(other.offset + other.bytes) // ALIGNED) * ALIGNED)
        room.offset = offset
        placed.append(room)
        top = max(top, offset + room.bytes)
    return top


def called(node: fx.Node) -> str:
    """What an operation is called, without its overload."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    return str(getattr(node.target, "overloadpacket", node.target)).split(".")[-1]
