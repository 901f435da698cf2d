"""Which code from outside the installation may be imported by name.

An algorithm `my_pkg.mod`, an environment `my_pkg.mod:MyEnv`, an encoder or a core `my_pkg.mod:function` is code. Typing
its name in a command is consent, and is remembered in the user's own state folder; a name found in a run folder or a
checkpoint that was never typed here imports nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlkit.options import ConfigError
from rlkit.own import is_module

_OURS = re.compile(r"rlkit\.envs\.\w+\.\w+:")  # environments only: other functions of rlkit import by name
_FILES = (
    "trusted",
    "trusted-environments",
)  # the second one is version 0.1.0's, which knew environments only


def code_of(plain: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of code of one's own in a configuration as nested plain values (`compose.to_plain`).

    Groups may be missing, and values may be anything: the file was not checked yet.
    """

    def text(group: str, key: str) -> str:
        options = plain.get(group)
        value = options.get(key) if isinstance(options, Mapping) else None
        return value if isinstance(value, str) else ""

    agent, env = text("agent", "name"), text("env", "id")
    found = [agent] if is_module(agent) else []
    found += [env] if ":" in env and not _OURS.match(env) else []
    found += [name for name in (text("network", "encoder"), text("network", "core")) if ":" in name]
    return tuple(dict.fromkeys(found))


def remember(*names: str) -> None:
    """Record that the user has typed these names, or has said otherwise that their code may be imported."""
    new = [name for name in dict.fromkeys(names) if name not in _trusted()]
    if not new:
        return
    path = _folder() / _FILES[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in new)
    except OSError:
        pass  # without a home folder, resume asks for --trust


def require(*names: str) -> None:
    """Raise ConfigError where one of the names, found in a file, would import code that the user never named."""
    new = [name if name.isprintable() else repr(name) for name in names if name not in _trusted()]
    if new:
        raise ConfigError(
            f"this run imports code that was never named on this machine: {', '.join(new)}; if you trust it, call "
            f"rlkit.config.trust.remember({', '.join(map(repr, new))}) in Python, or add "
            f"{' '.join(f'--trust {name}' for name in new)}"
        )


def _trusted() -> set[str]:
    found: set[str] = set()
    for name in _FILES:
        try:
            found |= set((_folder() / name).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            continue
    return found


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "rlkit"
