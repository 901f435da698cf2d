"""Signals that stop a run: one Interrupted, wherever the loop is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; like KeyboardInterrupt, no Exception, so no handler swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum
        self.folder: Path | None = None  # of the run that was saved


_end = os._exit  # taken here: while environments step, os._exit does not end the process


_shield = 0


_pending: int | None = None


_signals = 0  # since `interruptible` began


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into one Interrupted inside the block.

    Only the first counts, so nothing cuts the saving that it starts; the fourth ends the process at once. In another
    thread than the main one signals are not ours.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _signals
    _signals = 0
    ours = [signal.SIGINT, signal.SIGTERM]
    if (
        hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    ):  # Windows has none; nohup
        ours.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, _on_signal) for signum in ours}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold a signal back until the end of the block: what it guards (writing a checkpoint) is not cut in two."""
    global _shield, _pending
    _shield += 1
    try:
        yield
    finally:
        _shield -= 1
        if _shield == 0 and _pending is not None:
            signum, _pending = _pending, None
            raise Interrupted(signum)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    global _pending, _signals
    _signals += 1
    if _signals > 3:
        _end(128 + signum)
    if _signals > 1:
        return
    if _shield:
        _pending = signum
    else:
        raise Interrupted(signum)
