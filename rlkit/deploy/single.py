"""The graph of one simulation: lanes = 1, names of our own, and nothing to compute that no observation decides.

    Transpose(W), Shape(x), ...     are constants, as they come out for one lane
    x W, x [..., K], W [K, N]       is Gemm(x [-1, K], W^T [N, K]): every sum runs along a row of memory

A generator of C then finds static shapes, and sums that a compiler makes four at a time; and no name of a file becomes
an identifier. Inputs are i0, i1, ..., outputs o0, o1, ..., constants k and a digest of what they hold.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.deploy.graph import GraphError, Tensor, read_graph
from rlkit.deploy.program import Program

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto


def single(data: bytes, inputs: dict[str, Tensor], outputs: list[str]) -> ModelProto:
    """The graph in the bytes of a file for one lane, its inputs and outputs in the order given.

    inputs: an example [1, ...] of each. Raises GraphError where the file is no graph that rlkit's runtime runs.
    """
    import onnx

    read = read_graph(data)
    program = Program(read, list(inputs), outputs)
    seen: dict[str, Tensor] = {}
    made = program.check(*inputs.values(), seen=lambda node, read: seen.update(_named(node.inputs, read)))
    model = onnx.ModelProto.FromString(data)
    work = _Single(seen, program.fixed)
    work.names |= {name: f"i{place}" for place, name in enumerate(inputs)}
    work.names |= {name: f"o{place}" for place, name in enumerate(outputs)}
    for node in model.graph.node:
        if not program.fixed.issuperset(node.output) or set(node.output) & set(outputs):
            work.add(node)
    given, found = work.infos(inputs.items()), work.infos(zip(outputs, made, strict=True))
    tensors = [onnx.numpy_helper.from_array(x, name) for name, x in work.constants.items()]
    graph = onnx.helper.make_graph(work.nodes, "policy", given, found, tensors)
    opset = [onnx.helper.make_opsetid("", read.opset)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


def _plain(attribute: AttributeProto) -> Any:
    """The value of an attribute. Raises GraphError where its name or its text is no word: generators print both."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    text = value if isinstance(value, bytes) else b""
    if re.fullmatch("[a-zA-Z_]+", attribute.name) is None or re.fullmatch(b"[a-zA-Z_]*", text) is None:
        raise GraphError(f"policy.onnx: an attribute {attribute.name[:40]!r} with the value {text[:40]!r}")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(value))
    if not isinstance(value, bytes | int | float) and not all(
        isinstance(each, int | float) for each in value
    ):
        raise GraphError(f"policy.onnx: an attribute {attribute.name[:40]!r} that is no number")
    return value


def _named(names: list[str], values: list[Tensor | None]) -> dict[str, Tensor]:
    return {name: np.asarray(x) for name, x in zip(names, values, strict=True) if x is not None}


class _Single:
    """The nodes and constants that are kept. seen: every value that a node has read; fixed: names of the constant."""

    def __init__(self, seen: dict[str, Tensor], fixed: set[str]) -> None:
        self.seen, self.fixed = seen, fixed
        self.names: dict[str, str] = {"": ""}
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Tensor] = {}

    def constant(self, value: Tensor) -> str:
        """The name of a constant, one for all that are equal."""
        held = np.array(value, order="C")
        digest = hashlib.sha256(f"{held.dtype} {held.shape}".encode() + held.tobytes()).hexdigest()
        self.constants[f"k{digest[:16]}"] = held
        return f"k{digest[:16]}"

    def name(self, name: str) -> str:
        if name not in self.names:
            fixed = name in self.fixed
            self.names[name] = self.constant(self.seen[name]) if fixed else f"x{len(self.names)}"
        return self.names[name]

    def add(self, node: NodeProto) -> None:
        from onnx.helper import make_node

        made = [self.name(name) for name in node.output]
        if node.op_type == "MatMul" and node.input[1] in self.fixed and self.seen[node.input[1]].ndim == 2:
            x, weight, y = self.name(node.input[0]), self.seen[node.input[1]], made[0]
            *shape, width = self.seen[node.input[0]].shape
            flat = self.constant(np.array([math.prod(shape), width]))
            back = self.constant(np.array([*shape, weight.shape[1]]))
            self.nodes += [
                make_node("Reshape", [x, flat], [f"{y}a"]),
                make_node("Gemm", [f"{y}a", self.constant(weight.T)], [f"{y}b"], transB=1),
                make_node("Reshape", [f"{y}b", back], [y]),
            ]
            return
        given = {each.name: _plain(each) for each in node.attribute}
        self.nodes.append(make_node(node.op_type, [self.name(name) for name in node.input], made, **given))

    def infos(self, values: Iterable[tuple[str, Tensor]]) -> list[ValueInfoProto]:
        """Type and shape of inputs or outputs."""
        from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

        return [
            make_tensor_value_info(self.names[name], np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in values
        ]
