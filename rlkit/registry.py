"""What there is, by name: agents are the files of rlkit.agents, the rest YAML files of rlkit.configs.

There is no table to keep: a new file is a new name. The engine reaches algorithms and environments only
through here, and only through names that are in the installation, so no name found in a run folder can import
anything else.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from rlkit.options import ConfigError, nearest

__all__ = [
    "GROUPS",
    "agent_file",
    "agent_module",
    "config_folder",
    "env_config",
    "env_package",
    "names",
    "nearest",
]

GROUPS = {  # the plural that people list -> the folder of rlkit.configs
    "agents": "agent",
    "environments": "env",
    "networks": "network",
    "sources": "source",
    "presets": "preset",
}


def names(group: str) -> list[str]:
    """All names of "agents", "environments", "networks", "sources" or "presets", sorted."""
    if group not in GROUPS:
        raise ValueError(f"no such group {group!r}; {nearest(group, GROUPS)}")
    if group == "agents":
        files = _package_folder("rlkit.agents").glob("[!_]*.py")
    else:
        files = (config_folder() / GROUPS[group]).glob("*.yaml")
    return sorted(file.stem for file in files if (group, file.stem) != ("presets", "none"))


def agent_file(name: str) -> Path:
    """The source of an agent. Raises ConfigError where there is no such agent."""
    if name not in names("agents"):
        raise ConfigError(f"agent={name}: no such agent; {nearest(name, names('agents'))}")
    return _package_folder("rlkit.agents") / f"{name}.py"


def agent_module(name: str) -> ModuleType:
    """The module rlkit.agents.<name> (it imports torch). Raises ConfigError where there is no such agent."""
    agent_file(name)
    return importlib.import_module(f"rlkit.agents.{name}")


def env_package() -> ModuleType:
    """The module that makes environments."""
    return importlib.import_module("rlkit.envs.make")


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
