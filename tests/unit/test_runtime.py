"""The reader and the operators of exported graphs: against ONNX Runtime, and against files that nobody should trust."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from rlkit.deploy.graph import GraphError, fields, read_graph
from rlkit.deploy.program import Program

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 4, 9, 8)).astype(np.float32)
INT = np.array([[0, 2, 1], [1, 0, 2]])


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def model(op: str, values: list[Any], outputs: int = 1, dynamic: int = 1, **attributes: Any) -> Any:
    """One operation; the first `dynamic` values are inputs, the others constants, None is left out."""
    helper = onnx.helper
    names = [f"i{place}" if value is not None else "" for place, value in enumerate(values)]
    node = helper.make_node(op, names, [f"o{place}" for place in range(outputs)], **attributes)
    arrays = [(name, np.asarray(value)) for name, value in zip(names, values, strict=True) if name]
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in arrays[:dynamic]
    ]
    constants = [onnx.numpy_helper.from_array(x, name) for name, x in arrays[dynamic:]]
    made = [onnx.ValueInfoProto(name=f"o{place}") for place in range(outputs)]
    graph = helper.make_graph([node], "g", given, made, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def ours(made: Any, *arrays: Any) -> tuple[Any, ...]:
    graph = read_graph(made.SerializeToString())
    program = Program(graph, graph.inputs, graph.outputs)
    found = program.check(*arrays)
    again = program(*arrays)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    return found


CASES = [  # op, values, how many of them are inputs, attributes
    *((op, [X], 1, {}) for op in ("Neg", "Abs", "Exp", "Tanh", "Sigmoid", "Relu", "Erf", "Softplus", "Floor", "Ceil",
      "Round", "Sign", "Reciprocal", "IsNaN", "Sin", "Cos", "Identity", "Softmax", "LogSoftmax", "Gelu", "LeakyRelu",
      "Shape", "Size", "Flatten", "Transpose")),
    *((op, [abs(X) + 0.1], 1, {}) for op in ("Log", "Sqrt")), ("Atanh", [np.tanh(X)], 1, {}),
    *((op, [X, floats(4)], 2, {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less",
      "GreaterOrEqual", "LessOrEqual")),
    ("Pow", [abs(X), np.float32(2.5)], 1, {}), ("Div", [np.array([7, -7]), np.array([2, 2])], 2, {}),
    ("Max", [X, floats(4), floats(3, 1)], 3, {}), ("Sum", [X, floats(4)], 2, {}),
    ("Equal", [INT, INT.T.reshape(2, 3)], 2, {}), ("Mod", [INT, np.array([2, 3, 2])], 2, {}),
    *((op, [X > 0, X > 0.5], 2, {}) for op in ("And", "Or", "Xor")), ("Not", [X > 0], 1, {}),
    ("Where", [X > 0, X, floats(3, 4)], 3, {}), ("Clip", [X, np.float32(-0.5), np.float32(0.5)], 1, {}),
    ("Clip", [X, None, np.float32(0.1)], 1, {}), ("Cast", [X], 1, {"to": 7}), ("Cast", [X > 0], 1, {"to": 1}),
    ("Concat", [X, floats(3, 2)], 2, {"axis": -1}), ("Split", [X], 1, {"axis": 1, "num_outputs": 3}),
    ("Split", [X, np.array([1, 3])], 1, {"axis": -1}),
    ("Slice", [X, np.array([1]), np.array([9]), np.array([1])], 1, {}),
    ("Slice", [X, np.array([3, 2]), np.array([-(2**62), 0]), np.array([1, 0]), np.array([-1, -2])], 1, {}),
    ("Slice", [X, np.array([-2]), np.array([2**62])], 1, {}), ("Gather", [X, np.array(1)], 1, {}),
    ("Gather", [X, np.array([[0, -1], [2, 1]])], 2, {"axis": 1}),
    ("GatherElements", [X, INT], 2, {"axis": 1}), ("GatherND", [X, np.array([[0, 1], [2, 3]])], 2, {}),
    ("GatherND", [X, np.array([[0], [2]])], 2, {}), ("Unsqueeze", [X, np.array([0, -1])], 1, {}),
    ("Squeeze", [X[:, None], np.array([-2])], 1, {}), ("Squeeze", [X[:, None]], 1, {}),
    ("Reshape", [X, np.array([2, -1])], 1, {}), ("Reshape", [X, np.array([0, 2, 2])], 1, {}),
    ("Flatten", [IMAGE], 1, {"axis": 2}), ("Transpose", [IMAGE], 1, {"perm": [0, 2, 3, 1]}),
    ("Expand", [X[:, None], np.array([3, 2, 1])], 1, {}), ("Tile", [X, np.array([2, 1])], 1, {}),
    ("MatMul", [floats(2, 3, 4), floats(4, 5)], 2, {}), ("MatMul", [floats(2, 3, 4), floats(2, 4, 5)], 2, {}),
    ("MatMul", [X, floats(4)], 2, {}), ("Gemm", [X, floats(5, 4), floats(5)], 1, {"transB": 1}),
    ("Gemm", [X, floats(3, 5), floats(5)], 3, {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("Softmax", [X], 1, {"axis": 0}), *((op, [X, np.array([1])], 1, {"keepdims": 0}) for op in ("ReduceSum",
      "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare")), ("ReduceMax", [X], 1, {}),
    ("ArgMax", [X], 1, {"axis": -1, "keepdims": 0}), ("ArgMin", [X], 1, {"axis": 0}),
    ("CumSum", [X, np.array(1)], 1, {}),
    ("Pad", [X, np.array([0, 1, 2, 0]), np.float32(7)], 1, {}),
    ("Pad", [X, np.array([1, 2]), None, np.array([1])], 1, {}),
    ("Pad", [X, np.array([1, 0, 0, 1])], 1, {"mode": "edge"}),
    ("LayerNormalization", [X, floats(4), floats(4)], 1, {"epsilon": 0.01}),
    ("BatchNormalization", [IMAGE, floats(4), floats(4), floats(4), abs(floats(4))], 1, {}),
    ("Gelu", [X], 1, {"approximate": "tanh"}), ("GlobalAveragePool", [IMAGE], 1, {}),
    ("Conv", [IMAGE, floats(5, 4, 3, 2), floats(5)], 1, {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ("Conv", [IMAGE, floats(6, 2, 3, 3)], 1, {"group": 2}), ("Conv", [IMAGE, floats(4, 1, 1, 1)], 1, {"group": 4}),
    ("MaxPool", [IMAGE], 1, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("AveragePool", [IMAGE], 1, {"kernel_shape": [3, 3], "strides": [1, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [IMAGE], 1, {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1}),
]  # fmt: skip


def test_every_operator_computes_what_onnx_runtime_does() -> None:
    from rlkit.deploy.operators import OPERATORS

    for op, values, dynamic, attributes in CASES:
        outputs = 3 if attributes.get("num_outputs") else 2 if op == "Split" else 1
        made = model(op, values, outputs, dynamic, **attributes)
        given = [np.asarray(value) for value in values[:dynamic]]
        session = onnxruntime.InferenceSession(made.SerializeToString())
        wanted = session.run(
            None, {each.name: x for each, x in zip(session.get_inputs(), given, strict=True)}
        )
        found = ours(made, *given)
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, (op, mine.dtype, mine.shape)
            assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-5), (op, attributes, mine, theirs)
    constants = {"Constant", "ConstantOfShape", "Range"}
    assert OPERATORS.keys() - {case[0] for case in CASES} == constants


def test_what_depends_on_the_number_of_lanes_is_computed_for_each() -> None:
    """Shape -> Range -> Expand: row i of [lanes, 2] is i."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Shape", ["x"], ["lanes"], start=0, end=1),
        helper.make_node("Squeeze", ["lanes"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["r"]),
        helper.make_node("Unsqueeze", ["r", "last"], ["column"]),
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Concat", ["lanes", "two"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Expand", ["column", "shape"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["floats"], to=1),
        helper.make_node("Add", ["floats", "zeros"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array(value), name)
        for name, value in (("zero", 0), ("one", 1), ("last", [1]))
    ]
    given = [helper.make_tensor_value_info("x", 1, ["lanes", 3])]
    graph = helper.make_graph(nodes, "g", given, [onnx.ValueInfoProto(name="y")], constants)
    program = Program(read_graph(helper.make_model(graph).SerializeToString()), ["x"], ["y"])
    for lanes in (1, 4):
        assert program(np.zeros((lanes, 3), np.float32))[0].tolist() == [[i, i] for i in range(lanes)]


BIG = np.array([10**5, 10**4])
HOSTILE = [  # op, values, inputs, attributes, what is said
    ("Expand", [X[:1, :1], BIG], 1, {}, "Expand that makes 1,000,000,000 numbers"),
    ("Tile", [X, BIG], 1, {}, "Tile that makes 12,000,000,000 numbers"),
    ("Pad", [X, np.array([0, 0, 10**5, 10**5])], 1, {}, "Pad that makes"),
    ("ConstantOfShape", [BIG], 0, {}, "ConstantOfShape that makes"),
    ("Range", [np.array(0), np.array(10**9), np.array(1)], 0, {}, "Range that makes 1,000,000,000"),
    ("Range", [np.array(0), np.array(10**9), np.array(0)], 0, {}, "damaged: Range: "),
    ("Add", [np.zeros((10**5, 1), np.float32), np.zeros((1, 10**5), np.float32)], 1, {}, "Add that makes"),
    ("Gather", [np.zeros((2, 10**4), np.float32), np.zeros(10**5, np.int64)], 1, {}, "Gather that makes"),
    ("Reshape", [X, np.array([10**9])], 1, {}, "does not work on 3 lanes: Reshape: cannot reshape"),
    ("Reshape", [X, np.array([2, -1])], 2, {}, "a shape of Reshape that depends on observations"),
    ("Unsqueeze", [X, np.array([7])], 1, {}, "does not work on 3 lanes: Unsqueeze"),
    ("ReduceSum", [X, np.array([0])], 2, {}, "a shape of ReduceSum that depends"),
    ("Gather", [X, np.array(99)], 1, {}, "does not work on 3 lanes: Gather"),
    ("MatMul", [X, X], 1, {}, "does not work on 3 lanes: MatMul"),
    ("Cast", [X], 1, {"to": 8}, "a cast to type 8; allowed: float32, uint8"),
    ("Det", [X[:3, :3]], 1, {}, "operator 'Det' is not one that rlkit's runtime computes (rlkit export --no-verify"),
    ("Conv", [IMAGE, floats(4, 4, 3, 3)], 1, {"dilations": [2, 2]}, "with dilations, auto_pad or ceil_mode"),
    ("Conv", [IMAGE, floats(4, 4, 3, 3)], 1, {"strides": [0, 1]}, "a convolution or pool"),
    ("MaxPool", [IMAGE], 1, {"kernel_shape": [2, 2], "pads": [4000] * 4}, "MaxPool that makes 513,"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "values", "dynamic", "attributes", "words"), HOSTILE)
def test_graphs_that_take_too_much_or_make_no_sense_are_refused(
    op: str, values: list[Any], dynamic: int, attributes: dict[str, Any], words: str
) -> None:
    made, start = model(op, values, 1, dynamic, **attributes), time.process_time()
    with pytest.raises(GraphError) as caught:
        ours(made, *values[:dynamic])
    assert words in str(caught.value) and time.process_time() - start < 1


def test_what_leads_out_of_the_file_is_refused() -> None:
    helper = onnx.helper

    def refused(made: Any, words: str) -> None:
        with pytest.raises(GraphError, match=words):
            read_graph(made.SerializeToString())

    made = model("Add", [X, X])
    made.functions.add(name="f")
    refused(made, "functions of its own")
    made = model("Add", [X, X])
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    refused(made, "keeps data in other files")
    made = model("Add", [X, X])
    made.graph.node[0].domain = "evil"
    refused(made, "an operator of 'evil'")
    made = model("Add", [X, X])
    made.graph.node[0].attribute.append(helper.make_attribute("body", made.graph.__class__(name="g")))
    refused(made, "control flow")
    made = model("Add", [X, X])
    made.graph.initializer[0].dims[0] = 10**9
    refused(made, "too large")
    made.graph.initializer[0].dims[0] = 5
    refused(made, r"a tensor of shape \[5, 4\] holds 12 numbers")
    made.graph.initializer[0].data_type = 8
    refused(made, "a tensor of type 8; allowed: float32")
    made = model("Add", [X, X])
    made.graph.sparse_initializer.add()
    refused(made, "sparse tensors")


def test_values_around_an_operation_must_be_there_and_new() -> None:
    for change, words in (
        (lambda node: node.input.__setitem__(0, "nowhere"), "the values around an operation 'Add'"),
        (lambda node: node.output.__setitem__(0, "i0"), "the values around an operation 'Add'"),
    ):
        made = model("Add", [X, X])
        change(made.graph.node[0])
        with pytest.raises(GraphError, match=words):
            ours(made, X)
    graph = read_graph(model("Add", [X, X]).SerializeToString())
    with pytest.raises(GraphError, match=r"policy.onnx reads 'i0'; policy.json says i0, first"):
        Program(graph, ["i0", "first"], ["o0"])


def test_names_of_a_file_become_no_code() -> None:
    """Values named like Python's own words and like statements are values."""
    made = model("Add", [X, X])
    node, name = made.graph.node[0], "None): import os; os.abort(); (lambda: x"
    node.input[0] = made.graph.input[0].name = name
    node.output[0] = made.graph.output[0].name = "lambda"
    assert np.array_equal(ours(made, X)[0], X + X)


def test_bytes_that_are_no_messages_are_refused() -> None:
    for data, words in (
        (b"\x80", "ends within a number"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x05ab", "a field of 5 bytes where 2 are left"),
    ):
        with pytest.raises(GraphError, match=words):
            list(fields(memoryview(data)))
    with pytest.raises(GraphError, match="holds no graph"):
        read_graph(b"")
