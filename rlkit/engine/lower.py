"""A graph that torch has traced, as instructions for the kernels.

Views cost nothing: they are layouts of the same memory. What torch has many names for becomes few kernels. An operation
that is not here raises Unsupported, and the caller computes as it did without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from rlkit.engine import places  # noqa: F401, whose rules are registered when it is imported
from rlkit.engine.kernels import CHUNK
from rlkit.engine.layout import (
    CONSTANTS,
    INPUTS,
    WORK,
    Instruction,
    Room,
    Unsupported,
    Value,
    called,
    dense,
    lay,
    merged,
)
from rlkit.engine.rules import RULES, Operand
from rlkit.engine.scalars import NUMBERS

NAMES = {torch.int64: "int64", torch.int32: "int32", torch.uint8: "uint8", torch.bool: "bool"}
VIEWS = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select", "slice",
    "detach", "alias", "split", "split_with_sizes", "unbind", "chunk", "unfold", "diagonal", "narrow",
}  # fmt: skip
ALIKE = {  # names of torch's for a kernel
    "clamp_min": "maximum", "clamp_max": "minimum", "logical_and": "mul", "bitwise_and": "mul", "logical_or": "maximum",
    "bitwise_or": "maximum", "logical_not": "not", "clone": "copy", "lift_fresh_copy": "copy",
    "true_divide": "div",
}  # fmt: skip


class Lowering:
    """Instructions, constants and rooms, while a graph is read from its first operation to its last."""

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
        self.graph = graph
        self.instructions: list[Instruction] = []
        self.constants: dict[float, int] = {}
        self.zeros = 1  # how many zeros lie behind one another
        self.rooms: list[Room] = []
        self.fixed: list[Tensor] = []  # tensors that the graph holds itself: inputs behind the others
        self.inputs = list(inputs)
        self.node: fx.Node | None = None
        self.values: dict[fx.Node, Any] = {}
        self.outputs: list[tuple[torch.Size, torch.dtype]] = []
        self._placed: dict[fx.Node, Value] = {}
        self._run()

    # ---- memory

    def room(self, numbers: int) -> Room:
        """Memory for so many float32 numbers."""
        self.rooms.append(Room(max(numbers, 1) * 4))
        return self.rooms[-1]

    def new(self, shape: Sequence[int], last: bool = False) -> Value:
        """A tensor to be computed; last: it is what the present operation returns."""
        if last and self.node in self._placed:
            return self._placed[self.node]
        return Value(WORK, dense(shape), self.room(math.prod(shape)))

    def constant(self, x: float, shape: Sequence[int] = ()) -> Value:
        """A number, as often as a shape says."""
        at = self.constants.setdefault(float(x), len(self.constants))
        return Value(CONSTANTS, lay(shape, [0] * len(shape), at))

    def operand(self, x: Operand) -> Value:
        """A tensor, or a number as one."""
        return x if isinstance(x, Value) else self.constant(float(x))

    def val(self, number: int) -> Tensor:
        """What torch said of the present operation's argument of that number when it traced the graph."""
        assert self.node is not None
        argument: Any = self.node.args[number]
        return torch.as_tensor(argument.meta["val"] if isinstance(argument, fx.Node) else argument)

    # ---- instructions

    def emit(
        self,
        kernel: str,
        sizes: Sequence[int],
        operands: Sequence[tuple[Value, Sequence[int]]],
        extra: int = 0,
        spare: Room | None = None,
    ) -> None:
        """Append one instruction, unless it has nothing to do."""
        if 0 in sizes:
            return
        rooms = [value.room for value, _ in operands] + [spare]
        for room in rooms:
            if room is not None:
                room.used(len(self.instructions))
        self.instructions.append(Instruction(kernel, sizes, operands, extra, spare))

    def map(self, kernel: str, *inputs: Operand, out: Value | None = None, last: bool = True) -> Value:
        """The kernel's function of every number of tensors of broadcast shapes."""
        values = [self.operand(x) for x in inputs]
        if out is not None and out.part in (CONSTANTS, *range(INPUTS, INPUTS + len(self.inputs))):
            raise Unsupported("a change of what it is given")
        if out is None:
            out = self.new(np.broadcast_shapes(*(tuple(v.shape) for v in values)), last)
        shape = out.shape
        strides = [out.strides, *(v.layout.expand(shape).stride() for v in values)]
        sizes, steps = merged(shape, strides, 4)
        spare = self.room(3 * CHUNK) if any(step[-1] == 0 for step in steps) else None
        self.emit(kernel, sizes, list(zip([out, *values], steps, strict=True)), spare=spare)
        return out

    def copy(self, x: Value) -> Value:
        """A contiguous copy."""
        return self.map("copy", x, last=False)

    def contiguous(self, x: Value) -> Value:
        """A tensor in its usual order."""
        return x if x.layout.is_contiguous() else self.copy(x)

    def over(self, kernel: str, x: Value, dims: Sequence[int], keep: bool, last: bool = True) -> Value:
        """A kernel that takes the axes `dims` away (with `keep` one number of each is left)."""
        rank = x.layout.dim()
        gone = {d % rank for d in dims} if rank else set()
        kept = [d for d in range(rank) if d not in gone]
        out = self.new([x.shape[d] for d in kept], last)
        out = out.like(dense([x.shape[d] for d in kept], out.offset))  # without axes of one number
        sizes, steps = merged(out.shape, [out.strides, [x.strides[d] for d in kept]], 2)
        inner, (within,) = merged(
            [x.shape[d] for d in sorted(gone)], [[x.strides[d] for d in sorted(gone)]], 2
        )
        self.emit(kernel, [*sizes, *inner], [(out, [*steps[0], 0, 0]), (x, [*steps[1], *within])])
        if keep:
            shape, steps_ = [1 if d in gone else n for d, n in enumerate(x.shape)], _kept(out, gone, rank)
            return out.like(lay(shape, steps_, out.offset))
        return out

    def along(self, kernel: str, dim: int, *inputs: Value) -> Value:
        """A kernel of rows along the axis `dim`; the first input has the result's shape."""
        rank = inputs[0].layout.dim()
        out = self.new(inputs[0].shape, True)
        turned = (
            [v.layout.movedim(dim, -1) for v in (out, *inputs)]
            if rank
            else [lay([1], [1])] * (len(inputs) + 1)
        )
        sizes, steps = merged(turned[0].shape[:-1], [t.stride()[:-1] for t in turned], 3)
        rows = [[*step, t.stride(-1)] for step, t in zip(steps, turned, strict=True)]
        self.emit(kernel, [*sizes, turned[0].shape[-1]], list(zip([out, *inputs], rows, strict=True)))
        return out

    # ---- the graph

    def _run(self) -> None:
        nodes = list(self.graph.graph.nodes)
        self._place(nodes[-1])
        holders = iter(range(len(self.inputs)))
        for self.node in nodes:
            if self.node.op == "placeholder":
                self.values[self.node] = next(holders)  # read when it is first used
            elif self.node.op == "get_attr":
                self.fixed.append(getattr(self.graph, str(self.node.target)))
                self.values[self.node] = len(self.inputs) + len(self.fixed) - 1
            elif self.node.op == "call_function":
                self.values[self.node] = self._operation(self.node)
            else:
                self._return(self.node.args[0])

    def _place(self, end: fx.Node) -> None:
        """Let pieces of a concatenated result (the flat gradient) be computed where they end up."""
        outputs: Any = end.args[0]
        for number, node in enumerate(outputs):
            if not isinstance(node, fx.Node) or called(node) != "cat" or node.meta["val"].dim() != 1:
                continue
            begin = 0
            whole = Value(-1 - number, dense(node.meta["val"].shape))
            self._placed[node] = whole
            pieces: Any = node.args[0]
            for piece in pieces:
                source, chain = piece, []
                while called(source) in VIEWS:
                    chain.append(source)
                    source = source.args[0]
                shape = source.meta["val"].shape
                there = dense(shape, begin)
                for view in reversed(chain):
                    there = view.target(there, *view.args[1:], **view.kwargs)
                size = math.prod(shape)
                if (
                    called(source) in ("mm", "sum")
                    and source not in self._placed
                    and there.shape == (size,)
                    and there.is_contiguous()
                    and there.storage_offset() == begin
                ):
                    self._placed[source] = Value(whole.part, dense(shape, begin))
                begin += piece.meta["val"].numel()

    def _value(self, node: fx.Node) -> Any:
        """The value of an operation before, or an input, which becomes float32 where it is not."""
        found = self.values[node]
        if isinstance(found, int):
            number, x = found, [*self.inputs, *self.fixed][found]
            part = INPUTS + number
            if x.dtype == torch.float32:
                found = Value(part, lay(x.shape, x.stride()))
            elif x.dtype in NAMES:
                found = Value(WORK, dense(x.shape), self.room(x.numel()))
                given = Value(part, dense(x.shape))
                self.emit(
                    f"read {NAMES[x.dtype]}",
                    [1, 1, 1, x.numel()],
                    [(found, [0, 0, 0, 1]), (given, [0, 0, 0, 1])],
                )
            else:
                raise Unsupported(f"numbers of type {str(x.dtype).removeprefix('torch.')}")
            self.values[node] = found
        return found

    def _operation(self, node: fx.Node) -> Any:
        val = node.meta.get("val")
        if isinstance(val, Tensor) and val.dtype not in (torch.float32, *NAMES):
            raise Unsupported(f"numbers of type {str(val.dtype).removeprefix('torch.')}")
        args: Any = fx.map_arg(node.args, self._value)
        kwargs: Any = fx.map_arg(node.kwargs, self._value)
        name = called(node)
        if name == "getitem":
            return args[0][args[1]]
        if name in VIEWS:
            return self._view(node, args, kwargs)
        rule = RULES.get(name)
        if rule is not None:
            return rule(self, *args, **kwargs)
        # an operation whose name ends with _ writes over its first argument
        kernel = ALIKE.get(name.removesuffix("_"), name.removesuffix("_"))
        if kernel in NUMBERS and not kwargs.keys() - {"memory_format"}:
            return self.map(kernel, *args, out=args[0] if name.endswith("_") else None)
        if not node.all_input_nodes:  # a tensor that depends on no other
            return self._fix(node.target(*args, **kwargs))  # type: ignore[operator]
        raise Unsupported(f"the operation {name}")

    def _fix(self, x: Tensor) -> Value:
        if x.numel() == 1:
            return self.constant(float(x), x.shape)
        self.fixed.append(x.float().contiguous())
        return Value(INPUTS + len(self.inputs) + len(self.fixed) - 1, dense(x.shape))

    def _view(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        source, target = args[0], node.target
        assert callable(target)
        try:
            layout = target(source.layout, *args[1:], **kwargs)
        except RuntimeError:  # no view of these strides
            source = self.copy(source)
            layout = target(source.layout, *args[1:], **kwargs)
        if isinstance(layout, Tensor):
            return source.like(layout)
        return [source.like(each) for each in layout]

    def _return(self, nodes: Any) -> None:
        """Write what the graph returns to the outputs, contiguous and in their types."""
        first = INPUTS + len(self.inputs) + len(self.fixed)
        for number, node in enumerate(nodes):
            value, val = self._value(node), node.meta["val"]
            self.outputs.append((val.shape, val.dtype))
            if value.part == -1 - number:
                continue  # it is there already
            part = first + number
            if val.dtype == torch.float32:
                self.map("copy", value, out=Value(part, dense(val.shape)))
            else:
                value = self.contiguous(value)
                row = [0, 0, 0, 1]
                self.emit(
                    f"write {NAMES[val.dtype]}",
                    [1, 1, 1, val.numel()],
                    [(Value(part, dense([])), row), (value, row)],
                )
        for instruction in self.instructions:
            for value, _ in instruction.operands:
                if value.part < 0:
                    value.part = first - 1 - value.part


def _kept(out: Value, gone: set[int], rank: int) -> list[int]:
    """The strides of `out` with an axis of one number for each that is gone."""
    strides = iter(out.strides)
    return [1 if d in gone else next(strides) for d in range(rank)]
