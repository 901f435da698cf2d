"""Learning curves of finished runs: return against environment frames and against minutes, one line per run.

    python scripts/curves.py runs/a runs/b ... --out docs/curves.png [--title TEXT] [--aim 900]

Solid: greedy evaluation during training, on seeds that training does not use. Faint: the mean of the last 100 training
episodes, whose actions are sampled and which may end early (env.stuck_after). Frames are decisions times env.skip.
Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from rlkit.config.compose import from_yaml
from rlkit.metrics import read_metrics


def main() -> None:
    """Read metrics.csv and config.yaml of every run, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="")
    parser.add_argument("--aim", type=float, help="a horizontal line")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, constrained_layout=True)
    for number, run in enumerate(arguments.runs):
        config = from_yaml(run / "config.yaml")
        rows, color = read_metrics(run / "metrics.csv"), f"C{number}"
        for key, alpha, label in (
            ("return/mean", 0.3, None),
            ("evaluate/mean", 1.0, f"seed {config.seed}"),
        ):
            kept = [row for row in rows if row.get(key) is not None]
            values = [row[key] for row in kept]
            frames = [row["step"] * config.env.skip / 1e6 for row in kept]
            minutes = [row["time/seconds"] / 60 for row in kept]
            for axis, x in zip(axes, (frames, minutes), strict=True):
                axis.plot(x, values, color=color, alpha=alpha, label=label)
    for axis, name in zip(axes, ("million frames", "minutes"), strict=True):
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
        if arguments.aim is not None:
            axis.axhline(arguments.aim, color="black", linewidth=0.8, linestyle="--")
    axes[0].set_ylabel("return")
    axes[0].legend()
    figure.suptitle(arguments.title)
    figure.savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
