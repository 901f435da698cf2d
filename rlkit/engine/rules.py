"""Operations of torch that are more than one kernel, or that are more than a function of numbers with the same place.

RULES has them by name. Each is given the lowering and torch's arguments, in which tensors are values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch

from rlkit.engine.layout import ZEROS, Unsupported, Value, called, lay, merged

if TYPE_CHECKING:
    from rlkit.engine.lower import Lowering

Operand: TypeAlias = Value | float | int | bool
EXACT = 1 << 24  # integers up to here are exact in float32
RULES: dict[str, Callable[..., Any]] = {}
F = TypeVar("F", bound=Callable[..., Any])


def _rule(*names: str) -> Callable[[F], F]:
    def keep(function: F) -> F:
        RULES.update(dict.fromkeys(names, function))
        return function

    return keep


# ---- arithmetic


@_rule("add")
def _add(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("add", x, y if alpha == 1 else low.map("mul", y, alpha, last=False))


@_rule("sub")
def _sub(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("sub", x, y if alpha == 1 else low.map("mul", y, alpha, last=False))


@_rule("rsub")
def _rsub(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("sub", y, x if alpha == 1 else low.map("mul", x, alpha, last=False))


@_rule("div")
def _div(low: Lowering, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    quotient = low.map("div", x, y)
    return quotient if rounding_mode is None else low.map(rounding_mode, quotient)


@_rule("floor_divide")
def _floor_divide(low: Lowering, x: Operand, y: Operand) -> Value:
    return low.map("floor", low.map("div", x, y))


@_rule("remainder")
def _remainder(low: Lowering, x: Operand, y: Operand) -> Value:
    # x - floor(x / y) y
    return low.map("sub", x, low.map("mul", _floor_divide(low, x, y), y))


@_rule("pow")
def _pow(low: Lowering, x: Operand, y: Operand) -> Value:
    if y == 1:
        return low.map("copy", x)
    return low.map("mul", x, x) if y == 2 else low.map("pow", x, y)


@_rule("square")
def _square(low: Lowering, x: Value) -> Value:
    return low.map("mul", x, x)


@_rule("reciprocal")
def _reciprocal(low: Lowering, x: Value) -> Value:
    return low.map("div", 1.0, x)


@_rule("rsqrt")
def _rsqrt(low: Lowering, x: Value) -> Value:
    return low.map("div", 1.0, low.map("sqrt", x))


@_rule("addcmul")
def _addcmul(low: Lowering, x: Value, y: Value, z: Value, value: float = 1) -> Value:
    return low.map("addcmul", x, y if value == 1 else low.map("mul", y, value), z)


@_rule("clamp")
def _clamp(low: Lowering, x: Value, low_: Operand | None = None, high: Operand | None = None) -> Value:
    x = x if low_ is None else low.map("maximum", x, low_)
    return x if high is None else low.map("minimum", x, high)


@_rule("masked_fill", "masked_fill_")
def _masked_fill(low: Lowering, x: Value, mask: Value, value: Operand) -> Value:
    # in place, as the traced graph says by the operation's last underscore
    there = low.node is not None and called(low.node).endswith("_")
    return low.map("where", mask, value, x, out=x if there else None)


@_rule("silu")
def _silu(low: Lowering, x: Value) -> Value:
    return low.map("mul", x, low.map("sigmoid", x))


@_rule("silu_backward")
def _silu_backward(low: Lowering, g: Value, x: Value) -> Value:
    # d x s(x) / dx = s (1 + x (1 - s))
    s = low.map("sigmoid", x)
    slope = low.map("mul", s, low.map("add", 1.0, low.map("mul", x, low.map("sub", 1.0, s))))
    return low.map("mul", g, slope)


@_rule("gelu")
def _gelu(low: Lowering, x: Value, approximate: str = "none") -> Value:
    return low.map("mul", x, _normal_cdf(low, x, approximate))


@_rule("gelu_backward")
def _gelu_backward(low: Lowering, g: Value, x: Value, approximate: str = "none") -> Value:
    # d x P(x) / dx = P(x) + x p(x)
    density = low.map(
        "mul", low.map("exp", low.map("mul", low.map("mul", x, x), -0.5)), 1 / math.sqrt(2 * math.pi)
    )
    slope = low.map("addcmul", _normal_cdf(low, x, approximate), x, density)
    return low.map("mul", g, slope)


def _normal_cdf(low: Lowering, x: Value, approximate: str) -> Value:
    """P(x) = (1 + erf(x / sqrt 2)) / 2."""
    if approximate != "none":
        raise Unsupported("an approximated gelu")
    return low.map("mul", low.map("add", low.map("erf", low.map("mul", x, math.sqrt(0.5))), 1.0), 0.5)


@_rule("softplus")
def _softplus(low: Lowering, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = low.map("mul", x, beta)
    soft = low.map("div", low.map("log1p", low.map("exp", scaled)), beta)
    return low.map("where", low.map("gt", scaled, threshold), x, soft)


@_rule("softplus_backward")
def _softplus_backward(low: Lowering, g: Value, x: Value, beta: float, threshold: float) -> Value:
    scaled = low.map("mul", x, beta)
    slope = low.map("mul", g, low.map("sigmoid", scaled))
    return low.map("where", low.map("gt", scaled, threshold), g, slope)


@_rule("threshold_backward")
def _threshold_backward(low: Lowering, g: Value, x: Value, threshold: float) -> Value:
    if threshold != 0:
        raise Unsupported(f"a threshold of {threshold:g}")
    return low.map("threshold_backward", g, x)


@_rule("huber_loss")
def _huber(low: Lowering, x: Value, y: Value, reduction: int = 1, delta: float = 1.0) -> Value:
    if reduction != 0:
        raise Unsupported("a reduced Huber loss")
    d = low.map("abs", low.map("sub", x, y))
    square = low.map("mul", low.map("mul", d, d), 0.5)
    line = low.map("mul", low.map("sub", d, 0.5 * delta), delta)
    return low.map("where", low.map("le", d, delta), square, line)


@_rule("huber_loss_backward")
def _huber_backward(low: Lowering, g: Value, x: Value, y: Value, reduction: int, delta: float) -> Value:
    if reduction != 0:
        raise Unsupported("a reduced Huber loss")
    return low.map("mul", _clamp(low, low.map("sub", x, y), -delta, delta), g)


# ---- types and constants


@_rule("_to_copy", "to")
def _to_copy(low: Lowering, x: Value, dtype: torch.dtype | None = None, **kwargs: Any) -> Value:
    val = low.val(0)
    if dtype == torch.bool and val.dtype != torch.bool:
        return low.map("truth", x)
    whole = dtype is not None and not dtype.is_floating_point
    return low.map("trunc" if whole and val.dtype.is_floating_point else "copy", x)


@_rule("bitwise_not")
def _not(low: Lowering, x: Value) -> Value:
    if low.val(0).dtype != torch.bool:
        raise Unsupported("the complement of integers")
    return low.map("not", x)


@_rule("empty_like")
def _empty_like(low: Lowering, x: Value, **kwargs: Any) -> Value:
    return low.new(x.shape)


@_rule("fill_")
def _fill(low: Lowering, x: Value, value: Operand) -> Value:
    return low.map("copy", value, out=x)


@_rule("full_like")
def _full_like(low: Lowering, x: Value, value: float, **kwargs: Any) -> Value:
    return low.constant(value, x.shape)


@_rule("new_full")
def _new_full(low: Lowering, x: Value, shape: Sequence[int], value: float, **kwargs: Any) -> Value:
    return low.constant(value, shape)


for _name, _number in (("zeros", 0.0), ("ones", 1.0)):
    RULES[f"{_name}_like"] = lambda low, x, _n=_number, **kwargs: low.constant(_n, x.shape)
    RULES[f"new_{_name}"] = lambda low, x, shape, _n=_number, **kwargs: low.constant(_n, shape)


# ---- reductions


def _dims(x: Value, dim: Any) -> list[int]:
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(x.layout.dim()))
    return [dim] if isinstance(dim, int) else list(dim)


@_rule("sum")
def _sum(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return low.over("total", x, _dims(x, dim), keepdim)


@_rule("mean")
def _mean(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    dims = _dims(x, dim)
    count = math.prod(x.shape[d] for d in dims)
    return low.map("div", low.over("total", x, dims, keepdim, last=False), float(count))


@_rule("dot")
def _dot(low: Lowering, x: Value, y: Value) -> Value:
    return low.over("total", low.map("mul", x, y), [0], False)


@_rule("amax", "amin", "argmax")
def _best(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    assert low.node is not None
    return low.over(called(low.node), x, _dims(x, dim), keepdim)


@_rule("_log_softmax", "_softmax")
def _softmax(low: Lowering, x: Value, dim: int, half: bool) -> Value:
    assert low.node is not None
    return low.along(called(low.node).removeprefix("_"), dim, x)


@_rule("_log_softmax_backward_data", "_softmax_backward_data")
def _softmax_backward(low: Lowering, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    assert low.node is not None
    return low.along(called(low.node).removeprefix("_").removesuffix("_data"), dim, g, y)


@_rule("cumsum")
def _cumsum(low: Lowering, x: Value, dim: int) -> Value:
    return low.along("cumsum", dim, x)


# ---- products of matrices


@_rule("mm")
def _mm(low: Lowering, a: Value, b: Value) -> Value:
    return _product(low, a, b, Value(ZEROS, lay([1, b.shape[1]], [0, 1])))


@_rule("addmm")
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


@_rule("index_select")
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


@_rule("index")
def _index(low: Lowering, x: Value, indices: Sequence[Value | None]) -> Any:
    given = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    node: Any = low.node
    if len(given) != 1 or any(i is not None and i.meta["val"].dtype == torch.bool for i in node.args[1]):
        raise Unsupported("an index of several tensors, or by truth")
    dim, index = given[0]
    return _index_select(low, x, dim, index)


@_rule("embedding")
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


@_rule("gather")
def _gather(low: Lowering, x: Value, dim: int, index: Value, sparse_grad: bool = False) -> Value:
    out = low.new(index.shape)
    _beside(low, "gather", dim, index.shape, x.shape[dim], out, x, index)
    return out


@_rule("scatter_add")
def _scatter_add(low: Lowering, x: Value, dim: int, index: Value, source: Value) -> Value:
    out = low.copy(x)
    _beside(low, "scatter", dim, index.shape, x.shape[dim], out, index, source)
    return out


@_rule("cat")
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


@_rule("stack")
def _stack(low: Lowering, parts: Sequence[Value], dim: int = 0) -> Any:
    return _cat(low, [p.like(p.layout.unsqueeze(dim)) for p in parts], dim)
