"""Operations of torch that move numbers to other places or bring rows and columns together: products, indices, joins.

Registered in `rules.RULES` with the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from rlkit.engine.layout import ZEROS, Unsupported, Value, lay, merged
from rlkit.engine.rules import rule

if TYPE_CHECKING:
    from rlkit.engine.lower import Lowering

EXACT = 1 << 24  # integers up to here are exact in float32


# ---- products of matrices


@rule("mm")
def _mm(low: Lowering, a: Value, b: Value) -> Value:
    return _product(low, a, b, Value(ZEROS, lay([1, b.shape[1]], [0, 1])))


@rule("addmm")
def _addmm(low: Lowering, c: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    if beta != 1 or alpha != 1:
        raise Unsupported("a scaled product")
    if c.strides[-1] != 1 and c.shape[-1] > 1:
        c = low.copy(c)
    shape = (a.shape[0], b.shape[1])
    return _product(low, a, b, c.like(c.layout.expand(shape)))


def _product(low: Lowering, a: Value, b: Value, c: Value) -> Value:
    """A [m, k] B [k, n] + C [m or 1, n], whose rows are of neighbouring numbers."""
    (m, k), n = a.shape, b.shape[1]
    low.zeros = max(low.zeros, n)
    out = low.new([m, n], last=True)
    # where the kernel turns a matrix
    spare = low.room(max(k * n, m * (n + 1)))
    if k == 0:
        raise Unsupported("a product over nothing")
    low.emit(
        "matrix",
        [m, n, k, 1],
        [
            (out, [*out.strides, 0, 0]),
            (a, [*a.strides, 0, 0]),
            (b, [*b.strides, 0, 0]),
            (c, [*c.strides, 0, 0]),
        ],
        spare=spare,
    )
    return out


# ---- places


def _exact(size: int) -> None:
    if size > EXACT:
        raise Unsupported(f"an index of more than {EXACT:,} places")


@rule("index_select")
def _index_select(low: Lowering, x: Value, dim: int, index: Value) -> Value:
    """out [..., i, ...] = x [..., index[i], ...]."""
    dim %= x.layout.dim()
    index = low.contiguous(index)
    size, n = x.shape[dim], index.layout.numel()
    _exact(size)
    out = low.new([*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]])
    step = math.prod(x.shape[dim + 1 :])
    before, (_, steps) = merged(x.shape[:dim], [x.strides[:dim], x.strides[:dim]], 1)
    after, (inner,) = merged(x.shape[dim + 1 :], [x.strides[dim + 1 :]], 2)
    low.emit(
        "take",
        [*before, n, *after],
        [
            (out, [n * step, step, after[1], 1]),
            (x, [*steps, x.strides[dim], *inner]),
            (index, [0, 1, 0, 0]),
        ],
        extra=size,
    )
    return out


@rule("index")
def _index(low: Lowering, x: Value, indices: Sequence[Value | None]) -> Any:
    given = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    node: Any = low.node
    if len(given) != 1 or any(i is not None and i.meta["val"].dtype == torch.bool for i in node.args[1]):
        raise Unsupported("an index of several tensors, or by truth")
    dim, index = given[0]
    return _index_select(low, x, dim, index)


@rule("embedding")
def _embedding(low: Lowering, weight: Value, index: Value, *args: Any) -> Any:
    return _index_select(low, weight, 0, index)


def _beside(low: Lowering, kernel: str, dim: int, shape: Sequence[int], size: int, *operands: Value) -> None:
    """A kernel whose index runs along the axis `dim`, of `size` places, for all numbers of `shape`."""
    _exact(size)
    rank = len(shape)
    order = [d for d in range(rank) if d != dim % max(rank, 1)] + [dim % max(rank, 1)] * (rank > 0)
    missing = 4 - rank
    if missing < 0:
        raise Unsupported(f"an index over {rank} axes")
    sizes = [1] * missing + [shape[d] for d in order]
    low.emit(
        kernel, sizes, [(v, [0] * missing + [v.strides[d] for d in order]) for v in operands], extra=size
    )


@rule("gather")
def _gather(low: Lowering, x: Value, dim: int, index: Value, sparse_grad: bool = False) -> Value:
    out = low.new(index.shape)
    _beside(low, "gather", dim, index.shape, x.shape[dim], out, x, index)
    return out


@rule("scatter_add")
def _scatter_add(low: Lowering, x: Value, dim: int, index: Value, source: Value) -> Value:
    out = low.copy(x)
    _beside(low, "scatter", dim, index.shape, x.shape[dim], out, index, source)
    return out


@rule("cat")
def _cat(low: Lowering, parts: Sequence[Value], dim: int = 0) -> Value:
    parts = [p for p in parts if p.layout.numel()]
    if not parts:
        raise Unsupported("a concatenation of nothing")
    dim %= parts[0].layout.dim()
    shape = list(parts[0].shape)
    shape[dim] = sum(p.shape[dim] for p in parts)
    out, begin = low.new(shape, last=True), 0
    for part in parts:
        there = out.like(out.layout.narrow(dim, begin, part.shape[dim]))
        begin += part.shape[dim]
        if part.part == there.part < 0 and part.offset == there.offset:
            continue  # it was computed there
        low.map("copy", part, out=there)
    return out


@rule("stack")
def _stack(low: Lowering, parts: Sequence[Value], dim: int = 0) -> Any:
    return _cat(low, [p.like(p.layout.unsqueeze(dim)) for p in parts], dim)
