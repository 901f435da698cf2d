"""Ends waits for learner ranks that will not come."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from typing import Protocol

from rlkit import processes, ranks


class Rank(Protocol):
    """Another rank: a process of this machine."""

    @property
    def pid(self) -> int:
        """Its number."""

    def end(self, reason: str) -> None:
        """Kill it, and tell who waits for it why."""


class Watch:
    """Ends ranks for which rank 0 waits in vain: those that stand still, and all when a signal is to end the run.

    An operation of several ranks is machine code, which no Python handler interrupts; it fails once another rank is
    gone. A thread looks after it, and learns of signals from the file descriptor that they wake (signal.set_wakeup_fd).
    """

    def __init__(self, others: Sequence[Rank], deadline: float) -> None:
        self.others, self.deadline = others, deadline
        self.still = processes.Stillness()
        self.thread: threading.Thread | None = None
        self.done = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._before = -1

    def start(self) -> None:
        """Begin to look; in the main thread also for signals."""
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._look, name="rlkit-ranks", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Look no more; idempotent."""
        self.done.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self._pipe is not None:
            signal.set_wakeup_fd(self._before)
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def _look(self) -> None:
        seen, signalled = -1, 0
        while not self.done.wait(min(0.25, self.deadline / 4)):
            now = ranks.waiting
            if now % 2 == 0 or now != seen:
                self.still.forget()
            elif signalled:
                for rank in self.others:
                    rank.end("ended with the run")
            for rank in self.others:
                if now % 2 and self.still.seconds(rank.pid) > self.deadline:
                    rank.end(f"no answer in {self.deadline:g} s (env.deadline): its process was stopped")
            seen, signalled = now, signalled or self._signals()

    def _signals(self) -> int:
        """How many signals that end a run have arrived since the last call."""
        if self._pipe is None:
            return 0
        try:
            numbers = os.read(self._pipe[0], 512)
        except BlockingIOError:
            return 0
        return sum(number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) for number in numbers)
