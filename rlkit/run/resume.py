"""Continue the run in a folder."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from rlkit import checkpoint
from rlkit.config import registry, trust
from rlkit.config.compose import to_plain
from rlkit.learn.make import part_names
from rlkit.run.console import Console
from rlkit.run.folder import lock_folder, run_config
from rlkit.run.start import prepare


def resume(folder: str | Path, console: Console | None = None) -> Path:
    """Continue the run in `folder` exactly where its newest whole checkpoint is; returns the folder.

    Raises ConfigError where it is no run folder, CheckpointError where no checkpoint is whole.
    """
    folder = Path(folder)
    config = run_config(folder)
    trust.require(*trust.requests(to_plain(config)))
    console = console or Console(config.total_steps, folder.name)
    lock = lock_folder(folder)
    try:
        experience = registry.algorithm(config.agent_name).feed(config.agent)
        names = ("policy", "state", *part_names(experience))
        step, path, parts = checkpoint.newest(folder / "checkpoints", *names, say=console.say)
        reason = parts["state"]["clock"]["stop_reason"]
        stopped = reason and parts["state"]["stop"] == asdict(config.stop)
        if stopped or step >= config.total_steps:
            reason = reason if stopped else f"all {config.total_steps:,} steps are done"
            option = "other stop options" if stopped else "a larger total_steps"
            console.say(
                f"{folder} is complete: {reason} ({option} in {folder / 'config.yaml'} trains it longer)"
            )
            return folder
        session = prepare(config, folder, console)
        session.load_state_dict(parts)
        for newer, damaged in checkpoint.steps(folder / "checkpoints"):
            if newer > step:  # it could not be read; the run will pass this step again
                aside = damaged.with_name(f"damaged-{damaged.name}")
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
        console.say(f"resuming from {path} (step {step:,})")
        session.train()
    finally:
        console.close()
        lock.close()
    return folder
