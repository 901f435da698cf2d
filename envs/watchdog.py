"""Ends a step that never returns, in this very process: from a Python loop, a sleep, or C code that holds
the lock.

One daemon thread looks about once a second at the guards of this process. Past a guard's deadline it
  1. interrupts the stuck thread: the main thread by SIGALRM (its handler raises), another by an
  asynchronous exception; 2. a few seconds later, where that did not help (C code that waits), prints the
  fault and ends the process.
Code that holds the interpreter's lock would keep this thread from running at all, so while a step runs,
faulthandler's own C thread stands by to print the stack and end the process a little later still.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

POLL = 1.0  # seconds between looks
GRACE = 5.0  # seconds that an interrupted step gets to end by itself


class Hang(BaseException):
    """Thrown into the stuck step. Not an Exception: an environment's own handlers must not swallow it."""


class Guard:
    """Watches the steps of one vector environment: `begin()` before each, `end()` after it, `close()` at
    last.

    `fault(stack)` builds the error to report. After a Hang, `pending` holds it.
    """

    def __init__(self, deadline: float, fault: Callable[[str], Exception]) -> None:
        self.deadline, self.fault = deadline, fault
        self.since = 0.0  # when the running step began; 0 between steps
        self.thread = 0
        self.armed = False
        self.watched = False
        self.pending: Exception | None = None
        self.fired = 0.0

    def begin(self) -> None:
        if not self.watched:
            self.watched = True
            _watch(self)
        self.thread = threading.get_ident()
        self.since = time.monotonic()

    def end(self) -> None:
        self.since = 0.0
        if self.armed or self.fired:
            self.armed, self.fired = False, 0.0
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.end()
        _guards.discard(self)
        self.watched = False

    def look(self, now: float) -> None:
        """Called by the watching thread."""
        since = self.since
        if not since:
            return
        late = now - since - self.deadline
        if late <= 0:
            faulthandler.dump_traceback_later(GRACE * 2 - late, exit=True, file=_stderr())
            self.armed = True
            if self.since != since:  # the step ended meanwhile and could not see `armed`
                faulthandler.cancel_dump_traceback_later()
        elif not self.fired:
            frame = sys._current_frames().get(self.thread)
            self.pending = self.fault("".join(traceback.format_stack(frame)) if frame else "")
            self.fired = now
            if self.since == since:
                self._interrupt()
        elif now - self.fired > GRACE:
            print(
                f"{self.pending}\nthe step cannot be interrupted: ending the process",
                file=_stderr(),
                flush=True,
            )
            os._exit(1)

    def _interrupt(self) -> None:
        main = threading.main_thread().ident
        if self.thread == main and signal.getsignal(signal.SIGALRM) is _on_alarm:
            signal.pthread_kill(self.thread, signal.SIGALRM)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Hang))


_guards: set[Guard] = set()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def _watch(guard: Guard) -> None:
    global _thread
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    ):
        signal.signal(
            signal.SIGALRM, _on_alarm
        )  # only the main thread may; a user's own handler is left alone
    with _lock:
        _guards.add(guard)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_patrol, name="rlkit-watchdog", daemon=True)
            _thread.start()


def _patrol() -> None:
    """Looks at the guards until there are none."""
    while True:
        with _lock:
            guards = list(_guards)
            if not guards:
                global _thread
                _thread = None
                return
        for guard in guards:
            guard.look(time.monotonic())
        time.sleep(max(0.02, min([POLL, *(guard.deadline / 4 for guard in guards)])))


def _on_alarm(number: int, frame: FrameType | None) -> None:
    main = threading.main_thread().ident
    if any(guard.fired and guard.since and guard.thread == main for guard in _guards):
        raise Hang


def _stderr() -> Any:
    """The real standard error: sys.stderr may be a capture without a file descriptor."""
    return sys.__stderr__ if sys.__stderr__ is not None else 2
