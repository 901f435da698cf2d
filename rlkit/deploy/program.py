"""A graph as a function of arrays.

The operations become one Python function, a line each, whose names are numbers: nothing of a file becomes code. What
depends on no input is computed once. Before the first call with a number of lanes, `check` runs the operations one by
one and refuses what would take more memory or work than a policy does; shapes follow from the number of lanes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rlkit.deploy.graph import LARGEST, Graph, GraphError, Node, Tensor
from rlkit.deploy.layers import Windows
from rlkit.deploy.operators import OPERATORS, STRUCTURAL, Function

BY_LANES = (
    "Reshape",
    "Expand",
    "Slice",
    "Range",
    "ConstantOfShape",
    "Pad",
    "Tile",
)  # whose shapes may follow from them
MOST = 8 * LARGEST  # numbers of one value, however many lanes
WORK = 16 * LARGEST  # numbers that one row may compute on its way
PRODUCTS = 64  # multiplications of a matrix product that cost as much as one other number
FAULTS = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
)


class Program:
    """A graph that has been read, as a function. inputs, outputs: their order in calls. Raises GraphError."""

    def __init__(self, graph: Graph, inputs: list[str], outputs: list[str]) -> None:
        for what, given, wanted in (("reads", graph.inputs, inputs), ("computes", graph.outputs, outputs)):
            if sorted(given) != sorted(wanted):
                raise GraphError(
                    f"policy.onnx {what} {', '.join(map(repr, given[:9]))}; policy.json says {', '.join(wanted)}"
                )
        self.inputs, self.outputs = inputs, outputs
        self._known: dict[str, Tensor] = dict(graph.constants)
        self.fixed = set(self._known)  # values that no observation decides
        self._steps: list[tuple[Node, Function]] = []
        self._checked: set[int] = set()
        defined = {"", *inputs, *self._known}
        for node in graph.nodes:
            strange = [name for name in node.inputs if name not in defined]
            if strange or any(name in defined and name for name in node.outputs) or not any(node.outputs):
                raise GraphError(f"policy.onnx is damaged: the values around an operation {node.op[:40]!r}")
            defined.update(node.outputs)
            self._add(node)
        if any(name not in defined for name in outputs):
            raise GraphError("policy.onnx is damaged: an output that nothing computes")
        self.operators = sorted({node.op for node in graph.nodes})
        self._run = self._written()

    def __call__(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """The outputs. Raises GraphError where the graph does not work on these shapes."""
        if len(arrays[0]) not in self._checked:
            self.check(*arrays)
        try:
            with np.errstate(all="ignore"):
                return self._run(*arrays)  # type: ignore[no-any-return]
        except FAULTS as error:
            raise GraphError(f"policy.onnx does not work on this observation: {error}") from error

    def _add(self, node: Node) -> None:
        if node.op not in OPERATORS:
            raise GraphError(
                f"policy.onnx: the operator {node.op[:60]!r} is not one that rlkit's runtime computes (rlkit export "
                "--no-verify writes the graph for other programs)"
            )
        for place in STRUCTURAL.get(node.op, ()):
            name = node.inputs[place] if place < len(node.inputs) else ""
            if name and name not in (self.fixed if node.op in BY_LANES else self._known):
                raise GraphError(f"policy.onnx: a shape of {node.op} that depends on observations")
        constants = [self._known.get(name) for name in node.inputs]
        try:
            function = OPERATORS[node.op](node.attributes, constants)
            if all(name in self._known for name in node.inputs):
                _bound(node, constants, 1)
                self._fold(node, function, constants)
                return
        except GraphError:
            raise
        except FAULTS as error:
            raise GraphError(f"policy.onnx is damaged: {node.op}: {error}") from error
        if node.op in ("Shape", "Size") or all(not name or name in self.fixed for name in node.inputs):
            self.fixed.update(node.outputs)
        self._steps.append((node, function))

    def _fold(self, node: Node, function: Function, constants: list[Any]) -> None:
        """Compute what depends on constants alone."""
        with np.errstate(all="ignore"):
            found = function(*constants)
        for name, value in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            self._known[name] = np.asarray(value)
            self.fixed.add(name)

    def margin(self, *arrays: Tensor) -> float:
        """How close the nearest two numbers are between which an operation chooses."""
        nearest = [math.inf]
        self.check(*arrays, seen=lambda node, inputs: nearest.append(_gap(node, inputs)))
        return min(nearest)

    def check(
        self, *arrays: Tensor, seen: Callable[[Node, list[Any]], None] = lambda node, inputs: None
    ) -> tuple[Tensor, ...]:
        """The outputs, operation by operation, each looked at before it is computed. Raises GraphError.

        seen: hears of every operation and its inputs.
        """
        lanes, work = len(arrays[0]), 0
        values: dict[str, Any] = {"": None, **self._known, **dict(zip(self.inputs, arrays, strict=True))}
        last = self._last_uses()
        for number, (node, function) in enumerate(self._steps):
            inputs = [values[name] for name in node.inputs]
            try:
                seen(node, inputs)
                work += _bound(node, inputs, lanes)
                if work > WORK * lanes:
                    raise GraphError("policy.onnx computes more than a policy does")
                with np.errstate(all="ignore"):
                    found = function(*inputs)
            except GraphError:
                raise
            except FAULTS as error:
                raise GraphError(f"policy.onnx does not work on {lanes} lanes: {node.op}: {error}") from error
            for name, value in zip(
                node.outputs, found if isinstance(found, tuple) else (found,), strict=False
            ):
                values[name] = np.asarray(value)
            for name in last.get(number, ()):
                values[name] = None
        self._checked.add(lanes)
        return tuple(values[name] for name in self.outputs)

    def _last_uses(self) -> dict[int, list[str]]:
        """The values that nothing reads after step i."""
        last: dict[str, int] = {}
        for number, (node, _) in enumerate(self._steps):
            last.update(dict.fromkeys((*node.inputs, *node.outputs), number))
        kept = {"", *self.inputs, *self.outputs, *self._known}
        freed: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in kept:
                freed.setdefault(number, []).append(name)
        return freed

    def _written(self) -> Function:
        """The function of all steps."""
        names: dict[str, str] = {"": "None"}
        scope: dict[str, Any] = {"__builtins__": {}}
        for name, value in self._known.items():
            names[name] = f"c{len(names)}"
            scope[names[name]] = value
        for name in (*self.inputs, *(name for node, _ in self._steps for name in node.outputs if name)):
            names[name] = f"v{len(names)}"
        lines = [f"def run({', '.join(names[name] for name in self.inputs)}):"]
        last = self._last_uses()
        for number, (node, function) in enumerate(self._steps):
            scope[f"f{number}"] = function
            left = [names[name] if name else f"u{place}" for place, name in enumerate(node.outputs)]
            targets = left[0] if len(left) == 1 and node.op != "Split" else f"{', '.join(left)},"
            lines.append(f" {targets} = f{number}({', '.join(names[name] for name in node.inputs)})")
            freed = [names[name] for name in last.get(number, ())]
            if freed:
                lines.append(f" {' = '.join(freed)} = None")
        lines.append(f" return ({', '.join(names[name] for name in self.outputs)},)")
        exec("\n".join(lines), scope)
        return scope["run"]  # type: ignore[no-any-return]


def _gap(node: Node, inputs: list[Any]) -> float:
    """The distance of the two numbers between which an operation chooses; infinite where it does not choose."""
    if not inputs or inputs[0] is None or inputs[0].dtype.kind != "f":
        return math.inf
    if node.op in ("ArgMax", "ArgMin"):
        axis = int(node.attributes.get("axis", 0))
        best = np.sort(inputs[0] if node.op == "ArgMin" else -inputs[0], axis)
        return float(np.diff(best, axis=axis).take(0, axis).min()) if best.shape[axis] > 1 else math.inf
    if node.op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        return float(np.abs(inputs[0] - inputs[1]).min())
    return math.inf


def _bound(node: Node, inputs: list[Any], lanes: int) -> int:
    """An upper bound of the work of an operation that is not done yet. Raises GraphError for one that is too large."""
    made, products = _made(node, inputs)
    if made > min(LARGEST * lanes, MOST):
        raise GraphError(f"policy.onnx: an operation {node.op} that makes {made:,} numbers")
    return made * (32 if node.op in ("Erf", "Gelu") else 1) + products // PRODUCTS


def _made(node: Node, inputs: list[Any]) -> tuple[int, int]:
    """(numbers made, multiplications) at most."""
    shapes = [np.shape(each) for each in inputs if each is not None]
    sizes = [math.prod(shape) for shape in shapes]
    op = node.op
    if op == "Concat":
        return sum(sizes), 0
    if op in ("MatMul", "Gemm"):
        a, b = shapes[:2]
        if op == "Gemm":
            a = a[::-1] if node.attributes.get("transA") else a
            b = b[::-1] if node.attributes.get("transB") else b
        shape = (*np.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
        full = math.prod(np.broadcast_shapes(shape, *shapes[2:])) if op == "Gemm" else math.prod(shape)
        return full, math.prod(shape) * a[-1]
    if op == "Conv":
        out, inner, kh, kw = shapes[1]
        windows = Windows(node.attributes, (kh, kw))
        count = shapes[0][0] * math.prod(max(each, 0) for each in windows.size(shapes[0]))
        whole = sizes[0] // max(shapes[0][2] * shapes[0][3], 1) * (shapes[0][2] + sum(windows.pads[::2]))
        padded = whole * (shapes[0][3] + sum(windows.pads[1::2]))
        return count * (inner * kh * kw + out) + padded, count * out * inner * kh * kw
    if op in ("MaxPool", "AveragePool"):
        windows = Windows(node.attributes, tuple(node.attributes.get("kernel_shape") or ()))
        n, c, h, w = shapes[0]
        padded = n * c * (h + sum(windows.pads[::2])) * (w + sum(windows.pads[1::2]))
        return padded, padded * math.prod(windows.kernel)
    if op == "Gather":
        axis = int(node.attributes.get("axis", 0))
        return math.prod((*shapes[0][:axis], *shapes[0][axis:][1:], *shapes[1])), 0
    if op == "GatherND":
        return math.prod((*shapes[1][:-1], *shapes[0][shapes[1][-1] :])), 0
    if op == "Expand":
        return math.prod(np.broadcast_shapes(shapes[0], tuple(inputs[1].tolist()))), 0
    if op == "Tile":
        return sizes[0] * math.prod(max(each, 0) for each in inputs[1].tolist()), 0
    if op == "ConstantOfShape":
        return math.prod(max(each, 0) for each in inputs[0].tolist()), 0
    if op == "Range":
        start, limit, delta = (each.item() for each in inputs)
        return max(math.ceil((limit - start) / delta), 0), 0
    if op == "Pad":
        extra = [max(int(each), 0) for each in inputs[1].ravel()]
        return math.prod(size + sum(extra) for size in shapes[0]), 0
    if op == "BatchNormalization":
        return sizes[0] * sizes[1] if shapes[0][1:2] != shapes[1] else sizes[0], 0
    if op in STRUCTURAL or op in ("ArgMax", "ArgMin", "GatherElements", "Flatten", "Transpose"):
        return max(sizes[:2] if op == "GatherElements" else sizes[:1]), 0
    return math.prod(np.broadcast_shapes(*shapes)) if shapes else 1, 0
