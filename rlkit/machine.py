"""What this process may use of its machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

# False: torch, operation by operation; True: TorchInductor; auto: the engine where it can, else torch
How: TypeAlias = bool | Literal["auto", "engine", "inductor"]
SHARE = 0.9  # of what is available


def cores() -> int:
    """Processor cores for this process: those it is bound to, or all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most(each: int = 0) -> int:
    """How many threads, or processes of `each` bytes, may run at once: 8 per core, at least 64, as memory allows."""
    most = max(8 * cores(), 64)
    return max(min(most, int(SHARE * available(Path.cwd())[0]) // each), 1) if each else most


def available(folder: Path) -> tuple[int, int]:
    """Bytes that a process may still take: (memory, disk of `folder`)."""
    free = min([_system_memory(), *_group_memory()])
    while not folder.exists():
        folder = folder.parent
    return max(free, 0), shutil.disk_usage(folder).free


def _system_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # no Linux
        pass
    if not hasattr(os, "sysconf"):  # Windows: not known, so nothing is refused
        return sys.maxsize
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_memory() -> Iterator[int]:
    """What each control group above this process (a container's limit) leaves; its page cache can be taken back."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        names = ("memory.max", "memory.current", "inactive_file")
        base = root
        if controllers:
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        group = base / path.lstrip("/")
        for each in (group, *group.parents):
            if each != base and base not in each.parents:
                break
            try:
                limit, used = ((each / name).read_text().strip() for name in names[:2])
                stat = dict(row.split() for row in (each / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if limit != "max":
                yield int(limit) - int(used) + int(stat.get(names[2], 0))


def gib(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("GiB", "MiB"):
        size = 2.0 ** {"GiB": 30, "MiB": 20}[unit]
        if count >= 0.1 * size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1024:,.1f} KiB"
