"""train 2N = train N, kill, resume N: bit for bit, however the run was ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runs import digest, launch, rlkit, wait_for

CARTPOLE = [
    "train", "agent=ppo", "env=cartpole", "total_steps=12000", "env.backend=inprocess", "network.normalise=true",
    "agent.normalise_reward=true", "evaluate.every=4000", "evaluate.episodes=3", "log.every=500",
]  # fmt: skip
CARRACING = [
    "train", "agent=ppo", "env=carracing", "env.lanes=2", "agent.steps=64", "agent.epochs=2", "agent.minibatch=64",
    "total_steps=900", "evaluate.every=100000", "evaluate.episodes=1", "env.time_limit=280", "log.every=100",
    "threads=1",
]  # fmt: skip


def kill_and_resume(folder: Path, arguments: list[str], every: int, at: int) -> None:
    """Train run `b` with a SIGKILL once it has its `at`-th checkpoint, then resume it."""
    process = launch(folder, *arguments, "name=b", f"checkpoint.every={every}", "checkpoint.keep=100")
    saved = folder / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= at, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = rlkit(folder, "resume", "runs/b")
    assert code == 0, output
    assert "resuming from" in output


@pytest.mark.parametrize(
    "options",
    [
        ["source=sync"],
        ["source=thread"],
        ["source=sync", "env.backend=workers", "env.workers=2"],
        ["source=thread", "env.stack=3"],
    ],
    ids=["sync", "thread", "workers", "thread-stack"],
)
def test_killed_cartpole_continues_exactly(tmp_path: Path, options: list[str]) -> None:
    arguments = [*CARTPOLE, *options]
    code, output = rlkit(tmp_path, *arguments, "name=a", "checkpoint.every=2000", "checkpoint.keep=100")
    assert code == 0, output
    kill_and_resume(tmp_path, arguments, every=2000, at=2)
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")


def test_killed_carracing_continues_exactly(tmp_path: Path) -> None:
    """Box2D cannot be saved: the environments are rebuilt from seeds and actions, episode ends included."""
    code, output = rlkit(tmp_path, *CARRACING, "name=a", "checkpoint.every=300", "checkpoint.keep=100")
    assert code == 0, output
    kill_and_resume(tmp_path, CARRACING, every=300, at=1)
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_saves_within_five_seconds_and_resumes_exactly(
    tmp_path: Path, signum: signal.Signals
) -> None:
    """The signal comes at an arbitrary moment, with no periodic checkpoint before it."""
    arguments = [*CARTPOLE, "checkpoint.every=100000"]
    code, output = rlkit(tmp_path, *arguments, "name=a")
    assert code == 0, output
    process = launch(tmp_path, *arguments, "name=b")
    metrics = tmp_path / "runs" / "b" / "metrics.csv"
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 4, process)
    begin = time.monotonic()
    os.kill(process.pid, signum)
    output, _ = process.communicate(timeout=20)
    assert time.monotonic() - begin < 5
    assert process.returncode == 128 + signum, output
    assert "rlkit resume" in output
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0, output
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")


def test_resuming_a_complete_run_says_so(tmp_path: Path) -> None:
    code, output = rlkit(tmp_path, *CARTPOLE, "total_steps=600", "name=a")
    assert code == 0, output
    before = digest(tmp_path / "runs" / "a")
    code, output = rlkit(tmp_path, "resume", "runs/a")
    assert code == 0
    assert "is complete" in output
    assert digest(tmp_path / "runs" / "a") == before
