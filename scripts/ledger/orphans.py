"""Runs with worker processes that a signal ends, while their environments step, sleep or are stuck in machine code.

Half of the environments have simulators: processes of their own, every second one in a session of its own, as daemons
have. Survived: ten seconds after the signal no process is left that the run or its environments had started.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from scripts.ledger.trial import Task, Trial, Trials
from tests.helpers.processes import all_gone, below, gone
from tests.helpers.runs import launch, wait_for

ENVIRONMENT = """
import subprocess, time, gymnasium, numpy as np
from gymnasium import spaces

class Started(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)
    count = 0
    def __init__(self, state, simulator):
        self.state, self.t = state, 0
        if simulator:
            Started.count += 1
            self.child = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=Started.count % 2 == 0)
    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.t += 1
        if self.t == 5:
            open(f"{self.state}-{id(self)}", "w").close()
            if self.state == "sleeping":
                time.sleep(600)
            if self.state == "stuck":
                sum(iter(int, 1))
        time.sleep(0.01)
        return np.zeros(1, np.float32), 0.0, False, False, {}
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
STATES = ("stepping", "sleeping", "stuck")


def trials(task: Task) -> Trials:
    cells = [(state, number, own) for state in STATES for number in SIGNALS for own in (False, True)]
    for state, number, simulator in task.dice.sample(cells, 4) if task.short else cells:
        yield _trial(task.folder(), state, number, simulator)


def _trial(folder: Path, state: str, number: signal.Signals, simulator: bool) -> Trial:
    (folder / "started.py").write_text(ENVIRONMENT)
    process = launch(
        folder, "train", "env=started:Started", f"env.kwargs={{state: {state}, simulator: {simulator}}}".lower(),
        "env.backend=workers", "env.workers=2", "env.lanes=4", "env.deadline=600", "agent.steps=8",
        "total_steps=1000000", "device=cpu", "threads=1",
    )  # fmt: skip
    started: set[int] = set()
    try:
        wait_for(lambda: len(list(folder.glob(f"{state}-*"))) >= 2, process)  # one environment of each worker
        started = below(process.pid) - {process.pid}
        os.kill(process.pid, number)
        all_gone((process.pid, *started), 10.0)
        left = [f"{pid} {name(pid)}" for pid in (process.pid, *started) if not gone(pid)]
    finally:
        for pid in (process.pid, *started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    words = f"{len(started)} processes started"
    enough = len(started) >= (2 + 8 if simulator else 2)
    with_what = ", simulators" if simulator else ""
    return Trial(f"{number.name}, {state}{with_what}", enough and not left, f"{words}; left: {left}")


def name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:60]
    return ""
