"""Code of one's own, by name: `my_pkg.mod` (an algorithm) and `my_pkg.mod:function` (an encoder, a core).

It is looked for in the installed packages and then in the current folder. Importing it runs it, so a name that stands
in a file, and was not typed, is first shown to `rlkit.config.trust`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


def is_module(name: str) -> bool:
    """Whether a name is one of a module with at least one dot: my_pkg.mod. Names without a dot are registered ones."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def is_function(name: str) -> bool:
    """Whether a name has the form module:function, where the module may have dots or none."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def find_module(name: str, given: str) -> ModuleType:
    """Import a module. Raises ValueError, one line that begins with `given` ("agent=my_pkg.mod")."""
    with _explained(name, given):
        return importlib.import_module(name)


def find_file(name: str, given: str) -> Path:
    """The source file of a module, which is not run; the packages around it are. Raises ValueError as `find_module`."""
    with _explained(name, given):
        spec = importlib.util.find_spec(name)
    if spec is None or not spec.has_location or spec.origin is None:
        raise ValueError(f"{given}: there is no file of a module {name}; {_places()}")
    return Path(spec.origin)


def find_function(name: str, given: str) -> Callable[..., Any]:
    """What `module:function` names. Raises ValueError as `find_module`, and where the module has no such function."""
    module, _, attribute = name.partition(":")
    found = getattr(find_module(module, given), attribute, None)
    if not callable(found):
        raise ValueError(f"{given}: {module} has no function {attribute}")
    return found  # type: ignore[no-any-return]


def _places() -> str:
    return f"it is looked for in {os.getcwd()} and in the installed packages"


@contextmanager
def _explained(name: str, given: str) -> Iterator[None]:
    """The current folder is searched too, and whatever goes wrong in an import becomes one line."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: a file in it must not pass for an installed package
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{given}: there is no module {error.name}; {_places()}") from error
        raise ValueError(f"{given}: {name} needs the package {error.name}; pip install it") from error
    except Exception as error:  # the module's own code
        frames = [
            each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")
        ]
        file, line = frames[-1].filename, frames[-1].lineno
        if isinstance(error, SyntaxError):
            file, line = str(error.filename), error.lineno
        text = " ".join(str(error).split())
        raise ValueError(
            f"{given}: {name} cannot be imported: {type(error).__name__}: {text} "
            f"({file}:{line}; --traceback shows the way there)"
        ) from error
