"""Options as people type them and files hold them: "key=value" words, and nested plain values of dotted keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from rlkit.files import Place
from rlkit.options import ConfigError, Plain, show

LONGEST = 1 << 16  # bytes of a run's config.yaml, which YAML reads in a second
_KEY = re.compile(r"[A-Za-z_][\w\-]*(\.[\w\-]+)*")


def read_plain(path: Path | Place) -> Plain:
    """The values in a YAML file, unchecked. Raises ConfigError where it is no YAML mapping, and OSError."""
    data = path.read(LONGEST) if isinstance(path, Place) else path.read_bytes()
    try:
        plain = yaml.load(data.decode(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: no configuration in it")
    return plain


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that also reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and holds every value once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few of them can stand for billions of values
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse(overrides: Iterable[str]) -> list[tuple[str, Any]]:
    """(dotted key, value) of each "key=value", read by Hydra's grammar, and as text where that fails."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    pairs = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.lstrip("+")  # Hydra's sign for adding a key; here every key exists
        if not equals or not _KEY.fullmatch(key):
            if text.startswith("-"):
                bare = text.lstrip("-").partition("=")[0]
                raise ConfigError(f"{text}: options have no dashes; type {bare}=VALUE")
            raise ConfigError(f"{text}: not KEY=VALUE, for example agent=ppo env=cartpole agent.clip=0.1")
        try:
            parsed = parser.parse_override(f"{key}={raw}")
            value = raw if parsed.is_sweep_override() else parsed.value()
        except HydraException:
            value = raw
        pairs.append((key, value))
    return pairs


def put(plain: Plain, key: str, value: Any) -> None:
    """plain[a][b][c] = value for the key "a.b.c"; a dict is laid over the one that is there."""
    *path, last = key.split(".")
    for part in path:
        inner = plain.get(part)
        plain[part] = plain = dict(inner) if isinstance(inner, dict) else {}
    if isinstance(value, Mapping) and isinstance(plain.get(last), dict):
        for name, each in value.items():
            put(plain, f"{last}.{name}", each)
    else:
        plain[last] = value


def get(plain: Mapping[str, Any], key: str) -> Any:
    value: Any = plain
    for part in key.split("."):
        value = value[part]
    return value


def lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: lists(inner) for key, inner in value.items()}
    return [lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def refuse_placeholders(value: Any, path: str = "") -> None:
    """Hydra's ??? (a value that must be given) and ${...} (one that would be looked up)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_placeholders(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            refuse_placeholders(inner, path)
    elif value == "???":
        raise ConfigError(f"{path}: missing; type {path}=VALUE")
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{path}={show(value)}: ${{...}} is not looked up here; write the value itself")
