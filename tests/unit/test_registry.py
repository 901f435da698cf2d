"""Names: files of the installation, nothing else; and what algorithms say they can do."""

import shutil
import sys
from pathlib import Path

import pytest

from rlkit.cli.main import main
from rlkit.config import registry
from rlkit.config.compose import compose, from_yaml, options, to_yaml
from rlkit.options import ConfigError
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, describe, kinds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("group", "folder"), registry.GROUPS.items())
def test_names_are_the_files(group: str, folder: str) -> None:
    files = {path.stem for path in (ROOT / "configs" / folder).glob("*.yaml")} - (
        {"none"} if group == "presets" else set()
    )
    assert set(registry.names(group)) == files
    assert files


def test_an_agent_is_its_module() -> None:
    algorithm = registry.algorithm("ppo")
    assert algorithm.name == "ppo" and algorithm.Config.__module__ == "rlkit.agents.ppo"
    assert Path(str(sys.modules["rlkit.agents.ppo"].__file__)).name == registry.agent_file("ppo").name


@pytest.mark.parametrize("name", ["os", "__init__", "../ppo", "", "ppo/../ppo", "ppo:Config", "ppo.", ".ppo"])
def test_only_files_of_the_package_are_imported(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^agent={name}: no such agent; "):
        registry.algorithm(name)


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


def test_every_algorithm_has_a_name_and_says_what_it_can_do() -> None:
    for path in (ROOT / "agents").glob("[!_]*.py"):
        assert registry.algorithm_of(path.stem) == path.stem
        assert set(registry.actions(path.stem)) <= {"Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict"}
        assert registry.learns_from(path.stem) in ("rollouts", "episodes", "replay")


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configurations with a second name for PPO, which sets defaults beyond the agent; and its preset."""
    folder = tmp_path / "configs"
    shutil.copytree(registry.config_folder(), folder)
    (folder / "agent" / "quick.yaml").write_text(
        "# @package _global_\n# PPO in a hurry.\nagent: {name: ppo, epochs: 2, clip: 0.3}\n"
        "network: {hidden: [32], activation: relu}\noptim: {lr: 0.01, eps: 0.1}\n"
    )
    (folder / "preset" / "quick-cartpole.yaml").write_text("# @package _global_\noptim: {lr: 0.02}\n")
    monkeypatch.setattr(registry, "config_folder", lambda: folder)
    return folder


def test_a_second_name_of_an_algorithm(quick: Path, tmp_path: Path) -> None:
    """Defaults of the agent's file < preset of (typed name, environment) < what is typed."""
    found = compose(["agent=quick", "env=cartpole", "agent.clip=0.4"])
    config = found.config
    assert found.preset == "quick-cartpole"
    assert (config.agent_name, config.alias, config.run_name) == ("ppo", "quick", "quick-cartpole-0")
    assert (config.agent.epochs, config.agent.clip) == (2, 0.4)
    assert (config.optim.lr, config.optim.eps) == (0.02, 0.1)
    assert (config.network.hidden, config.network.activation) == ((32,), "relu")
    assert compose(["agent=quick", "env=acrobot"]).preset is None
    assert compose(["agent=quick", "network=mlp"]).config.network.hidden == (64, 64)  # chosen: it wins
    assert compose(["agent=ppo"]).config.alias == ""
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    (quick / "agent" / "quick.yaml").unlink()  # the saved options are whole
    assert from_yaml(path) == config


def test_lists_show_the_second_name(
    quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "quick-cartpole-0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(compose(["agent=quick"]).config))
    assert main(["list", "runs", f"dir={tmp_path / 'runs'}"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "quick"
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "agents"]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "Discrete MultiDiscrete MultiBinary Box Dict  rollouts" in lines["ppo"]
    assert lines["ppo"].split("rollouts")[1].strip().startswith("Proximal Policy Optimisation")
    assert lines["quick"].endswith("rollouts     PPO in a hurry.")
    assert "alias" not in [option.name for option, _ in options(["agent=quick"])]
    with pytest.raises(ConfigError, match=r"alias=x: agents are chosen whole; type agent=x"):
        compose(["alias=x"])


def literals(monkeypatch: pytest.MonkeyPatch, folder: Path, **acts_in: tuple[str, ...]) -> None:
    """Let the installed algorithms be these files: name -> ACTIONS."""
    (folder / "agent").mkdir()
    for name, actions in acts_in.items():
        (folder / f"{name}.py").write_text(f"raise SystemExit('not to be run')\nACTIONS = {actions!r}\n")
        (folder / "agent" / f"{name}.yaml").write_text(f"name: {name}")
    monkeypatch.setattr(registry, "config_folder", lambda: folder)
    monkeypatch.setattr(registry, "_package_folder", lambda package: folder)


def test_who_cannot_act_is_told_who_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict")
    literals(
        monkeypatch, tmp_path, choosy=("Discrete",), smooth=("Box",), both=("Discrete", "Box"), all=everything
    )
    steer = Box((1,), "float32", -1.0, 1.0)
    registry.check_actions("choosy", Discrete(3))
    registry.check_actions("all", Dict((("a", Dict((("b", steer),))), ("c", MultiBinary(2)))))
    whole = (
        r"^its action space is Box\(1,\) of float32 in \[-1, 1\]; choosy acts in Discrete; "
        r"type agent=all, agent=both or agent=smooth$"
    )
    with pytest.raises(ValueError, match=whole):
        registry.check_actions("choosy", steer)
    with pytest.raises(ValueError, match=r"smooth acts in Box; type agent=all$"):
        registry.check_actions("smooth", Dict((("steer", steer),)))  # a Dict, even of what it can do
    with pytest.raises(ValueError, match="no agent chooses whole numbers from a Box: make it Discrete"):
        registry.check_actions("all", Box((2,), "int64", 0.0, 3.0))
    with pytest.raises(ConfigError, match="agent=nobody: no such agent"):
        registry.check_actions("nobody", steer)
    with pytest.raises(ValueError, match=r"agent=all: .*all\.py has no feed\(config\) -> Rollouts \| "):
        registry.learns_from("all")


def test_when_nobody_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    literals(monkeypatch, tmp_path, choosy=("Discrete",))
    with pytest.raises(ValueError, match=r"MultiBinary\(3\); choosy acts in Discrete; no agent can$"):
        registry.check_actions("choosy", MultiBinary(3))


@pytest.mark.parametrize(
    ("space", "words", "needed"),
    [
        (Discrete(4, start=2), "Discrete(4)", {"Discrete"}),
        (MultiDiscrete((3, 2), (0, 0)), "MultiDiscrete(3, 2)", {"MultiDiscrete"}),
        (Box((2, 2), "float64"), "Box(2, 2) of float64", {"Box"}),
        (Box((2,), "int8", 0.0, 3.0), "Box(2,) of int8 in [0, 3]", {"integer Box"}),
        (
            Dict((("a", Discrete(2)), ("b", Dict((("0", MultiBinary(3)),))))),
            "Dict(a: Discrete(2), b: Dict(0: MultiBinary(3)))",
            {"Dict", "Discrete", "MultiBinary"},
        ),
    ],
)
def test_spaces_in_words(space: Space, words: str, needed: set[str]) -> None:
    assert describe(space) == words
    assert kinds(space) == needed
