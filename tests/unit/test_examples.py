"""The programs and documents of examples/embed do what they say, with a policy made by hand."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("orjson", reason="orjson is not installed: pip install 'rlkit[serve]'")

from rlkit.deploy.bundle import bundle  # noqa: E402
from rlkit.runtime import Policy  # noqa: E402
from tests.helpers.served import export, graph  # noqa: E402

EMBED = Path(__file__).parents[2] / "examples" / "embed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pushes right where the sum of the positions since the start is above 0.02."""
    return export(tmp_path_factory.mktemp("examples") / "hand", threshold=0.02, numbers=4)


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(name, EMBED / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def code(document: str, language: str) -> str:
    """The first block of code of a language in a document."""
    found = re.search(rf"```{language}\n(.*?)```", (EMBED / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_stable_baselines_measures_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    env, session, returns = gymnasium.make("CartPole-v1"), Policy.load(folder).session(), []
    obs, _ = env.reset(seed=0)
    for _ in range(3):
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(session.act(obs))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
        session.reset()
        obs, _ = env.reset()
    assert example("sb3_evaluate", monkeypatch).main(str(folder), "CartPole-v1", 3) == pytest.approx(
        sum(returns) / 3
    )
    assert len(set(returns)) > 1


def test_a_game_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert example("pygame_loop", monkeypatch).main(str(folder), frames=30, rate=0) == 30


def test_a_page_plays_as_gymnasium_does(folder: Path) -> None:
    if shutil.which("node") is None or not (EMBED / "browser" / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("needs node, and npm install in examples/embed/browser")
    words = ["node", "check.mjs", str(folder)]
    done = subprocess.run(
        words, cwd=EMBED / "browser", capture_output=True, text=True, timeout=100, check=True
    )
    told = json.loads(done.stdout)
    env, session = gymnasium.make("CartPole-v1").unwrapped, Policy.load(folder).session()
    env.reset(seed=0)
    state: Any = np.array([0.01, -0.02, 0.03, 0.04])
    env.state = state  # type: ignore[attr-defined]
    actions, over = [], False
    while not over:
        assert np.allclose(state, told["states"][len(actions)], rtol=1e-9, atol=1e-12)
        actions.append(session.act(np.asarray(state, np.float32)))
        _, _, over, _, _ = env.step(actions[-1])
        state = env.state  # type: ignore[attr-defined]
    assert told["actions"] == actions and set(actions) == {0, 1}


def test_the_node_of_ros2_sends_what_the_policy_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of rclpy: a scan comes, then a damaged one, then none."""
    folder = export(tmp_path / "robot", action={"kind": "Discrete", "n": 2, "start": 0})
    (folder / "rlkit_runtime.py").write_text(bundle("1"))
    sent: list[Any] = []

    class Node:
        def __init__(self, name: str) -> None:
            self.errors: list[str] = []

        def create_subscription(self, kind: Any, topic: str, heard: Any, depth: int) -> None:
            self.heard = heard

        def create_publisher(self, kind: Any, topic: str, depth: int) -> Any:
            return types.SimpleNamespace(publish=sent.append)

        def create_timer(self, seconds: float, call: Any) -> None: ...

        def get_logger(self) -> Any:
            return types.SimpleNamespace(error=self.errors.append)

    def twist() -> Any:
        return types.SimpleNamespace(
            linear=types.SimpleNamespace(x=0.0), angular=types.SimpleNamespace(z=0.0)
        )

    for name, parts in (
        ("rclpy", {}), ("rclpy.node", {"Node": Node}), ("sensor_msgs", {}), ("geometry_msgs", {}),
        ("sensor_msgs.msg", {"LaserScan": object}), ("geometry_msgs.msg", {"Twist": twist}),
    ):  # fmt: skip
        module = types.ModuleType(name)
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["driver.py", str(folder)])
    monkeypatch.syspath_prepend(str(folder))
    scope: dict[str, Any] = {"__name__": "driver"}
    exec(compile(code("ros2.md", "python"), "ros2.md", "exec"), scope)
    monkeypatch.delitem(sys.modules, "rlkit_runtime")
    driver = scope["Driver"]()
    monkeypatch.setattr(
        driver.session, "act", lambda obs: (obs[0], obs[1]) if np.isfinite(obs).all() else 1 / 0
    )
    for ranges in ([0.5, np.inf], None):
        if ranges is not None:
            driver.heard(types.SimpleNamespace(ranges=ranges, range_max=8.0))
        driver.decide()
    monkeypatch.undo()
    driver.heard(types.SimpleNamespace(ranges=[0.5], range_max=8.0))
    driver.decide()
    assert [(each.linear.x, each.angular.z) for each in sent] == [(0.5, 8.0), (0.0, 0.0), (0.0, 0.0)]
    assert "observation has shape (1,)" in driver.errors[0]


def test_the_document_of_godot_and_that_of_unity_name_what_there_is(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    sent = re.findall(r'JSON.stringify\(\{"(\w+)": obs, "(\w+)": first\}\)', code("godot.md", "gdscript"))
    assert sent == [("obs", "first")]
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "policy.onnx").write_bytes(graph(0.1, False))
    words = [sys.executable, "-c", code("unity.md", "python")]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert onnx.load(tmp_path / "policy15.onnx").opset_import[0].version == 15
    inputs = {
        "obs": np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32),
        "first": np.ones(50, bool),
        "memory.0": np.zeros((50, 1), np.float32),
    }
    found = [
        runtime.InferenceSession(str(tmp_path / name)).run(["action"], inputs)[0]
        for name in ("export/policy.onnx", "policy15.onnx")
    ]
    assert np.array_equal(*found) and set(found[0]) == {0, 1}
