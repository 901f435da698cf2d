"""Python values as the options that they stand for: a run's options are texts, numbers, lists and mappings of them.

They are saved with the run and sent to other processes, so a class or a function is written as its name,
"module:Name", under which it is imported there; what has no such name is refused with what to write instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from rlkit.options import ConfigError

CODE = (
    "agent",
    "env",
    "env.id",
    "network.encoder",
    "network.core",
    "task",
    "data",
)  # options that may be a name of code


def plain(key: str, value: Any) -> Any:
    """`value` of option `key` as one would type it; arrays and NumPy's numbers become lists and numbers.

    Raises ConfigError.
    """
    if hasattr(value, "tolist"):  # NumPy's float64 is a float, too
        return plain(key, value.tolist())
    if value is None or isinstance(value, str | bool | int | float | os.PathLike):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(key, inner) for inner in value]
    if key not in CODE:
        raise ConfigError(
            f"{key}={_what(value)}: options are saved with the run as text; allowed: numbers, texts, lists and "
            "mappings of them, from which the environment can make the rest"
        )
    if isinstance(value, ModuleType):
        return value.__name__
    if callable(value):
        return _name(key, value)
    made_from = getattr(getattr(value, "spec", None), "id", None)
    instead = f"{key}={made_from!r}" if made_from else "its class, or the function that makes it"
    raise ConfigError(f"{key}={_what(value)}: a run makes several of its own; write {instead}")


def _name(key: str, value: Any) -> str:
    """ "module:Name" of a class or function."""
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
    if module == "__main__" and name.isidentifier():
        raise ConfigError(
            f"{key}={name}: it is defined in the script itself, where other processes and a later resume do not find "
            f"it; put it into a file of its own, my_env.py, and write {key}='my_env:{name}', or import it from there"
        )
    if getattr(sys.modules.get(module), name, None) is not value:
        raise ConfigError(
            f"{key}={name or _what(value)}: it has no name in its module, under which other processes could import "
            "it; write a class, or a function with `def` at the top of a module"
        )
    return f"{module}:{name}"


def _what(value: Any) -> str:
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
