"""train 2N = train N, kill, resume N: bit for bit, for every agent and every kind of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.resumed import CASES, COMMON
from tests.helpers.runs import digest, launch, rlkit, wait_for


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_a_killed_run_continues_exactly(tmp_path: Path, options: str) -> None:
    """Killed at an arbitrary moment after its second checkpoint, memories in the middle of episodes."""
    arguments = ["train", *COMMON, *options.split()]
    process = launch(tmp_path, *arguments, "name=b")
    saved = tmp_path / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = rlkit(tmp_path, *arguments, "name=a")
    assert code == 0, output
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0, output
    assert "resuming from" in output
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")
