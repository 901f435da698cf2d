"""Scores over seeds: train each, evaluate each on held-out episodes, and print a Markdown row with intervals.

    python scripts/results.py env=cartpole --seeds 10 [--episodes 100] [--dir runs/results] [agent.clip=0.1 ...]

Every seed is one `rlkit train` (or `rlkit resume`, where an earlier call was stopped) and one evaluation of its best
policy on 100 episodes that neither training nor the choice of that policy used. The interval is a bootstrap over seeds.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

from rlkit.logging import read_metrics
from rlkit.statistics import summarise


def rlkit(*arguments: str) -> None:
    """Run one command; stop here if it fails."""
    done = subprocess.run([sys.executable, "-m", "rlkit", *arguments], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"rlkit {' '.join(arguments)} failed")


def score(run: Path, episodes: int) -> float:
    """Mean return of `rlkit evaluate`."""
    rlkit("evaluate", str(run), "--episodes", str(episodes))
    files = sorted((run / "eval").glob(f"*-{episodes}.csv"), key=os.path.getmtime)
    with open(files[-1], encoding="utf-8") as file:
        return float(np.mean([float(row["return"]) for row in csv.DictReader(file)]))


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="+", help="as for rlkit train")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--dir", default="runs/results")
    arguments = parser.parse_args()
    label = "-".join(option.replace("/", "-") for option in arguments.options)
    scores, minutes = [], []
    for seed in range(arguments.seeds):
        run = Path(arguments.dir) / f"{label}-seed{seed}"
        begin = time.monotonic()
        if run.exists():
            rlkit("resume", str(run))
        else:
            rlkit("train", *arguments.options, f"seed={seed}", f"dir={run.parent}", f"name={run.name}")
        minutes.append((time.monotonic() - begin) / 60)
        scores.append(score(run, arguments.episodes))
        steps = read_metrics(run / "metrics.csv")[-1]["step"]
        print(
            f"seed {seed}: {scores[-1]:.1f} after {steps:,.0f} steps, {minutes[-1]:.1f} minutes", flush=True
        )
    total = summarise(scores)
    print(
        f"\n| `rlkit train {' '.join(arguments.options)}` | {total.mean:.1f} [{total.mean_ci[0]:.1f}, "
        f"{total.mean_ci[1]:.1f}] | {', '.join(f'{each:.1f}' for each in scores)} | {steps:,.0f} | "
        f"{np.median(minutes):.1f} | {date.today()}, {os.cpu_count()} cores {platform.machine()} |"
    )


if __name__ == "__main__":
    main()
