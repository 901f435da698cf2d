"""What there is, by name: YAML files of rlkit.configs; the algorithms are files of rlkit.agents.

`agent=td3` chooses configs/agent/td3.yaml, whose `name: ddpg` says which algorithm runs with its options. There is no
table to keep: a new file is a new name. `agent=my_pkg.mod` is an algorithm of one's own: a name with a dot is a module,
from the current folder or an installed package, and a name without one is never anything but a file listed here.
The engine reaches algorithms and environments only through here; a module named in a run folder must be trusted first
(rlkit.config.trust).

What an algorithm's file offers is written in `rlkit.contracts.Algorithm`. Its literal ACTIONS and the return type of
its function `feed` are read without running it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from rlkit import own
from rlkit.options import ConfigError, nearest

if TYPE_CHECKING:
    import torch

    from rlkit.collect.eyes import Eyes
    from rlkit.contracts import Algorithm, Environments, Kind, Policy, Task
    from rlkit.spaces import Space

__all__ = [
    "GROUPS",
    "actions",
    "agent_file",
    "algorithm",
    "algorithm_of",
    "check_actions",
    "config_folder",
    "configuration_of",
    "env_config",
    "env_package",
    "environment_id",
    "environment_ids",
    "is_family",
    "learns_from",
    "lineage",
    "names",
    "nearest",
    "open_eyes",
    "open_policy",
    "shares",
    "task",
    "task_file",
    "task_models",
    "task_package",
    "tasks",
]

EXPERIENCE = {"Rollouts": "rollouts", "WholeEpisodes": "episodes", "Replayed": "replay"}  # of rlkit.contracts
# option that names a file or a module -> the package of ours, what such a file offers (rlkit.contracts)
_ROLES = {"agent": ("rlkit.agents", "Algorithm"), "task": ("rlkit.perception.tasks", "Task")}
GROUPS = {  # the plural that people list -> the folder of rlkit.configs
    "agents": "agent",
    "environments": "env",
    "networks": "network",
    "sources": "source",
    "explorations": "exploration",
    "data": "data",
    "presets": "preset",
}


def names(group: str) -> list[str]:
    """All names of "agents", "environments", "networks", "sources", "explorations", "data" or "presets", sorted."""
    if group not in GROUPS:
        raise ValueError(f"no such group {group!r}; {nearest(group, GROUPS)}")
    files = (config_folder() / GROUPS[group]).glob("*.yaml")
    return sorted(file.stem for file in files if (group, file.stem) != ("presets", "none"))


def configuration_of(id: str) -> str:
    """The environment configuration that describes an environment's id: "lunarlander" for "LunarLander-v3"; "" if none.

    Of several the one with the shortest name, which the others vary; of none the one whose id is a pattern that fits,
    "ALE/*-v5".
    """
    found = sorted(environment_ids().items(), key=lambda each: (is_family(each[1]), len(each[0]), each[0]))
    return next((name for name, known in found if fnmatchcase(id, known)), "")


def environment_ids() -> dict[str, str]:
    """The id in every environment configuration, by the configuration's name."""
    return {name: environment_id(name) for name in names("environments")}


def environment_id(name: str) -> str:
    """The id in one of them."""
    return _environment(name)[0]


def is_family(id: str) -> bool:
    """Whether the id of a configuration is a pattern that stands for many."""
    return "*" in id


def lineage(environment: str) -> list[str]:
    """An environment configuration, and those that it is built upon: [breakout, atari]."""
    found = [environment]
    while base := _environment(found[-1])[1]:
        found.append(base)
    return found


def _environment(name: str) -> tuple[str, str]:
    """(id, the configuration it is built upon or "") of an environment configuration."""
    file = config_folder() / "env" / f"{name}.yaml"
    id, base = _read_environment(file, file.stat().st_mtime_ns)
    return (id if id or not base else _environment(base)[0]), base


@lru_cache(maxsize=512)
def _read_environment(file: Path, changed: int) -> tuple[str, str]:
    import yaml  # type: ignore[import-untyped]

    plain = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    bases = [base for base in plain.get("defaults", ()) if base != "_self_"]
    return str(plain.get("env", plain).get("id", "")), str(bases[0]) if bases else ""


def algorithm_of(name: str) -> str:
    """The algorithm that `agent=name` runs: a file of rlkit.agents, or a module of one's own.

    Raises ConfigError where there is no such agent.
    """
    if own.is_module(name):
        return name
    if name not in names("agents"):
        raise _unknown(name, names("agents"))
    import yaml

    plain = yaml.safe_load((config_folder() / "agent" / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    return str(plain.get("agent", plain).get("name", name))  # "agent": in a file of the package _global_


def agent_file(algorithm: str) -> Path:
    """The source of an algorithm, which is not run. Raises ConfigError where there is no such file."""
    if own.is_module(algorithm):
        try:
            return own.find_file(algorithm, f"agent={algorithm}")
        except ValueError as error:
            raise ConfigError(str(error)) from error
    folder = _package_folder("rlkit.agents")
    files = [file.stem for file in folder.glob("[!_]*.py")]
    if algorithm not in files:
        raise _unknown(algorithm, files)
    return folder / f"{algorithm}.py"


def _unknown(name: str, known: list[str]) -> ConfigError:
    return ConfigError(
        f"agent={name}: no such agent; {nearest(name, known)} (a module of your own has a dot in its name: "
        "agent=my_pkg.mod for my_pkg/mod.py)"
    )


def algorithm(name: str) -> Algorithm:
    """What the file rlkit.agents.<name>, or the module `name` of one's own, offers; imports it, and so torch.

    Raises ConfigError where there is no such file, or where it lacks something.
    """
    from rlkit.contracts import Algorithm

    path = agent_file(name)
    module = _offering("agent", name, ("Config", "Policy", "Agent", "ACTIONS", "feed", "check"), path)
    try:
        inspect.signature(module.Agent).bind(None, None, None, seed=0, precision=None, compile=False)
    except TypeError as error:
        raise ConfigError(
            f"agent={name}: its Agent cannot be called as Agent(policy, config, optim, *, seed, precision, compile): "
            f"{error}"
        ) from error
    return Algorithm(
        name,
        module.Config,
        module.Policy,
        module.Agent,
        actions(name),
        module.feed,
        module.check,
        getattr(module, "QUICK", {}),
        getattr(module, "shared", lambda policy, config: None),
        getattr(module, "exempt", lambda config: {}),
    )


def _offering(option: str, name: str, names: tuple[str, ...], path: Path) -> ModuleType:
    """The module of an algorithm or a task, in the file `path`, which offers `names`. Raises ConfigError."""
    package, role = _ROLES[option]
    try:
        module = own.find_module(name if own.is_module(name) else f"{package}.{name}", f"{option}={name}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    lacking = [each for each in names if not hasattr(module, each)]
    if lacking:
        raise ConfigError(
            f"{option}={name}: {path} has no {', no '.join(lacking)}; rlkit.contracts.{role} says what a file offers"
        )
    if module.Config.__module__ != module.__name__:  # its module is how a configuration names it
        raise ConfigError(
            f"{option}={name}: its Config is {module.Config.__module__}'s; write in {path}: "
            "@dataclass(frozen=True) class Config(THAT_ONE), with what differs"
        )
    return module


def actions(algorithm: str) -> tuple[str, ...]:
    """The action spaces that an algorithm acts in, as its file says; imports nothing."""
    for node in _syntax(agent_file(algorithm)).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["ACTIONS"]:
            return tuple(ast.literal_eval(node.value))
    raise ConfigError(f"agent={algorithm}: {agent_file(algorithm)} has no ACTIONS = (...) at its top level")


def shares(algorithm: str) -> bool:
    """Whether an algorithm's file has a function `shared`: learner.workers ranks can share its learning."""
    body = _syntax(agent_file(algorithm)).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "shared" for node in body)


def learns_from(algorithm: str) -> str:
    """What an algorithm learns from, by the return type of `feed` in its file; imports nothing."""
    for node in _syntax(agent_file(algorithm)).body:
        if isinstance(node, ast.FunctionDef) and node.name == "feed" and node.returns is not None:
            kind = ast.unparse(node.returns).rpartition(".")[2]
            if kind in EXPERIENCE:
                return EXPERIENCE[kind]
    raise ConfigError(
        f"agent={algorithm}: {agent_file(algorithm)} has no feed(config) -> {' | '.join(EXPERIENCE)} at its top level"
    )


def _syntax(file: Path) -> ast.Module:
    """The syntax tree of a file as it is now."""
    return _parsed(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _parsed(file: Path, changed: int) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def check_actions(algorithm: str, action: Space) -> None:
    """Raise ValueError where an algorithm does not act in a space: it says what each is, and which agents do.

    What every agent's `check` calls first: `registry.check_actions(__name__, spec.action)`.
    """
    from rlkit.spaces import describe, kinds

    algorithm = algorithm.removeprefix("rlkit.agents.")
    asked = kinds(action)
    if asked <= set(actions(algorithm)):
        return
    able = [name for name in names("agents") if asked <= set(actions(algorithm_of(name)))]
    *most, final = [f"agent={name}" for name in able] or ["no agent can"]
    remedy = f"type {', '.join(most)} or {final}" if most else f"type {final}" if able else final
    if not able and "integer Box" in asked:
        remedy = "no agent chooses whole numbers from a Box: make it Discrete or MultiDiscrete"
    raise ValueError(
        f"its action space is {describe(action)}; {algorithm} acts in {', '.join(actions(algorithm))}; {remedy}"
    )


def tasks() -> list[str]:
    """The names of all tasks, sorted: the files of rlkit.perception.tasks."""
    return sorted(file.stem for file in _package_folder("rlkit.perception.tasks").glob("[!_]*.py"))


def task_file(name: str) -> Path:
    """The source of a task, which is not run. Raises ConfigError where there is no such file."""
    if own.is_module(name):
        try:
            return own.find_file(name, f"task={name}")
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if name not in tasks():
        raise ConfigError(
            f"task={name}: no such task; {nearest(name, tasks())} (a module of your own has a dot in its name: "
            "task=my_pkg.mod for my_pkg/mod.py)"
        )
    return _package_folder("rlkit.perception.tasks") / f"{name}.py"


def task(name: str) -> Task:
    """What the file rlkit.perception.tasks.<name>, or the module `name` of one's own, offers; imports torch.

    Raises ConfigError where there is no such file, or where it lacks something.
    """
    from rlkit.contracts import Task

    path = task_file(name)
    module = _offering("task", name, ("Config", "Model", "label"), path)
    return Task(
        name,
        module.Config,
        module.Model,
        module.label,
        getattr(module, "DEFAULTS", {}),
        getattr(module, "AGENT", False),
    )


def task_package() -> Kind:
    """The module that checks and builds runs of supervised tasks."""
    return cast("Kind", importlib.import_module("rlkit.perception.run"))


def task_models() -> ModuleType:
    """The module that opens the models of tasks."""
    return importlib.import_module("rlkit.perception.saved")


def open_eyes(parts: Mapping[str, Any], device: torch.device | str = "cpu") -> Eyes:
    """The eyes of an agent (rlkit.perception.eyes). Raises ConfigError."""
    found: Eyes = importlib.import_module("rlkit.perception.eyes").open_eyes(parts, device)
    return found


def open_policy(parts: Mapping[str, Any]) -> Policy:
    """The policy that a checkpoint's part describes (rlkit.play.saved.build_policy). Raises ConfigError."""
    found: Policy = importlib.import_module("rlkit.play.saved").build_policy(parts)
    return found


def env_package() -> Environments:
    """The module that makes environments."""
    return cast("Environments", importlib.import_module("rlkit.envs.make"))


def env_config() -> type:
    """The dataclass of an environment's options (its module imports neither torch nor gymnasium)."""
    kind: type = importlib.import_module("rlkit.envs.config").EnvConfig
    return kind


def config_folder() -> Path:
    """The folder of the YAML groups."""
    return _package_folder("rlkit.configs")


@cache
def _package_folder(package: str) -> Path:
    """Where a package lies, without running it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed; install rlkit again (pip install -e . in a checkout)")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
