"""Ends a step that never returns: in a Python loop, in a sleep, in C code that keeps the lock.

One daemon thread looks about once a second at the guards of this process. Past a guard's deadline it
  1. interrupts the stuck thread: the main thread by SIGALRM (its handler raises), others by an asynchronous
  exception; 2. a few seconds later, where that did not help (C code that waits), hands the fault to a thread that
  waits for the stuck one, if one asks (`hand_over`); 3. where none does, prints the fault and ends the process.
C code that keeps the interpreter's lock would keep this thread from looking, so each look also winds up a
timer of CPU time whose signal prints the stack and ends the process. That time runs for all threads
together, so the timer allows for as many as there are cores: one looping thread is ended late rather than a
busy learner by mistake. All clocks stand still while the process is suspended.

Where an environment steps in this process, it shall not end it either: os._exit becomes an exception there, and
faulthandler tells where machine code crashed.
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
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

from rlkit.machine import cores

POLL = 1.0  # seconds between looks
GRACE = 5.0  # seconds that an interrupted step gets to end by itself
CORES = cores()
SIGNALS = hasattr(signal, "setitimer")  # elsewhere only asynchronous exceptions interrupt a step


class Hang(BaseException):
    """Thrown into the stuck step. Not an Exception: an environment's own handlers must not swallow it."""


class Guard:
    """Watches the steps of a vector environment: `begin()` before each, `end()` after, `close()` at last.

    `fault(stack)` builds the error to report; after a Hang, `pending` holds it.
    """

    def __init__(self, deadline: float, fault: Callable[[str], Exception]) -> None:
        self.deadline, self.fault = deadline, fault
        self.pending: Exception | None = None
        self.watched = self.running = self.fired = self.lost = False
        self.thread = 0
        self.count = 0  # steps begun
        self._seen = 0  # the step that the watching thread saw at its last look
        self._waited = 0.0  # seconds it has been seeing that one

    def begin(self) -> None:
        if not self.watched:
            self.watched = True
            _watch(self)
        self.thread = threading.get_ident()
        self.count += 1
        self.running = True

    def end(self) -> None:
        self.running = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the block as a step; raises the fault where it hangs."""
        self.begin()
        try:
            yield
        except Hang:
            raise self.pending or self.fault("") from None
        finally:
            self.end()

    def close(self) -> None:
        self.running = self.watched = False
        with _lock:
            _guards.discard(self)

    def look(self, elapsed: float) -> None:
        """Called by the watching thread, `elapsed` seconds after its last look."""
        if not self.running or self.count != self._seen:
            self._seen, self._waited, self.fired, self.lost = self.count, 0.0, False, False
            return
        self._waited += elapsed
        if not self.fired and self._waited > self.deadline:
            frame = sys._current_frames().get(self.thread)
            self.pending = self.fault("".join(traceback.format_stack(frame)) if frame else "")
            self.fired = True
            if self.running and self.count == self._seen:
                self._interrupt()
        elif self.fired and self._waited > self.deadline + 2 * GRACE:
            print(
                f"{self.pending}\nthe step cannot be interrupted: ending the process",
                file=sys.__stderr__,
                flush=True,
            )
            _end(1)
        elif self.fired and self._waited > self.deadline + GRACE:
            self.lost = True

    def hand_over(self) -> Exception | None:
        """The fault of a step that could not be interrupted, if there is one; whoever takes it ends the run."""
        if not (self.lost and self.running and self.count == self._seen):  # it may have returned since
            return None
        self.close()
        return self.pending

    def _interrupt(self) -> None:
        main = threading.main_thread().ident
        if SIGNALS and self.thread == main and signal.getsignal(signal.SIGALRM) is _on_alarm:
            signal.pthread_kill(self.thread, signal.SIGALRM)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Hang))


_guards: weakref.WeakSet[Guard] = weakref.WeakSet()
_end = os._exit
_thread: threading.Thread | None = None
_process = 0  # in which the steps are
_lock = threading.Lock()


def _exit(status: int) -> NoReturn:
    """os._exit for environments: one that calls it in a step of this process raises SystemExit instead.

    Its forked children, and all who call it outside of a step, end as they want to.
    """
    here = threading.get_ident()
    if os.getpid() == _process and any(guard.running and guard.thread == here for guard in list(_guards)):
        raise SystemExit(f"os._exit({status})")
    _end(status)


def _watch(guard: Guard) -> None:
    global _thread, _process
    _process = os.getpid()
    os._exit = _exit
    if not faulthandler.is_enabled():
        faulthandler.enable(_stderr())  # a crash in an environment's machine code shows where it was
    main = threading.current_thread() is threading.main_thread()
    if SIGNALS and main and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
        signal.signal(
            signal.SIGALRM, _on_alarm
        )  # only the main thread may; a user's own handler is left alone
    with _lock:
        _guards.add(guard)
        _wind(list(_guards))
        if _thread is None:
            _thread = threading.Thread(target=_patrol, name="rlkit-watchdog", daemon=True)
            _thread.start()


def _patrol() -> None:
    """Look at the guards until there are none."""
    global _thread
    before = time.monotonic()
    while True:
        with _lock:
            guards = list(_guards)
            _wind(guards)
            if not guards:
                _thread = None
                return
        pause = max(0.02, min([POLL, *(guard.deadline / 4 for guard in guards)]))
        now = time.monotonic()
        for guard in guards:
            guard.look(min(now - before, 2 * pause))  # a suspended process counts as one late look
        before = now
        del guards, guard  # a vector that nobody holds any more may go
        time.sleep(pause)


def _wind(guards: list[Guard]) -> None:
    """Have SIGVTALRM end the process unless wound up again before it runs down; without guards, stop it."""
    if not SIGNALS or signal.getsignal(signal.SIGVTALRM) != signal.SIG_DFL:
        return  # no such timer, or somebody else's
    if guards:
        faulthandler.register(signal.SIGVTALRM, file=_stderr(), chain=True)
        wall = min(guard.deadline for guard in guards) + 2 * GRACE
        signal.setitimer(signal.ITIMER_VIRTUAL, wall * CORES)
    else:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        faulthandler.unregister(signal.SIGVTALRM)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    main = threading.main_thread().ident
    if any(guard.fired and guard.running and guard.thread == main for guard in list(_guards)):
        raise Hang


def _stderr() -> TextIO | int:
    """The real standard error: sys.stderr may be a capture without a file descriptor."""
    return sys.__stderr__ if sys.__stderr__ is not None else 2
