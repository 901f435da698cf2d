"""A run that is killed (SIGKILL) just before a change that it makes to the file system, for each of them.

Files opened for writing, folders made, names changed and removed count as changes. Survived: the run can be continued
from what is on the disk, and ends with the weights, optimizer, environments and rows of one that was not killed; or,
where it had not saved anything yet, that is said and the same command begins anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from scripts.ledger.runs import AGENTS, SMALL, command
from scripts.ledger.trial import Task, Trial, Trials, apart, line
from tests.helpers.runs import digest

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
RUN = ["train", *SMALL, *AGENTS["ppo"], "video.every=0", "name=run"]


def trials(task: Task) -> Trials:
    whole = task.folder()
    count = whole / "count"
    done = apart(lambda: _counted(count), whole)
    if done.status:
        raise RuntimeError(f"the run that is not killed failed:\n{done.output}")
    expected, changes = digest(whole / "runs" / "run"), int(count.read_text())
    step = max(1, changes // 8) if task.short else 1
    for number in range(1 + task.dice.randrange(step), changes + 1, step):
        yield _trial(task.folder(), number, expected)


def _trial(folder: Path, number: int, expected: dict[str, str]) -> Trial:
    name = f"killed before change {number}"
    killed = apart(lambda: _killed(number), folder)
    if killed.status != -signal.SIGKILL:
        return Trial(name, False, f"ended with {killed.status}: {killed.output}")
    run = folder / "runs" / "run"
    done = apart(lambda: command("resume", "runs/run"), folder)
    said = line(done.output)
    nothing_saved = any(
        words in said for words in ("the run ended before its first one", "is not a run folder")
    )
    if done.status and (nothing_saved or not run.exists()):
        shutil.rmtree(folder / "runs", ignore_errors=True)  # as the user would: begin anew
        done = apart(lambda: command(*RUN), folder)
    survived = done.status == 0 and digest(run) == expected
    left = sorted(str(path.relative_to(run)) for path in run.rglob(".*") if path.name != ".lock")
    shutil.rmtree(folder)
    return Trial(name, survived and not left, f"{said}; left behind: {left}" if left else said)


def _counted(report: Path) -> int:
    """Train, and write down how many changes were made."""
    seen = [0]
    sys.addaudithook(lambda event, arguments: seen.__setitem__(0, seen[0] + _is_change(event, arguments)))
    code = command(*RUN)
    report.write_text(str(seen[0]))
    return code


def _killed(number: int) -> int:
    """Train, and end this process before the change of this number."""
    left = [number]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if _is_change(event, arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return command(*RUN)


def _is_change(event: str, arguments: tuple[object, ...]) -> bool:
    if event != "open":
        return event in CHANGES
    path, _, flags = arguments
    elsewhere = str(path).startswith(("/dev/", "/proc/", "/sys/"))
    return isinstance(flags, int) and bool(flags & WRITES) and not elsewhere
