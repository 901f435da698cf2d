"""train 2N = train N, kill, resume N: bit for bit, however the run was ended."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.runs import digest, launch, rlkit, wait_for

CARTPOLE = [
    "train", "agent=ppo", "env=cartpole", "preset=none", "total_steps=3000", "env.backend=inprocess", "env.lanes=4",
    "agent.steps=32", "agent.minibatch=64", "agent.epochs=2", "network.normalize=true", "agent.normalize_reward=true",
    "evaluate.every=1100", "evaluate.episodes=2", "log.every=120", "threads=1",
]  # fmt: skip
CARRACING = [
    "train", "agent=ppo", "env=carracing", "env.lanes=2", "agent.steps=32", "agent.epochs=2", "agent.minibatch=32",
    "total_steps=256", "evaluate.every=100000", "evaluate.episodes=1", "env.time_limit=60", "log.every=50",
    "threads=1", "network.augment=shift",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """The digest of a run with these options that nothing interrupted; each is made once."""

    @functools.cache
    def made(*arguments: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("whole")
        code, output = rlkit(folder, *arguments, "name=a", "checkpoint.every=550", "checkpoint.keep=100")
        assert code == 0, output
        return digest(folder / "runs" / "a")

    return made


def kill_and_resume(folder: Path, arguments: list[str], every: int, at: int, fresh: bool = False) -> None:
    """Train run `b` with a SIGKILL once it has its `at`-th checkpoint, then resume it. fresh: in a new interpreter."""
    process = launch(folder, *arguments, "name=b", f"checkpoint.every={every}", "checkpoint.keep=100")
    saved = folder / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= at, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = rlkit(folder, "resume", "runs/b", fresh=fresh)
    assert code == 0, output
    assert "resuming from" in output


WORKERS = ["env.backend=workers", "env.workers=2"]  # which change no number


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["source=sync"], []),
        (["source=thread"], []),
        (["source=sync"], WORKERS),
        (["source=thread", "env.stack=3"], []),
        (["source=sync", "evaluate.average=0.7"], []),
    ],
    ids=["sync", "thread", "workers", "thread-stack", "average"],
)
def test_killed_cartpole_continues_exactly(
    tmp_path: Path, whole: Callable[..., dict[str, str]], options: list[str], place: list[str]
) -> None:
    arguments = [*CARTPOLE, *options]
    fresh = "evaluate.average=0.7" in options
    kill_and_resume(tmp_path, [*arguments, *place], every=550, at=2, fresh=fresh)
    assert digest(tmp_path / "runs" / "b") == whole(*arguments)


def test_killed_carracing_continues_exactly(tmp_path: Path) -> None:
    """Box2D cannot be saved: environments are rebuilt from seeds and actions, episode ends included. Shifts go on."""
    code, output = rlkit(
        tmp_path, *CARRACING, *WORKERS, "name=a", "checkpoint.every=100", "checkpoint.keep=100"
    )
    assert code == 0, output
    kill_and_resume(tmp_path, [*CARRACING, "env.backend=inprocess"], every=100, at=1)
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")


@pytest.mark.parametrize(
    ("signum", "source", "place"),
    [
        (signal.SIGINT, "source=sync", []),
        (signal.SIGTERM, "source=thread", WORKERS),
        (signal.SIGHUP, "source=thread", []),
    ],
    ids=["ctrl-c", "sigterm-thread-workers", "hangup-thread"],
)
def test_a_signal_saves_within_five_seconds_and_resumes_exactly(
    tmp_path: Path,
    whole: Callable[..., dict[str, str]],
    signum: signal.Signals,
    source: str,
    place: list[str],
) -> None:
    """The signal comes at an arbitrary moment, with no periodic checkpoint before it."""
    arguments = [*CARTPOLE, source]
    process = launch(tmp_path, *arguments, *place, "checkpoint.every=100000", "name=b")
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
    assert digest(tmp_path / "runs" / "b") == whole(*arguments)


def test_a_signal_saves_when_nobody_reads_the_output_any_more(tmp_path: Path) -> None:
    """`rlkit train | tee log` and Ctrl-C: the reader dies of the same signal."""
    process = launch(tmp_path, *CARTPOLE, "total_steps=10000000", "checkpoint.every=10000000", "name=b")
    metrics = tmp_path / "runs" / "b" / "metrics.csv"
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 4, process)
    assert process.stdout is not None
    process.stdout.close()
    for _ in range(2):  # shells and wrappers may both deliver it
        os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=20)
    assert len(list((tmp_path / "runs" / "b" / "checkpoints").glob("step-*"))) == 1


def test_a_run_that_is_good_enough_is_evaluated_and_can_go_on(tmp_path: Path) -> None:
    options = ["total_steps=6000", "stop.reward=23", "evaluate.every=1000000", "name=a"]
    code, output = rlkit(tmp_path, *CARTPOLE, *options)
    assert code == 0, output
    assert "evaluated return" in output
    assert (tmp_path / "runs" / "a" / "best" / "manifest.json").is_file()
    code, output = rlkit(tmp_path, "resume", "runs/a")
    assert code == 0 and "is complete: mean return" in output
    config = tmp_path / "runs" / "a" / "config.yaml"
    config.write_text(config.read_text().replace("reward: 23.0", "reward: null"))
    code, output = rlkit(tmp_path, "resume", "runs/a")
    assert code == 0 and "resuming from" in output, output


def test_resuming_a_complete_run_says_so(tmp_path: Path) -> None:
    code, output = rlkit(tmp_path, *CARTPOLE, "total_steps=600", "name=a")
    assert code == 0, output
    before = digest(tmp_path / "runs" / "a")
    code, output = rlkit(tmp_path, "resume", "runs/a")
    assert code == 0
    assert "is complete" in output
    assert digest(tmp_path / "runs" / "a") == before
