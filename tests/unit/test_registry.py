"""Names: files of the installation, nothing else."""

import sys
from pathlib import Path

import pytest

from rlkit import registry
from rlkit.options import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("group", "folder"), registry.GROUPS.items())
def test_names_are_the_files(group: str, folder: str) -> None:
    where, suffix = ("agents", "*.py") if group == "agents" else (f"configs/{folder}", "*.yaml")
    files = {path.stem for path in (ROOT / where).glob(suffix)} - {"__init__", "none"}
    assert set(registry.names(group)) == files
    assert files


def test_an_agent_is_its_module() -> None:
    module = registry.agent_module("ppo")
    assert module.__name__ == "rlkit.agents.ppo"
    assert Path(str(module.__file__)).name == registry.agent_file("ppo").name


@pytest.mark.parametrize("name", ["os", "__init__", "../ppo", "ppo.Config", "", "ppo/../ppo"])
def test_only_files_of_the_package_are_imported(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^agent={name}: no such agent; "):
        registry.agent_module(name)


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such group 'agent'; did you mean agents\?"):
        registry.names("agent")


def test_nearest() -> None:
    assert registry.nearest("cartpol", ["cartpole", "pendulum"]) == "did you mean cartpole?"
    assert registry.nearest("PPO", ["dqn", "ppo"]) == "did you mean ppo?"
    assert registry.nearest("zzz", ["b", "a"]) == "allowed: a, b"
    assert registry.nearest("zzz", [f"n{i:02d}" for i in range(30)]).endswith("n19, ...")


def test_environments_are_reached_by_name() -> None:
    assert registry.env_config().__name__ == "EnvConfig"
    assert registry.env_package() is sys.modules["rlkit.envs.make"]
