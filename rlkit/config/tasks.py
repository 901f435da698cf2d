"""From `task=segment data=data/cr optim.lr=1e-3` to one frozen, checked TaskRun."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from rlkit.config import registry
from rlkit.config.edits import put, refuse_placeholders
from rlkit.config.elsewhere import ELSEWHERE
from rlkit.config.groups import changed, compose_groups
from rlkit.config.schema import TaskRun
from rlkit.options import ConfigError, Kind, Plain, build, describe, nearest, show

# groups of options that only the run of an agent has
_OF_AGENTS = ("env", "source", "ray", "learner", "exploration", "league", "video", "preset")


def compose(pairs: Iterable[tuple[str, Any]]) -> TaskRun:
    """The run that (option, value) pairs describe, of which one is the task. Raises ConfigError."""
    chosen: dict[str, str] = {}
    edits: list[tuple[str, Any]] = []
    for key, value in pairs:
        group = key.partition(".")[0]
        if group in _OF_AGENTS:
            raise ConfigError(
                f"{key}={show(value)}: a task learns from a table, data=..., and has no such option; "
                "rlkit list options task=NAME shows what it has"
            )
        if key in ("task", "agent", "network") and not isinstance(value, Mapping):
            chosen[key] = str(value)
        elif key == "rounds" and not isinstance(value, Mapping):
            edits.append(("rounds.number", value))
        else:
            edits.append((key, value))
    name = chosen["task"]
    task = registry.task(name)
    if "agent" in chosen and not task.agent:
        raise ConfigError(
            f"agent={chosen['agent']} task={name}: an agent learns from an environment, a task from a table; leave one "
            "out (task=imitate agent=NAME trains an agent's policy on what a table shows)"
        )
    if task.agent and "agent" not in chosen:
        raise ConfigError(f"task={name}: of which agent? type agent=ppo or another one (rlkit list agents)")
    network = chosen.get("network", "auto")
    if network not in registry.names("networks"):
        raise ConfigError(
            f"network={network}: no such network; {nearest(network, registry.names('networks'))}"
        )
    folder = registry.config_folder()
    agent = chosen.get("agent", "ppo")
    groups = compose_groups((f"agent={agent}", f"network={network}", "preset=none"), folder, changed(folder))
    plain: Plain = {key: copy.deepcopy(groups[key]) for key in ("network", "optim") if groups.get(key)}
    plain["task"] = {"name": name}
    if task.agent:
        plain["agent"] = {"name": agent} | copy.deepcopy(groups.get("agent") or {})
    for key, value in [*task.defaults.items(), *edits]:
        put(plain, key, value)
    refuse_placeholders(plain)
    return typed(plain)


def typed(plain: Mapping[str, Any]) -> TaskRun:
    """The checked dataclasses of nested plain values. Raises ConfigError."""
    group = plain.get("task")
    name = group.get("name") if isinstance(group, Mapping) else None
    if not isinstance(name, str) or not isinstance(group, Mapping):
        raise ConfigError(f"task={show(group)}: no task; allowed: {', '.join(registry.tasks())}")
    kinds: dict[str, Kind] = {"task": registry.task(name).Config}
    plain = {**plain, "task": {key: value for key, value in group.items() if key != "name"}}
    agent = plain.get("agent")
    if isinstance(agent, Mapping):
        kinds["agent"] = registry.algorithm(str(agent.get("name"))).Config
        plain["agent"] = {key: value for key, value in agent.items() if key != "name"}
    known = sorted({*TaskRun.__dataclass_fields__, *(each.name for each in describe(TaskRun, types=kinds))})
    hint = f"rlkit list options task={name} shows all"
    return build(TaskRun, plain, types=kinds, known=known, elsewhere=ELSEWHERE, hint=hint)


def types(config: TaskRun) -> dict[str, Kind]:
    """The classes of the options that depend on the task."""
    return {"task": type(config.task)} | ({} if config.agent is None else {"agent": type(config.agent)})


def agent_name(config: TaskRun) -> str:
    """The agent whose policy learns, "" where there is none."""
    return "" if config.agent is None else type(config.agent).__module__.removeprefix("rlkit.agents.")
