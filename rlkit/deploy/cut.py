"""Cuts a graph to what one use of it needs: nodes, constants and memory on which its action depends.

A part of the memory is kept where the action depends on it, through however many steps: the smallest set K with

    action reads i              =>  i in K
    i in K, its successor reads j   =>  j in K
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

ORDERLY = {"LogSoftmax", "Softmax"}  # which leave the order of what lies along their axis as it is


class Cutter:
    """A whole graph, and what its values depend on."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.maker = {name: node for node in model.graph.node for name in node.output if name}
        self.inputs = {each.name for each in model.graph.input}
        for node in model.graph.node:  # the number of lanes is asked of an input that every use has
            places = {each.name: each.i for each in node.attribute}
            if node.op_type == "Shape" and (places.get("start", 0), places.get("end")) == (0, 1):
                node.input[0] = "first" if node.input[0] in self.inputs else node.input[0]

    def reads(self, output: str) -> set[str]:
        """The inputs of the graph on which a value depends."""
        return self.inputs & self._before([output])

    def _before(self, outputs: Iterable[str]) -> set[str]:
        """All values on which these depend, themselves included."""
        found: set[str] = set()
        left = list(outputs)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += [each for each in self.maker[name].input if each] if name in self.maker else []
        return found

    def same(self, output: str, name: str) -> bool:
        """Whether an output is an input, passed on."""
        while output in self.maker and self.maker[output].op_type == "Identity":
            output = self.maker[output].input[0]
        return output == name

    def memory(self, outputs: Iterable[str], after: str, begun: Iterable[int] = ()) -> set[int]:
        """K: the parts of the memory that these outputs need; after: how their successors are called, "memory_out."."""
        kept = set(begun)
        left = [*outputs, *(f"{after}{i}" for i in kept)]
        while left:
            more = {int(name[7:]) for name in self.reads(left.pop()) if name.startswith("memory.")} - kept
            kept |= more
            left += [f"{after}{i}" for i in sorted(more)]
        return kept

    def cut(self, outputs: Mapping[str, str], inputs: Iterable[str]) -> ModelProto:
        """The graph of these outputs (name in the whole graph -> name in the new one) with these inputs."""
        import onnx

        made = onnx.ModelProto()
        made.CopyFrom(self.model)
        graph, needed = made.graph, self._before(outputs)
        nodes = [node for node in graph.node if needed & set(node.output)]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        constants = [each for each in graph.initializer if each.name in needed]
        given = {each.name: each for each in graph.input}
        named = {each.name: each for each in graph.output}
        del graph.initializer[:], graph.input[:], graph.output[:]
        graph.initializer.extend(constants)
        graph.input.extend(given[name] for name in inputs)
        graph.output.extend(named[name] for name in outputs)
        _rename(graph, outputs)
        _simplify(graph)
        _lanes(graph)
        made.producer_name, made.doc_string = "rlkit", ""
        del made.metadata_props[:]
        return made


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Values get numbers and outputs their new names; an output that is an input or another output is passed on."""
    import onnx

    made = {name for node in graph.node for name in node.output if name}
    new: dict[str, str] = {}
    passed: list[tuple[str, str]] = []
    for output, (old, name) in zip(graph.output, names.items(), strict=True):
        output.name = name
        if old in made and old not in new:
            new[old] = name
        else:
            passed.append((old, name))
    for number, name in enumerate(sorted(made - new.keys())):
        new[name] = f"x{number}"
    for node in graph.node:
        for values in (node.input, node.output):
            for place, value in enumerate(values):
                values[place] = new.get(value, value)
    graph.node.extend(onnx.helper.make_node("Identity", [new.get(old, old)], [name]) for old, name in passed)


def _simplify(graph: GraphProto) -> None:
    """Leave out what changes nothing: the axis of time that a trace of one row carries, and orders before an ArgMax."""
    import onnx

    maker = {name: node for node in graph.node for name in node.output}
    constant = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}

    def axes(node: NodeProto) -> list[int] | None:
        found = constant.get(node.input[1]) if len(node.input) > 1 else None
        return None if found is None else found.ravel().tolist()

    for node in graph.node:
        before = maker.get(node.input[0]) if node.input else None
        if before is None:
            continue
        # the largest logit is the largest probability
        if node.op_type == "ArgMax" and before.op_type in ORDERLY:
            node.input[0] = before.input[0]
        elif node.op_type == "Reshape" and before.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
            shape = constant.get(node.input[1])
            if shape is not None and 0 not in shape:  # 0 stands for a size of what is reshaped
                node.input[0] = before.input[0]
        elif node.op_type == "Gather" and before.op_type == "Unsqueeze":
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            if axes(before) == [0] and axis == 0 and axes(node) == [0] and constant[node.input[1]].ndim == 0:
                _instead(graph, node, before.input[0])
    needed, kept = {each.name for each in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    for (
        node
    ) in graph.node:  # names and notes of the trace say nothing to a user, and file names of this machine
        node.name = node.doc_string = ""
        del node.metadata_props[:]


def _instead(graph: GraphProto, node: NodeProto, value: str) -> None:
    """Whoever reads what a node makes reads `value`; an output is passed on."""
    name = node.output[0]
    if name in {each.name for each in graph.output}:
        node.op_type = "Identity"
        del node.attribute[:], node.input[:]
        node.input.append(value)
        return
    for other in graph.node:
        for place, each in enumerate(other.input):
            if each == name:
                other.input[place] = value


def _lanes(graph: GraphProto) -> None:
    """The axis of lanes is called so."""
    for each in (*graph.input, *graph.output):
        sizes = each.type.tensor_type.shape.dim
        if sizes:
            sizes[0].dim_param = "lanes"
        each.doc_string = ""
        del each.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    graph.name = "policy"
    graph.doc_string = ""
    del graph.metadata_props[:]
