"""Processes that the environments of a block start: they end with them, also where this process is killed.

A process of our own waits until its input closes, which happens however this one ends, and kills what is left of them
and of what they have started. It is there only where an environment has started something. (In worker processes there
is also the process group of the worker, which ends what was started later.) Standard library only: it is also the
program of that process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# of Python's multiprocessing: they serve the whole process, and end with it by themselves
SHARED = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


class Simulators:
    """Those of one block."""

    def __init__(self) -> None:
        self.keeper: subprocess.Popen[str] | None = None

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Processes that begin in the block and outlive it are simulators."""
        before = _children("self")
        try:
            yield
        finally:
            found = [pid for pid in _children("self") - before if not _shared(pid)]
            if found:
                self._keep(found)

    def close(self) -> None:
        """End those that are left; idempotent."""
        if self.keeper is not None and self.keeper.stdin is not None:
            with suppress(OSError):
                self.keeper.stdin.close()
            self.keeper.wait()
            self.keeper = None

    def _keep(self, pids: list[int]) -> None:
        if self.keeper is None:
            self.keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # what kills our group is no reason for it to go
            )
            # a forked child that lives on would keep the input open
            os.register_at_fork(after_in_child=self._forget)
        assert self.keeper.stdin is not None, "made with a pipe"
        with suppress(OSError):
            self.keeper.stdin.writelines(f"{pid} {_begun(pid)}\n" for pid in pids)
            self.keeper.stdin.flush()

    def _forget(self) -> None:
        if self.keeper is not None and self.keeper.stdin is not None:
            with suppress(OSError):
                os.close(self.keeper.stdin.fileno())


def end_tree(pid: int, begun: str) -> None:
    """Kill a process that began then, and all below it."""
    if _begun(pid) != begun:  # gone, and its number perhaps another's
        return
    with suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # it starts nothing more
    below = [(child, _begun(child)) for child in _children(str(pid))]
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    for child, since in below:
        end_tree(child, since)


def _children(pid: str) -> set[int]:
    """The processes that a process has started; empty where the system does not tell."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def _begun(pid: int) -> str:
    """When a process began, in the kernel's units; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _shared(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return any(name in command for name in SHARED)


def main() -> None:
    """Read "PID BEGUN" lines until the input closes, then end those processes."""
    kept = [line.split() for line in sys.stdin]
    for pid, begun in (words for words in kept if len(words) == 2):
        end_tree(int(pid), begun)


if __name__ == "__main__":
    main()
