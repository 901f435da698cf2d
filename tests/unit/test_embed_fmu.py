"""policy.fmu as a co-simulation master runs it: decisions in time, memory as a state, what is refused.

The policies are graphs by hand, so that every number is known: one counts its decisions, one balances a pole.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("emx_onnx_cgen", reason="needs the extra embed-c")
if shutil.which("cc") is None or shutil.which("c++") is None:
    pytest.skip("needs a C compiler (cc, c++)", allow_module_level=True)

from onnx import TensorProto as T  # noqa: E402
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info  # noqa: E402

from rlkit.deploy import c, fmu, native  # noqa: E402
from rlkit.deploy.graph import GraphError  # noqa: E402
from rlkit.deploy.kernel import generator  # noqa: E402
from rlkit.deploy.units import check  # noqa: E402
from rlkit.options import ConfigError  # noqa: E402
from rlkit.space_json import to_json  # noqa: E402
from rlkit.spaces import Box, Dict, Discrete, MultiDiscrete, Space  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples" / "embed"


def graphs(
    nodes: list[Any], constants: dict[str, Any], seen: list[Any], action: Any, memory: bool
) -> dict[str, bytes]:
    """policy.onnx and sample.onnx, which are the same but for an input."""
    tensors = [onnx.numpy_helper.from_array(np.array(x), name) for name, x in constants.items()]
    outputs = [action, *([make_tensor_value_info("memory_out.0", T.FLOAT, ["lanes", 1])] if memory else [])]
    found = {}
    for name, noise in (
        ("policy.onnx", []),
        ("sample.onnx", [make_tensor_value_info("noise", T.FLOAT, ["lanes", 1])]),
    ):
        kept = [make_tensor_value_info("memory.0", T.FLOAT, ["lanes", 1])] if memory else []
        inputs = [*seen, make_tensor_value_info("first", T.BOOL, ["lanes"]), *noise, *kept]
        graph = make_graph(nodes, "policy", inputs, outputs, tensors)
        found[name] = make_model(
            graph, opset_imports=[make_opsetid("", 20)], ir_version=10
        ).SerializeToString()
    return found


def described(observation: Space, action: Space, memory: bool) -> dict[str, Any]:
    """What policy.json says."""
    kept = ["memory.0"] if memory else []
    parts = [{"name": name, "shape": [1], "dtype": "float32"} for name in kept]
    return {
        "format": 1, "rlkit": "0", "run": "pole <&> cart", "agent": "by hand", "step": 1, "environment": "none",
        "observation": to_json(observation), "action": to_json(action), "labels": [], "gaps": False, "noise": 1,
        "value": False, "memory": parts, "graphs": {"policy.onnx": kept, "sample.onnx": kept}, "preprocessing": {},
        "c": generator(),
    }  # fmt: skip


def made(info: dict[str, Any], both: dict[str, bytes], folder: Path) -> Path:
    """The files of an export in a folder; returns the unit."""
    found = c.sources(info, both)
    with native.built(info, found) as program:
        unit = program.unit(fmu.sources(info, found.files, both["policy.onnx"]))
    for name, text in found.files.items():
        (folder / name).write_text(text)
    (folder / "policy.fmu").write_bytes(fmu.packed(unit))
    return folder / "policy.fmu"


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """action = (100 and the decisions in this episode, the number seen); the number lies in [-2, 8]."""
    nodes = [
        make_node("Unsqueeze", ["first", "axis"], ["opens"]),
        make_node("Where", ["opens", "start", "memory.0"], ["before"]),
        make_node("Add", ["before", "one"], ["memory_out.0"]),
        make_node("Concat", ["memory_out.0", "obs"], ["action"], axis=1),
    ]
    constants = {"axis": np.array([1]), "start": np.float32(100), "one": np.float32(1)}
    seen = [make_tensor_value_info("obs", T.FLOAT, ["lanes", 1])]
    both = graphs(nodes, constants, seen, make_tensor_value_info("action", T.FLOAT, ["lanes", 2]), True)
    info = described(Box((1,), "float32", -2.0, 8.0), Box((2,), "float32"), True)
    return made(info, both, tmp_path_factory.mktemp("counter"))


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pushes to the side to which the pole falls: right where x/10 + speed/3 + angle + turn > 0."""
    nodes = [
        make_node("MatMul", ["obs", "w"], ["scores"]),
        make_node("ArgMax", ["scores"], ["action"], axis=1, keepdims=0),
    ]
    weights = np.array([[0, 0.1], [0, 0.3], [0, 1], [0, 1]], np.float32)
    seen = [make_tensor_value_info("obs", T.FLOAT, ["lanes", 4])]
    both = graphs(nodes, {"w": weights}, seen, make_tensor_value_info("action", T.INT64, ["lanes"]), False)
    return made(described(Box((4,), "float32"), Discrete(2), False), both, tmp_path_factory.mktemp("pole"))


@pytest.fixture
def unit(counter: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes instances of the counter, each with a period and a time at which it starts."""
    pytest.importorskip("fmpy", reason="needs the extra embed-fmu")
    from fmpy.fmi2 import FMU2Slave

    with zipfile.ZipFile(counter) as archive:
        archive.extractall(tmp_path)
        guid = fmu.guid(b"")  # of another policy
        text = archive.read("modelDescription.xml").decode()
    guid, other = text.split('guid="')[1].split('"')[0], guid
    opened = []

    def begin(period: float, start: float = 0.0, wrong: bool = False) -> Any:
        slave = FMU2Slave(
            guid=other if wrong else guid,
            unzipDirectory=str(tmp_path),
            modelIdentifier="policy",
            instanceName="unit",
        )
        slave.instantiate()
        opened.append(slave)
        slave.setupExperiment(startTime=start)
        slave.enterInitializationMode()
        slave.setReal([0], [period])
        slave.exitInitializationMode()
        return slave

    yield begin
    for slave in opened:
        slave.freeInstance()


def steps(slave: Any, times: list[float], values: list[float]) -> list[tuple[float, float]]:
    """(decisions so far, the number that the last one saw) after each step from a time to the next one."""
    found = []
    for start, end, value in zip(times[:-1], times[1:], values, strict=True):
        slave.setReal([1], [value])
        slave.doStep(start, end - start)
        count, seen = slave.getReal([2, 3])
        found.append((count - 100, seen))
    return found


@pytest.mark.parametrize(
    ("period", "times", "wanted"),
    [
        (1.0, [0, 1, 2, 3], [(1, 1), (2, 2), (3, 3)]),  # as long as a step
        (0.5, [0, 1, 2, 3], [(2, 1), (4, 2), (6, 3)]),  # two in a step
        (2.0, [0, 1, 2, 3, 4, 5], [(1, 1), (1, 1), (2, 3), (2, 3), (3, 5)]),  # held over two steps
        (0.4, [0, 1, 1.25, 2.5], [(3, 1), (4, 2), (7, 3)]),  # 0 0.4 0.8 | 1.2 | 1.6 2 2.4
        (
            0.3,
            [0, 0.2, 3 * 0.1, 0.4],
            [(1, 1), (1, 1), (2, 3)],
        ),  # 0.3 is the second step's, however it is rounded
        (0.0, [0, 0.1, 7, 7], [(1, 1), (2, 2), (3, 3)]),  # one per step
    ],
)
def test_decisions_are_made_when_their_time_has_come(
    unit: Any, period: float, times: list[float], wanted: Any
) -> None:
    slave = unit(period, times[0])
    assert slave.getReal([0, 1, 2, 3]) == [period, 0, 0, 0]
    assert steps(slave, times, [float(i + 1) for i in range(len(times) - 1)]) == wanted


def test_a_reset_that_rises_clears_the_memory_once(unit: Any) -> None:
    slave, found = unit(0.0), []
    for now, reset in enumerate([False, False, True, True, False, True]):
        slave.setBoolean([0], [reset])
        found += steps(slave, [now, now + 1], [0.0])
    assert [count for count, _ in found] == [1, 2, 1, 2, 3, 1]
    slave.reset()
    slave.setupExperiment(startTime=5.0)
    slave.enterInitializationMode()
    slave.setReal([0], [1.0])
    slave.exitInitializationMode()
    assert steps(slave, [5, 6], [4.0]) == [(1, 4)]


def test_states_are_taken_back_and_travel(unit: Any) -> None:
    slave = unit(1.0)
    assert steps(slave, [0, 1, 2], [1.0, 2.0]) == [(1, 1), (2, 2)]
    state = slave.getFMUstate()
    data = slave.serializeFMUstate(state)
    assert steps(slave, [2, 3, 4], [3.0, 4.0]) == [(3, 3), (4, 4)]
    slave.setFMUstate(state)
    assert slave.getReal([2, 3]) == [102, 2] and steps(slave, [2, 3], [7.0]) == [(3, 7)]
    slave.freeFMUstate(state)
    other = unit(1.0)
    there = other.deSerializeFMUstate(data)
    other.setFMUstate(there)
    assert steps(other, [2, 3], [6.0]) == [(3, 6)]
    other.freeFMUstate(there)
    for damaged in (data[:-1], b"{" + b"0" * 63 + data[64:]):
        with pytest.raises(Exception, match="fmi2DeSerializeFMUstate failed"):
            other.deSerializeFMUstate(damaged)


def test_what_no_policy_reads_is_an_error_and_changes_nothing(unit: Any) -> None:
    slave = unit(1.0)
    assert steps(slave, [0, 1], [5.0]) == [(1, 5)]
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(Exception, match="fmi2DoStep failed"):
            steps(slave, [1, 2], [value])
        assert slave.getReal([2, 3]) == [101, 5]
    assert steps(slave, [1, 2], [6.0]) == [(2, 6)]
    for call, words in (
        (lambda: slave.setReal([0], [2.0]), "SetReal"),  # the period, while it runs
        (lambda: slave.setReal([2], [2.0]), "SetReal"),  # an output
        (lambda: slave.getReal([4]), "GetReal"),
        (lambda: slave.setInteger([0], [1]), "SetInteger"),
        (lambda: slave.getBoolean([1]), "GetBoolean"),
        (lambda: slave.doStep(2.0, -1.0), "DoStep"),
        (lambda: slave.doStep(2.0, 1e7), "DoStep"),  # more decisions than anybody means
        (lambda: unit(-1.0), "ExitInitializationMode"),
        (lambda: unit(np.nan), "ExitInitializationMode"),
        (lambda: unit(1.0, wrong=True), "nstantiate"),
    ):
        with pytest.raises(Exception, match=words):
            call()
    assert steps(slave, [2, 3], [7.0]) == [(3, 7)]


def test_the_description_is_valid_and_says_what_the_spaces_say(counter: Path, pole: Path) -> None:
    fmpy = pytest.importorskip("fmpy", reason="needs the extra embed-fmu")
    validation = importlib.import_module("fmpy.validation")
    for path in (counter, pole):
        assert validation.validate_fmu(str(path)) == []
    found = fmpy.read_model_description(str(counter))
    assert found.modelName == "pole <&> cart" and found.coSimulation.canSerializeFMUstate
    variables = {each.name: each for each in found.modelVariables}
    assert list(variables) == ["period", "reset", "obs[1]", "action[1]", "action[2]"]
    seen = variables["obs[1]"]
    assert (seen.min, seen.max, seen.start, seen.type) == ("-2.0", "8.0", "0.0", "Real")
    assert variables["period"].unit == "s" and variables["reset"].type == "Boolean"
    assert [fmpy.read_model_description(str(pole)).modelVariables[2].min, variables["action[2]"].max] == [
        None,
        None,
    ]
    choice = fmpy.read_model_description(str(pole)).modelVariables[-1]
    assert (choice.name, choice.type, choice.min, choice.max) == ("action[1]", "Integer", "0", "1")
    assert fmpy.supported_platforms(str(pole))[:1] == ["c-code"]


def test_entries_masks_and_choices_have_names_and_types() -> None:
    """Starts lie within bounds; a mask begins with everything allowed; a type that holds less is looked at."""
    space = Dict(
        (
            ("speed", Box((2,), "float32", 1.0, 3.0)),
            ("kind", Discrete(3)),
            ("action_mask", Box((5,), "float32")),
        )
    )
    info = described(space, MultiDiscrete((3, 2), (0, 0)), False)
    found, text = fmu.variables(c.Interface(info))
    assert [f"{each.kind} {each.name} {each.reference} {each.start:g}" for each in found.all] == [
        "Real period 0 0", "Boolean reset 0 0", "Real obs.e_speed[1] 1 1", "Real obs.e_speed[2] 2 1",
        "Integer obs.e_kind 0 0", *(f"Boolean mask[{i}] {i} 1" for i in range(1, 6)),
        "Integer action[1] 1 0", "Integer action[2] 2 0",
    ]  # fmt: skip
    assert "obs.e_action_mask[4] = (float)v->boolean[5];" in text
    assert "if ((int64_t)v->integer[0] != v->integer[0]) return RLKIT_OUT_OF_RANGE;" in text
    fmu.require_vectors(Box((256,), "float32"))
    with pytest.raises(
        ConfigError, match=r"reads 257 numbers, and a unit has at most 256 inputs; use --format c"
    ):
        fmu.require_vectors(Box((257,), "float32"))


def test_a_unit_that_is_not_the_folder_s_is_not_run(pole: Path, tmp_path: Path) -> None:
    class Held:
        path = tmp_path

        def __init__(self, data: bytes) -> None:
            self.read = lambda _: data

    with zipfile.ZipFile(pole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    said = list[str]()
    for held, words in (
        (fmu.packed(files | {"sources/fmu.c": b"int main;"}), "is not what the folder's graphs give"),
        (fmu.packed(files | {"binaries/win64/policy.dll": b"MZ"}), "is not what the folder's graphs give"),
        (b"PK nothing", "policy.fmu is damaged"),
    ):
        with pytest.raises(GraphError, match=words):
            check(Held(held), files, said.append)  # type: ignore[arg-type]
    assert said == []


def test_the_examples_balance_the_pole_as_python_does(
    pole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number of steps from the same beginnings, in C++ and through FMPy."""
    env, begun, wanted = gymnasium.make("CartPole-v1"), [], []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        begun.append([repr(float(x)) for x in env.unwrapped.state])  # type: ignore[attr-defined]
        total, over = 0, False
        while not over:
            scores = np.float32(0.1) * obs[0] + np.float32(0.3) * obs[1] + obs[2] + obs[3]
            obs, _, terminated, truncated, _ = env.step(int(scores > 0))
            total, over = total + 1, terminated or truncated
        wanted.append(total)
    words = ["c++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{pole.parent}"]
    words += [str(EXAMPLES / "cpp" / "cartpole.cpp"), str(pole.parent / "policy.c"), "-lm", "-o", "cartpole"]
    subprocess.run(words, cwd=tmp_path, check=True)
    for state, steps_up in zip(begun, wanted, strict=True):
        told = subprocess.run([tmp_path / "cartpole", *state], capture_output=True, text=True, check=True)
        assert told.stdout == f"{steps_up} steps\n"
    pytest.importorskip("fmpy", reason="needs the extra embed-fmu")
    spec = importlib.util.spec_from_file_location("fmu_cartpole", EXAMPLES / "fmu" / "cartpole.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fmu_cartpole", example)
    spec.loader.exec_module(example)
    assert example.main(str(pole), 3) == wanted
