"""What a run folder may ask for only after this user has typed it: code from outside the installation, programs, hosts.

An algorithm or a task `my_pkg.mod`, a data set `my_pkg.mod:function`, an environment `my_pkg.mod:MyEnv`, an encoder or
a core `my_pkg.mod:function` is code; a text in `env.kwargs` may name code, which an environment imports; `ray.address`
is a host that is connected to, and `ray.runtime_env` can start any program there. Typing one of these in a command is
consent, and is remembered, the option with its value, in the user's own state folder. What a run folder or a checkpoint
asks for and nobody typed here is refused before anything of it happens.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlkit.options import ConfigError
from rlkit.own import is_function, is_module
from rlkit.text import quoted

# environments only: other functions of rlkit import by name
_OURS = re.compile(r"rlkit/\w+|rlkit\.envs\.toys\.\w+:\w+")
_RAY: Mapping[str, object] = {
    "address": "local",
    "runtime_env": {},
}  # with these values it reaches and starts nothing
_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
_LONG = 200  # characters of a value, beyond which its hash stands for it
_FILES = (
    "trusted",
    "trusted-environments",
)  # the second one is version 0.1.0's, which knew environments only
_unsaved: set[str] = set()  # what was typed in this process and could not be written down


def requests(plain: Mapping[str, Any]) -> tuple[str, ...]:
    """What a configuration as nested plain values (`compose.to_plain`) asks for beyond what is installed.

    Code is its name, another option `option=value`. Groups may be missing, and values may be anything: the file was not
    checked yet.
    """
    groups = {name: group for name, group in plain.items() if isinstance(group, Mapping)}

    def text(group: str, key: str) -> str:
        value = groups.get(group, {}).get(key)
        return value if isinstance(value, str) else ""

    env = text("env", "id")
    code = [name for name in (text("agent", "name"), text("task", "name")) if is_module(name)]
    data = plain.get("data")
    code += [data] if isinstance(data, str) and is_function(data) else []
    ours = _OURS.fullmatch(env)
    code += [env] if (":" in env or is_module(env)) and not ours else []
    networks = [groups.get("network"), *(each.get("network") for each in _inner(groups.get("groups")))]
    named = [net.get(key) for net in networks if isinstance(net, Mapping) for key in ("encoder", "core")]
    code += [name for name in named if isinstance(name, str) and ":" in name]
    options = [] if ours else list(_texts("env.kwargs", groups.get("env", {}).get("kwargs")))
    ray = groups.get("ray", {})
    options += [(f"ray.{key}", ray[key]) for key, here in _RAY.items() if ray.get(key, here) != here]
    found = [_text(name) for name in code] + [f"{key}={_text(value)}" for key, value in options]
    return tuple(dict.fromkeys(found))


def _inner(groups: object) -> list[Mapping[str, Any]]:
    """What is different for each group of a game's agents."""
    every = groups.values() if isinstance(groups, Mapping) else ()
    return [each for each in every if isinstance(each, Mapping)]


def remember(*names: str) -> None:
    """Record that the user has typed these requests, or has said otherwise that they may be followed."""
    new = [name for name in dict.fromkeys(names) if name not in _trusted()]
    if not new:
        return
    path = _folder() / _FILES[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in new)
    except OSError:
        _unsaved.update(new)  # without a home folder, another process asks for --trust


def require(*names: str) -> None:
    """Raise ConfigError where one of these requests, found in a file, was never typed by the user."""
    new = [name for name in names if name not in _trusted()]
    if not new:
        return
    code = [name for name in new if "=" not in name]
    options = [name for name in new if "=" in name]
    asked = [f"imports code that was never named on this machine: {', '.join(code)}"] if code else []
    asked += (
        [f"sets what starts programs, imports code or reaches other machines: {', '.join(options)}"]
        if options
        else []
    )
    raise ConfigError(
        f"this run {' and '.join(asked)}; if you trust it, call "
        f"rlkit.config.trust.remember({', '.join(map(repr, new))}) in Python, or add "
        f"{' '.join(f'--trust {quoted(name)}' for name in new)}"
    )


def _texts(name: str, value: object) -> Iterator[tuple[str, object]]:
    """(dotted option, value) of all values in nested ones that are no numbers."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(f"{name}.{_text(key)}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(name, inner)
    elif value is not None and not isinstance(value, (bool, int, float)):
        yield name, value


def _text(value: object) -> str:
    """A value on one line; a hash stands for one that is too long to be typed."""
    if isinstance(value, (str, int, float)) and _PLAIN.fullmatch(str(value)):
        text = str(value)
    else:
        text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= _LONG else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _trusted() -> set[str]:
    found = set(_unsaved)
    for name in _FILES:
        try:
            found |= set((_folder() / name).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            continue
    return found


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "rlkit"
