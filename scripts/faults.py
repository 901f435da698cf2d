"""Try every kind of fault, and count what was lost.

    python scripts/faults.py [KIND ...] [--short] [--seed 0] [--json FILE]

    kills         runs of every agent are killed twice at random moments and continued: the weights of an unbroken run
    agents        runs of games of several agents (shared policy, groups, league), killed in the same way
    points        a run is killed at a change that it makes to the file system, one after the other, and continued
    damage        checkpoints, config.yaml and metrics.csv with bits flipped, cut, emptied, exchanged, removed
    hostile       run folders that ask for code, hosts and places outside, opened by every verb under an audit hook
    environments  what environments do wrong, in this process, in workers, beside a thread and on Ray
    orphans       runs with worker processes and simulators that are ended by every signal in every state
    disk          runs that fill the disk, and go on once there is room
    typos         words with one slip of the finger

A trial is survived where nothing is lost and what went wrong is said; the files of a kind (scripts/ledger/) begin with
what that means there. Linux. `--short` is a sample of each kind, without Ray, of less than three minutes; the whole
takes about twenty minutes, and its figures are in docs/reliability.md. The exit code is 1 where more was lost than a
kind allows: one typo in twenty may be answered with another name, everything else must be survived.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"SDL_VIDEODRIVER": "dummy", "OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": "30000"}
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))

from scripts.ledger.trial import Task, Trial  # noqa: E402
from tests.helpers.forkserver import preload  # noqa: E402

KINDS = ("kills", "agents", "points", "damage", "hostile", "environments", "orphans", "disk", "typos")
SHOWN = 10  # lost trials of a kind
ALLOWED = {"typos": 0.05}  # the share that may be lost


def main() -> int:
    parser = argparse.ArgumentParser(description="Try every kind of fault, and count what was lost.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="a sample of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--json", type=Path, help="where every trial is written")
    arguments = parser.parse_args()
    unknown = [kind for kind in arguments.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"{unknown[0]}: no such kind; allowed: {', '.join(KINDS)}")
    preload()
    rows, found, failed = [], {}, False
    for kind in arguments.kinds or KINDS:
        begin = time.monotonic()
        found[kind] = attempt(kind, arguments.short, arguments.seed)
        lost = [trial for trial in found[kind] if not trial.survived]
        seconds = time.monotonic() - begin
        rows.append((kind, len(found[kind]), len(found[kind]) - len(lost), len(lost), seconds))
        failed |= not found[kind] or len(lost) > ALLOWED.get(kind, 0.0) * len(found[kind])
        print(f"\r{kind}: {len(lost)} of {len(found[kind])} lost, {seconds:.0f} s", flush=True)
        for trial in lost[:SHOWN]:
            print(f"  lost: {trial.name}: {trial.said[-600:]}", flush=True)
        if lost[SHOWN:]:
            print(f"  ... and {len(lost) - SHOWN} more (--json FILE has all)", flush=True)
        if arguments.json:
            arguments.json.write_text(
                json.dumps({k: [vars(t) for t in v] for k, v in found.items()}, indent=1)
            )
    print(f"\n| {'fault':12} | {'tried':>5} | {'survived':>8} | {'lost':>4} | {'seconds':>7} |")
    print(f"|{'-' * 14}|{'-' * 6}:|{'-' * 9}:|{'-' * 5}:|{'-' * 8}:|")
    for kind, tried, survived, count, seconds in rows:
        print(f"| {kind:12} | {tried:5} | {survived:8} | {count:4} | {seconds:7.0f} |")
    return int(failed)


def attempt(kind: str, short: bool, seed: int) -> list[Trial]:
    """All trials of one kind."""
    module = importlib.import_module(f"scripts.ledger.{kind}")
    work = Path(tempfile.mkdtemp(prefix=f"rlkit-faults-{kind}-"))
    found: list[Trial] = []
    os.environ["XDG_STATE_HOME"] = str(work / "state")  # what is typed here is no consent of the user
    try:
        for trial in module.trials(Task(work, short, random.Random(f"{kind} {seed}"))):
            found.append(trial)
            lost = sum(not each.survived for each in found)
            if sys.stdout.isatty():
                print(f"\r{kind}: {len(found)} tried, {lost} lost", end="", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
