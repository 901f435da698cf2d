"""Encoders and cores by name. Needs no torch, so that a typing error is found before torch is loaded.

    @encoder("name")    over a function (space, stack, config) -> Encoder
    @core("name")       over a class or function (features, config) -> Core

in any file of rlkit/nn makes a name: the files are searched for these two decorators without being run, and a file is
imported when one of its names is used. `my_pkg.mod:function` names one of your own, without a decorator.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from rlkit import own
from rlkit.options import nearest

if TYPE_CHECKING:
    from torch import nn

Kind: TypeAlias = Literal["encoder", "core"]
BuildT = TypeVar("BuildT", bound="Callable[..., nn.Module]")

ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("space", "stack", "config"),
    "core": ("features", "config"),
}
_registered: dict[Kind, dict[str, Callable[..., Any]]] = {"encoder": {}, "core": {}}


def encoder(name: str) -> Callable[[BuildT], BuildT]:
    """Register a function that builds an encoder under `name`."""
    return _register("encoder", name)


def core(name: str) -> Callable[[BuildT], BuildT]:
    """Register what builds a core under `name`."""
    return _register("core", name)


def names(kind: Kind) -> list[str]:
    """Every registered name of a kind, sorted."""
    return sorted({*_files()[kind], *_registered[kind]})


def find(kind: Kind, name: str) -> Callable[..., Any]:
    """What builds the encoder or core `name`: a registered one, or module:function.

    Raises ValueError, one line, for an unknown name and for a module that cannot be imported.
    """
    given = f"network.{kind}={name}"
    if own.is_function(name):
        found = own.find_function(name, given)
        try:
            inspect.signature(found).bind(*ARGUMENTS[kind])
        except TypeError as error:
            raise ValueError(
                f"{given}: cannot be called with ({', '.join(ARGUMENTS[kind])}), as what builds the {kind} is: {error}"
            ) from error
        return found
    if name not in _registered[kind] and name in _files()[kind]:
        importlib.import_module(_files()[kind][name])  # its decorator registers it
    if name not in _registered[kind]:
        extra = ["auto"] if kind == "encoder" else []
        raise ValueError(f"{given}: no such {kind}; {nearest(name, [*names(kind), *extra])}")
    return _registered[kind][name]


def _register(kind: Kind, name: str) -> Callable[[BuildT], BuildT]:
    def register(build: BuildT) -> BuildT:
        _registered[kind][name] = build
        return build

    return register


@cache
def _files() -> dict[Kind, dict[str, str]]:
    """kind -> name -> module, of every function and class under one of the decorators in a file of this folder."""
    found: dict[Kind, dict[str, str]] = {"encoder": {}, "core": {}}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in getattr(node, "decorator_list", ()):
                match call:
                    case ast.Call(ast.Name("encoder" | "core" as kind), [ast.Constant(str(name))]):
                        found[kind][name] = f"{__package__}.{path.stem}"
    return found
