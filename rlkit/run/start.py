"""A run from Python: begin it, or continue the one in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlkit.config import trust
from rlkit.config.compose import compose, save, to_plain
from rlkit.config.schema import Common
from rlkit.contracts import Saved
from rlkit.files import Place, named
from rlkit.run.console import Console
from rlkit.run.folder import lock_folder, new_folder
from rlkit.run.kinds import kind_of
from rlkit.run.session import Session
from rlkit.text import quoted


def prepare(
    config: Common, folder: Path | Place, console: Console, continued: Saved | None = None
) -> Session:
    """The session of a run of this configuration in an existing folder. Raises ConfigError.

    continued: part `policy` of the checkpoint that it goes on from.
    """
    return _open(kind_of(config).check(config, continued), named(folder), console, config)


def _open(plan: Any, folder: Place, console: Console, written: Common) -> Session:
    for note in plan.notes:
        console.say(note)
    built = kind_of(plan.config).build(plan, folder, console)
    return Session(built, plan.config, folder, console, written)


def train(
    agent: object = None, env: object = None, *, console: Console | None = None, **options: object
) -> Path:
    """Train a new agent (ppo in cartpole where nothing is said), or a model for a task, and return the run's folder, an
    absolute path.

    agent, env: names as on the command line, or a module of one's own and a class of environments or a function that
    makes one, which other processes import by their names; options: as on the command line, e.g. total_steps=100_000,
    seed=3, network="cnn", task="classify", data="digits", **{"agent.clip": 0.1}, and NumPy's numbers and arrays.
    Raises ConfigError (a ValueError) for anything that cannot be used, before anything starts.
    """
    given = {name: value for name, value in (("agent", agent), ("env", env)) if value is not None}
    return start(compose(values={**given, **options}).config, console)


def start(config: Common, console: Console | None = None) -> Path:
    """Train a new run of this configuration in a folder of its own; returns the absolute path of that."""
    plan = kind_of(config).check(config)
    trust.remember(*trust.requests(to_plain(config)))
    folder = new_folder(config)
    with lock_folder(folder):
        try:
            console = console or Console(plan.config.total_steps, folder.name)
            if folder.name != config.run_name:
                earlier = folder.shown.with_name(config.run_name)
                console.say(
                    f"{earlier} exists, so this new run is {folder}; rlkit resume {quoted(earlier)} continues "
                    "that one, and seed=NUMBER makes another"
                )
            session = _open(plan, folder, console, plan.config)
            save(plan.config, folder / "config.yaml")
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)  # nothing was trained in it
            raise
        try:
            session.train()
        finally:
            console.close()
    return folder.path
