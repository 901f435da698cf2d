"""A run folder that was damaged, changed by hand or made by somebody who means harm."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.cli.main import main
from rlkit.config.compose import changes, compose, from_yaml, remembered, save, to_yaml
from rlkit.contracts import Report
from rlkit.files import at, named
from rlkit.learn.trainer import Clock
from rlkit.machine import cores
from rlkit.metrics import read_metrics
from rlkit.options import ConfigError
from rlkit.play.evaluate import Episode
from rlkit.play.video import VideoWriter
from rlkit.replay.ring import Field, Layout, Ring
from rlkit.run.folder import lock_folder
from rlkit.run.health import Diverged, require_finite
from rlkit.run.hooks import Best, EvaluateHook
from rlkit.run.resume import resume

SMALL = {
    "agent.steps": 8, "env.lanes": 2, "env.backend": "inprocess", "total_steps": 64, "evaluate.episodes": 1,
    "evaluate.every": 32, "checkpoint.every": 16, "device": "cpu", "threads": 1, "network.hidden": [8], "name": "run",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with two checkpoints, best/ and an event file."""
    return rlkit.train("ppo", "cartpole", dir=tmp_path_factory.mktemp("trained"), **SMALL)  # type: ignore[arg-type]


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, `run` in the current folder, with more steps to go; `outside` beside it is nobody's to touch."""
    shutil.copytree(trained, tmp_path / "run")
    set_option(tmp_path / "run", "total_steps: 64", "total_steps: 96")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def set_option(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new, 1))


def link(run: Path, name: str, target: str) -> None:
    """Put a link where the run has, or would make, a file or folder."""
    at(run / name).remove()
    (run / name).symlink_to(run.parent / "outside" / target)


def untouched(run: Path) -> bool:
    outside = run.parent / "outside"
    return os.listdir(outside) == ["file"] and (outside / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("checkpoints", "."), ("checkpoints", "new"), ("metrics.csv", "file"), ("metrics.csv", "new"),
        ("config.yaml", "file"), (".lock", "file"), (".lock", "new"),
    ],
)  # fmt: skip
def test_a_run_with_a_link_in_it_is_not_continued(
    run: Path, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link(run, name, target)
    assert main(["resume", "run"]) in (1, 2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"rlkit: run{'' if name == '.lock' else f'/{name}'}: ") and "is a link" in line
    assert untouched(run)


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", ".lock", "state.json"])
def test_a_pipe_holds_nobody_up(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = (checkpoint.steps(run / "checkpoints")[0][1] if name == "state.json" else run) / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    code = main(["resume", "run"])
    output = capsys.readouterr()
    assert "is no regular file" in output.out + output.err
    assert (code == 0) == (name == "state.json")  # there is a checkpoint before that one


def test_links_where_the_run_makes_files_are_replaced(run: Path) -> None:
    """The next event file, the best policy, a checkpoint to come, and leftovers of a killed process."""
    events = sorted(path.name for path in run.glob("events*"))
    host = events[0].partition("000000.")[2]
    for name in (f"events.out.tfevents.000001.{host}", f"events.out.tfevents.000003.{host}"):
        link(run, name, "new-events")
    link(run, "best", ".")
    link(run, ".best.tmp", ".")
    link(run, ".metrics.csv.tmp", "file")
    link(run, "checkpoints/step-000000080", ".")
    link(run, "checkpoints/.step-000000096.tmp", ".")
    (run / "videos").mkdir(exist_ok=True)
    (run / "videos" / "step-000000008.mp4").write_bytes(b"a film")
    link(run, "videos/.step-000000009.mp4.part.mp4", "file")
    resume(run)
    assert os.listdir(run / "videos") == ["step-000000008.mp4"]
    assert untouched(run) and read_metrics(run / "metrics.csv")[-1]["step"] >= 96
    assert not (run / "best").is_symlink() and checkpoint.read(run / "best", "policy")
    assert [path.name for path in run.glob("events*") if not path.is_symlink()] != events


@pytest.mark.parametrize(
    "name", ["eval", "eval/best-greedy-seed5-1.csv", "eval/.best-greedy-seed5-1.csv.tmp"]
)
@pytest.mark.parametrize("target", [".", "file", "new"])
def test_an_evaluation_is_written_nowhere_else(
    run: Path, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "/" in name:
        (run / "eval").mkdir()
    link(run, name, target)
    code = main(["evaluate", "run", "--episodes", "1", "--seed", "5"])
    assert untouched(run) and code == (1 if name == "eval" else 0)
    assert ("rlkit: run/eval: is a link" in capsys.readouterr().err) == (name == "eval")


def test_a_film_is_written_nowhere_else(run: Path) -> None:
    (run / "videos").mkdir()
    link(run, "videos/.film.mp4.part.mp4", "file")
    VideoWriter(named(run) / "videos" / "film.mp4").close()
    link(run, "videos", ".")
    with pytest.raises(ConfigError, match="is a link"):
        VideoWriter(named(run) / "videos" / "film.mp4")
    assert untouched(run)


def test_a_long_or_deep_configuration_is_refused(run: Path) -> None:
    for text, words in (
        (b"a: " + b"x" * (1 << 16), "65,539 bytes long, and at most 65,536 are read"),
        (b"[" * 5_000, "not a YAML file: maximum recursion depth"),
        (b"\xff\xfe", "not a YAML file"),
    ):
        (run / "config.yaml").write_bytes(text)
        with pytest.raises((ConfigError, OSError), match=words):
            resume(run)
    os.truncate(run / "config.yaml", 2**31)
    with pytest.raises(OSError, match="2,147,483,648 bytes long"):
        resume(run)
    long = compose(values={"env": "cartpole", "env.kwargs.x": "x" * 70_000}).config
    with pytest.raises(ConfigError, match="bytes of options, and at most 65,536 are read"):
        save(long, at(run / "config.yaml"))


@pytest.mark.parametrize("hidden", [[30_000, 30_000], [10**9, 10**9]])
def test_a_network_larger_than_its_weights_is_refused(run: Path, hidden: list[int]) -> None:
    """A whole, sealed checkpoint that describes more than this machine has."""
    parts = checkpoint.read(run / "best", "policy", "score")
    parts["policy"]["network"]["hidden"] = hidden
    checkpoint.write(at(run / "best"), parts, 64)
    with pytest.raises(ConfigError, match="describes a network that is larger than its weights"):
        rlkit.load(run)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("weights", "text", "AttributeError"),
        ("weights", {}, "RuntimeError: Error.* in loading state_dict"),
        ("spec", [], "TypeError"),
        ("spec", {}, "KeyError"),
        ("agent_config", None, "no policy can be made of policy.json: "),
        ("network", 3, "TypeError"),
        ("agent", {"name": "ppo"}, "no policy can be made of policy.json: "),
    ],
)
def test_a_policy_that_is_none_is_refused(run: Path, key: str, value: object, words: str) -> None:
    """A whole, sealed checkpoint whose description is another kind of value."""
    parts = checkpoint.read(run / "best", "policy", "score")
    parts["policy"][key] = value
    checkpoint.write(at(run / "best"), parts, 64)
    with pytest.raises(ConfigError, match=words):
        rlkit.load(run)


def test_threads_of_a_larger_machine_are_not_taken(run: Path) -> None:
    set_option(run, "\nthreads: 1\n", "\nthreads: 100000\n")
    before = torch.get_num_threads()
    try:
        assert main(["evaluate", "run", "--episodes", "1"]) == 0
        assert torch.get_num_threads() <= cores()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 0.001", "lr: 0.401", "optim.lr: 0.001 -> 0.401"),
        ("- 8\n", "- 8 # as before\n", ""),
        ("name: run", "name: ran", "name: run -> ran"),
        ("kwargs: {}", "kwargs: {a: 1}", "env.kwargs: {} -> {'a': 1}"),
        ("gamma: 0.98", "gamma: 0.88", "agent.gamma: 0.98 -> 0.88"),
    ],
)
def test_what_was_changed_by_hand_is_told(
    run: Path, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Value by value, each once."""
    set_option(run, old, new)
    if "kwargs" not in old:  # this environment refuses them
        resume(run)
        told = [line for line in capsys.readouterr().out.splitlines() if "changed by hand" in line]
        expected = ["total_steps: 64 -> 96", *([said] if said else [])]
        assert sorted(told) == sorted(f"{run}/config.yaml: {each}, changed by hand" for each in expected)
        set_option(run, "total_steps: 96", "total_steps: 112")
        resume(run)
        told = [line for line in capsys.readouterr().out.splitlines() if "changed by hand" in line]
        assert told == [f"{run}/config.yaml: total_steps: 96 -> 112, changed by hand"]
    else:
        assert main(["evaluate", "run", "--episodes", "1"]) == 1
        assert f"run/config.yaml: {said}, changed by hand\n" in capsys.readouterr().err


def test_flipped_bits_of_a_configuration_are_refused_told_or_change_nothing(run: Path) -> None:
    config = from_yaml(run / "config.yaml")
    before, whole = remembered(config), (run / "config.yaml").read_bytes()
    told = 0
    digits = [
        8 * match.start() for match in re.finditer(rb"\d", whole)
    ]  # whose lowest bit makes another digit
    rng = np.random.default_rng(0)
    for bit in (*rng.choice(8 * len(whole), 8, replace=False), *rng.choice(digits, 8, replace=False)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (run / "config.yaml").write_bytes(flipped)
        try:
            found = from_yaml(run / "config.yaml")
        except ConfigError:
            continue
        assert bool(changes(before, found)) == (found != config)
        told += found != config
    assert told


class Elsewhere(torch.nn.Module):
    """A stand-in for a policy with one weight and one statistic."""

    def __init__(self, weight: float, statistic: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, weight]))
        self.register_buffer("statistic", torch.tensor([statistic], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(1))


class Scores:
    """A stand-in for an evaluator, whose episodes have given returns."""

    def __init__(self, *returns: float) -> None:
        self.returns = list(returns)

    def play(self) -> list[Episode]:
        return [Episode(0, 0, self.returns.pop(0), 1)]

    def worth(self, episodes: list[Episode], step: int, report: Report) -> float:
        return episodes[0].result

    def close(self) -> None: ...


def evaluation(
    folder: Path, returns: list[float], check: Callable[[int], None]
) -> tuple[list[str], list[float | None], list[Report]]:
    """What a hook says, keeps and reports in as many evaluations."""
    said: list[str] = []
    kept: list[float | None] = []
    reports: list[Report] = []
    clock, scores = Clock(10**6), Scores(*returns)
    best = Best(named(folder) / "best", lambda: {"returns": len(scores.returns)})
    hook = EvaluateHook(1, scores, best, said.append, check)  # type: ignore[arg-type]
    for _ in returns:
        clock.advance(1)
        report: Report = {}
        hook.after_update(clock, report)
        kept.append(
            checkpoint.read(folder / "best", "score")["score"]["mean"] if (folder / "best").exists() else None
        )
        reports.append(report)
    return said, kept, reports


def test_best_is_never_a_policy_that_is_no_numbers(tmp_path: Path) -> None:
    returns = [math.nan, 1.0, math.inf, 0.5, 1.0, 3.0, math.nan, 2.0]
    said, kept, reports = evaluation(tmp_path, returns, lambda step: None)
    assert kept == [None, 1, 1, 1, 1, 3, 3, 3]
    assert [report.get("evaluate/best") for report in reports] == kept
    found = [re.findall(r"step (\d+) is (\w+): not kept", line) for line in said]
    assert found == [[("1", "nan")], [("3", "inf")], [("7", "nan")]]
    optim = compose(["env=cartpole", "optim.lr=0.5"]).config.optim
    for weight, statistic in ((math.nan, 0.0), (math.inf, 0.0), (0.0, math.nan)):
        model = Elsewhere(weight, statistic)
        with pytest.raises(Diverged, match=r"at step 1 .* optim\.lr \(it was 0\.5\)"):
            evaluation(tmp_path, [9.0], lambda step, model=model: require_finite(model, step, optim))  # type: ignore[misc]
    require_finite(Elsewhere(0.0, 0.0), 1, optim)
    assert checkpoint.read(tmp_path / "best", "score")["score"]["mean"] == 3


def test_a_run_that_diverges_before_an_evaluation_keeps_the_best_it_had(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        rlkit.train(
            "ppo",
            "cartpole",
            dir=tmp_path,
            **SMALL | {"optim.lr": 1e30, "evaluate.every": 1, "total_steps": 320},
        )  # type: ignore[arg-type]
    for folder in (tmp_path / "run").glob("best"):
        assert all(
            torch.isfinite(x).all() for x in checkpoint.read(folder, "policy")["policy"]["weights"].values()
        )


WALKER = """
import os, gymnasium
class Walker(gymnasium.Wrapper):
    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
    def step(self, action):
        os.chdir("/")
        return self.env.step(action)
"""


def test_an_environment_that_changes_the_directory_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "walker.py").write_text(WALKER)
    typed = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    assert main(["train", "env=walker:Walker", *typed]) == 0
    assert "rlkit watch runs/run\n" in capsys.readouterr().out
    names = {"config.yaml", "metrics.csv", "checkpoints", "best", ".lock"}
    assert names <= set(os.listdir(tmp_path / "runs" / "run")) and not os.path.exists("/runs")
    monkeypatch.chdir(tmp_path)
    set_option(tmp_path / "runs" / "run", "total_steps: 64", "total_steps: 96")
    assert resume("runs/run") == tmp_path / "runs" / "run"
    assert read_metrics(tmp_path / "runs" / "run" / "metrics.csv")[-1]["step"] >= 96
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "runs/run", "--episodes", "1"]) == 0
    assert len(os.listdir(tmp_path / "runs" / "run" / "eval")) == 1


def test_one_odd_folder_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its files hold; nothing of it reaches the terminal but what is printable."""
    monkeypatch.chdir(tmp_path)
    text = to_yaml(compose(["env=cartpole", "total_steps=100"]).config)
    metrics = "step,return/mean\n50,1.5\n"
    configs = {
        "inf": "agent: {name: ppo}\nenv: {id: x}\ntotal_steps: .inf", "nan": text.replace("100", ".nan"),
        "null": "agent: null\nenv: {id: x}\ntotal_steps: 1",
        "lists": "agent: {name: [1]}\nenv: {id: {}}\ntotal_steps: 9",
        "none": "agent: {name: ppo}", "deep": "[" * 2000, "long": "alias: " + "x" * 5000 + "\n" + text,
        "control": text.replace("CartPole-v1", r'"\e[31m\n\a\u202e"'),
        "binary": "agent: {name: !!binary aGk=}\nenv: {id: 1}\ntotal_steps: 9",
        "date": "agent: {name: 2001-01-01}\nenv: {id: x}\ntotal_steps: 2001-01-01",
    }  # fmt: skip
    tables = {
        "empty": "", "head": "step,a\n", "cells": "step,return/mean\n,\nnan,nan\n-inf,1\n9,\n",
        "wide": f"step,{'x' * 200_000}\n1,2\n",
        "nul": "step,a\n1,\x00\n", "other": "name,age\n",
        "huge": "step,return/mean\n1e308,1e308\n", "nans": "step,return/mean\n7,nan\n",
    }  # fmt: skip
    for name in (*configs, *tables, "good", "\x1b[2Jclear\n"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(configs.get(name, text))
        (run / "metrics.csv").write_text(tables.get(name, metrics))
    (tmp_path / "runs" / "loop").symlink_to("loop")
    (tmp_path / "runs" / "file").touch()
    for name, table in (("pipe", "metrics.csv"), ("pipe2", "config.yaml")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.yaml").write_text(text)
        at(tmp_path / "runs" / name / table).remove()
        os.mkfifo(tmp_path / "runs" / name / table)
    (tmp_path / "runs" / "good" / "checkpoints").symlink_to("/tmp")
    assert main(["list", "runs"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines()) and max(map(len, out.splitlines())) < 400
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert len(lines) == len(configs) + len(tables) + 4
    assert "50 of 100" in lines["runs/\\x1b[2Jclear\\n"] and lines["runs/nul"].endswith("stopped")
    assert re.search(r" 9 of 100 +- +stopped$", lines["runs/cells"])
    assert "\\x1b[31m\\n\\x07\\u202e" in lines["runs/control"]
    for name in ("inf", "nan", "null", "none", "deep", "wide", "other", "date", "pipe", "pipe2"):
        assert "unreadable: " in lines[f"runs/{name}"], name


def test_suggested_commands_are_quoted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = run.rename(tmp_path / "a;rm -rf x")
    assert main(["resume", odd.name]) == 0
    assert "rlkit watch 'a;rm -rf x'\nevaluate it: rlkit evaluate 'a;rm -rf x'\n" in capsys.readouterr().out
    assert main(["evaluate", odd.name, "--episodes", "1"]) == 0
    assert "rlkit watch 'a;rm -rf x'\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="continue it with rlkit resume '.*/a;rm -rf x', or"):
        rlkit.train("ppo", "cartpole", **SMALL | {"dir": tmp_path, "name": odd.name})  # type: ignore[arg-type]


def test_a_locked_run_is_in_use(run: Path) -> None:
    with lock_folder(named(run)), pytest.raises(ConfigError, match="run is in use by another process"):
        resume(run)


def test_a_replay_on_disk_is_written_nowhere_else(run: Path) -> None:
    link(run, "replay", ".")
    field = Field("obs", (2,), "uint8", True)
    ring = Ring(Layout(4, 1, (field,), 0, (), True, 0), run / "replay")
    ring.put(0, {"obs": np.ones((4, 1, 2), np.uint8)})
    assert os.listdir(run / "replay") == ["obs.bin"] and not (run / "replay").is_symlink()
    ring.close()
    assert untouched(run) and not (run / "replay").exists()


def test_without_fcntl_agents_are_trained_evaluated_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a system that has neither it, nor SIGHUP, nor files below a folder that is held open."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlkit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "O_NOFOLLOW")
    monkeypatch.delattr("signal.SIGHUP")
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.chdir(tmp_path)
    try:
        fresh = importlib.import_module("rlkit")
        path = fresh.train("ppo", "cartpole", **SMALL)
        assert not importlib.import_module("rlkit.files").HELD
        set_option(path, "total_steps: 64", "total_steps: 96")
        commands = importlib.import_module("rlkit.cli.main")
        for typed in (["resume", "runs/run"], ["evaluate", "runs/run", "--episodes", "1"], ["list", "runs"]):
            assert commands.main(typed) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("runs/run  ppo    CartPole-v1")
        for name in ("run", "runs/run"):  # a bare name is looked for in runs/
            assert fresh.load(name).path.parts[:2] == ("runs", "run")
        assert fresh.load(path)(np.zeros(4, np.float32))[0] in (0, 1)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "rlkit"]:
            del sys.modules[name]
