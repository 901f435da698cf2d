"""Learner ranks that are forked from rank 0, which has torch loaded, instead of started as new interpreters.

They have their own pid, pipes, process group and signals, and run `rlkit.learn.learners.main` as real ones do. Only for
ranks that use one torch thread, whose rank 0 computes in no other thread at that moment. What a new interpreter finds
or does not find is left to the tests that start real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from rlkit.learn import learners

NAME = "rlkit-rank"  # of these processes, in /proc/PID/comm
ASKED = "RLKIT_TEST_FORKED_RANKS"  # in the environment of a command whose ranks are forked


class Forked:
    """What rlkit.learn.learners uses of subprocess.Popen."""

    def __init__(
        self, args: Sequence[str], *, stdin: int, pass_fds: Sequence[int], text: bool, process_group: int
    ) -> None:
        assert stdin == subprocess.PIPE and text and process_group == 0
        self.returncode: int | None = None
        theirs, ours = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(theirs, pass_fds)
            finally:
                os._exit(1)
        os.close(theirs)
        self.stdin = os.fdopen(ours, "w")

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(NAME, timeout)
            time.sleep(0.001)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _become(stdin: int, passed: Sequence[int]) -> None:
    """Be a rank, in a fork: as a new process, it holds none of the other descriptors."""
    os.setpgid(0, 0)
    Path("/proc/self/comm").write_text(NAME)
    os.dup2(stdin, 0)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in passed:
            with suppress(OSError):  # that of the list itself is gone
                os.close(descriptor)
    sys.stdin = os.fdopen(0)
    learners.main(*passed)


def install(put: Callable[[object, str, object], None]) -> None:
    """From now on ranks are forked. put: setattr, or that of a monkeypatch."""
    forked = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    put(learners, "subprocess", forked)
