"""Runs on a file system of a few megabytes that something else fills, a little more each time.

Survived: the run ends with exit code 1 and one line that says so, what was saved before is whole, and once there is
room it is continued to the weights of a run that always had it; where nothing had been saved, it begins anew. The small
file system needs the right to mount one: without it nothing is tried.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from scripts.ledger.runs import AGENTS, SMALL, command
from scripts.ledger.trial import Task, Trial, Trials, apart, line
from tests.helpers.runs import digest

RUN = ["train", *SMALL, *AGENTS["dqn"], "total_steps=400", "name=run"]


def trials(task: Task) -> Trials:
    whole = task.folder()
    done = apart(lambda: command(*RUN), whole)
    if done.status:
        raise RuntimeError(f"the run with room enough failed:\n{done.output}")
    expected = digest(whole / "runs" / "run")
    size = sum(path.stat().st_size for path in (whole / "runs").rglob("*") if path.is_file())
    count = 4 if task.short else 24
    for number in range(count):
        place = task.folder() / "small"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True).returncode:
            return
        try:
            yield _trial(place, int(size * (number + 0.5) / count), expected)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)  # its folder may still be held open


def _trial(place: Path, free: int, expected: dict[str, str]) -> Trial:
    """Train where `free` bytes are left."""
    ballast = place / "ballast"
    room = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
    ballast.write_bytes(bytes(max(0, room - free)))
    full = apart(lambda: command(*RUN), place)
    said = line(full.output)
    ballast.unlink()
    run = place / "runs" / "run"
    done = apart(lambda: command("resume", "runs/run"), place)
    if done.status and "rlkit: " in done.output:  # nothing was saved yet
        subprocess.run(["rm", "-rf", str(place / "runs")], check=True)
        done = apart(lambda: command(*RUN), place)
    told = (
        full.status in (0, 1, 2)
        and (("full" in said and "runs/run" in said) or full.status == 0)
        and "Traceback" not in full.output
    )
    survived = told and done.status == 0 and digest(run) == expected
    return Trial(
        f"{free:,} bytes free", survived, f"exit code {full.status}: {said}; then {line(done.output)}"
    )
