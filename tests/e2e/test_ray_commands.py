"""source=ray from the command line: Ray only when asked for, nothing left behind, resumed exactly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.helpers.runs import digest, environment, launch, rlkit, wait_for

CARTPOLE = [
    "train", "agent=ppo", "env=cartpole", "preset=none", "env.lanes=8", "env.backend=inprocess", "agent.steps=32",
    "agent.epochs=2", "source.group=4", "total_steps=6000", "evaluate.episodes=2", "log.every=256", "ray.memory=100",
]  # fmt: skip


def test_an_eager_local_run_imports_neither_ray_nor_the_compiler(tmp_path: Path) -> None:
    """Each of them costs seconds. The network has memory, whose scans are operators of torch."""
    small = {"network": "lstm", "agent.steps": 32, "evaluate.episodes": 1, "env.time_limit": 50}
    program = (
        f"import sys, rlkit; rlkit.train('ppo', 'cartpole', total_steps=300, preset='none', **{small}); "
        "sys.exit(bool({'ray', 'torch._dynamo', 'torch._inductor'} & sys.modules.keys()))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment(), check=False
        ).returncode
        == 0
    )


def members(session: int) -> list[str]:
    """The processes of a session, by command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after = (
                (folder / "stat").read_text().rpartition(")")[2].split()
            )  # state, parent, group, session, ...
            if int(after[3]) == session and after[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_ctrl_c_leaves_no_process_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    """Interrupted in Ray at an arbitrary moment and resumed there: the weights of a run in one process."""
    code, output = rlkit(tmp_path, *CARTPOLE, "name=a")
    assert code == 0, output
    process = launch(tmp_path, *CARTPOLE, "source=ray", "name=b")
    metrics = tmp_path / "runs" / "b" / "metrics.csv"
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 4, process)
    assert any("raylet" in command for command in members(process.pid))
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "rlkit resume" in output
    assert members(process.pid) == []
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0, output
    ours, theirs = (digest(tmp_path / "runs" / name) for name in "ab")
    assert ours["agent"] == theirs["agent"] and ours["best"] == theirs["best"]


def test_an_address_where_nobody_listens_is_refused_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    code, output = rlkit(tmp_path, *CARTPOLE, "source=ray", f"ray.address={address}")
    assert code == 2 and "Traceback" not in output, output
    assert f"ray.address={address}: " in output and "allowed: local, auto (where" in output
