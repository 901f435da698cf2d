"""Operations of torch that are more than one kernel, or that are more than a function of numbers with the same place.

RULES has them by name. Each is given the lowering and torch's arguments, in which tensors are values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch

from rlkit.engine.layout import Unsupported, Value, called

if TYPE_CHECKING:
    from rlkit.engine.lower import Lowering

Operand: TypeAlias = Value | float | int | bool
RULES: dict[str, Callable[..., Any]] = {}
F = TypeVar("F", bound=Callable[..., Any])


def rule(*names: str) -> Callable[[F], F]:
    """Register the function for operations of these names."""

    def keep(function: F) -> F:
        RULES.update(dict.fromkeys(names, function))
        return function

    return keep


# ---- arithmetic


@rule("add")
def _add(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("add", x, y if alpha == 1 else low.map("mul", y, alpha, last=False))


@rule("sub")
def _sub(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("sub", x, y if alpha == 1 else low.map("mul", y, alpha, last=False))


@rule("rsub")
def _rsub(low: Lowering, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return low.map("sub", y, x if alpha == 1 else low.map("mul", x, alpha, last=False))


@rule("div")
def _div(low: Lowering, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    quotient = low.map("div", x, y)
    return quotient if rounding_mode is None else low.map(rounding_mode, quotient)


@rule("floor_divide")
def _floor_divide(low: Lowering, x: Operand, y: Operand) -> Value:
    return low.map("floor", low.map("div", x, y))


@rule("remainder")
def _remainder(low: Lowering, x: Operand, y: Operand) -> Value:
    # x - floor(x / y) y
    return low.map("sub", x, low.map("mul", _floor_divide(low, x, y), y))


@rule("pow")
def _pow(low: Lowering, x: Operand, y: Operand) -> Value:
    if y == 1:
        return low.map("copy", x)
    return low.map("mul", x, x) if y == 2 else low.map("pow", x, y)


@rule("square")
def _square(low: Lowering, x: Value) -> Value:
    return low.map("mul", x, x)


@rule("reciprocal")
def _reciprocal(low: Lowering, x: Value) -> Value:
    return low.map("div", 1.0, x)


@rule("rsqrt")
def _rsqrt(low: Lowering, x: Value) -> Value:
    return low.map("div", 1.0, low.map("sqrt", x))


@rule("addcmul")
def _addcmul(low: Lowering, x: Value, y: Value, z: Value, value: float = 1) -> Value:
    return low.map("addcmul", x, y if value == 1 else low.map("mul", y, value), z)


@rule("clamp")
def _clamp(low: Lowering, x: Value, low_: Operand | None = None, high: Operand | None = None) -> Value:
    x = x if low_ is None else low.map("maximum", x, low_)
    return x if high is None else low.map("minimum", x, high)


@rule("masked_fill", "masked_fill_")
def _masked_fill(low: Lowering, x: Value, mask: Value, value: Operand) -> Value:
    # in place, as the traced graph says by the operation's last underscore
    there = low.node is not None and called(low.node).endswith("_")
    return low.map("where", mask, value, x, out=x if there else None)


@rule("silu")
def _silu(low: Lowering, x: Value) -> Value:
    return low.map("mul", x, low.map("sigmoid", x))


@rule("silu_backward")
def _silu_backward(low: Lowering, g: Value, x: Value) -> Value:
    # d x s(x) / dx = s (1 + x (1 - s))
    s = low.map("sigmoid", x)
    slope = low.map("mul", s, low.map("add", 1.0, low.map("mul", x, low.map("sub", 1.0, s))))
    return low.map("mul", g, slope)


@rule("gelu")
def _gelu(low: Lowering, x: Value, approximate: str = "none") -> Value:
    return low.map("mul", x, _normal_cdf(low, x, approximate))


@rule("gelu_backward")
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


@rule("softplus")
def _softplus(low: Lowering, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = low.map("mul", x, beta)
    soft = low.map("div", low.map("log1p", low.map("exp", scaled)), beta)
    return low.map("where", low.map("gt", scaled, threshold), x, soft)


@rule("softplus_backward")
def _softplus_backward(low: Lowering, g: Value, x: Value, beta: float, threshold: float) -> Value:
    scaled = low.map("mul", x, beta)
    slope = low.map("mul", g, low.map("sigmoid", scaled))
    return low.map("where", low.map("gt", scaled, threshold), g, slope)


@rule("threshold_backward")
def _threshold_backward(low: Lowering, g: Value, x: Value, threshold: float) -> Value:
    if threshold != 0:
        raise Unsupported(f"a threshold of {threshold:g}")
    return low.map("threshold_backward", g, x)


@rule("huber_loss")
def _huber(low: Lowering, x: Value, y: Value, reduction: int = 1, delta: float = 1.0) -> Value:
    if reduction != 0:
        raise Unsupported("a reduced Huber loss")
    d = low.map("abs", low.map("sub", x, y))
    square = low.map("mul", low.map("mul", d, d), 0.5)
    line = low.map("mul", low.map("sub", d, 0.5 * delta), delta)
    return low.map("where", low.map("le", d, delta), square, line)


@rule("huber_loss_backward")
def _huber_backward(low: Lowering, g: Value, x: Value, y: Value, reduction: int, delta: float) -> Value:
    if reduction != 0:
        raise Unsupported("a reduced Huber loss")
    return low.map("mul", _clamp(low, low.map("sub", x, y), -delta, delta), g)


# ---- types and constants


@rule("_to_copy", "to")
def _to_copy(low: Lowering, x: Value, dtype: torch.dtype | None = None, **kwargs: Any) -> Value:
    val = low.val(0)
    if dtype == torch.bool and val.dtype != torch.bool:
        return low.map("truth", x)
    whole = dtype is not None and not dtype.is_floating_point
    return low.map("trunc" if whole and val.dtype.is_floating_point else "copy", x)


@rule("bitwise_not")
def _not(low: Lowering, x: Value) -> Value:
    if low.val(0).dtype != torch.bool:
        raise Unsupported("the complement of integers")
    return low.map("not", x)


@rule("empty_like")
def _empty_like(low: Lowering, x: Value, **kwargs: Any) -> Value:
    return low.new(x.shape)


@rule("fill_")
def _fill(low: Lowering, x: Value, value: Operand) -> Value:
    return low.map("copy", value, out=x)


@rule("full_like")
def _full_like(low: Lowering, x: Value, value: float, **kwargs: Any) -> Value:
    return low.constant(value, x.shape)


@rule("new_full")
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


@rule("sum")
def _sum(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return low.over("total", x, _dims(x, dim), keepdim)


@rule("mean")
def _mean(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    dims = _dims(x, dim)
    count = math.prod(x.shape[d] for d in dims)
    return low.map("div", low.over("total", x, dims, keepdim, last=False), float(count))


@rule("dot")
def _dot(low: Lowering, x: Value, y: Value) -> Value:
    return low.over("total", low.map("mul", x, y), [0], False)


@rule("amax", "amin", "argmax")
def _best(low: Lowering, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    assert low.node is not None
    return low.over(called(low.node), x, _dims(x, dim), keepdim)


@rule("_log_softmax", "_softmax")
def _softmax(low: Lowering, x: Value, dim: int, half: bool) -> Value:
    assert low.node is not None
    return low.along(called(low.node).removeprefix("_"), dim, x)


@rule("_log_softmax_backward_data", "_softmax_backward_data")
def _softmax_backward(low: Lowering, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    assert low.node is not None
    return low.along(called(low.node).removeprefix("_").removesuffix("_data"), dim, g, y)


@rule("cumsum")
def _cumsum(low: Lowering, x: Value, dim: int) -> Value:
    return low.along("cumsum", dim, x)
