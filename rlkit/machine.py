"""What this process may use of its machine."""

from __future__ import annotations

import os


def cores() -> int:
    """Processor cores for this process: those it is bound to, or all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
