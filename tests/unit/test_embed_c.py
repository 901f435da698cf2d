"""rlkit export --format c: the C files do what the agent does, say what they refuse, and hold no name of a file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.agents import ppo
from rlkit.checkpoint import sealed
from rlkit.config.compose import compose
from rlkit.files import at
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy
from rlkit.runtime import GraphError, Policy
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from rlkit.types import EnvSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("emx_onnx_cgen", reason="needs the extra embed-c")
if shutil.which("cc") is None or shutil.which("c++") is None:
    pytest.skip("needs a C compiler (cc, c++)", allow_module_level=True)

from rlkit.deploy import c, fmu, kernel, native  # noqa: E402
from rlkit.deploy import export as exporting  # noqa: E402
from rlkit.deploy.runtime import Folder  # noqa: E402

VERIFIED = [
    "verified:    policy.c (cc -std=c11 -O2), every recorded step",
    "verified:    policy.fmu (FMPy), every recorded step"
    if importlib.util.find_spec("fmpy")
    else 'policy.fmu was not verified: FMPy is missing (pip install "rlkit[embed-fmu]")',
]
WARNINGS = ["-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]
LEVELS = Box((2,), "int16", np.array([-3.0, -(2.0**15)]), np.array([5.0, 9.0]))
SEEN = Dict(
    (
        ("int", Box((2, 2), "float32", -1.0, 1.0)),
        ("x.y-1", Box((1,), "float32")),
        ("x_y_1", Dict((("*/ #error", Discrete(3, 1)), ("level", LEVELS)))),
        ("action_mask", MultiBinary(5)),
    )
)
NAMES = ["e_int", "e_x_y_1", "e_x_y_1_____error", "e_x_y_1_level", "e_action_mask"]


def elsewhere() -> Any:
    """A configuration whose environment nobody can make: observations are random numbers."""
    config = compose(["agent=ppo", "env=cartpole"]).config
    return replace(config, env=replace(config.env, id="none"))


@pytest.fixture(scope="module")
def agent() -> AgentPolicy:
    torch.manual_seed(0)
    network = NetworkConfig(hidden=(6,), core="lstm", core_size=4, shared=True)
    policy = ppo.Policy(EnvSpec("none", SEEN, MultiDiscrete((3, 2), (0, 0))), network, ppo.Config())
    torch.nn.init.normal_(policy.network.heads["policy"].weight)
    return AgentPolicy(policy.eval(), Path("none"))


@pytest.fixture(scope="module")
def traced(agent: AgentPolicy) -> bytes:
    found: bytes = exporting.trace(agent, ["action", "sampled", "value"]).SerializeToString()
    return found


@pytest.fixture(scope="module")
def folder(agent: AgentPolicy, traced: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder of a run with a name that would be a function of libc."""
    place, said = tmp_path_factory.mktemp("c") / "export", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda *_: onnx.ModelProto.FromString(traced))
        where = exporting.Origin("tanh */ int main;", "ppo", 7, "")
        exporting.export(
            agent, elsewhere(), at(place), where, steps=60, value=True, form="fmu", say=said.append
        )
    assert said[-2:] == VERIFIED
    assert said[1].startswith("policy.c:    ") and "32 bytes of memory for each simulation" in said[1]
    return place


def test_the_folder_holds_c_without_a_name_of_a_file(folder: Path) -> None:
    info = json.loads((folder / "policy.json").read_text())
    assert info["c"] == kernel.generator() and info["c"].startswith("emx-onnx-cgen 1.")
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {each.name for each in folder.iterdir()} == {"manifest.json", *listed} and set(c.FILES) <= set(
        listed
    )
    face = c.Interface(info)
    assert [each.name for each in face.entries] == NAMES
    text = (folder / "policy.c").read_text()
    assert "tanh */" not in text + (folder / "policy.h").read_text() and "weight_ih" not in text
    assert c.identifier("int", set()) == "e_int" and c.identifier("ö!", {"e___"}) == "e____2"
    readme = (folder / "README.md").read_text()
    assert "bytes of code and constants" in readme and "rlkit_policy_act(&policy, &obs, action)" in readme


@pytest.mark.parametrize("compiler", [["cc", "-std=c11"], ["c++", "-x", "c++", "-std=c++17"]])
def test_it_compiles_without_a_warning(folder: Path, tmp_path: Path, compiler: list[str]) -> None:
    sources = [str(folder / name) for name in ("example.c", "policy.c")]
    words = [*compiler, *WARNINGS, *sources, "-lm", "-o", "example"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0 and told.stderr == "", told.stderr[:2000]
    told = subprocess.run([tmp_path / "example"], capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == ["step 0", "step 1", "step 2"]
    told = subprocess.run([*words, "-ffast-math"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode and "compile it without -ffast-math" in told.stderr


PROGRAM = """\
#include "policy.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static rlkit_obs_t obs, bad;
static rlkit_policy_t a, b, kept;

static void refused(const char *what) {
    rlkit_action_t action[RLKIT_ACTION_SIZE] = {7, 7};
    const int code = rlkit_policy_act(&a, &bad, action);
    printf("%s: %d, %d\\n", what, code, memcmp(&a, &kept, sizeof a) == 0 && action[0] == 7 && action[1] == 7);
    bad = obs;
}

int main(void) {
    rlkit_action_t action[RLKIT_ACTION_SIZE], other[RLKIT_ACTION_SIZE];
    for (int i = 0; i < 5; ++i) obs.e_action_mask[i] = 1;
    obs.e_int[0] = 0.5f;
    obs.e_x_y_1[0] = -3;
    rlkit_policy_reset(&a);
    rlkit_policy_act(&a, &obs, action);
    kept = a;
    bad = obs;
    bad.e_int[3] = NAN; refused("nan");
    bad.e_x_y_1[0] = -INFINITY; refused("infinity");
    bad.e_x_y_1_____error[0] = 3; refused("choice");
    bad.e_x_y_1_____error[0] = -1; refused("negative");
    bad.e_x_y_1_level[0] = -4; refused("level");
    bad.e_x_y_1_level[1] = 10; refused("second level");
    bad.e_action_mask[3] = bad.e_action_mask[4] = 0; refused("mask");
    bad.e_action_mask[0] = 2; refused("no bit");
    float noise[RLKIT_NOISE_SIZE];
    for (int i = 0; i < RLKIT_NOISE_SIZE; ++i) noise[i] = NAN;
    printf("noise: %d\\n", rlkit_policy_sample(&a, &obs, noise, action));
    /* a simulation that is opened again does what a new one does, and knows nothing of others */
    rlkit_policy_reset(&b);
    rlkit_policy_reset(&a);
    int same = memcmp(&a, &b, sizeof a) == 0;
    for (int i = 0; i < 5; ++i) {
        rlkit_policy_act(&a, &obs, action);
        rlkit_policy_act(&b, &obs, other);
        same = same && memcmp(action, other, sizeof action) == 0 && memcmp(&a, &b, sizeof a) == 0;
    }
    for (int i = 0; i < RLKIT_NOISE_SIZE; ++i) noise[i] = i % 2; /* the ends of the interval */
    printf("same: %d, %d; value %.6f\\n", same, rlkit_policy_sample(&a, &obs, noise, action), (double)b.value);
    return 0;
}
"""


def test_what_training_cannot_have_shown_leaves_everything_as_it_was(folder: Path, tmp_path: Path) -> None:
    """Under both sanitizers; the value after five steps is what the runtime's graph says."""
    (tmp_path / "program.c").write_text(PROGRAM)
    words = [
        "cc",
        "-std=c11",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
        f"-I{folder}",
    ]
    words += ["program.c", str(folder / "policy.c"), "-lm", "-o", "program"]
    subprocess.run(words, cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    *refused, last = told.stdout.splitlines()
    assert refused == [
        "nan: 1, 1", "infinity: 1, 1", "choice: 2, 1", "negative: 2, 1", "level: 2, 1", "second level: 2, 1",
        "mask: 3, 1", "no bit: 2, 1", "noise: 1",
    ]  # fmt: skip
    rows = {
        "int": np.array([[[0.5, 0], [0, 0]]], np.float32), "x.y-1": np.array([[-3]], np.float32),
        "x_y_1.*/ #error": np.array([0]), "x_y_1.level": np.zeros((1, 2), np.int16),
        "action_mask": np.ones((1, 5), np.int8),
    }  # fmt: skip
    policy = Policy.load(folder, "numpy")
    assert [entry.name for entry in policy.reader.entries] == list(rows)
    memory, value = list(policy.opening(1)), np.zeros(1)
    for step in range(5):
        _, *memory, value = policy._graphs[True][0](*rows.values(), np.array([step == 0]), *memory)
    assert last == f"same: 1, 0; value {value[0]:.6f}"


def reseal(folder: Path) -> None:
    """Sums that fit the files again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


def test_a_folder_s_c_is_not_compiled_but_made_again(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "export")
    said = list[str]()
    assert native.check(Folder(copy), said.append) == ""
    assert said == VERIFIED
    text = (copy / "policy.c").read_text()
    (copy / "policy.c").write_text(text.replace("policy->first = true;", 'system("true");'))
    with pytest.raises(GraphError, match=r"policy\.c is damaged: its SHA-256"):
        native.check(Folder(copy), said.append)
    reseal(copy)
    with pytest.raises(GraphError, match=r"policy\.c is not what its graphs give; export the run again"):
        native.check(Folder(copy), said.append)
    info = json.loads((copy / "policy.json").read_text())
    (copy / "policy.json").write_text(json.dumps(info | {"c": "emx-onnx-cgen 1.3.9"}))
    reseal(copy)
    assert native.check(Folder(copy), said.append) == ""
    assert said[2].startswith("policy.c was not verified: emx-onnx-cgen 1.3.9 and rlkit 0.")


def test_text_in_a_stranger_s_folder_does_not_become_code(folder: Path) -> None:
    """Names, texts and numbers in policy.json, and what a generator may print of a graph."""
    info = json.loads((folder / "policy.json").read_text())
    both = {name: (folder / name).read_bytes() for name in c.GRAPHS}
    evil = "*/ int evil(void); /*"
    hostile = json.loads(json.dumps(info).replace('"memory.0"', json.dumps(evil)))
    hostile |= {"rlkit": evil, "agent": evil, "environment": evil, "noise": str(info["noise"])}
    text = c._header(c.Interface(hostile)) + c._act(c.Interface(hostile), "policy.onnx")
    assert "evil" in text and "*/ int" not in text and "m0[" in text
    with pytest.raises(ValueError, match="invalid literal for int"):
        c.Interface(info | {"noise": "1\nint evil;"})
    model = onnx.ModelProto.FromString(both["policy.onnx"])
    model.producer_name = model.domain = model.doc_string = model.graph.name = model.graph.doc_string = evil
    model.opset_import.add(domain=evil, version=1)
    for node in model.graph.node:
        node.name = node.doc_string = evil
    found = c.sources(info, both | {"policy.onnx": model.SerializeToString()})
    assert found.files["policy.c"] == (folder / "policy.c").read_text()
    for name, value in (("axis", evil), (evil, 1)):
        model = onnx.ModelProto.FromString(both["policy.onnx"])
        model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))
        with pytest.raises(GraphError, match=r"policy\.onnx: an attribute "):
            c.sources(info, both | {"policy.onnx": model.SerializeToString()})


def test_c_that_is_not_the_agent_is_not_left_there(
    agent: AgentPolicy, folder: Path, traced: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One operation is another one, then a recorded step is refused, then there is no compiler."""
    info = json.loads((folder / "policy.json").read_text())
    files = {name: (folder / name).read_text() for name in c.FILES}
    where = exporting.Origin("none", "ppo", 7, "")

    def write(place: Path, said: list[str], form: str = "c") -> None:
        exporting.export(
            agent, elsewhere(), at(place), where, steps=20, value=True, form=form, say=said.append
        )

    monkeypatch.setattr(exporting, "trace", lambda *_: onnx.ModelProto.FromString(traced))
    broken = files["policy.c"].replace("return tanhf(a);", "return tanhf(a) + 0.01f;")
    assert broken != files["policy.c"]
    for text, words in (
        (
            broken,
            r"is not the agent: policy\.c: step \d+, output (value|action\[\d\]|memory_out\.\d\[\d\]): ",
        ),
        (files["policy.c"].replace("!(fabsf", "(fabsf"), "policy.c refuses a recorded observation: code 1"),
        (
            files["policy.c"].replace("return RLKIT_OK;", "return *(volatile int *)0;"),
            "ended by itself .code -11",
        ),
        (files["policy.c"].replace("first = true", "forst = true"), "cc does not compile policy.c: .*forst"),
    ):
        made = c.Sources(files | {"policy.c": text}, 0, 0)
        monkeypatch.setattr(c, "sources", lambda *_, made=made: made)
        with pytest.raises(ValueError, match=words):
            write(tmp_path / "export", [])
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(c, "sources", lambda *_: c.Sources(files, 0, 0))
    if importlib.util.find_spec("fmpy"):
        with monkeypatch.context() as patch:
            made, text = fmu.variables(c.Interface(info))
            turned = made, text.replace("(int)action[0]", "2 - (int)action[0]")
            assert turned[1] != text
            patch.setattr(fmu, "variables", lambda _: turned)
            with pytest.raises(exporting.Unequal, match=r"policy\.fmu: step \d+, output action\[0\]: "):
                write(tmp_path / "export", [], "fmu")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(native, "compiler", list)
    said = list[str]()
    write(tmp_path / "export", said)
    assert said[-1] == "policy.c was not verified: there is no C compiler here (cc)"
    assert info["c"] == json.loads((tmp_path / "export" / "policy.json").read_text())["c"]


def test_what_the_generator_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, 1, [1, 3]) for name in ("i0", "o0")]
    node = helper.make_node("NoSuchOperator", ["i0"], ["o0"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    with pytest.raises(
        ConfigError, match=r"emx-onnx-cgen refuses the graph: .*NoSuchOperator.*; rlkit export without"
    ):
        kernel.kernels({"greedy": model})
    monkeypatch.setattr(kernel, "GENERATOR", "no-such-package")
    with pytest.raises(ConfigError, match=r'needs no-such-package: pip install "rlkit\[embed-c\]"'):
        exporting.require_packages("c")
