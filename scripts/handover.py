"""What a run gains from an encoder that a task has learned: PPO from pixels, six ways, the same seeds.

    python scripts/handover.py runs/seg --env driving --seeds 10 --dir /tmp/handover

    scratch        the encoder begins with random weights
    shift          as scratch, images are shifted at random (network.augment=shift)
    frozen         the encoder keeps its random weights (network.encoder_lr=0)
    eyes           the agent sees the features of the run's encoder (eyes=RUN)
    encoder_from   the encoder begins with the run's weights and is trained on
    slow           the same, with a tenth of the learning rate (network.encoder_lr=0.1)

Each run evaluates itself four times. Written to DIR/handover.json: the evaluations, and the CPU seconds of each
process; printed: medians, and in how many seeds each way is better than scratch. Runs that are there are not made
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def ways(run: str) -> dict[str, list[str]]:
    """The options of each way."""
    return {
        "scratch": [],
        "shift": ["network.augment=shift"],
        "frozen": ["network.encoder_lr=0"],
        "eyes": [f"eyes={run}"],
        "encoder_from": [f"network.encoder_from={run}"],
        "slow": [f"network.encoder_from={run}", "network.encoder_lr=0.1"],
    }


def train(options: list[str], log: Path) -> float:
    """CPU seconds of a run that was made to its end."""
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlkit", "train", *options], stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(options)} failed: {log}")
    return usage.ru_utime + usage.ru_stime


def evaluations(run: Path) -> list[tuple[int, float]]:
    """(step, mean return) of a run's own evaluations."""
    with open(run / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(float(row["step"])), float(row["evaluate/mean"])) for row in rows if row.get("evaluate/mean")
    ]


def report(found: list[dict[str, Any]]) -> None:
    """The table."""
    names = list(dict.fromkeys(each["way"] for each in found))
    at = {(each["way"], each["seed"]): each for each in found}
    print(
        f"{'way':<14} {'seeds':>5} {'half':>8} {'end':>8} {'better at half':>15} {'at the end':>11} {'CPU s':>7}"
    )
    for way in names:
        own = [each for each in found if each["way"] == way]
        wins = []
        for place in (1, 3):
            pairs = [(each, at.get(("scratch", each["seed"]))) for each in own]
            pairs = [(each, other) for each, other in pairs if other]
            wins.append(
                f"{sum(a['evaluations'][place][1] > b['evaluations'][place][1] for a, b in pairs)} of {len(pairs)}"
            )
        half, end = (statistics.median(each["evaluations"][place][1] for each in own) for place in (1, 3))
        seconds = statistics.median(each["cpu"] for each in own)
        print(f"{way:<14} {len(own):>5} {half:>8.0f} {end:>8.0f} {wins[0]:>15} {wins[1]:>11} {seconds:>7.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="the run of a task whose encoder is handed over")
    parser.add_argument("--env", default="driving")
    parser.add_argument("--options", nargs="*", default=[], help="of all runs, such as env.gray=false")
    parser.add_argument("--ways", nargs="*", default=list(ways("")))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--dir", type=Path, default=Path("handover"))
    arguments = parser.parse_args()
    folder = arguments.dir / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    path = arguments.dir / "handover.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    made = {(each["way"], each["seed"]) for each in found}
    for seed in range(arguments.seeds):
        for way in arguments.ways:
            if (way, seed) in made:
                continue
            name = f"{way}-{seed}"
            cpu = train(
                [
                    "agent=ppo", f"env={arguments.env}", f"seed={seed}", f"total_steps={arguments.steps}", "threads=1",
                    f"evaluate.every={arguments.steps // 4}", f"evaluate.episodes={arguments.episodes}", f"name={name}",
                    f"dir={folder}", *arguments.options, *ways(str(Path(arguments.run).absolute()))[way],
                ],
                folder / f"{name}.log",
            )  # fmt: skip
            found.append({"way": way, "seed": seed, "cpu": cpu, "evaluations": evaluations(folder / name)})
            path.write_text(json.dumps(found, indent=1))
            print(
                f"{name}: {[round(mean) for _, mean in found[-1]['evaluations']]}, {cpu:.0f} CPU s",
                flush=True,
            )
    report(found)


if __name__ == "__main__":
    main()
