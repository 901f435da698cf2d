"""Scores over seeds: train each, evaluate each on held-out episodes, print a Markdown table with intervals.

    python scripts/results.py [--only dqn ...] [--seeds 5] [--jobs 1] [--episodes 100] [--dir runs/results]
    python scripts/results.py agent=ppo env=cartpole agent.clip=0.1          one row, for these options

Without options every row of TASKS is run. Every seed is one `rlkit train` (or `rlkit resume`, where an earlier call was
stopped) with one thread, and one evaluation of its best policy on episodes that neither training nor the choice of that
policy used; its score is kept in the run's folder (score.json), so what is done is not done again. The interval is
that of `rlkit.play.statistics.over_seeds`. References are the tuned single agents of RL Baselines3 Zoo (benchmark.md)
at the same number of steps, as means of their evaluation episodes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.metrics import read_metrics
from rlkit.play.statistics import over_seeds

TASKS: list[tuple[str, float | None]] = [  # options, reference
    ("agent=dqn env=cartpole total_steps=50_000", 500),
    ("agent=dqn env=acrobot total_steps=100_000", -76.6),
    ("agent=dqn env=mountaincar total_steps=120_000", -100.8),
    ("agent=dqn env=lunarlander total_steps=100_000", 154),
    ("agent=ppo env=cartpole total_steps=100_000", 500),
    ("agent=ppo env=lunarlander total_steps=1_000_000", 242),
    ("agent=ppo env=acrobot total_steps=1_000_000", -73.5),
    ("agent=ppo env=pendulum total_steps=100_000", -172),
    ("agent=ppo env=mountaincarcontinuous total_steps=20_000", 88),
    ("agent=ddpg env=pendulum total_steps=20_000", -152),
    ("agent=ddpg env=lunarlandercontinuous total_steps=300_000", 230),
    ("agent=ddpg env=mountaincarcontinuous total_steps=300_000", 93.5),
    ("agent=reinforce env=cartpole", 500),
    ("agent=reinforce env=invertedpendulum", 1000),
    ("agent=ppo env=cartpole_novel total_steps=100_000", 500),
    ("agent=ppo env=pendulum_novel total_steps=100_000", -218),
    ("agent=ppo env=mountaincarcontinuous_novel total_steps=300_000", 91.5),
]


def rlkit(*arguments: str) -> None:
    """Run one command; stop here if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"rlkit {' '.join(arguments)} failed:\n{done.stdout.decode()[-2000:]}")


def evaluate(run: Path, episodes: int) -> list[float]:
    """The returns of `rlkit evaluate`."""
    rlkit("evaluate", str(run), "--episodes", str(episodes))
    files = sorted((run / "eval").glob(f"*-{episodes}.csv"), key=os.path.getmtime)
    with open(files[-1], encoding="utf-8") as file:
        return [float(row["return"]) for row in csv.DictReader(file)]


def score(options: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns, steps and minutes of one seed; trained where that has not been done."""
    run = Path(arguments.dir) / f"{options.replace(' ', '-').replace('/', '-')}-seed{seed}"
    kept = run / "score.json"
    if not kept.is_file():
        if run.exists():
            rlkit("resume", str(run))
        else:
            rlkit(
                "train",
                *options.split(),
                "threads=1",
                f"seed={seed}",
                f"dir={run.parent}",
                f"name={run.name}",
            )
        last = read_metrics(run / "metrics.csv")[-1]
        result = {
            "returns": evaluate(run, arguments.episodes),
            "steps": last["step"],
            "minutes": last["time/seconds"] / 60,
        }
        kept.write_text(json.dumps(result))
    found: dict[str, Any] = json.loads(kept.read_text())
    print(f"{time.strftime('%H:%M:%S')} {options} seed {seed}: {np.mean(found['returns']):.1f}", flush=True)
    return found


def row(options: str, reference: float | None, results: list[dict[str, Any]]) -> str:
    """One line of the table."""
    returns = [each["returns"] for each in results]
    mean, (low, high) = over_seeds(returns)
    interval = "(no spread)" if low == high else f"[{low:.1f}, {high:.1f}]"
    verdict = "" if reference is None else f"{reference:g}"
    return (
        f"| `{options}` | {mean:.1f} {interval} | {verdict} | "
        f"{', '.join(f'{np.mean(each):.1f}' for each in returns)} | {results[0]['steps']:,.0f} | "
        f"{np.median([each['minutes'] for each in results]):.1f} |"
    )


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="*", help="as for rlkit train: one row (default: all of TASKS)")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="rows of TASKS that contain one of these texts"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--dir", default="runs/results")
    arguments = parser.parse_args()
    tasks = [(" ".join(arguments.options), None)] if arguments.options else TASKS
    tasks = [task for task in tasks if any(text in task[0] for text in arguments.only)]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            (task, [pool.submit(score, task[0], seed, arguments) for seed in range(arguments.seeds)])
            for task in tasks
        ]
        rows = [row(*task, [each.result() for each in seeds]) for task, seeds in jobs]
    print(f"\n{date.today()}, {os.cpu_count()} cores {platform.machine()}\n")
    print("| options | mean of seeds | reference | each seed | steps | minutes |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
