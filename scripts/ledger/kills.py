"""Runs that are killed (SIGKILL) twice, at random moments, and continued.

Survived: the run ends with the same weights, optimizer, generators, environments, clock, rows and best policy as one
that was never killed, bit for bit. Every kill is a trial; a run that had ended before is none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.ledger.trial import Task, Trial, Trials, line
from tests.helpers.resumed import CASES, COMMON
from tests.helpers.runs import digest, launch, rlkit, wait_for

SMALL = "network.hidden=[16] agent.steps=16 agent.minibatch=32 agent.epochs=2 total_steps=1400"
CELLS = CASES | {
    "ppo-workers": f"agent=ppo env=cartpole {SMALL} env.backend=workers env.workers=2",
    "ppo-workers-thread-average": f"agent=ppo env=cartpole {SMALL} env.backend=workers env.workers=2 source=thread "
    "evaluate.average=0.7",
    "ppo-two-learners": f"agent=ppo env=cartpole {SMALL} learner.workers=2",
    "ppo-carracing": "agent=ppo env=carracing agent.steps=32 agent.minibatch=64 agent.epochs=1 total_steps=600",
}
SAMPLE = ("ppo-lstm", "dqn")


def trials(task: Task) -> Trials:
    cells = SAMPLE if task.short else tuple(CELLS)
    commands = {cell: ["train", *COMMON, *CELLS[cell].split()] for cell in cells}
    return killed(task, task.folder(), commands, 4 if task.short else 132)


def killed(task: Task, folder: Path, commands: Mapping[str, list[str]], wanted: int) -> Trials:
    """`wanted` kills of runs in a folder; commands: `rlkit WORDS` of each run, by its name."""
    cells = tuple(commands)
    unbroken: dict[str, tuple[dict[str, str], float]] = {}
    kills = 0
    for number in range(4 * wanted):
        cell = cells[number % len(cells)]
        options = commands[cell]
        if cell not in unbroken:
            unbroken[cell] = _unbroken(folder, options, cell)
        expected, seconds = unbroken[cell]
        moments = [task.dice.uniform(0.0, seconds * share) for share in (0.7, 0.4)]
        found, wrong = _broken(folder, options, moments, expected)
        for moment in found[: wanted - kills]:
            kills += 1
            yield Trial(f"{cell}, {moment:.2f} s after it had a checkpoint", not wrong, wrong)
        if kills == wanted:
            return


def _unbroken(folder: Path, options: list[str], cell: str) -> tuple[dict[str, str], float]:
    """What the run ends with, and the seconds from its first checkpoint to its end."""
    process = launch(folder, *options, f"name={cell}")
    _first_checkpoint(folder / "runs" / cell, process)
    begin = time.monotonic()
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{cell}: {output}")
    return digest(folder / "runs" / cell), time.monotonic() - begin


def _broken(
    folder: Path, options: list[str], moments: list[float], expected: dict[str, str]
) -> tuple[list[float], str]:
    """(the moments at which the run still ran, and was killed; what is another one in the end)."""
    run = folder / "runs" / "broken"
    words, killed = [*options, "name=broken"], []
    for moment in moments:
        process = launch(folder, *words)
        _first_checkpoint(run, process)
        time.sleep(moment)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(process.pid, signal.SIGKILL)
                killed.append(moment)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        words = ["resume", "runs/broken"]
    code, output = rlkit(folder, *words, timeout=300)
    found = digest(run) if code == 0 else {}
    shutil.rmtree(run)
    other = [part for part in expected if found.get(part) != expected[part]]
    return killed, f"another {', '.join(other)}; {line(output)}" if other else ""


def _first_checkpoint(run: Path, process: object) -> None:
    saved = run / "checkpoints"
    wait_for(lambda: saved.is_dir() and any(saved.glob("step-*")), process)  # type: ignore[arg-type]
