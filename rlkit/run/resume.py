"""Continue the run in a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rlkit import checkpoint
from rlkit.config import trust
from rlkit.config.compose import to_plain
from rlkit.config.schema import StopConfig
from rlkit.run.console import Console
from rlkit.run.folder import any_config, changed_by_hand, lock_folder, run_folder
from rlkit.run.kinds import kind_of
from rlkit.run.start import prepare


def resume(folder: str | Path, console: Console | None = None) -> Path:
    """Continue the run in a folder exactly where its newest whole checkpoint is; returns the absolute path of that.

    Raises ConfigError where it is no run folder, CheckpointError where no checkpoint is whole.
    """
    run = run_folder(folder)
    checkpoints = run / "checkpoints"
    config = any_config(run)
    trust.require(*trust.requests(to_plain(config)))
    console = console or Console(config.total_steps, run.name)
    lock = lock_folder(run)
    try:
        checkpoint.tidy(run)
        checkpoint.tidy(checkpoints)
        names = ("policy", "state", *kind_of(config).part_names(config))
        step, found, parts = checkpoint.newest(checkpoints, *names, say=console.say)
        for line in changed_by_hand(run, config):
            console.say(line)
        reason = parts["state"]["clock"]["stop_reason"]
        before = (
            asdict(StopConfig()) | parts["state"]["stop"]
        )  # an earlier version had fewer of these options
        stopped = reason and before == asdict(config.stop)
        if stopped or step >= config.total_steps:
            reason = reason if stopped else f"all {config.total_steps:,} steps are done"
            option = "other stop options" if stopped else "a larger total_steps"
            console.say(f"{run} is complete: {reason} ({option} in {run / 'config.yaml'} trains it longer)")
            return run.path
        session = prepare(config, run, console, parts["policy"])
        session.load_state_dict(parts)
        for newer, damaged in checkpoint.saved_steps(checkpoints):
            if newer > step:  # it could not be read; the run will pass this step again
                aside = damaged.beside(f"damaged-{damaged.name}")
                aside.remove()
                damaged.rename(aside)
        console.say(f"resuming from {found} (step {step:,})")
        session.train()
    finally:
        console.close()
        lock.close()
    return run.path
