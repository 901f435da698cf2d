"""rlkit export: the folder does what the agent does, on its own, and nothing else comes to stand there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.agents import ppo
from rlkit.checkpoint import sealed
from rlkit.cli.main import main
from rlkit.collect.eyes import Eyes
from rlkit.config import registry
from rlkit.config.compose import compose, to_yaml
from rlkit.files import at
from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import make_encoder
from rlkit.play.saved import AgentPolicy, policy_parts
from rlkit.run.probe import probe_env
from rlkit.runtime import GraphError, Policy
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, tree_leaves

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

from rlkit.deploy import export as exporting  # noqa: E402
from rlkit.deploy.bundle import bundle  # noqa: E402
from rlkit.deploy.cut import Cutter  # noqa: E402
from rlkit.deploy.graph import read_graph  # noqa: E402
from rlkit.deploy.parity import recorded, replay  # noqa: E402
from rlkit.deploy.program import Program  # noqa: E402
from rlkit.deploy.runtime import Folder  # noqa: E402

CELLS = Path(__file__).parents[2] / "scripts" / "export_cells.py"
CHOSEN = (  # of scripts/export_cells.py, which compares all
    "dqn-rainbow normalize multibinary vector",
    "reinforce small multidiscrete mask",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PPO with a memory on CartPole: a policy with random weights, as a training run would have left it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    config = compose(
        [
            "agent=ppo",
            "env=cartpole",
            "network=lstm",
            "network.core_size=8",
            "network.hidden=[8]",
            "network.shared=true",
        ]
    ).config
    torch.manual_seed(0)
    spec = probe_env(config).spec
    policy = registry.algorithm("ppo").Policy(spec, config.network, config.agent)
    torch.nn.init.normal_(policy.network.heads["policy"].weight)
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(config))
    checkpoint.write(folder / "best", {"policy": policy_parts(policy, config), "score": {}}, 700)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Iterator[Path]:
    """RUN/export, as the command makes it. What was traced is kept: tracing takes seconds."""
    traced = exporting.trace(rlkit.load(run), ["action", "sampled", "value"])
    patch = pytest.MonkeyPatch()

    def again(agent: AgentPolicy, wanted: Any) -> Any:
        return onnx.ModelProto.FromString(traced.SerializeToString())

    patch.setattr(exporting, "trace", again)
    assert main(["export", str(run), "--steps", "60", "--value", "--licence", "CC-BY-4.0"]) == 0
    yield run / "export"
    patch.undo()


def test_the_folder_says_what_it_is_and_holds_what_acts(run: Path, exported: Path) -> None:
    info = json.loads((exported / "policy.json").read_text())
    assert info["step"] == 700 and info["agent"] == "ppo" and info["run"] == "small"
    assert info["checkpoint"] == hashlib.sha256((run / "best" / "manifest.json").read_bytes()).hexdigest()
    assert (
        info["licence"] == "CC-BY-4.0" and "\nLicence: CC-BY-4.0.\n" in (exported / "README.md").read_text()
    )
    assert info["preprocessing"]["stack"] == 1 and info["observation"]["shape"] == [4] and info["opset"] == 20
    model = onnx.load(exported / "policy.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["obs", "first", "memory.0", "memory.1"]
    outputs = [each.name for each in model.graph.output]
    assert outputs == ["action", "memory_out.0", "memory_out.1", "value"]
    sample = onnx.load(exported / "sample.onnx")
    assert [each.name for each in sample.graph.input][2] == "noise"
    assert str(CELLS.parents[1]) not in str(model), "a path of this machine"
    files = {each.name for each in exported.iterdir()}
    assert files == {"manifest.json", *json.loads((exported / "manifest.json").read_text())["files"]}
    assert not list(run.glob(".export*"))


def test_the_lines_of_its_readme_run(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with NumPy, and those with ONNX Runtime, of which the last three are a step; two steps."""
    folder = shutil.copytree(exported, tmp_path / "export")  # Python leaves a file beside what it imports
    blocks = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.S)
    assert [len(each.splitlines()) for each in blocks] == [4, 6]
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "rlkit_runtime", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    with_numpy, with_onnx = ({"obs": np.array([0.1, 0.2, 0.3, 0.4], np.float32)} for _ in blocks)
    exec(blocks[0], with_numpy)
    exec(blocks[1], with_onnx)
    assert with_onnx["action"] == with_numpy["action"]
    exec(blocks[0].splitlines()[3], with_numpy)
    later = "\n".join(blocks[1].splitlines()[3:]).replace("True", "False")
    exec(later, with_onnx)
    assert (
        with_onnx["action"] == with_numpy["action"]
        and len(with_onnx["memory"]) == len(with_numpy["state"]) == 2
    )
    for mine, theirs in zip(with_onnx["memory"].values(), with_numpy["state"], strict=True):
        assert np.abs(mine).max() > 0 and np.allclose(mine, theirs, atol=1e-5)


def test_a_memory_of_the_memory_is_kept_and_one_that_only_noise_reads_where_it_changes() -> None:
    """0 reads 1, the action reads 0, nothing reads 2 but itself, and 3 is read by what is drawn."""
    helper = onnx.helper
    reads = {
        "action": ["memory.0", "obs"], "memory_out.0": ["memory.0", "memory.1"], "memory_out.1": ["obs", "memory.1"],
        "memory_out.2": ["memory.2", "memory.0"], "memory_out.3": ["memory.3", "obs"], "sampled": ["memory.3", "noise"],
        "sampled_memory_out.0": ["memory.0", "memory.1"], "sampled_memory_out.1": ["memory.1", "obs"],
        "sampled_memory_out.2": ["memory.2", "obs"], "sampled_memory_out.3": ["noise", "memory.3"],
    }  # fmt: skip
    nodes = [helper.make_node("Add", given, [name]) for name, given in reads.items()]
    inputs = ["obs", "noise", *(f"memory.{i}" for i in range(4))]
    infos = [[helper.make_tensor_value_info(name, 1, [1]) for name in names] for names in (inputs, reads)]
    cutter = Cutter(helper.make_model(helper.make_graph(nodes, "g", *infos)))
    assert exporting.memory_kept(cutter, 4, value=False) == ({0, 1, 3}, {0, 1, 3})
    passed = helper.make_node("Identity", ["memory.3"], ["memory_out.3"])
    nodes = [passed if node.output[0] == "memory_out.3" else node for node in nodes]
    cutter = Cutter(helper.make_model(helper.make_graph(nodes, "g", *infos)))
    assert exporting.memory_kept(cutter, 4, value=False) == ({0, 1}, {0, 1, 3})


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime", ""])
def test_the_runtime_acts_as_the_agent_does(run: Path, exported: Path, backend: str) -> None:
    policy, agent = Policy.load(exported, backend), rlkit.load(run)
    assert policy.backend in ("numpy", "onnxruntime") and replay(policy) == ""
    obs = np.random.default_rng(0).uniform(-1, 1, (20, 3, 4)).astype(np.float32)
    first = np.random.default_rng(1).random((20, 3)) < 0.2
    state, theirs = None, None
    for t in range(20):
        actions, state = policy.batch(obs[t], state, first[t])
        wanted, theirs = agent.batch(obs[t], theirs, first[t])
        assert np.array_equal(actions, wanted) and actions.dtype == wanted.dtype
    assert state is not None and theirs is not None
    for mine, other in zip(state, tree_leaves(theirs), strict=True):
        assert np.allclose(mine, other.numpy(), atol=1e-6)
    session, other_session = policy.session(), agent.session()
    assert [session.act(x) for x in obs[:, 0]] == [other_session.act(x) for x in obs[:, 0]]
    saved = policy.session()
    saved.load(session.save())
    assert saved.act(obs[0, 0]) == session.act(obs[0, 0])
    noise = np.full((3, 1), 0.5, np.float32)
    drawn, _ = policy.run({"": obs[0]}, np.ones(3, bool), policy.opening(3), noise)
    rows = (
        torch.from_numpy(obs[0]),
        torch.ones(3, dtype=torch.bool),
        agent.opening(3),
        torch.from_numpy(noise),
    )
    with torch.no_grad():
        assert np.array_equal(drawn, agent.act(*rows)[0].numpy())
    assert {int(policy(obs[0, 0], greedy=False)[0]) for _ in range(40)} == {0, 1}
    with pytest.raises(ValueError, match="observation holds nan"):
        policy(np.full(4, np.nan))
    with pytest.raises(ValueError, match="the state is 0 parts; this policy remembers 2"):
        policy(obs[0, 0], ())


def test_the_one_file_needs_numpy_alone(exported: Path, tmp_path: Path) -> None:
    """A copy elsewhere, in an interpreter that sees nothing of this package."""
    copy = shutil.copytree(exported, tmp_path / "copy")
    given = re.findall(r"^(?:def|class) (\w+)", bundle("1"), re.MULTILINE)
    assert len(given) == len(set(given)), "a name that two modules give"
    code = (
        "import sys, numpy as np; sys.path.insert(0, '.'); import rlkit_runtime as r; p = r.Policy.load('.', 'numpy'); "
        "print(p(np.zeros(4))[0]); print(sorted({'rlkit', 'torch', 'gymnasium', 'ray', 'onnx'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=copy, capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[1] == "[]"
    script = [sys.executable, "-I", "rlkit_runtime.py", ".", "--check"]
    told = subprocess.run(script, cwd=copy, capture_output=True, text=True, check=False)
    assert told.returncode == 0 and "numpy: every recorded step is the same" in told.stdout
    (copy / "policy.onnx").write_bytes((copy / "sample.onnx").read_bytes())
    told = subprocess.run(script, cwd=copy, capture_output=True, text=True, check=False)
    assert told.returncode == 1 and "its SHA-256 is not the manifest's" in told.stderr


def test_a_policy_that_is_not_the_agent_is_not_left_there(run: Path, exported: Path, capsys: Any) -> None:
    """The recorded steps are of other weights than the graphs: what was there before stays as it was."""
    agent, before = rlkit.load(run), {each.name: each.read_bytes() for each in exported.iterdir()}
    with torch.no_grad():
        agent.policy.network.heads["policy"].weight.mul_(-1)
    config = compose(["env=cartpole"]).config
    where = exporting.Origin("small", "ppo", 700, "")
    place = at(exported)
    with pytest.raises(exporting.Unequal, match=r"numpy: step 0, output action: \d, and the agent had \d"):
        exporting.export(agent, config, place, where, steps=20, value=True, say=print)
    assert {each.name: each.read_bytes() for each in exported.iterdir()} == before
    assert [each.name for each in run.iterdir() if "export" in each.name] == ["export"]
    with torch.no_grad():
        agent.policy.network.heads["policy"].weight.mul_(-1)
        agent.policy.network.heads["value"].bias.add_(0.01)
    with pytest.raises(
        exporting.Unequal, match=r"numpy: step 0, output value: [-\d.]+, and the agent had [-\d.]+$"
    ):
        exporting.export(agent, config, place, where, steps=20, value=True, say=print)
    with torch.no_grad():
        agent.policy.network.heads["value"].bias.sub_(0.01)
        agent.policy.network.cores[0].recalls[0].mul_(1.01)
    with pytest.raises(exporting.Unequal, match=r"step \d+, output (value|memory_out\.\d\[\d+\]): "):
        exporting.export(agent, config, at(run / "new"), where, steps=20, value=True, say=print)
    assert not (run / "new").exists()
    exporting.export(
        agent,
        config,
        at(run / "new"),
        where,
        steps=5,
        value=True,
        verify=False,
        say=print,
    )
    assert (run / "new").is_dir()
    capsys.readouterr()


def test_without_an_environment_observations_are_random(run: Path, exported: Path, tmp_path: Path) -> None:
    config, said = compose(["env=cartpole"]).config, list[str]()
    config = replace(config, env=replace(config.env, id="Nowhere-v0"))
    where = exporting.Origin("small", "ppo", 700, "")
    place = at(tmp_path / "export")
    exporting.export(rlkit.load(run), config, place, where, steps=60, value=True, say=said.append)
    assert said[0].startswith("Nowhere-v0 cannot be used here") and said[1:] == [
        "verified:    numpy, every recorded step",
        "verified:    onnxruntime, every recorded step",
    ]
    steps = recorded(Folder(place.path))
    assert (
        len(steps["obs"]) == 60
        and steps["first"].tolist()[:2] == [True, False]
        and len(steps["sampled"]) == 60
    )
    assert np.abs(steps["obs"][:, 2]).max() <= 0.42


def test_the_command_says_what_it_does_and_what_is_wrong(
    run: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(*words: str) -> tuple[int, str]:
        code = main(["export", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, text = said(str(run), "--check")
    assert code == 0 and "verified:    onnxruntime, every recorded step" in text and "newer" not in text
    shutil.copytree(run, tmp_path / "run")
    parts = checkpoint.read(run / "best", "policy")
    checkpoint.write(tmp_path / "run" / "best", parts, 900)
    code, text = said(str(tmp_path / "run"), "--check")
    assert code == 0 and f"the run has a newer one: {tmp_path / 'run' / 'best'}; rlkit export" in text
    assert said(str(run), "--check", "--to", str(tmp_path / "no"))[0] == 2
    code, text = said(str(run), "--to", str(tmp_path / "run"))
    assert code == 2 and "something else than an exported policy" in text
    code, text = said(str(run), "--format", "pt2")
    assert code == 2 and "invalid choice: 'pt2'" in text
    code, text = said(str(run), "--check", "--format", "c")
    assert code == 2 and f"export holds no policy.c; rlkit export {run} --format c writes it" in text
    code, text = said(str(run), "--licence", "a\nb")
    assert code == 2 and "; allowed: one line of 1 to 200 printable characters" in text
    assert said(str(run), "--check", "--licence", "MIT")[0] == 2
    assert said(str(run), "--steps", "0")[0] == 2 and said(str(run), "--which", "123")[0] == 2
    code, text = said(str(tmp_path / "nothing"))
    assert code == 2 and "does not exist" in text
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "no_such_package"))
    code, text = said(str(run))
    assert code == 2 and 'needs no_such_package: pip install "rlkit[export]"' in text


def reseal(folder: Path) -> None:
    """Sums that fit the files again: what somebody would do who means harm."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


def test_300_mutated_folders_are_refused_or_act(exported: Path, tmp_path: Path) -> None:
    """Bytes changed, left out and put in; of every third folder the sums fit again. Nothing else than GraphError."""
    drawn, folder, seen = random.Random(0), tmp_path / "mutated", {"refused": 0, "acts": 0}
    obs = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    wanted = Policy.load(exported, "numpy")(obs)[0]
    whole = {each.name: each.read_bytes() for each in exported.iterdir()}
    shutil.copytree(exported, folder)
    for number in range(300):
        name = drawn.choice(["policy.onnx", "policy.onnx", "policy.json", "manifest.json"])
        data = bytearray(whole[name])
        place = drawn.randrange(len(data))
        kind = number % 4
        if kind == 0:
            data[place] ^= 1 << drawn.randrange(8)
        elif kind == 1:
            del data[place : place + drawn.randrange(1, 100)]
        elif kind == 2:
            data[place:place] = drawn.randbytes(drawn.randrange(1, 20))
        else:
            del data[place:]
        (folder / name).write_bytes(bytes(data))
        harm = number % 3 == 0 and name != "manifest.json"
        if harm:
            reseal(folder)
        start = time.process_time()
        try:
            policy = Policy.load(folder, "numpy")
            action, _ = policy(obs)
            assert harm or action == wanted
            seen["acts"] += 1
        except GraphError:
            seen["refused"] += 1
        assert time.process_time() - start < 1
        for changed in (name, "manifest.json"):
            (folder / changed).write_bytes(whole[changed])
    assert seen["refused"] > 200


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", 99, "GraphError"),
        (
            "observation",
            {"kind": "Box", "shape": [10**9], "dtype": "float32", "low": 0, "high": 1},
            "no policy has",
        ),
        ("observation", {"kind": "Dict", "entries": []}, "no policy has"),
        ("observation", {"kind": "Graph"}, "policy.json is damaged: .*unknown space kind"),
        ("memory", [{"name": "memory.0", "shape": [10**9], "dtype": "float32"}], "no policy has"),
        ("memory", [{"name": "memory.0", "shape": [1, 8], "dtype": "object"}], "no policy has"),
        ("memory", [], "does not say what policy.onnx remembers"),
        ("graphs", {"policy.onnx": [1, {}]}, "does not say what policy.onnx remembers"),
        ("graphs", None, "does not say what policy.onnx remembers"),
        ("action", {"kind": "Discrete", "n": 2, "start": "x"}, "policy.json is damaged: UFuncTypeError"),
        ("noise", 10**12, "no policy has"),
    ],
)
def test_descriptions_that_no_policy_has_are_refused(
    exported: Path, tmp_path: Path, field: str, value: Any, words: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "export")
    if field == "format":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(sealed(manifest | {"format": 99})))
        with pytest.raises(GraphError, match="has format 99, newer than 1: upgrade rlkit"):
            Policy.load(folder)
        return
    info = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps(info | {field: value}))
    reseal(folder)
    with pytest.raises(GraphError, match=words):
        Policy.load(folder, "numpy")(np.zeros(4))


def test_what_is_no_regular_file_is_not_opened(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "export")
    (folder / "policy.onnx").unlink()
    os.mkfifo(folder / "policy.onnx")
    with pytest.raises(GraphError, match=r"policy\.onnx is no regular file"):
        Policy.load(folder, "numpy")
    (folder / "policy.onnx").unlink()
    (folder / "policy.onnx").symlink_to(exported / "policy.onnx")
    with pytest.raises(GraphError, match=r"policy\.onnx is no regular file"):
        Policy.load(folder, "numpy")


def test_a_damaged_record_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "export")
    for data, words in ((b"nothing", "parity.npz is damaged"), (None, "parity.npz is damaged: KeyError")):
        if data is None:
            np.savez(folder / "parity.npz", first=np.ones(3, bool))
        else:
            (folder / "parity.npz").write_bytes(data)
        reseal(folder)
        with pytest.raises(GraphError, match=words):
            replay(Policy.load(folder, "numpy"))
    np.savez(folder / "parity.npz", first=np.array([{"a": 1}], object))
    reseal(folder)
    with pytest.raises(GraphError, match="parity.npz is damaged: ValueError"):
        replay(Policy.load(folder, "numpy"))


@pytest.mark.parametrize("name", CHOSEN)
def test_policies_of_other_kinds_are_the_agent_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("export_cells", CELLS)
    assert spec is not None and spec.loader is not None
    cells = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "export_cells", cells)
    spec.loader.exec_module(cells)
    cell = next(each for each in cells.cells() if str(each) == name)
    monkeypatch.setattr(exporting, "trace", importlib.import_module("rlkit.deploy.trace").trace)
    assert cells.compare(cell, tmp_path / "export", steps=20) == ""


def small(**network: Any) -> AgentPolicy:
    torch.manual_seed(0)
    config = NetworkConfig(hidden=(8,), core_size=8, core_heads=2, window=3, shared=True, **network)
    policy = ppo.Policy(EnvSpec("none", Box((4,), "float32"), Discrete(3)), config, ppo.Config())
    torch.nn.init.normal_(policy.network.heads["policy"].weight)
    return AgentPolicy(policy.eval(), Path("none"))


def with_eyes() -> AgentPolicy:
    """What it sees is what a frozen network makes of the last two frames."""
    agent = small(core="gru")
    seen = EnvSpec("none", Box((5,), "float32"), Discrete(3), 2)
    look = make_encoder(seen.observation, 2, NetworkConfig(hidden=(4,))).requires_grad_(False)
    agent.policy.eyes = Eyes(look, seen, agent.policy.spec.observation, {})
    return AgentPolicy(agent.policy, Path("none"))


@pytest.mark.parametrize("make", [lambda: small(core="transformer"), with_eyes], ids=["transformer", "eyes"])
def test_memory_is_filled_and_cleared_as_the_agent_s(make: Callable[[], AgentPolicy]) -> None:
    """A window of rows, and frames that eyes have seen, where episodes open at different times."""
    agent = make()
    value = ["value"] if agent.policy.eyes else []  # tracing takes seconds
    whole = importlib.import_module("rlkit.deploy.trace").trace(agent, ["action", *value])
    outputs, inputs = (
        ["action", "memory_out.0", "memory_out.1", *value],
        ["obs", "first", "memory.0", "memory.1"],
    )
    made = Cutter(whole).cut({name: name for name in outputs}, inputs)
    program = Program(read_graph(made.SerializeToString()), inputs, outputs)
    shape = (12, 2, *agent.spec.observation.shape)  # type: ignore[union-attr]
    obs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    first = np.random.default_rng(1).random((12, 2)) < 0.2
    state = agent.opening(2)
    memory = [part.numpy() for part in tree_leaves(state)]
    for t in range(12):
        with torch.no_grad():
            action, state = agent.act(torch.from_numpy(obs[t]), torch.from_numpy(first[t]), state, None)
        found, *after = program(obs[t], first[t], *memory)
        memory = after[:2]
        assert np.array_equal(found, action.numpy()) and [x.shape for x in after[2:]] == [(2,)] * len(value)
        for mine, theirs in zip(memory, tree_leaves(state), strict=True):
            assert np.allclose(mine, theirs.numpy(), atol=1e-5)


def test_codes_are_looked_up() -> None:
    """A board of codes, whose table our own operator reads in training."""
    torch.manual_seed(0)
    spec = EnvSpec("none", Box((3, 4), "uint8", 0.0, 2.0, meaning="codes"), Discrete(5))
    policy = ppo.Policy(spec, NetworkConfig(shared=True), ppo.Config())
    torch.nn.init.normal_(policy.network.heads["policy"].weight)
    agent = AgentPolicy(policy.eval(), Path("none"))
    whole = importlib.import_module("rlkit.deploy.trace").trace(agent, ["action"])
    made = Cutter(whole).cut({"action": "action"}, ["obs"])
    obs = np.random.default_rng(0).integers(0, 3, (64, 3, 4), dtype=np.uint8)
    found = Program(read_graph(made.SerializeToString()), ["obs"], ["action"])(obs)[0]
    wanted, _ = agent.act(torch.from_numpy(obs), torch.ones(64, dtype=torch.bool), agent.opening(64), None)
    assert np.array_equal(found, wanted.numpy()) and len(np.unique(found)) > 2


def test_what_no_operator_computes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkit.deploy.trace import trace
    from rlkit.options import ConfigError

    agent = small()
    monkeypatch.setattr(agent.policy, "to_env", lambda action: torch.special.i0e(action.float()))
    with pytest.raises(ConfigError, match=r"the network computes [\w.:]+i0e, for which ONNX has no operator"):
        trace(agent, ["action"])

    def none(*_: Any) -> Any:
        raise ValueError("no value is learned")

    monkeypatch.setattr(agent.policy, "value", none)
    with pytest.raises(ConfigError, match="^no value is learned$"):
        trace(agent, ["value"])


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of examples/embed as a module."""
    path = CELLS.parents[1] / "examples" / "embed" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_the_examples_score_what_the_agent_does(
    run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, env, wanted = rlkit.load(run), gymnasium.make("CartPole-v1"), []
    for seed in range(4):
        obs, _ = env.reset(seed=seed)
        session, total, over = agent.session(), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(session.act(obs))
            total, over = total + float(reward), terminated or truncated
        wanted.append(total)
    assert example("gym_script", monkeypatch).main(str(exported), "CartPole-v1", 4) == sum(wanted) / 4
    assert example("threads", monkeypatch).main(str(exported), "CartPole-v1", 2) == wanted
