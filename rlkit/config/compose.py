"""From `agent=ppo env=cartpole agent.clip=0.1` to one frozen, checked RunConfig; to YAML and back.

Hydra composes the YAML groups of rlkit.configs (agent, env, network, source, then the tuned preset of the
pair of names if there is one); the given options are laid over them; `rlkit.options.build` checks everything against
the dataclasses that stand beside the code which reads them. YAML holds only what differs from their defaults.
Nothing is instantiated by name, no interpolation is resolved, and whatever is wrong becomes one line
(ConfigError).
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from rlkit import own
from rlkit.config import registry, trust
from rlkit.config.elsewhere import ELSEWHERE
from rlkit.config.legacy import RENAMED, modern
from rlkit.config.schema import GENERIC_ENV, RunConfig
from rlkit.config.values import plain as as_option
from rlkit.files import Place, at
from rlkit.options import ConfigError, Option, UnknownOption, build, describe, nearest, show

CHOICES = {  # option that chooses a YAML file -> (what `rlkit list` calls them, one of them)
    "agent": ("agents", "agent"),
    "env": ("environments", "environment"),
    "network": ("networks", "network"),
    "source": ("sources", "source"),
    "exploration": ("explorations", "exploration"),
    "preset": ("presets", "preset"),
}
OF_TRAINING = (
    "env.stack",
    "env.reward_scale",
    "env.stuck_after",
)  # read in training only, or kept by the agent
_ID = re.compile(r"[\w.\-]*[:/].+|[\w.\-]+-v\d+")  # CartPole-v1, ALE/Pong-v5, my_pkg.mod:MyEnv, module:Id-v0
_LONGEST = 1 << 16  # bytes of a run's config.yaml, which YAML reads in a second
_KEY = re.compile(r"[A-Za-z_][\w\-]*(\.[\w\-]+)*")


@dataclass(frozen=True)
class Composed:
    """A configuration and where it came from."""

    config: RunConfig
    plain: dict[str, Any]  # the same as nested dicts and lists, as to_yaml writes it
    preset: str | None  # the preset that was applied
    id: str = (
        ""  # the environment's id that was typed where a named configuration describes it: that was taken
    )


def compose(overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> Composed:
    """The run that `overrides` ("key=value") describe.

    values: the same as Python values (see rlkit.config.values), applied after them; keys may be dotted ("agent.clip"),
    values may be dicts. Raises ConfigError.
    """
    plain, preset, id = _compose_plain(
        overrides, {key: as_option(key, each) for key, each in (values or {}).items()}
    )
    config = _typed(plain)
    return Composed(config, to_plain(config), preset, id)


def options(overrides: Iterable[str] = ()) -> list[tuple[Option, Any]]:
    """Every option of the run that `overrides` describe, with its value there."""
    composed = compose(overrides)
    found = [
        each for each in describe(RunConfig, types=_types(composed.config.agent_name)) if each.name != "alias"
    ]
    return [(each, _get(composed.plain, each.name)) for each in found]


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dicts, lists and scalars; inverse of what `from_yaml` does after
    reading."""
    plain: dict[str, Any] = _lists(asdict(config))
    return plain | {"agent": {"name": config.agent_name} | plain["agent"]}


def to_yaml(config: RunConfig) -> str:
    """The text of a run's config.yaml: every option, defaults included."""
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def save(config: RunConfig, path: Place) -> None:
    """Write a run's config.yaml. Raises ConfigError where it would be too long to be read again, and OSError."""
    data = to_yaml(config).encode()
    if len(data) > _LONGEST:
        raise ConfigError(
            f"{path}: {len(data):,} bytes of options, and at most {_LONGEST:,} are read; "
            "let the environment read a file that env.kwargs names"
        )
    path.write(data)


def remembered(config: RunConfig) -> str:
    """The configuration as one text, for a later `changes`."""
    return json.dumps(to_plain(config), default=str)


def changes(before: str, config: RunConfig) -> list[str]:
    """ "optim.lr: 0.0003 -> 0.4003" for each option that is another one than in an earlier value of `remembered`.

    Options that only one of the two has are those of another version.
    """
    old, new = json.loads(before), json.loads(remembered(config))
    old |= {group: modern(group, old[group]) for group in ("agent", "env", "network")}
    found = []
    for name in ("agent.name", *(each.name for each in describe(RunConfig, types=_types(config.agent_name)))):
        try:
            was, now = _get(old, name), _get(new, name)
        except KeyError:
            continue
        if was != now:
            found.append(f"{name}: {show(was)} -> {show(now)}")
    return found


def from_yaml(path: str | Path | Place) -> RunConfig:
    """The configuration saved in a run folder, checked as strictly as a typed one.

    What its agent and network are must be installed, or typed on this machine before (rlkit.config.trust). Who makes
    its environment, which may be exchanged (`with_env`), or continues the run, asks for the rest.
    Raises ConfigError (not YAML, unknown options, values out of range, code that is not trusted) and OSError.
    """
    plain = read_plain(at(path))
    trust.require(*trust.requests({key: plain.get(key) for key in ("agent", "network")}))
    for group in ("agent", "env", "network"):
        if isinstance(plain.get(group), Mapping):
            plain[group] = modern(group, plain[group])
    try:
        return _typed(plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_env(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """`config` in another environment: overrides are `env=NAME` and `env.KEY=VALUE`.

    Raises ConfigError, also for what changes training only.
    """
    plain = to_plain(config)
    pairs = _parse(overrides)
    for key, value in pairs:
        if key != "env" and not key.startswith("env."):
            raise ConfigError(
                f"{key}={show(value)}: the agent is as it was trained; allowed: env=NAME and env.KEY=VALUE"
            )
        if key in OF_TRAINING:
            raise ConfigError(
                f"{key}={show(value)}: changes nothing once the agent is trained; allowed: env=NAME and env.KEY=VALUE "
                f"other than {', '.join(OF_TRAINING)}"
            )
    chosen = [str(value) for key, value in pairs if key == "env"]
    if chosen:
        plain["env"] = to_plain(compose(values={"env": chosen[-1], "preset": "none"}).config)["env"]
    if any(key == "env.id" for key, _ in pairs) and plain["env"]["backend"] not in ("native", "envpool"):
        # they were decided for the run's own id
        plain["env"] |= {"backend": "auto", "workers": 0, "action_mask": "auto"}
    for key, value in pairs:
        if key != "env":
            _set(plain, key, value)
    _refuse_placeholders(plain)
    return _typed(plain)


def read_plain(path: Path | Place) -> dict[str, Any]:
    """The values in a YAML file, unchecked. Raises ConfigError where it is no YAML mapping, and OSError."""
    data = path.read(_LONGEST) if isinstance(path, Place) else path.read_bytes()
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


def _compose_plain(
    overrides: Iterable[str], values: Mapping[str, Any]
) -> tuple[dict[str, Any], str | None, str]:
    """The YAML groups with all edits laid over them, unchecked; the preset's name; `Composed.id`."""
    choices: dict[str, str] = {}
    edits: list[tuple[str, Any]] = []
    for key, value in [*_parse(overrides), *values.items()]:
        if key in CHOICES and not isinstance(value, Mapping):
            choices[key] = str(value)
        elif key in ("agent.name", "alias"):
            raise ConfigError(f"{key}={show(value)}: agents are chosen whole; type agent={show(value)}")
        else:
            edits.append((key, value))
    first: list[tuple[str, Any]] = []
    env, described = choices.get("env", ""), ""
    if env and env not in registry.names("environments") and _ID.fullmatch(env):
        described = registry.configuration_of(env)
        choices["env"], first = described or GENERIC_ENV, [("env.id", env)]
    chosen = _defaults() | choices
    if chosen["preset"] == "auto" and chosen["env"] in registry.names("environments"):
        pairs = [f"{chosen['agent']}-{name}" for name in registry.lineage(chosen["env"])]
        chosen["preset"] = next((pair for pair in pairs if pair in registry.names("presets")), "none")
    for key, choice in chosen.items():
        group, noun = CHOICES[key]
        if key == "agent":
            registry.algorithm_of(choice)  # refuses what is neither an agent nor a module's name
            continue
        if choice not in registry.names(group) and (key, choice) != ("preset", "none"):
            extra = ["none", "auto"] if key == "preset" else []
            remedy = nearest(choice, registry.names(group) + extra)
            raise ConfigError(f"{key}={show(choice)}: no such {noun}; {remedy}")
    typed = [
        f"{key}={choice}" if not (key == "agent" and own.is_module(choice)) else "~agent"  # has no YAML file
        for key, choice in choices.items()
        if key != "preset"
    ]  # stronger than a preset's
    folder = registry.config_folder()
    plain = copy.deepcopy(_compose_groups((*typed, f"preset={chosen['preset']}"), folder, _changed(folder)))
    # a run is called after the id where the configuration is one of many ids
    family = registry.is_family(registry.environment_id(chosen["env"]))
    plain["env"]["name"] = GENERIC_ENV if family else chosen["env"]
    plain["agent"] = {"name": chosen["agent"]} | (plain.get("agent") or {})
    for key, value in first + edits:
        if key in RENAMED:
            raise ConfigError(
                f"{key}={show(value)}: is called {RENAMED[key]}; type {RENAMED[key]}={show(value)}"
            )
        _set(plain, key, value)
    if chosen["agent"] != registry.algorithm_of(chosen["agent"]):
        plain["alias"] = chosen["agent"]
    _refuse_placeholders(plain)
    return plain, None if chosen["preset"] == "none" else chosen["preset"], env if described else ""


def _parse(overrides: Iterable[str]) -> list[tuple[str, Any]]:
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


def _defaults() -> dict[str, str]:
    """What config.yaml chooses; its preset is "auto": the one of the pair, where there is one."""
    defaults = read_plain(registry.config_folder() / "config.yaml")["defaults"]
    entries = [entry for entry in defaults if isinstance(entry, dict)]
    chosen = {key: name for entry in entries for key, name in entry.items()}
    return {key: chosen[key] for key in CHOICES if key != "preset"} | {"preset": "auto"}


def _changed(folder: Path) -> int:
    """When the newest of the YAML files in a folder was written, in ns."""
    return max(file.stat().st_mtime_ns for file in folder.rglob("*.yaml"))


@lru_cache(maxsize=64)
def _compose_groups(choices: tuple[str, ...], folder: Path, changed: int) -> dict[str, Any]:
    """Hydra's composition of the folder's config.yaml with these choices; of the files as they were at `changed`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    outer = GlobalHydra.instance().hydra  # a program that uses Hydra itself keeps its state
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
            composed = hydra_compose("config", overrides=[*choices])
        plain: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{' '.join(choices)}: {' '.join(str(error).split())}") from error
    finally:
        GlobalHydra.instance().hydra = outer
    plain.pop("preset", None)
    return plain


def _typed(plain: Mapping[str, Any]) -> RunConfig:
    """The checked dataclasses. The agent's own options come last: its module imports torch."""
    agent = plain.get("agent")
    name = agent.get("name") if isinstance(agent, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"agent={show(agent)}: no agent; allowed: {', '.join(registry.names('agents'))}")
    torch_free = {"agent": dict[str, Any], "env": registry.env_config()}
    with contextlib.suppress(UnknownOption):  # refused below, where all names are known
        _check_env(build(RunConfig, plain, types=torch_free))
    types = _types(name)
    if "name" not in types["agent"].__dataclass_fields__:
        plain = {**plain, "agent": {key: value for key, value in agent.items() if key != "name"}}  # type: ignore[union-attr]
    found = {*RunConfig.__dataclass_fields__, *(each.name for each in describe(RunConfig, types=types))}
    known = sorted(found - {"alias"})  # nobody types it
    hint = f"rlkit list options agent={name} shows all"
    return _check_env(build(RunConfig, plain, types=types, known=known, elsewhere=ELSEWHERE, hint=hint))


def _check_env(config: RunConfig) -> RunConfig:
    """The rules between the environment's options, which are its own."""
    try:
        config.env.validate()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def _types(agent: str) -> dict[str, Any]:
    return {"agent": registry.algorithm(agent).Config, "env": registry.env_config()}


def _set(plain: dict[str, Any], key: str, value: Any) -> None:
    """plain[a][b][c] = value for the key "a.b.c"; a dict is laid over the one that is there."""
    *path, last = key.split(".")
    for part in path:
        inner = plain.get(part)
        plain[part] = plain = dict(inner) if isinstance(inner, dict) else {}
    if isinstance(value, Mapping) and isinstance(plain.get(last), dict):
        for name, each in value.items():
            _set(plain, f"{last}.{name}", each)
    else:
        plain[last] = value


def _get(plain: Mapping[str, Any], key: str) -> Any:
    value: Any = plain
    for part in key.split("."):
        value = value[part]
    return value


def _lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _refuse_placeholders(value: Any, path: str = "") -> None:
    """Hydra's ??? (a value that must be given) and ${...} (one that would be looked up)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_placeholders(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_placeholders(inner, path)
    elif value == "???":
        raise ConfigError(f"{path}: missing; type {path}=VALUE")
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{path}={show(value)}: ${{...}} is not looked up here; write the value itself")
