"""A process that is killed between two changes of files, without a process."""

from __future__ import annotations

import os

import pytest


class Killed(BaseException):
    """The process ends here."""


def killed_at(count: int, patch: pytest.MonkeyPatch) -> None:
    """The `count`-th change of a file or a folder from now on does not happen, nor any after it."""
    left = [count]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def change(*arguments: object, **more: object) -> object:
            if name != "open" or int(arguments[1]) & (os.O_CREAT | os.O_WRONLY):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return real(*arguments, **more)

        patch.setattr(os, name, change)

    for name in ("open", "mkdir", "rename", "unlink", "rmdir", "fsync"):
        wrap(name)
