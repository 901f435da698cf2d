"""A run's folder: made, locked, read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rlkit import checkpoint
from rlkit.config.compose import changes, from_yaml
from rlkit.config.schema import Common, RunConfig
from rlkit.files import Place, named, run_named
from rlkit.options import ConfigError
from rlkit.tensorfile import MALFORMED
from rlkit.text import quoted


def run_folder(path: str | Path | Place) -> Place:
    """The folder of a run, held open. Raises ConfigError where it is none."""
    try:
        folder = path if isinstance(path, Place) else named(run_named(path))
    except OSError:
        there = os.path.lexists(str(path))
    else:
        if (folder / "config.yaml").exists():
            return folder
        there = True
    what = "is not a run folder (no config.yaml in it)" if there else "does not exist"
    raise ConfigError(f"{path} {what}; rlkit list runs shows what there is")


def any_config(path: str | Path | Place) -> Common:
    """The configuration of a run folder, of an agent or of a task. Raises ConfigError where it is none."""
    return from_yaml(run_folder(path) / "config.yaml")


def run_config(path: str | Path | Place) -> RunConfig:
    """The configuration of an agent's run folder. Raises ConfigError where it is none."""
    config = any_config(path)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{path} is a run of a task, not of an agent; rlkit list runs shows what there is")
    return config


def changed_by_hand(folder: Place, config: Common, group: str = "") -> list[str]:
    """A line for each option of config.yaml that is another one than when the run was last open.

    group: of those alone whose names begin so, "env.".
    """
    for _, place in checkpoint.saved_steps(folder / "checkpoints"):
        with suppress(*MALFORMED):  # a damaged one: the one before is looked at
            before = checkpoint.read_values(place, "state").get("config")
            if before is None:  # of version 0.1.0
                return []
            found = [each for each in changes(before, config) if each.startswith(group)]
            return [f"{folder / 'config.yaml'}: {each}, changed by hand" for each in found]
    return []


def new_folder(config: Common) -> Place:
    """runs/<name>; a name that was not asked for is made unique."""
    parent = Path(config.dir)
    folder, number = parent / config.run_name, 1
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                return named(folder)
            except FileExistsError:
                if not folder.exists():
                    raise NotADirectoryError from None  # a link to nowhere on the way
                if config.name:
                    raise ConfigError(
                        f"name={config.name}: {folder} exists; continue it with rlkit resume {quoted(folder)}, "
                        "or choose another name"
                    ) from None
                number += 1
                folder = parent / f"{config.run_name}-{number}"
    except NotADirectoryError as error:
        culprit = next(path for path in (folder, *folder.parents) if path.is_symlink() or path.exists())
        raise ConfigError(f"dir={config.dir}: {culprit} is not a folder") from error
    except OSError as error:
        raise ConfigError(
            f"dir={config.dir}: cannot make {folder} ({error.strerror}); type dir=FOLDER with one you may write to"
        ) from error


def lock_folder(folder: Place) -> BinaryIO:
    """An exclusive lock on a run folder, held until closed (or until the process ends)."""
    try:
        file = (folder / ".lock").lock()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write there ({error.strerror})") from error
    if file is None:
        raise ConfigError(f"{folder} is in use by another process; wait for it or stop it")
    if hasattr(os, "register_at_fork"):  # what an environment forks does not hold the lock
        os.register_at_fork(after_in_child=file.close)
    return file
