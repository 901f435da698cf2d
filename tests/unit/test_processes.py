"""Interpreters that rlkit starts: what they import, and from where."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rlkit.sources.ray
from rlkit import processes, ranks
from rlkit.learn.watch import Watch

TRAP = "import os\nos._exit(66)\n"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder in which files have the names of packages, beside a module of the user's."""
    for name in ("json", "torch", "numpy", "gymnasium", "random"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "echo_numbers.py").write_text(
        "import json, random\ndef main(*numbers): print(json.dumps(numbers), random.__file__)\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("entry", ["", "HERE", "nowhere"])
def test_a_started_interpreter_finds_own_code_here_and_packages_elsewhere(
    trap: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Whether this process looks here first (as interactive Python and scripts do) or last."""
    others = [each for each in sys.path if each]
    here = str(trap)
    monkeypatch.setattr(
        sys, "path", [*others, here] if entry == "nowhere" else [entry.replace("HERE", here), *others]
    )
    assert processes.search_path() == [*others, here]
    done = subprocess.run(processes.command("echo_numbers", 3, 4), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[3, 4] ") and here not in done.stdout


def test_nothing_is_added_that_was_not_looked_in(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [each for each in sys.path if each]
    monkeypatch.setattr(sys, "path", others)
    assert processes.search_path() == others


def test_the_folder_that_rlkit_comes_from_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(processes.HOME)
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    assert processes.search_path() == [processes.HOME, "/elsewhere"]


@pytest.mark.parametrize(
    ("program", "moved"), [("/x/ray/_private/workers/default_worker.py", True), ("mine.py", False)]
)
def test_a_worker_of_ray_looks_in_the_current_folder_last(
    trap: Path, monkeypatch: pytest.MonkeyPatch, program: str, moved: bool
) -> None:
    """Ray has put it in front; in the process of the user it stays where Python put it."""
    others = [each for each in sys.path if each]
    monkeypatch.setattr(sys, "path", [str(trap), *others])
    monkeypatch.setattr(sys, "argv", [program])
    importlib.reload(rlkit.sources.ray)
    assert sys.path == ([*others, str(trap)] if moved else [str(trap), *others])


def test_python_m_rlkit_looks_in_the_current_folder_last(trap: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['rlkit', '--version']; runpy.run_module('rlkit', run_name='__main__')"
    )
    path = [str(trap), *(each for each in sys.path if each)]
    boot = f"import sys; sys.path[:] = {path!r}; {code}"
    done = subprocess.run([sys.executable, "-P", "-c", boot], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("rlkit "), done.stderr


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs now and then."""
    code = "import time\nwhile True: time.sleep(0.02)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    yield process
    process.kill()
    process.wait()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_stopped_process_stands_still_and_a_slow_one_does_not(sleeper: subprocess.Popen[bytes]) -> None:
    still = processes.Stillness()
    assert not until(lambda: still.seconds(sleeper.pid) > 0.3, 0.6)
    sleeper.send_signal(signal.SIGSTOP)
    assert until(lambda: still.seconds(sleeper.pid) > 0.3)
    still.forget()
    assert still.seconds(sleeper.pid) == 0
    processes.wake(sleeper.pid)
    assert until(lambda: still.seconds(sleeper.pid) == 0)
    sleeper.kill()
    sleeper.wait()
    assert still.seconds(sleeper.pid) == 0
    processes.wake(2**22 + 1)  # of nobody


class Other:
    """A rank, as the watch sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid, self.process, self.reason = process.pid, process, ""

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.process.kill()


@pytest.mark.parametrize("waiting", [True, False])
def test_a_stopped_rank_is_ended_once_somebody_waits_for_it(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    other = Other(sleeper)
    sleeper.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(ranks, "waiting", 7 if waiting else 8)
    watch = Watch([other], 0.3)
    watch.start()
    try:
        assert until(lambda: other.reason != "", 20.0 if waiting else 0.8) == waiting
    finally:
        watch.close()
    assert other.reason == ("no answer in 0.3 s (env.deadline): its process was stopped" if waiting else "")
    assert until(lambda: sleeper.poll() is not None) if waiting else sleeper.poll() is None


def test_a_signal_ends_a_wait_in_machine_code_at_once(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the deadline is, and without Python's own handler, which runs when the wait is over."""
    other, before = Other(sleeper), signal.signal(signal.SIGTERM, lambda *given: None)
    monkeypatch.setattr(ranks, "waiting", 1)
    watch = Watch([other], 3600.0)
    watch.start()
    try:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert not until(lambda: other.reason != "", 0.6)
        os.kill(os.getpid(), signal.SIGTERM)
        assert until(lambda: other.reason == "ended with the run")
    finally:
        watch.close()
        signal.signal(signal.SIGTERM, before)
    assert signal.set_wakeup_fd(-1) == -1
