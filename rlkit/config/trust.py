"""Which environments outside the installation may be imported by name.

An environment such as `my_pkg.mod:MyEnv` is code. Typing it in a command is consent, and is remembered in the user's
own state folder; a name found in a run folder that was never typed here imports nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rlkit.options import ConfigError

_OURS = re.compile(r"rlkit\.envs\.\w+\.\w+:")  # environments only: other functions of rlkit import by name


def remember(env_id: str) -> None:
    """Record that the user has typed `env_id` (ids without a module need no record)."""
    if ":" not in env_id or _trusted(env_id):
        return
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(env_id + "\n")
    except OSError:
        pass  # without a home folder, resume asks for --trust


def require(env_id: str) -> None:
    """Raise ConfigError where `env_id`, found in a file, would import code that the user never named."""
    if ":" in env_id and not _trusted(env_id):
        raise ConfigError(
            f"this run's environment {env_id} imports code that was never named on this machine; "
            f"if you trust it, add --trust {env_id}"
        )


def _trusted(env_id: str) -> bool:
    if _OURS.match(env_id):
        return True
    try:
        return env_id in _file().read_text(encoding="utf-8").splitlines()
    except OSError:
        return False


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "rlkit" / "trusted-environments"
