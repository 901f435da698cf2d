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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from rlkit import own
from rlkit.config import registry, tasks, trust
from rlkit.config.edits import LONGEST, get, lists, parse, put, read_plain, refuse_placeholders
from rlkit.config.elsewhere import ELSEWHERE
from rlkit.config.groups import CHOICES, changed, compose_groups, defaults
from rlkit.config.legacy import RENAMED, modern
from rlkit.config.schema import GENERIC_ENV, Common, RunConfig, TaskRun
from rlkit.config.values import plain as as_option
from rlkit.files import Place, at
from rlkit.options import ConfigError, Kind, Option, Plain, UnknownOption, build, describe, nearest, show

if TYPE_CHECKING:  # it imports torch
    from rlkit.types import EnvSpec

FIRST = (
    "agent",
    "task",
    "env",
    "data",
    "network",
    "optim",
)  # options and groups that stand before the others
OF_TRAINING = (
    "env.stack",
    "env.reward_scale",
    "env.stuck_after",
)  # read in training only, or kept by the agent
_ID = re.compile(r"[\w.\-]*[:/].+|[\w.\-]+-v\d+")  # CartPole-v1, ALE/Pong-v5, my_pkg.mod:MyEnv, module:Id-v0


@dataclass(frozen=True)
class Composed:
    """A configuration and where it came from."""

    config: Common
    plain: Plain  # the same as nested dicts and lists, as to_yaml writes it
    preset: str | None  # the preset that was applied
    id: str = (
        ""  # the environment's id that was typed where a named configuration describes it: that was taken
    )


def compose(overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> Composed:
    """The run that `overrides` ("key=value") describe.

    values: the same as Python values (see rlkit.config.values), applied after them; keys may be dotted ("agent.clip"),
    values may be dicts. Raises ConfigError.
    """
    pairs = parse(overrides) + [(key, as_option(key, each)) for key, each in (values or {}).items()]
    if any(key == "task" for key, _ in pairs):
        task = tasks.compose(pairs)
        return Composed(task, to_plain(task), None)
    plain, preset, id = _compose_plain(pairs)
    config = _typed(plain)
    return Composed(config, to_plain(config), preset, id)


def options(overrides: Iterable[str] = ()) -> list[tuple[Option, Any]]:
    """Every option of the run that `overrides` describe, with its value there."""
    composed = compose(overrides)
    return [
        (each, get(composed.plain, each.name)) for each in _described(composed.config) if each.name != "alias"
    ]


def _described(config: Common) -> list[Option]:
    """All options of this kind of run, those that say what it is about first."""
    if isinstance(config, TaskRun):
        found = describe(TaskRun, types=tasks.types(config))
    else:
        assert isinstance(config, RunConfig), "a run is one of an agent or of a task"
        found = describe(RunConfig, types=_types(config.agent_name))
    return sorted(found, key=lambda each: _rank(each.name.partition(".")[0]))


def _rank(group: str) -> int:
    """Where an option or a group of options stands in a list."""
    return FIRST.index(group) if group in FIRST else len(FIRST)


def to_plain(config: Common) -> Plain:
    """The configuration as nested dicts, lists and scalars; inverse of what `from_yaml` does after
    reading."""
    plain: Plain = lists(asdict(config))
    if isinstance(config, RunConfig):
        plain["agent"] = {"name": config.agent_name} | plain["agent"]
    elif isinstance(config, TaskRun):
        plain["task"] = {"name": config.task_name} | plain["task"]
        agent = plain.pop("agent")
        plain |= {} if agent is None else {"agent": {"name": tasks.agent_name(config)} | agent}
    return {name: plain[name] for name in sorted(plain, key=_rank)}


def to_yaml(config: Common) -> str:
    """The text of a run's config.yaml: every option, defaults included."""
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def save(config: Common, path: Place) -> None:
    """Write a run's config.yaml. Raises ConfigError where it would be too long to be read again, and OSError."""
    data = to_yaml(config).encode()
    if len(data) > LONGEST:
        raise ConfigError(
            f"{path}: {len(data):,} bytes of options, and at most {LONGEST:,} are read; "
            "let the environment read a file that env.kwargs names"
        )
    path.write(data)


def remembered(config: Common) -> str:
    """The configuration as one text, for a later `changes`."""
    return json.dumps(to_plain(config), default=str)


def changes(before: str, config: Common) -> list[str]:
    """ "optim.lr: 0.0003 -> 0.4003" for each option that is another one than in an earlier value of `remembered`.

    Options that only one of the two has are those of another version.
    """
    old, new = json.loads(before), json.loads(remembered(config))
    old |= {group: modern(group, old[group]) for group in ("agent", "env", "network") if group in old}
    found = []
    for name in ("agent.name", "task.name", *(each.name for each in _described(config))):
        try:
            was, now = get(old, name), get(new, name)
        except KeyError:
            continue
        if was != now:
            found.append(f"{name}: {show(was)} -> {show(now)}")
    return found


def from_yaml(path: str | Path | Place) -> Common:
    """The configuration saved in a run folder, checked as strictly as a typed one.

    What its agent and network are must be installed, or typed on this machine before (rlkit.config.trust). Who makes
    its environment, which may be exchanged (`with_env`), or continues the run, asks for the rest.
    Raises ConfigError (not YAML, unknown options, values out of range, code that is not trusted) and OSError.
    """
    plain = read_plain(at(path))
    trust.require(*trust.requests({key: plain.get(key) for key in ("agent", "task", "network", "groups")}))
    for group in ("agent", "env", "network"):
        if isinstance(plain.get(group), Mapping):
            plain[group] = modern(group, plain[group])
    try:
        return tasks.typed(plain) if "task" in plain else _typed(plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_env(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """`config` in another environment: overrides are `env=NAME` and `env.KEY=VALUE`.

    Raises ConfigError, also for what changes training only.
    """
    plain = to_plain(config)
    pairs = parse(overrides)
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
            put(plain, key, value)
    refuse_placeholders(plain)
    return _typed(plain)


def _compose_plain(pairs: Iterable[tuple[str, Any]]) -> tuple[Plain, str | None, str]:
    """The YAML groups with all edits laid over them, unchecked; the preset's name; `Composed.id`."""
    choices: dict[str, str] = {}
    edits: list[tuple[str, Any]] = []
    for key, value in pairs:
        if key == "eyes" and not isinstance(value, Mapping):
            edits.append(("eyes.run", value))
        elif key in CHOICES and not isinstance(value, Mapping):
            choices[key] = str(value)
        elif key in ("agent.name", "alias"):
            raise ConfigError(f"{key}={show(value)}: agents are chosen whole; type agent={show(value)}")
        else:
            edits.append((key, value))
    first: list[tuple[str, Any]] = []
    env, described = choices.get("env", ""), ""
    if env and env not in registry.names("environments") and (_ID.fullmatch(env) or own.is_module(env)):
        described = registry.configuration_of(env)
        choices["env"], first = described or GENERIC_ENV, [("env.id", env)]
    chosen = defaults() | choices
    if chosen["preset"] == "auto" and chosen["env"] in registry.names("environments"):
        named = [f"{chosen['agent']}-{name}" for name in registry.lineage(chosen["env"])]
        chosen["preset"] = next((name for name in named if name in registry.names("presets")), "none")
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
    plain = copy.deepcopy(compose_groups((*typed, f"preset={chosen['preset']}"), folder, changed(folder)))
    # a run is called after the id where the configuration is one of many ids
    family = registry.is_family(registry.environment_id(chosen["env"]))
    plain["env"]["name"] = GENERIC_ENV if family else chosen["env"]
    plain["agent"] = {"name": chosen["agent"]} | (plain.get("agent") or {})
    for key, value in first + edits:
        if key in RENAMED:
            raise ConfigError(
                f"{key}={show(value)}: is called {RENAMED[key]}; type {RENAMED[key]}={show(value)}"
            )
        put(plain, key, value)
    if chosen["agent"] != registry.algorithm_of(chosen["agent"]):
        plain["alias"] = chosen["agent"]
    refuse_placeholders(plain)
    return plain, None if chosen["preset"] == "none" else chosen["preset"], env if described else ""


def _typed(plain: Mapping[str, Any]) -> RunConfig:
    """The checked dataclasses. The agent's own options come last: its module imports torch."""
    agent = plain.get("agent")
    name = agent.get("name") if isinstance(agent, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"agent={show(agent)}: no agent; allowed: {', '.join(registry.names('agents'))}")
    torch_free = {"agent": Plain, "env": registry.env_config()}
    with contextlib.suppress(UnknownOption):  # refused below, where all names are known
        _check_env(build(RunConfig, plain, types=torch_free))
    types = _types(name)
    if "name" not in types["agent"].__dataclass_fields__:
        plain = {**plain, "agent": {key: value for key, value in agent.items() if key != "name"}}  # type: ignore[union-attr]
    found = {*RunConfig.__dataclass_fields__, *(each.name for each in describe(RunConfig, types=types))}
    known = sorted(found - {"alias"})  # nobody types it
    hint = f"rlkit list options agent={name} shows all"
    config = _check_env(build(RunConfig, plain, types=types, known=known, elsewhere=ELSEWHERE, hint=hint))
    for group in config.groups:
        _edited(config, group)  # raises where its options are wrong
    return config


def of_group(config: RunConfig, spec: EnvSpec, name: str) -> RunConfig:
    """The run of one group of a game's agents as if there were no other: its options, its share of the lanes."""
    found = _edited(config, name)
    lanes = config.env.lanes // len(spec.agents) * len(dict(spec.groups)[name])
    return replace(found, env=replace(found.env, lanes=lanes))


def learns(config: RunConfig, name: str) -> bool:
    """Whether a group learns, groups.NAME.learn."""
    return bool(config.groups.get(name, {}).get("learn", True))


def _edited(config: RunConfig, name: str) -> RunConfig:
    """`config` with what is different for a group. Raises ConfigError."""
    plain = to_plain(config) | {"groups": {}}
    edits = config.groups.get(name, {})
    known = ("agent", "network", "optim", "learn")
    for key, value in edits.items() if isinstance(edits, Mapping) else [("", edits)]:
        typed = f"groups.{name}{key and '.'}{key}={show(value)}"
        if key not in known or (key != "learn" and not isinstance(value, Mapping)):
            raise ConfigError(
                f"{typed}: not an option of a group; allowed: groups.{name}.agent.OPTION, .network.OPTION, "
                ".optim.OPTION, .learn"
            )
        if key == "learn":
            if not isinstance(value, bool):
                raise ConfigError(f"{typed}: not true or false; allowed: true, false")
            continue
        if "name" in value and key == "agent":
            raise ConfigError(f"groups.{name}.agent.name: all groups have the same agent; leave it out")
        put(plain, key, dict(value))
    try:
        return _typed(plain)
    except ConfigError as error:
        raise ConfigError(f"groups.{name}: {error}") from error


def _check_env(config: RunConfig) -> RunConfig:
    """The rules between the environment's options, which are its own."""
    try:
        config.env.validate()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def _types(agent: str) -> dict[str, Kind]:
    return {"agent": registry.algorithm(agent).Config, "env": registry.env_config()}
