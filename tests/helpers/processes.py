"""Helpers: processes that a test has started, and what they have started."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie, which waits for a parent that may never ask, has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_gone(pids: Iterable[int], seconds: float) -> bool:
    """Whether processes end in time."""
    pids, end = [*pids], time.monotonic() + seconds
    while not all(map(gone, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def children(pid: int | str) -> set[int]:
    """The processes that a process, or any of its threads, has started; none where it is gone."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def below(pid: int) -> set[int]:
    """A process and all that it has started."""
    return {pid}.union(*(below(child) for child in children(pid)))
