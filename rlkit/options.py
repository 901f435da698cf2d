"""Options: frozen dataclasses whose fields say what they allow, and the builder that checks a mapping.

    @dataclass(frozen=True)
    class Config:
        clip: float = option(0.2, above=0, help="how far the policy may move")

    build(Config, {"clip": "abc"}, "agent")
    # ConfigError: agent.clip=abc: not a number; allowed: a number above 0

Types are checked strictly, with the few readings that lose nothing: a whole number for a float, 1e6 for an
int, a list for a tuple, a number for a text. A bool is never a number, and no number may be NaN or infinite.
Rules between fields belong in `__post_init__`, as ValueErrors. Every error is one line: what was given, what
is allowed, what to type.
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import reprlib
import types as pytypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from rlkit.own import is_function

T = TypeVar("T")
Kind: TypeAlias = Any  # the type of an option: a class, or what typing makes of them, such as int | None
Plain: TypeAlias = dict[str, Any]  # options as YAML holds them: nested dicts, lists, numbers and texts
Meta: TypeAlias = Mapping[str, Any]  # what `option` says about a field: min, max, above, below, choices, help


class ConfigError(ValueError):
    """A configuration that cannot be used, in one line that says what to type instead."""


class UnknownOption(ConfigError):
    """A name that no option has."""


# what is wrong with a value -> the error that says so, and what is allowed
Refuse: TypeAlias = Callable[[str], ConfigError]


@dataclass(frozen=True)
class Option:
    """One field of a configuration, as `rlkit list options` shows it."""

    name: str  # dotted: agent.clip
    default: object
    allowed: str  # "a number above 0"
    help: str


def option(
    default: object,
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[object] | Callable[[], Sequence[object]] | None = None,
    own: bool = False,
    help: str = "",
) -> Any:
    """A dataclass field with a default and what it allows; for tuples the limits hold for every element.

    `min` and `max` are allowed themselves, `above` and `below` are not. `choices` may be a function that finds them
    when they are asked for; own: code of one's own, module:function, is allowed beside them.
    """
    limits = {"min": min, "max": max, "above": above, "below": below, "choices": choices}
    metadata = {key: limit for key, limit in limits.items() if limit is not None} | {"help": help, "own": own}
    return field(default=default, metadata=metadata)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """What to type instead of `name`: "did you mean X?" where one is close, else "allowed: A, B, C"."""
    names = sorted(allowed)
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lower[close[0]]}?"
    return f"allowed: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


def build(
    cls: type[T],
    mapping: object,
    path: str = "",
    *,
    types: Mapping[str, type] | None = None,
    known: Sequence[str] = (),
    elsewhere: Mapping[str, Sequence[str]] | None = None,
    hint: str = "",
) -> T:
    """An instance of the dataclass `cls` from plain values, every one checked.

    path: dotted name of the mapping, "" for the root; types: classes that stand in for field annotations (a
    field whose class is only known at run time); known: dotted names among which a misspelt one is looked for
    (default: the fields of `cls`); elsewhere: what other libraries call options, in lower case, with those of `known`
    that may be meant; hint: appended to the error about an unknown name. Raises ConfigError.
    """
    if not isinstance(mapping, Mapping):
        first = next(iter(fields(cls)), None)  # type: ignore[arg-type]
        example = f", for example {path}.{first.name}=..." if first else ""
        raise ConfigError(f"{path}={show(mapping)}: {path} is a group of options; set one of them{example}")
    kinds = _kinds(cls, types)
    for key in mapping:
        if key not in kinds:
            name, value = _join(path, str(key)), mapping[key]
            while isinstance(value, Mapping) and len(value) == 1:
                inner, value = next(iter(value.items()))
                name = _join(name, str(inner))
            given = name if isinstance(value, Mapping) else f"{name}={show(value)}"
            remedy = _remedy(name, known or [_join(path, kind) for kind in kinds])
            ours = (elsewhere or {}).get(name.rpartition(".")[2].lower(), ())
            meant = next((each for each in ours if each in known), None)
            if meant is not None:
                remedy = f"it is called {meant} here" + (
                    "" if given == name else f"; type {meant}={show(value)}"
                )
            raise UnknownOption(f"{given}: no such option; {remedy}{hint and f' ({hint})'}")
    values: dict[str, object] = {}
    for part in _fields(cls):
        name, kind = _join(path, part.name), kinds[part.name]
        if part.name not in mapping and not (is_dataclass(kind) and _default(part) is MISSING):
            if _default(part) is MISSING:
                raise ConfigError(f"{name}: missing; allowed: {_allowed(kind, part.metadata)}")
            continue
        value = mapping.get(part.name, {})
        if isinstance(kind, type) and is_dataclass(kind):
            values[part.name] = build(kind, value, name, known=known, elsewhere=elsewhere, hint=hint)
        else:
            values[part.name] = _convert(name, value, kind, part.metadata)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def describe(cls: type, path: str = "", types: Mapping[str, type] | None = None) -> list[Option]:
    """Every option of `cls`, nested dataclasses included, in order."""
    found = []
    for part in _fields(cls):
        name, kind = _join(path, part.name), _kinds(cls, types)[part.name]
        if isinstance(kind, type) and is_dataclass(kind):
            found += describe(kind, name)
        else:
            allowed = _allowed(kind, part.metadata)
            found.append(Option(name, _default(part), allowed, part.metadata.get("help", "")))
    return found


def show(value: object) -> str:
    """A value as one would type it, on one line, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        line = value if value.isprintable() else repr(value)
        return line if len(line) <= 60 else line[:57] + "..."
    if isinstance(value, (list, tuple)):
        flat = [reprlib.repr(item) if isinstance(item, (list, tuple)) else show(item) for item in value[:8]]
        return f"[{','.join(flat)}{',...' if len(value) > 8 else ''}]"
    return reprlib.repr(value)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _fields(cls: type) -> Iterator[Field[object]]:
    """The fields that the constructor takes."""
    return (part for part in fields(cls) if part.init)


def _kinds(cls: type, types: Mapping[str, type] | None) -> dict[str, Kind]:
    """The type of every field, by its name."""
    hints = _hints(cls) | dict(types or {})
    return {part.name: hints[part.name] for part in _fields(cls)}


@cache
def _hints(cls: type) -> dict[str, Kind]:
    return get_type_hints(cls)


def _default(part: Field[object]) -> object:
    """The default of a field, MISSING where it has none."""
    return part.default_factory() if part.default_factory is not MISSING else part.default


def _remedy(name: str, known: Sequence[str]) -> str:
    """The known dotted name that `name` most likely means: the same last part elsewhere, else the closest."""
    leaf = name.rpartition(".")[2]
    same = [candidate for candidate in known if candidate.rpartition(".")[2] == leaf]
    if same:
        return f"did you mean {' or '.join(same)}?"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)  # also where the dot is missing
    if close:
        return f"did you mean {close[0]}?"
    siblings = [
        candidate for candidate in known if candidate.rpartition(".")[0] == name.rpartition(".")[0]
    ] or list(known)
    remedy = nearest(name, siblings)
    if "did you mean" in remedy:
        return remedy
    leaves = {candidate.rpartition(".")[2]: candidate for candidate in known}
    close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return f"did you mean {leaves[close[0]]}?" if close else remedy


def _convert(name: str, value: object, kind: Kind, meta: Meta) -> object:
    """`value` as the type `kind`, within the limits of `meta`; raises ConfigError."""

    def refuse(problem: str) -> ConfigError:
        return ConfigError(f"{name}={show(value)}: {problem}; allowed: {_allowed(kind, meta)}")

    origin: Kind = get_origin(kind)
    arguments = get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, pytypes.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert_union(
            name, value, [part for part in arguments if part is not type(None)], meta, refuse
        )
    if origin is Literal:
        return _choice(value, arguments, refuse)
    if kind in _READERS:
        read = _READERS[kind](value, refuse)
        if "choices" in meta:
            if meta.get("own") and isinstance(read, str) and is_function(read):
                return read
            return _choice(read, _choices(meta), refuse)
        _check_range(read, meta, refuse)
        return read
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise refuse(f"not a list: write {name}=[{show(value).strip('()[]')}]")
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise refuse(f"{len(value)} values, not {len(arguments)}")
            return tuple(
                _convert(name, item, part, meta) for item, part in zip(value, arguments, strict=True)
            )
        return origin(_convert(name, item, arguments[0], meta) for item in value)
    if kind is dict or (origin is not None and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise refuse("not a group of options")
        inner = arguments[1] if arguments else Any
        return {str(key): _convert(_join(name, str(key)), item, inner, meta) for key, item in value.items()}
    raise TypeError(
        f"{name}: options of type {kind} are not supported; use bool, int, float, str, tuple or dict"
    )


def _convert_union(name: str, value: object, kinds: list[Kind], meta: Meta, refuse: Refuse) -> object:
    """`value` as the first of the kinds that takes it."""
    if len(kinds) == 1:
        try:
            return _convert(name, value, kinds[0], meta)
        except ConfigError as error:
            raise ConfigError(f"{error} or null") from error
    for kind in sorted(kinds, key=lambda kind: kind is str):  # every number is a text: ask for texts last
        try:
            return _convert(name, value, kind, meta)
        except ConfigError:
            continue
    raise refuse("not possible")


def _read_bool(value: object, refuse: Refuse) -> bool:
    if not isinstance(value, bool):
        raise refuse("not true or false")
    return value


def _read_int(value: object, refuse: Refuse) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise refuse("not a whole number")
    return int(value)


def _read_float(value: object, refuse: Refuse) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refuse("not a number")
    if not math.isfinite(value):
        raise refuse("not a finite number")
    return float(value)


def _read_str(value: object, refuse: Refuse) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        raise refuse("not a text")
    return str(value)


_READERS: dict[Kind, Callable[[object, Refuse], bool | int | float | str]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
}


def _choices(meta: Meta) -> Sequence[object]:
    """The choices of an option, which may be found only when they are asked for."""
    given = meta["choices"]
    return given() if callable(given) else given  # type: ignore[no-any-return]


def _choice(value: object, choices: Sequence[object], refuse: Refuse) -> object:
    """The one of `choices` that equals `value`."""
    for choice in choices:
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
    remedy = nearest(str(value), map(str, choices))
    raise refuse(f"no such choice, {remedy.rstrip('?')}" if remedy.startswith("did") else "no such choice")


def _check_range(value: float | str, meta: Meta, refuse: Refuse) -> None:
    """Raise the refusal of a number outside the limits."""
    if isinstance(value, str):
        return
    if value < meta.get("min", value) or ("above" in meta and value <= meta["above"]):
        raise refuse("too small")
    if value > meta.get("max", value) or ("below" in meta and value >= meta["below"]):
        raise refuse("too large")


def _allowed(kind: Kind, meta: Meta) -> str:
    """What an option allows, in words."""
    origin: Kind = get_origin(kind)
    arguments = get_args(kind)
    if origin in (Union, pytypes.UnionType):
        words = [_allowed(part, meta) for part in arguments if part is not type(None)]
        return " or ".join(words + (["null"] if type(None) in arguments else []))
    if origin is Literal:
        return ", ".join(map(show, arguments))
    if origin in (tuple, list):
        if origin is list or arguments[-1] is Ellipsis:
            return f"a list, each {_allowed(arguments[0], meta)}"
        return f"a list of {len(arguments)}, each {_allowed(arguments[0], meta)}"
    if "choices" in meta:
        return ", ".join([*map(show, _choices(meta)), *(["or module:function"] if meta.get("own") else [])])
    word = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}.get(kind, "")
    if not word:
        return "anything" if kind is Any else "a group of options"
    return word + _range(meta) if kind in (int, float) else word


def _range(meta: Meta) -> str:
    """The limits of a number, in words."""
    if "min" in meta and "max" in meta:
        return f" from {meta['min']} to {meta['max']}"
    texts = {"min": "of at least", "above": "above", "max": "of at most", "below": "below"}
    found = [f"{text} {meta[key]}" for key, text in texts.items() if key in meta]
    return f" {' and '.join(found)}" if found else ""
