"""The operators of ONNX (opset 20) that exported policies use, in NumPy.

`OPERATORS[name](attributes, constants)` makes the function of one node. constants: of every input its value, where that
is known before any observation comes, else None. The function takes all inputs of the node; what only says a shape or
an axis (`STRUCTURAL`) must be known, or follow from the number of lanes alone, so that no observation decides how much
memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlkit.deploy.graph import TYPES, GraphError, Tensor

Function = Callable[..., Any]
Attributes = dict[str, Any]
Constants = Sequence[Tensor | None]
Builder = Callable[[Attributes, Constants], Function]

STRUCTURAL = {  # op -> the inputs that say a shape or an axis
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Range": (0, 1, 2), "ConstantOfShape": (0,), "Pad": (1, 3),
    "Tile": (1,), "Unsqueeze": (1,), "Squeeze": (1,), "Split": (1,), "CumSum": (1,), "ReduceSum": (1,),
    "ReduceMean": (1,), "ReduceMax": (1,), "ReduceMin": (1,), "ReduceProd": (1,), "ReduceL2": (1,),
    "ReduceSumSquare": (1,),
}  # fmt: skip


def _fixed(function: Function) -> Builder:
    """An operator without attributes."""
    return lambda attributes, constants: function


def sigmoid(x: Tensor) -> Tensor:
    """(1 + tanh(x / 2)) / 2, which does not overflow."""
    y = np.tanh(x * 0.5)
    y += 1.0
    y *= 0.5
    return y


def erf(x: Tensor) -> Tensor:
    return np.array([math.erf(each) for each in x.ravel().tolist()], x.dtype).reshape(x.shape)


def _softplus(x: Tensor) -> Tensor:
    return np.logaddexp(x, x.dtype.type(0))  # type: ignore[no-any-return]


def _many(function: Function) -> Builder:
    """A function of two, for any number of inputs."""

    def apply(*inputs: Tensor) -> Tensor:
        found = inputs[0]
        for each in inputs[1:]:
            found = function(found, each)
        return found

    return lambda attributes, constants: function if len(constants) == 2 else apply


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.kind == "f":
        return a / b
    return np.trunc(a / b).astype(a.dtype)


def _clip(attributes: Attributes, constants: Constants) -> Function:
    def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is not None:
            x = np.maximum(x, low)
        return x if high is None else np.minimum(x, high)

    return clip


def _cast(attributes: Attributes, constants: Constants) -> Function:
    code = attributes.get("to")
    if code not in TYPES:
        raise GraphError(f"policy.onnx: a cast to type {code}; allowed: {', '.join(TYPES.values())}")
    dtype = np.dtype(TYPES[code])
    return lambda x: x.astype(dtype)


def _reshape(attributes: Attributes, constants: Constants) -> Function:
    def reshape(x: Tensor, shape: Tensor) -> Tensor:
        sizes = shape.tolist()
        if not attributes.get("allowzero"):
            sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    known = constants[1].tolist() if constants[1] is not None else [0]
    return reshape if 0 in known else lambda x, shape: x.reshape(known)


def _axes(attributes: Attributes, constants: Constants) -> tuple[int, ...] | None:
    """The axes of an operator whose second input names them."""
    if len(constants) > 1 and constants[1] is not None:
        return tuple(int(axis) for axis in constants[1].ravel())
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _unsqueeze(attributes: Attributes, constants: Constants) -> Function:
    axes = _axes(attributes, constants) or ()
    places: dict[int, tuple[slice | None, ...]] = {}  # the index that adds the axes, by rank

    def unsqueeze(x: Tensor, _: Tensor | None = None) -> Tensor:
        if x.ndim not in places:
            rank = x.ndim + len(axes)
            new = {axis % rank if -rank <= axis < rank else -1 for axis in axes}
            if -1 in new or len(new) != len(axes):
                raise ValueError(f"no axes {axes} in {rank}")
            places[x.ndim] = tuple(None if axis in new else slice(None) for axis in range(rank))
        return x[places[x.ndim]]

    return unsqueeze


def _squeeze(attributes: Attributes, constants: Constants) -> Function:
    axes = _axes(attributes, constants)
    return lambda x, _=None: x.squeeze(axes)


def _reduce(function: Function) -> Builder:
    def build(attributes: Attributes, constants: Constants) -> Function:
        axes, keep = _axes(attributes, constants), bool(attributes.get("keepdims", 1))
        if not axes and attributes.get("noop_with_empty_axes"):
            return lambda x, _=None: x
        return lambda x, _=None: np.asarray(function(x, axis=axes or None, keepdims=keep), x.dtype)

    return build


def _arg(function: Function) -> Builder:
    def build(attributes: Attributes, constants: Constants) -> Function:
        axis, keep = int(attributes.get("axis", 0)), bool(attributes.get("keepdims", 1))
        if attributes.get("select_last_index"):
            raise GraphError("policy.onnx: select_last_index is not read")
        return lambda x: (
            np.asarray(function(x, axis, None, keepdims=keep), np.int64) if keep else function(x, axis)
        )

    return build


def _softmax(attributes: Attributes, constants: Constants) -> Function:
    axis = int(attributes.get("axis", -1))

    def softmax(x: Tensor) -> Tensor:
        y = np.exp(x - x.max(axis, keepdims=True))
        y /= y.sum(axis, keepdims=True)
        return y  # type: ignore[no-any-return]

    return softmax


def _log_softmax(attributes: Attributes, constants: Constants) -> Function:
    axis = int(attributes.get("axis", -1))

    def log_softmax(x: Tensor) -> Tensor:
        y = x - x.max(axis, keepdims=True)
        y -= np.log(np.exp(y).sum(axis, keepdims=True))
        return y  # type: ignore[no-any-return]

    return log_softmax


def _matmul(attributes: Attributes, constants: Constants) -> Function:
    def matmul(a: Tensor, b: Tensor) -> Tensor:
        if a.ndim > 2 and b.ndim == 2:  # rows of one matrix: several times as fast
            rows: Tensor = a.reshape(-1, a.shape[-1]).dot(b)
            return rows.reshape(*a.shape[:-1], b.shape[1])
        product: Tensor = a.dot(b) if b.ndim <= 2 else np.matmul(a, b)
        return product

    return matmul


def _gemm(attributes: Attributes, constants: Constants) -> Function:
    alpha, beta = np.float32(attributes.get("alpha", 1.0)), np.float32(attributes.get("beta", 1.0))
    across, down = bool(attributes.get("transA")), bool(attributes.get("transB"))
    weight = np.zeros(0) if constants[1] is None else constants[1].T if down else constants[1]
    plain = alpha == 1 and beta == 1 and not across and constants[1] is not None

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        y = (a.T if across else a).dot(b.T if down else b)
        if alpha != 1:
            y *= alpha
        return y if c is None else y + beta * c  # type: ignore[no-any-return]

    def linear(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        y = a.dot(weight)
        if c is not None:
            y += c
        return y  # type: ignore[no-any-return]

    return linear if plain else gemm


def _concat(attributes: Attributes, constants: Constants) -> Function:
    axis = int(attributes["axis"])
    return lambda *inputs: np.concatenate(inputs, axis)


def _split(attributes: Attributes, constants: Constants) -> Function:
    axis, said = int(attributes.get("axis", 0)), len(constants) > 1 and constants[1] is not None
    sizes = constants[1].ravel().tolist() if said and constants[1] is not None else []
    cuts: dict[tuple[int, int], list[tuple[slice, ...]]] = {}  # by rank and length

    def split(x: Tensor, _: Tensor | None = None) -> tuple[Tensor, ...]:
        key = (x.ndim, x.shape[axis])
        if key not in cuts:
            count = len(sizes) or int(attributes["num_outputs"])
            even = -(-key[1] // count)
            ends = np.cumsum(sizes or [even] * count).clip(max=key[1]).tolist()
            if sum(sizes or [key[1]]) != key[1] or min(sizes or [even]) < 0:
                raise ValueError(f"pieces of {sizes} of {key[1]}")
            before = (slice(None),) * (axis % x.ndim)
            cuts[key] = [(*before, slice(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
        return tuple([x[cut] for cut in cuts[key]])

    return split


def _slice(attributes: Attributes, constants: Constants) -> Function:
    def places(rank: int, starts: Tensor, ends: Tensor, axes: Any, steps: Any) -> tuple[slice, ...]:
        found = [slice(None)] * rank
        which = range(len(starts)) if axes is None else axes.tolist()
        strides = [1] * len(starts) if steps is None else steps.tolist()
        for start, end, axis, step in zip(starts.tolist(), ends.tolist(), which, strides, strict=True):
            # backwards to the first one
            found[axis] = slice(start, None if step < 0 and end < -(2**31) else end, step)
        return tuple(found)

    def cut(x: Tensor, starts: Tensor, ends: Tensor, axes: Any = None, steps: Any = None) -> Tensor:
        return x[places(x.ndim, starts, ends, axes, steps)]

    if len(constants) < 3 or any(each is None for each in constants[1:3]):
        return cut
    if any(each is None for each in constants[3:]):  # left out, or not known
        return cut
    known: dict[int, tuple[slice, ...]] = {}

    def fixed(x: Tensor, starts: Tensor, ends: Tensor, axes: Any = None, steps: Any = None) -> Tensor:
        if x.ndim not in known:
            known[x.ndim] = places(x.ndim, starts, ends, axes, steps)
        return x[known[x.ndim]]

    return fixed


def _gather(attributes: Attributes, constants: Constants) -> Function:
    axis, index = int(attributes.get("axis", 0)), constants[1]
    if index is not None and index.ndim == 0 and axis == 0:
        place = int(index)
        return lambda x, _: x[place]
    return lambda x, index: np.take(x, index, axis)


def _gather_elements(attributes: Attributes, constants: Constants) -> Function:
    axis = int(attributes.get("axis", 0))

    def gather(x: Tensor, index: Tensor) -> Tensor:
        own = axis % x.ndim
        part = tuple(slice(None) if i == own else slice(size) for i, size in enumerate(index.shape))
        return np.take_along_axis(x[part], index, own)

    return gather


def _gather_nd(attributes: Attributes, constants: Constants) -> Function:
    if attributes.get("batch_dims"):
        raise GraphError("policy.onnx: GatherND with batch_dims is not read")
    return lambda x, index: x[tuple(np.moveaxis(index, -1, 0))]


def _transpose(attributes: Attributes, constants: Constants) -> Function:
    order = attributes.get("perm")
    return lambda x: x.transpose(order)


def _flatten(attributes: Attributes, constants: Constants) -> Function:
    axis = int(attributes.get("axis", 1))
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _constant(attributes: Attributes, constants: Constants) -> Function:
    for name, dtype in (("value", None), ("value_float", "float32"), ("value_int", "int64")):
        if name in attributes:
            value = np.asarray(attributes[name], dtype)
            return lambda: value
    for name, dtype in (("value_floats", "float32"), ("value_ints", "int64")):
        if name in attributes:
            value = np.asarray(attributes[name], dtype)
            return lambda: value
    raise GraphError(f"policy.onnx: a constant of {', '.join(attributes)}")


def _filled(attributes: Attributes, constants: Constants) -> Function:
    value = np.asarray(attributes.get("value", np.zeros(1, np.float32))).ravel()
    return lambda shape: np.full(shape.tolist(), value[0], value.dtype)


def _cumsum(attributes: Attributes, constants: Constants) -> Function:
    if attributes.get("exclusive") or attributes.get("reverse") or constants[1] is None:
        raise GraphError(
            "policy.onnx: CumSum backwards, exclusive or along an axis that is not known is not read"
        )
    axis = int(constants[1].ravel()[0])
    return lambda x, _: np.cumsum(x, axis, dtype=x.dtype)


def _pad(attributes: Attributes, constants: Constants) -> Function:
    if attributes.get("mode", "constant") not in ("constant", "edge", "reflect"):
        raise GraphError(f"policy.onnx: padding of mode {str(attributes['mode'])[:20]}")

    def pad(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        which = list(range(x.ndim)) if axes is None else axes.tolist()
        widths = [(0, 0)] * x.ndim
        for axis, before, after in zip(which, pads[: len(which)], pads[len(which) :], strict=True):
            widths[axis] = (int(before), int(after))
        mode: Any = attributes.get("mode", "constant")
        if mode != "constant":
            return np.pad(x, widths, mode)
        return np.pad(x, widths, constant_values=0 if value is None else value.item())

    return pad


def _leaky(attributes: Attributes, constants: Constants) -> Function:
    slope = np.float32(attributes.get("alpha", 0.01))
    return lambda x: np.where(x < 0, slope * x, x)


def _shape(attributes: Attributes, constants: Constants) -> Function:
    part = slice(attributes.get("start", 0), attributes.get("end"))
    return lambda x: np.array(x.shape[part], np.int64)


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return np.tile(x, repeats.tolist())


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))


OPERATORS: dict[str, Builder] = {
    "Identity": _fixed(lambda x: x), "Neg": _fixed(np.negative), "Abs": _fixed(np.abs), "Exp": _fixed(np.exp),
    "Log": _fixed(np.log), "Sqrt": _fixed(np.sqrt), "Tanh": _fixed(np.tanh), "Atanh": _fixed(np.arctanh),
    "Sigmoid": _fixed(sigmoid), "Relu": _fixed(lambda x: np.maximum(x, 0)), "Erf": _fixed(erf),
    "Softplus": _fixed(_softplus), "Not": _fixed(np.logical_not), "Floor": _fixed(np.floor), "Ceil": _fixed(np.ceil),
    "Round": _fixed(np.rint), "Sign": _fixed(np.sign), "Reciprocal": _fixed(np.reciprocal), "IsNaN": _fixed(np.isnan),
    "Sin": _fixed(np.sin), "Cos": _fixed(np.cos), "Add": _fixed(np.add), "Sub": _fixed(np.subtract),
    "Mul": _fixed(np.multiply), "Div": _fixed(_divide), "Pow": _fixed(lambda a, b: np.power(a, b.astype(a.dtype))),
    "Max": _many(np.maximum), "Min": _many(np.minimum), "Sum": _many(np.add), "Greater": _fixed(np.greater),
    "Less": _fixed(np.less), "GreaterOrEqual": _fixed(np.greater_equal), "LessOrEqual": _fixed(np.less_equal),
    "Equal": _fixed(np.equal), "And": _fixed(np.logical_and), "Or": _fixed(np.logical_or),
    "Xor": _fixed(np.logical_xor), "Mod": _fixed(np.mod), "Where": _fixed(np.where), "Clip": _clip, "Cast": _cast,
    "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose,
    "Expand": _fixed(_expand), "Tile": _fixed(_tile), "Range": _fixed(_range), "ConstantOfShape": _filled,
    "Shape": _shape, "Size": _fixed(lambda x: np.array(x.size, np.int64)),
    "Constant": _constant, "MatMul": _matmul, "Gemm": _gemm, "Softmax": _softmax, "LogSoftmax": _log_softmax,
    "ReduceSum": _reduce(np.add.reduce), "ReduceMean": _reduce(np.mean), "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min), "ReduceProd": _reduce(np.prod), "ArgMax": _arg(np.ndarray.argmax),
    "ArgMin": _arg(np.ndarray.argmin),
    "ReduceL2": _reduce(lambda x, **k: np.sqrt(np.add.reduce(x * x, **k))),
    "ReduceSumSquare": _reduce(lambda x, **k: np.add.reduce(x * x, **k)), "CumSum": _cumsum, "Pad": _pad,
    "LeakyRelu": _leaky,
}  # fmt: skip
