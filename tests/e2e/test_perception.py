"""A table is collected, learned from with a kill in the middle of an epoch, and handed to an agent, by commands."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.helpers.runs import digest, launch, rlkit, wait_for

ENV = ["env=tests.helpers.sights:Sights", "env.lanes=2", "env.backend=inprocess"]
TASK = [
    "train", "task=segment", "data=data/t", "network.encoder=mlp", "network.hidden=[16]", "batch=16", "epochs=40",
    "threads=1", "log.tensorboard=false", "augment.shift=1", "checkpoint.keep=1000",
]  # fmt: skip


def test_killed_in_an_epoch_a_task_continues_exactly(tmp_path: Path) -> None:
    """With SIGKILL after a checkpoint that lies in an epoch; the collected table, evaluation and a second agent too."""
    collect = [
        "collect",
        *ENV,
        "labels=[mask,expert]",
        "driver=seeker",
        "driver.noise=0.5",
        "frames=400",
        "out=data/t",
    ]
    code, output = rlkit(tmp_path, *collect)
    assert code == 0, output
    code, output = rlkit(tmp_path, *TASK, "name=a", "checkpoint.every=5000")
    assert code == 0, output
    process = launch(tmp_path, *TASK, "name=b", "checkpoint.every=112")  # 7 updates; an epoch has about 20
    saved = tmp_path / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0, output
    assert "resuming from" in output
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")
    code, output = rlkit(tmp_path, "data", "check", "data/t")
    assert code == 0 and "400 rows in" in output and (tmp_path / "data" / "t" / "check.png").exists(), output
    code, output = rlkit(tmp_path, "evaluate", "runs/b")
    assert code == 0 and "IoU of class 2" in output, output
