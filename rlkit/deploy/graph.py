"""Reads a graph in the ONNX format (github.com/onnx/onnx, onnx.proto3) with nothing but NumPy.

A file is a protobuf message: fields, each with a number and a wire type (0: a varint, 1: 8 bytes, 2: a length and so
many bytes, 5: 4 bytes). Only what a policy needs is read; every length is compared with what is left, and whatever
would lead out of the file (external data, functions, control flow) is refused. Files may come from anybody.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST_FILE = 512 * 2**20  # bytes
LARGEST = 2**25  # numbers of one tensor, and of all that one row computes
MOST_NODES, MOST_INTEGERS = 20_000, 2**20
DEEPEST = 8  # axes of a tensor
TYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}

Tensor = npt.NDArray[Any]


class GraphError(ValueError):
    """A file that is no graph of a policy, in one line."""


@dataclass
class Node:
    """One operation: values by name in, values by name out. An input "" is left out."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Operations in their order, and the constants they read."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)  # without constants
    outputs: list[str] = field(default_factory=list)
    opset: int = 0


def fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of the fields of a message: an int, or a view of bytes. Raises GraphError."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise GraphError(f"policy.onnx is damaged: wire type {wire} of field {number}")
        if length > end - position:
            raise GraphError(
                f"policy.onnx is damaged: a field of {length:,} bytes where {end - position:,} are left"
            )
        yield number, wire, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """(value, where it ends) of an unsigned number of at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise GraphError("policy.onnx is damaged: it ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), position
    raise GraphError("policy.onnx is damaged: a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _integers(wire: int, value: Any) -> list[int]:
    """A repeated int64 field, packed or not."""
    if wire == 0:
        return [_signed(value)]
    found, position = [], 0
    while position < len(value):
        each, position = _varint(value, position)
        found.append(_signed(each))
        if len(found) > MOST_INTEGERS:
            raise GraphError("policy.onnx: a list of too many numbers")
    return found


def _text(value: Any) -> str:
    try:
        return bytes(value).decode()
    except (UnicodeDecodeError, TypeError) as error:
        raise GraphError("policy.onnx is damaged: a name that is no text") from error


def read_graph(data: bytes) -> Graph:
    """The graph in the bytes of a file. Raises GraphError."""
    if len(data) > LARGEST_FILE:
        raise GraphError(f"policy.onnx has {len(data):,} bytes, and at most {LARGEST_FILE:,} are read")
    graph, body = Graph(), None
    for number, wire, value in fields(memoryview(data)):
        if number == 7 and wire == 2:  # ModelProto.graph
            body = value
        elif number == 8 and wire == 2:  # opset_import
            graph.opset = max(graph.opset, _opset(value))
        elif number in (20, 25):  # training_info, functions
            raise GraphError(
                "policy.onnx holds functions of its own, which are not read; export the run again"
            )
    if body is None:
        raise GraphError("policy.onnx holds no graph: it is no ONNX file")
    _read_body(body, graph)
    return graph


def _opset(data: memoryview) -> int:
    domain, version = "", 0
    for number, wire, value in fields(data):
        if number == 1 and wire == 2:
            domain = _text(value)
        elif number == 2 and wire == 0:
            version = _signed(value)
    return version if domain in ("", "ai.onnx") else 0


def _read_body(data: memoryview, graph: Graph) -> None:
    """GraphProto: 1 node, 5 initializer, 11 input, 12 output."""
    inputs = []
    for number, wire, value in fields(data):
        if wire != 2:
            continue
        if number == 1:
            graph.nodes.append(_node(value))
            if len(graph.nodes) > MOST_NODES:
                raise GraphError(f"policy.onnx has more than {MOST_NODES:,} operations")
        elif number == 5:
            name, tensor = _tensor(value)
            graph.constants[name] = tensor
        elif number == 11:
            inputs.append(_name(value))
        elif number == 12:
            graph.outputs.append(_name(value))
        elif number == 15:
            raise GraphError("policy.onnx holds sparse tensors, which are not read")
    graph.inputs = [name for name in inputs if name not in graph.constants]


def _name(data: memoryview) -> str:
    """Field 1 of a ValueInfoProto."""
    return next((_text(value) for number, wire, value in fields(data) if number == 1 and wire == 2), "")


def _node(data: memoryview) -> Node:
    """NodeProto: 1 input, 2 output, 4 op_type, 5 attribute, 7 domain."""
    node = Node("", [], [])
    for number, wire, value in fields(data):
        if wire != 2:
            continue
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.op = _text(value)
        elif number == 5:
            name, attribute = _attribute(value)
            node.attributes[name] = attribute
        elif number == 7 and _text(value) not in ("", "ai.onnx"):
            raise GraphError(f"policy.onnx: an operator of {_text(value)[:60]!r}, which is not read")
    return node


def _attribute(data: memoryview) -> tuple[str, Any]:
    """AttributeProto: 1 name, 2 f, 3 i, 4 s, 5 t, 7 floats, 8 ints; graphs are refused."""
    name: str = ""
    found: Any = None
    many: list[Any] = []
    for number, wire, value in fields(data):
        if number == 1 and wire == 2:
            name = _text(value)
        elif number == 2 and wire == 5:
            found = struct.unpack("<f", value)[0]
        elif number == 3 and wire == 0:
            found = _signed(value)
        elif number == 4 and wire == 2:
            found = _text(value)
        elif number == 5 and wire == 2:
            found = _tensor(value)[1]
        elif number == 7 and wire in (2, 5):
            many += np.frombuffer(value[: len(value) // 4 * 4], "<f4").tolist()
        elif number == 8 and wire in (0, 2):
            many += _integers(wire, value)
        elif number in (6, 11):
            raise GraphError("policy.onnx holds control flow, which is not read")
    return name, many if found is None else found


def _tensor(data: memoryview) -> tuple[str, Tensor]:
    """TensorProto: 1 dims, 2 data_type, 4 to 11 typed data, 8 name, 9 raw_data, 13 and 14 external data."""
    dims: list[int] = []
    name, kind, raw = "", 0, None
    values: list[Any] = []
    for number, wire, value in fields(data):
        if number == 1 and wire in (0, 2):
            dims += _integers(wire, value)
        elif number == 2 and wire == 0:
            kind = value
        elif number == 8 and wire == 2:
            name = _text(value)
        elif number == 9 and wire == 2:
            raw = value
        elif number in (4, 10) and wire == 2:
            size, code = (4, "<f4") if number == 4 else (8, "<f8")
            values += np.frombuffer(value[: min(len(value) // size, MOST_INTEGERS) * size], code).tolist()
        elif number in (5, 7, 11) and wire in (0, 2):
            values += _integers(wire, value)
        elif number == 13 or (number == 14 and value != 0):
            raise GraphError("policy.onnx keeps data in other files, which are not read")
    if kind not in TYPES:
        raise GraphError(f"policy.onnx: a tensor of type {kind}; allowed: {', '.join(TYPES.values())}")
    dtype = np.dtype(TYPES[kind])
    if len(dims) > DEEPEST or any(size < 0 for size in dims) or math.prod(dims) > 4 * LARGEST:
        raise GraphError(f"policy.onnx: a tensor of shape {dims[:DEEPEST]}, which is too large")
    count = math.prod(dims)
    given = len(values) if raw is None else len(raw) / dtype.itemsize
    if given != count:
        raise GraphError(f"policy.onnx is damaged: a tensor of shape {dims} holds {given:g} numbers")
    flat = (
        np.array(values, dtype) if raw is None else np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
    )
    return name, flat.reshape(dims)
