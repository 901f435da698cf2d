"""What every kind of fault has in common: a trial and its outcome, and functions that run in a process of their own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Trial:
    """One fault and what became of it. said: what was printed, or what is wrong."""

    name: str
    survived: bool
    said: str = ""


Trials: TypeAlias = Iterator[Trial]


@dataclass(frozen=True)
class Task:
    """work: an empty folder; short: a sample that takes seconds; dice: what is drawn is drawn from here."""

    work: Path
    short: bool
    dice: random.Random

    def folder(self) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def copy(self, folder: Path, name: str = "run") -> Path:
        """A copy of a folder, alone in a new one."""
        return Path(shutil.copytree(folder, self.folder() / name))


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, minus the number of a signal, or None where it had to be killed."""

    status: int | None
    output: str
    megabytes: float  # of memory at most


def apart(function: Callable[[], int | None], folder: Path, seconds: float = 120.0) -> Ended:
    """Run a function in a fork of this process, in a folder, with a state folder of its own there.

    This process must not have computed anything with torch before, whose threads a fork does not have. It has loaded
    what commands load (`preload`), so that a fork need not.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile("w+b") as output:
        pid = os.fork()
        if pid == 0:
            _child(function, folder, output.fileno())
        end = time.monotonic() + seconds
        found, code, used = os.wait4(pid, os.WNOHANG)
        while not found and time.monotonic() < end:
            time.sleep(0.005)
            found, code, used = os.wait4(pid, os.WNOHANG)
        if not found:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, _, used = os.wait4(pid, 0)
        output.seek(0)
        text = output.read().decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(code) if found else None, text, used.ru_maxrss / 1024)


def _child(function: Callable[[], int | None], folder: Path, output: int) -> None:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target in (1, 2):
            os.dup2(output, target)
        os.chdir(folder)
        os.environ["XDG_STATE_HOME"] = str(folder.parent / "state")
        status = function() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def line(output: str) -> str:
    """The last line of an output, which is what a command ends with."""
    return (output.strip().splitlines() or [""])[-1]
