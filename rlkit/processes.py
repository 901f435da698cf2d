"""Python processes of our own: they import what this process imports, and nothing that merely lies about.

A process that was stopped (SIGSTOP, a debugger) neither answers nor ends. It is told from one that is slow by the time
that the processor has spent on it: in ours some thread runs every second.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # the folder that rlkit is imported from


def command(module: str, *numbers: int) -> list[str]:
    """The words that start an interpreter in which `module.main(*numbers)` runs, with this one's `search_path`.

    -P: the interpreter does not put the current folder in front by itself.
    """
    count = len(numbers) + 1
    boot = f"import sys; sys.path[:] = sys.argv[{count}:]; from {module} import main; "
    boot += f"main(*map(int, sys.argv[1:{count}]))"
    return [sys.executable, "-P", "-c", boot, *map(str, numbers), *search_path()]


def search_path() -> list[str]:
    """`sys.path` with the current folder last, where it is in it.

    The code of one's own is found there, but a json.py or torch.py does not pass for the package of that name. Where
    rlkit itself is imported from that folder, the order stays.
    """
    here = os.getcwd()
    path = [entry or here for entry in sys.path]
    if os.path.realpath(here) == HOME:
        return path
    others = [entry for entry in path if os.path.realpath(entry) != os.path.realpath(here)]
    return others if len(others) == len(path) else [*others, here]


class Stillness:
    """How long processes of this machine have stood still: none of their threads has run."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # pid -> nanoseconds of the processor, since when

    def seconds(self, pid: int) -> float:
        """How long, as far as calls of this method show; 0 where the system does not tell, or it is gone."""
        now, ran = time.monotonic(), _ran(pid)
        before, since = self._seen.get(pid, (-1, now))
        if ran is None or ran != before:
            self._seen[pid] = (-1 if ran is None else ran, now)
            return 0.0
        return now - since

    def forget(self) -> None:
        """Count anew: nobody waits for them now."""
        self._seen.clear()


def wake(pid: int) -> None:
    """Have a process of ours go on that was stopped: until then it does not end."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGCONT)


def _ran(pid: int) -> int | None:
    """Nanoseconds that the processor has spent on the threads of a process."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    except (OSError, ValueError, IndexError):
        return None
