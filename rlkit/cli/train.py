"""rlkit train: a new agent from a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rlkit.files import Place, named
from rlkit.text import clean, quoted

USAGE = """usage: rlkit train [OPTION=VALUE ...]

Train an agent. Options are KEY=VALUE; `rlkit list options` shows all of them.

  agent=ppo              the algorithm             (rlkit list agents), or a module of your own (agent=my_pkg.mod)
  env=carracing          a named configuration     (rlkit list environments), a Gymnasium id (env=LunarLander-v3),
                         module:Id, or a class of your own (env=my_pkg.mod:MyEnv)
  network=cnn            the network               (rlkit list networks)
  source=thread          collect while learning    (sync, thread, ray)
  total_steps=1e6  seed=3  device=auto  name=first-try  preset=none  stop.reward=475  agent.clip=0.1  optim.lr=1e-4

Ctrl-C saves the run; `rlkit resume RUN` continues it exactly.
"""


def main(argv: list[str]) -> int:
    """Compose, say what was chosen, train, and name the next useful command."""
    if "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    from rlkit.config.compose import compose

    composed = compose(argv)
    config = composed.config
    if composed.preset:
        print(f"preset: {composed.preset} (tuned options for this pair; preset=none turns it off)")
    from rlkit.run.start import start

    return run_to_end(lambda: start(config))


def run_to_end(action: Callable[[], Path]) -> int:
    """Train or resume, turning an interruption into its message and exit code."""
    from rlkit.learn.signals import Interrupted

    here = Path.cwd()  # which an environment may change
    try:
        folder = action()
    except Interrupted as stop:
        print(f"\n{stop}: saved. Continue with: rlkit resume {quoted(stop.folder)}", file=sys.stderr)
        return stop.exit_code
    report(named(folder), folder.relative_to(here) if folder.is_relative_to(here) else folder)
    return 0


def report(folder: Place, shown: Path) -> None:
    """Print the last evaluation, and the commands that watch and evaluate the agent in a folder, shown as typed."""
    from rlkit.metrics import read_metrics
    from rlkit.run.console import clock

    every = read_metrics(folder / "metrics.csv")
    if every and "time/seconds" in every[-1]:
        beside = every[-1].get("time/evaluation_seconds", 0.0)
        print(
            f"total time: {clock(every[-1]['time/seconds'])}, of it {clock(beside)} in evaluations and films"
        )
    rows = [row for row in every if "evaluate/mean" in row]
    if rows:
        last = rows[-1]
        print(
            f"evaluated return: {last['evaluate/mean']:.1f} +- {last['evaluate/std']:.1f} at step {last['step']:,.0f}; "
            f"best {last['evaluate/best']:.1f} (in {clean(shown / 'best')})"
        )
    print(f"watch it:    rlkit watch {quoted(shown)}\nevaluate it: rlkit evaluate {quoted(shown)}")
