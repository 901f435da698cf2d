"""Python processes of our own: they import what this process imports, and nothing that merely lies about."""

from __future__ import annotations

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # the folder that rlkit is imported from


def command(module: str, *numbers: int) -> list[str]:
    """The words that start an interpreter in which `module.main(*numbers)` runs, with this one's `search_path`.

    -P: the interpreter does not put the current folder in front by itself.
    """
    count = len(numbers) + 1
    boot = f"import sys; sys.path[:] = sys.argv[{count}:]; from {module} import main; "
    boot += f"main(*map(int, sys.argv[1:{count}]))"
    return [sys.executable, "-P", "-c", boot, *map(str, numbers), *search_path()]


def search_path() -> list[str]:
    """`sys.path` with the current folder last, where it is in it.

    The code of one's own is found there, but a json.py or torch.py does not pass for the package of that name. Where
    rlkit itself is imported from that folder, the order stays.
    """
    here = os.getcwd()
    path = [entry or here for entry in sys.path]
    if os.path.realpath(here) == HOME:
        return path
    others = [entry for entry in path if os.path.realpath(entry) != os.path.realpath(here)]
    return others if len(others) == len(path) else [*others, here]
