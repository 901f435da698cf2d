"""A run's folder: made, locked, read."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from rlkit.config.compose import from_yaml
from rlkit.config.schema import RunConfig
from rlkit.options import ConfigError


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder. Raises ConfigError where it is none."""
    if not (folder / "config.yaml").is_file():
        what = "is not a run folder (no config.yaml in it)" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder} {what}; rlkit list runs shows what there is")
    return from_yaml(folder / "config.yaml")


def new_folder(config: RunConfig) -> Path:
    """runs/<name>; a name that was not asked for is made unique."""
    parent = Path(config.dir)
    folder, number = parent / config.run_name, 1
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not folder.exists():
                    raise NotADirectoryError from None  # a link to nowhere on the way
                if config.name:
                    raise ConfigError(
                        f"name={config.name}: {folder} exists; continue it with rlkit resume {folder}, "
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


def lock_folder(folder: Path) -> TextIO:
    """An exclusive lock on a run folder, held until closed (or until the process ends)."""
    try:
        descriptor = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write there ({error.strerror})") from error
    file = os.fdopen(descriptor, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(f"{folder} is in use by another process; wait for it or stop it") from None
    if hasattr(os, "register_at_fork"):  # what an environment forks does not hold the lock
        os.register_at_fork(after_in_child=file.close)
    return file
