"""The words of the verbs that take a run: which run is meant, and options as KEY=VALUE or with dashes."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlkit.files import RUNS, run_named
from rlkit.options import ConfigError, nearest

# options of the verbs themselves
OWN = (
    "checkpoint",
    "data",
    "episodes",
    "eyes",
    "games",
    "opponent",
    "part",
    "sample",
    "seed",
    "trust",
    "video",
)


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The arguments of a verb that plays a run, options given as --episodes 5 or as episodes=5.

    `run` is the path of an existing run: the newest one of runs/ where none was typed. Raises ConfigError.
    """
    words = [each for word in argv for each in dashed(word, parser.prog)]
    arguments = parser.parse_intermixed_args(words)
    typed = [word for word in (arguments.run, *arguments.env) if word is not None]
    run = next((word for word in typed if "=" not in word or _exists(word)), None)
    arguments.env = [word for word in typed if word is not run]
    arguments.run = str(newest_run() if run is None else find_run(run))
    return arguments


def find_run(text: str) -> Path:
    """The folder that a run's path, or its bare name, means. Raises ConfigError where that is a folder of runs."""
    folder = run_named(text)
    inside = [] if _is_run(folder) or (folder / "manifest.json").is_file() else _runs(folder)
    if inside:
        names = ", ".join(str(run) for run in reversed(inside[-10:]))
        more = f" and {len(inside) - 10} more (rlkit list runs dir={folder})" if len(inside) > 10 else ""
        raise ConfigError(f"{folder} is a folder of runs; type one of them, the newest first: {names}{more}")
    return folder


def newest_run() -> Path:
    """The newest run of runs/, which is said. Raises ConfigError where there is none."""
    found = _runs(RUNS)
    if not found:
        raise ConfigError(f"no run in {RUNS}: rlkit train makes one; a run elsewhere is named by its folder")
    print(f"run: {found[-1]} (the newest in {RUNS})")
    return found[-1]


def _runs(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest last."""
    files = sorted(folder.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime)
    return [file.parent for file in files]


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _exists(word: str) -> bool:
    return Path(word).exists() or (RUNS / word).exists()


def _of_env(word: str) -> bool:
    """Whether a word is env=NAME or env.KEY=VALUE."""
    key, equals, _ = word.partition("=")
    return bool(equals) and (key == "env" or key.startswith("env."))


def dashed(word: str, prog: str) -> list[str]:
    """A word as argparse reads it: episodes=5 as --episodes=5. Raises ConfigError for a name that nothing has."""
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-") or "." in key or "/" in key or _of_env(word):
        return [word]
    if key == "sample":
        if value not in ("true", "false"):
            raise ConfigError(f"{word}: not true or false; allowed: true or false")
        return ["--sample" if value == "true" else "--no-sample"]
    if key in OWN:
        return [f"--{key}={value}"]
    if _exists(word):
        return [word]
    raise ConfigError(f"{word}: no such option of {prog}; {nearest(key, [*OWN, 'env'])}")
