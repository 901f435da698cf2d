"""Helpers: real runs as processes, and what must be equal between two of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlkit import checkpoint
from rlkit.metrics import read_metrics

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "SDL_VIDEODRIVER": "dummy"}


def launch(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlkit", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_plain_signals,
    )


def _plain_signals() -> None:
    """As in a terminal, also where these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def rlkit(folder: Path, *arguments: str, timeout: float = 120) -> tuple[int, str]:
    """Run one command; (exit code, output)."""
    process = launch(folder, *arguments)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Wait until something is so while the process runs."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended early:\n{process.communicate()[0]}")
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"nothing after {seconds} s:\n{process.communicate()[0]}")
        time.sleep(0.005)


def digest(run: Path) -> dict[str, str]:
    """Hashes of what a run is: weights, optimiser and generators, environments, clock, logged rows."""
    _, path, parts = checkpoint.newest(run / "checkpoints", "policy", "state", say=print)
    state = parts["state"]
    state["clock"].pop("seconds")
    state["clock"]["step_of_checkpoint"] = path.name
    rows = [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in read_metrics(run / "metrics.csv")
    ]
    return {
        "weights": hash_tree(parts["policy"]),
        "agent": hash_tree(state["agent"]),
        "average": hash_tree(state.get("average")),
        "feed": hash_tree(state["feed"]),
        "clock": hash_tree(state["clock"]),
        "rows": hash_tree(rows),
        "best": hash_tree(checkpoint.read(run / "best", "policy", "score")),
    }


def hash_tree(tree: Any) -> str:
    value, tensors = checkpoint.pack(tree)
    total = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
    for name in sorted(tensors):
        total.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].numpy().tobytes())
    return total.hexdigest()
