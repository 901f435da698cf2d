"""Configuration: what is typed wins, what is wrong is one line, what is saved comes back."""

import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from rlkit.config import compose as rlkit_compose
from rlkit.config import registry
from rlkit.config.compose import compose, from_yaml, options, to_yaml, with_env
from rlkit.config.elsewhere import ELSEWHERE
from rlkit.config.schema import RunConfig
from rlkit.config.values import plain
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, UnknownOption, build, describe, option


@dataclass(frozen=True)
class Inner:
    """A group."""

    rate: float = option(0.5, above=0, max=1)


@dataclass(frozen=True)
class Sample:
    """Every kind of option."""

    count: int = option(3, min=1, max=10)
    ratio: float = option(0.5, min=0, below=1)
    on: bool = False
    text: str = ""
    kind: str = option("a", choices=("alpha", "beta"))
    word: Literal["one", "two"] = "one"
    sizes: tuple[int, ...] = option((1, 2), min=1)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: float | None = option(None, above=0)
    table: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.count == 7:
            raise ValueError("count=7: never seven")


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"count": 4.0}, "count", 4),
        ({"count": 1e1}, "count", 10),
        ({"count": np.int64(2)}, "count", 2),
        ({"ratio": 0}, "ratio", 0.0),
        ({"ratio": np.float32(0.25)}, "ratio", 0.25),
        ({"text": 2024}, "text", "2024"),
        ({"text": Path("a/b")}, "text", "a/b"),
        ({"kind": "beta"}, "kind", "beta"),
        ({"word": "two"}, "word", "two"),
        ({"sizes": [3, 4.0]}, "sizes", (3, 4)),
        ({"sizes": []}, "sizes", ()),
        ({"pair": (1, 2)}, "pair", (1.0, 2.0)),
        ({"limit": None}, "limit", None),
        ({"limit": 2}, "limit", 2.0),
        ({"table": {"a": [1, "x"]}}, "table", {"a": [1, "x"]}),
        ({"inner": {"rate": 1}}, "inner", Inner(1.0)),
    ],
)
def test_values_that_lose_nothing_are_read(given: dict[str, Any], name: str, value: Any) -> None:
    read = getattr(build(Sample, given), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": True}, "x.count=true: not a whole number; allowed: a whole number from 1 to 10"),
        ({"count": 1.5}, "x.count=1.5: not a whole number; allowed: a whole number from 1 to 10"),
        ({"count": "3"}, "x.count=3: not a whole number; allowed: a whole number from 1 to 10"),
        ({"count": 0}, "x.count=0: too small; allowed: a whole number from 1 to 10"),
        ({"count": 11}, "x.count=11: too large; allowed: a whole number from 1 to 10"),
        ({"count": None}, "x.count=null: not a whole number; allowed: a whole number from 1 to 10"),
        ({"count": 7}, "x: count=7: never seven"),
        ({"ratio": 1}, "x.ratio=1: too large; allowed: a number of at least 0 and below 1"),
        (
            {"ratio": float("nan")},
            "x.ratio=nan: not a finite number; allowed: a number of at least 0 and below 1",
        ),
        ({"ratio": False}, "x.ratio=false: not a number; allowed: a number of at least 0 and below 1"),
        ({"on": 1}, "x.on=1: not true or false; allowed: true or false"),
        ({"text": True}, "x.text=true: not a text; allowed: text"),
        ({"kind": "alpa"}, "x.kind=alpa: no such choice, did you mean alpha; allowed: alpha, beta"),
        ({"word": "three"}, "x.word=three: no such choice; allowed: one, two"),
        (
            {"sizes": 3},
            "x.sizes=3: not a list: write x.sizes=[3]; allowed: a list, each a whole number of at least 1",
        ),
        ({"sizes": [1, 0]}, "x.sizes=0: too small; allowed: a whole number of at least 1"),
        ({"pair": [1]}, "x.pair=[1]: 1 values, not 2; allowed: a list of 2, each a number"),
        ({"limit": 0}, "x.limit=0: too small; allowed: a number above 0 or null"),
        ({"table": 3}, "x.table=3: not a group of options; allowed: a group of options"),
        (
            {"inner": 3},
            "x.inner=3: x.inner is a group of options; set one of them, for example x.inner.rate=...",
        ),
        ({"inner": {"rate": 0}}, "x.inner.rate=0: too small; allowed: a number above 0 and of at most 1"),
        ({"cuont": 3}, "x.cuont=3: no such option; did you mean x.count?"),
        ({"inner": {"rote": 3}}, "x.inner.rote=3: no such option; did you mean x.inner.rate?"),
    ],
)
def test_every_refusal_says_what_was_given_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Sample, given, "x")
    assert str(caught.value) == message


def test_a_required_option_that_is_missing_is_named() -> None:
    @dataclass(frozen=True)
    class Needy:
        size: int

    with pytest.raises(ConfigError, match=r"^x\.size: missing; allowed: a whole number$"):
        build(Needy, {}, "x")


def test_describe_lists_nested_options_with_their_defaults() -> None:
    found = {each.name: each for each in describe(Sample)}
    assert found["inner.rate"].default == 0.5
    assert found["table"].default == {}
    assert found["sizes"].allowed == "a list, each a whole number of at least 1"
    assert list(found)[:2] == ["count", "ratio"]


def test_what_is_typed_wins_over_the_preset_and_the_preset_over_defaults() -> None:
    plain = compose(["env=cartpole", "preset=none"])
    tuned = compose(["env=cartpole"])
    typed = compose(["agent.gamma=0.5", "env=cartpole", "env.lanes=3"])
    assert (plain.preset, tuned.preset) == (None, "ppo-cartpole")
    assert plain.config.agent.gamma == 0.99
    assert tuned.config.agent.gamma == 0.98
    assert (typed.config.agent.gamma, typed.config.agent.lam, typed.config.env.lanes) == (0.5, 0.8, 3)


def test_a_preset_may_choose_the_network_and_the_user_another() -> None:
    assert compose(["env=carracing"]).config.network.encoder == "nature_cnn"
    assert compose(["env=carracing", "network=impala"]).config.network.encoder == "impala_cnn"


def example(env: str) -> list[str]:
    """What to type beside the name of a configuration that describes many ids."""
    id = registry.environment_ids()[env]
    return [f"env.id={id.replace('*', 'Empty-5x5-v0')}"] if registry.is_family(id) else []


@pytest.mark.parametrize("preset", registry.names("presets"))
def test_every_preset_is_valid_and_belongs_to_its_pair(preset: str) -> None:
    agent, env = preset.split("-", 1)
    typed = [f"agent={agent}", f"env={env}", *example(env)]
    composed = compose(typed)
    assert composed.preset == preset
    assert composed.config != compose([*typed, "preset=none"]).config


# of the Atari games, which differ in their id alone, one
GAMES = {name for name in registry.names("environments") if registry.lineage(name)[1:] == ["atari"]} - {
    "pong"
}


@pytest.mark.parametrize("env", sorted({*registry.names("environments")} - GAMES - {"gymnasium"}))
def test_every_environment_composes(env: str) -> None:
    config = compose([f"env={env}", *example(env), "preset=none"]).config
    assert config.env.id
    assert config.run_name == f"ppo-{config.env.id.replace('/', '-') if example(env) else env}-0"


@pytest.mark.parametrize("network", registry.names("networks"))
def test_every_network_composes(network: str) -> None:
    assert compose([f"network={network}", "preset=none"]).config.network


@pytest.mark.parametrize("source", registry.names("sources"))
def test_every_source_composes(source: str) -> None:
    assert compose([f"source={source}", "preset=none"]).config.source.name == source


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("CliffWalking-v1", "ppo-CliffWalking-v1-4"),
        ("Mine/Pong-v5", "ppo-Mine-Pong-v5-4"),
        ("my_pkg.mod:MyEnv", "ppo-my_pkg.mod-MyEnv-4"),
        ("highway_env:highway-fast-v0", "ppo-highway_env-highway-fast-v0-4"),
    ],
)
def test_an_id_in_place_of_a_name_is_the_generic_environment(typed: str, name: str) -> None:
    config = compose([f"env={typed}", "seed=4"]).config
    assert config.env.id == typed
    assert config.run_name == name
    assert compose([f"env={typed}", "name=mine"]).config.run_name == "mine"


@pytest.mark.parametrize(
    ("typed", "name", "preset"),
    [
        ("LunarLander-v3", "lunarlander", "ppo-lunarlander"),
        ("CartPole-v1", "cartpole", "ppo-cartpole"),  # of several the shortest: not cartpole_novel
        ("MiniGrid-FourRooms-v0", "fourrooms", "ppo-fourrooms"),
        ("CarRacing-v3", "carracing_plain", None),
        ("CliffWalking-v1", "gymnasium", None),
    ],
)
def test_an_id_is_the_configuration_that_describes_it(typed, name, preset):
    found = compose([f"env={typed}"])
    assert (found.config.env.name, found.config.env.id, found.preset) == (name, typed, preset)
    assert found.id == (typed if name != "gymnasium" else "")
    if name != "gymnasium":
        assert found.config == compose([f"env={name}"]).config
    raw = compose(["env=gymnasium", f"env.id={typed}"])
    assert (raw.preset, raw.id, raw.config.env.check) == (None, "", "warn")


def test_an_id_of_a_family_has_what_its_configuration_says():
    found = compose(["env=MiniGrid-Empty-8x8-v0", "env.drop=[mission]"])
    assert found.id == found.config.env.id == "MiniGrid-Empty-8x8-v0"
    assert found.config.env.codes == ("image",) and found.config.env.drop == ("mission",)
    assert found.config.evaluate.sample and found.config.run_name == "ppo-MiniGrid-Empty-8x8-v0-0"
    assert (
        found.config == compose(["env=minigrid", "env.id=MiniGrid-Empty-8x8-v0", "env.drop=[mission]"]).config
    )
    with pytest.raises(
        ConfigError, match=r"env\.id=MiniGrid-\*: stands for many; type env=ID with one of them"
    ):
        compose(["env=minigrid"])


def test_a_configuration_has_the_preset_of_what_it_is_built_upon():
    assert registry.lineage("babyai") == ["babyai", "minigrid"]
    assert compose(["env=BabyAI-GoToLocal-v0"]).preset == "ppo-minigrid"
    assert compose(["env=BabyAI-GoToLocal-v0", "preset=none"]).preset is None


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["agent.clp=0.1"],
            "agent.clp=0.1: no such option; did you mean agent.clip? (rlkit list options agent=ppo",
        ),
        (["clip=0.1"], "clip=0.1: no such option; did you mean agent.clip?"),
        (["agent.lr=0.1"], "agent.lr=0.1: no such option; did you mean optim.lr?"),
        (["envstack=2"], "envstack=2: no such option; did you mean env.stack?"),
        (["agnt.clip=0.1"], "agnt.clip=0.1: no such option; did you mean agent.clip?"),
        (["env=cartpol"], "env=cartpol: no such environment; did you mean cartpole?"),
        (["env=CartPole"], "env=CartPole: no such environment; did you mean cartpole?"),
        (["agent=pp"], "agent=pp: no such agent; did you mean ppo?"),
        (["network=cn"], "network=cn: no such network; did you mean cnn?"),
        (["source=synch"], "source=synch: no such source; did you mean sync?"),
        (["preset=ppo-cartpol"], "preset=ppo-cartpol: no such preset; did you mean ppo-cartpole?"),
        (["agent.clip=abc"], "agent.clip=abc: not a number; allowed: a number above 0"),
        (["agent.clip=-1"], "agent.clip=-1: too small; allowed: a number above 0"),
        (["network.hidden=64,64"], "network.hidden=64,64: not a list: write network.hidden=[64,64]; allowed"),
        (
            ["network.hidden=(64,64)"],
            "network.hidden=(64,64): not a list: write network.hidden=[64,64]; allowed",
        ),
        (
            ["optim=sgd"],
            "optim=sgd: optim is a group of options; set one of them, for example optim.name=...",
        ),
        (["device=gpu"], "device=gpu: no such device; allowed: auto, cpu, cuda, cuda:N"),
        (["name=../x"], "name=../x: not the name of a folder; put the path before it into dir=..."),
        (["seed=-1"], "seed=-1: too small; allowed: a whole number from 0 to 4294967295"),
        (["total_steps=0"], "total_steps=0: too small; allowed: a whole number of at least 1"),
        (["--agent=ppo"], "--agent=ppo: options have no dashes; type agent=VALUE"),
        (["cartpole"], "cartpole: not KEY=VALUE, for example agent=ppo env=cartpole agent.clip=0.1"),
        (["~env"], "~env: not KEY=VALUE"),
        (["env@x=cartpole"], "env@x=cartpole: not KEY=VALUE"),
        (["hydra.run.dir=/tmp"], "hydra.run.dir=/tmp: no such option"),
        (["agent.name=dqn"], "agent.name=dqn: agents are chosen whole; type agent=dqn"),
        (
            ["name=${oc.env:HOME}"],
            "name=${oc.env:HOME}: ${...} is not looked up here; write the value itself",
        ),
        (["env.kwargs.x=${oc.env:HOME}"], "env.kwargs.x=${oc.env:HOME}: ${...} is not looked up here"),
        (["env=${oc.env:HOME}"], "env=${oc.env:HOME}: no such environment"),
        (["env=gymnasium"], "env.id: missing; type env.id=VALUE"),
        (["env.backend=native", "env.skip=3"], "env.skip=3"),
    ],
)
def test_what_cannot_be_used_is_one_line(typed: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(typed)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_texts_that_are_no_grammar_are_taken_as_they_are(tmp_path: Path) -> None:
    config = compose(["dir=/tmp/josé (a, b)", "name=it's=mine", "env.kwargs.note=x,y"]).config
    assert config.dir == "/tmp/josé (a, b)"
    assert config.name == "it's=mine"
    assert config.env.kwargs == {"note": "x,y"}


def test_python_values_need_no_text() -> None:
    values = {"env": "pendulum", "seed": np.int64(3), "agent.clip": 0.3, "network": {"hidden": (8, 8)}}
    config = compose(["agent.clip=0.1"], values).config
    assert (config.env.name, config.seed, config.agent.clip) == ("pendulum", 3, 0.3)
    assert config.network.hidden == (8, 8)
    assert config.network.encoder == "auto"


def test_a_saved_configuration_comes_back_equal(tmp_path: Path) -> None:
    typed = ["env=halfcheetah", "optim.lr=2.0633e-5", "name=é ü", "env.kwargs.weight=1e-3", "stop.reward=300"]
    config = compose(typed).config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert from_yaml(path) == config
    assert yaml.safe_load(path.read_text())["agent"]["name"] == "ppo"


def test_a_hand_edited_file_is_checked_as_strictly(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = to_yaml(compose(["env=cartpole"]).config)
    path.write_text(text.replace("lr: 0.001", "lr: 1e-4"))
    assert from_yaml(path).optim.lr == 1e-4
    path.write_text(text.replace("lr: 0.001", "lr: -1"))
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: optim\.lr=-1: too small"):
        from_yaml(path)
    path.write_text(text + "colour: red\n")
    with pytest.raises(ConfigError, match="colour=red: no such option"):
        from_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch MARK']",
        "agent: {name: !!python/name:os.system }",
        "agent: {name: os}",
        "agent: {name: ../../evil}",
        "agent: {name: ppo, _target_: os.system}",
        "agent: {name: ppo}\nenv: {id: CartPole-v1}\nname: ${oc.env:HOME}\nextra: 1",
        "a: &a [1, 1]\nb: [*a, *a]",
        "[1, 2]",
        "",
        "a: [1",
        "\x00",
    ],
)
def test_a_hostile_or_broken_file_runs_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "MARK").exists()


def test_a_program_that_uses_hydra_keeps_its_state(tmp_path: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    (tmp_path / "mine.yaml").write_text("x: 1\n")
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
        assert compose(["env=cartpole"]).config.env.name == "cartpole"
        assert hydra_compose("mine").x == 1


def test_options_show_the_values_of_the_run() -> None:
    shown = {each.name: (each, value) for each, value in options(["env=cartpole", "seed=9"])}
    assert shown["seed"][1] == 9
    assert shown["agent.gamma"][1] == 0.98
    assert shown["agent.gamma"][0].default == 0.99
    assert shown["network.hidden"][1] == [64, 64]


def test_yaml_groups_hold_no_option_that_does_not_exist() -> None:
    fields = set(RunConfig.__dataclass_fields__)
    for path in registry.config_folder().glob("*/*.yaml"):
        plain = yaml.safe_load(path.read_text()) or {}
        if path.parent.name == "preset":
            assert set(plain) <= fields | {"defaults"}, path


def test_rules_between_fields_hold_for_dataclasses_made_by_hand() -> None:
    config = compose(["env=cartpole"]).config
    with pytest.raises(ConfigError, match="device=tpu"):
        replace(config, device="tpu")


def test_wrong_values_are_found_before_torch_is_loaded() -> None:
    code = (
        "import sys\nfrom rlkit.config.compose import compose\n"
        "for typed in ('seed=x', 'env=nope', 'network.hidden=3', 'agent=nope'):\n"
        "    try:\n        compose([typed])\n    except ValueError:\n        continue\n    sys.exit(typed)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_told_apart() -> None:
    with pytest.raises(UnknownOption):
        build(Sample, {"nope": 1})
    assert issubclass(UnknownOption, ConfigError)
    assert rlkit_compose.CHOICES["env"] == ("environments", "environment")


def test_choices_are_what_the_code_offers() -> None:
    from rlkit.nn.convnets import NETWORKS
    from rlkit.nn.encoders import ACTIVATIONS

    limits = {name: each.metadata.get("choices") for name, each in NetworkConfig.__dataclass_fields__.items()}
    assert set(limits["encoder"]()) == {
        "auto",
        "mlp",
        "nature_cnn",
        "impala_cnn",
        "small_cnn",
        "grid",
        "text",
        *NETWORKS,
    }
    assert set(limits["core"]()) == {"identity", "lstm", "gru", "transformer"}
    assert set(limits["activation"]) == set(ACTIVATIONS)


def test_another_id_chooses_how_its_lanes_run_anew() -> None:
    """A run's own choice may not be possible there: threads are rlkit/CarRacing's alone."""
    run = compose(
        ["agent=ppo", "env=carracing", "env.backend=threads", "env.workers=2", "env.lanes=3"]
    ).config
    moved = with_env(run, ["env.id=CarRacing-v3"])
    assert (moved.env.id, moved.env.backend, moved.env.workers) == ("CarRacing-v3", "auto", 0)
    assert (moved.env.lanes, moved.env.skip, moved.env.size) == (3, 5, 64)
    assert with_env(run, ["env.id=CarRacing-v3", "env.backend=workers"]).env.backend == "workers"
    assert with_env(run, ["env.time_limit=9"]).env.backend == "threads"
    pool = compose(["agent=ppo", "env=cartpole", "env.backend=envpool"]).config
    assert with_env(pool, ["env.id=CartPole-v0"]).env.backend == "envpool"


# ---------------------------------------------------------------- words of other libraries


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("n_envs=8", "type env.lanes=8"),
        ("env.num_envs=8", "type env.lanes=8"),
        ("learning_rate=1e-4", "type optim.lr=0.0001"),
        ("agent.learning_rate=1e-4", "type optim.lr=0.0001"),
        ("gae_lambda=0.9", "type agent.lam=0.9"),
        ("timesteps=5000", "type total_steps=5000"),
        ("ent_coef=0.01", "type agent.entropy_coef=0.01"),
        ("n_steps=64", "type agent.steps=64"),
        ("batch_size=64", "type agent.minibatch=64"),
        ("agent=dqn batch_size=64", "type agent.replay.batch=64"),
        ("agent=dqn buffer_size=1000", "type agent.replay.capacity=1000"),
        ("N_Envs=8", "type env.lanes=8"),
    ],
)
def test_names_of_other_libraries_are_told_ours(typed: str, ours: str) -> None:
    *_, name = typed.split()
    with pytest.raises(ConfigError) as caught:
        compose(typed.split())
    found = ours.split()[1].partition("=")[0]
    assert str(caught.value).startswith(name.partition("=")[0])
    assert f"no such option; it is called {found} here; {ours} (" in str(caught.value)


def test_every_name_of_theirs_has_one_of_ours() -> None:
    known = {
        each.name for agent in ("ppo", "dqn", "ddpg", "reinforce") for each, _ in options([f"agent={agent}"])
    }
    known |= {"agent", "env"}
    for theirs, ours in ELSEWHERE.items():
        assert theirs == theirs.lower() and ours and set(ours) <= known, theirs
        assert theirs not in {name.rpartition(".")[2] for name in known}, f"{theirs} is an option of ours"


# ---------------------------------------------------------------- values from Python


def test_numpy_values_and_named_code_become_what_one_would_type() -> None:
    values = {
        "env": Ident,
        "env.kwargs": {"n": np.array([5, 6]), "x": np.float64(0.5), "deep": {"flag": np.bool_(True)}},
        "seed": np.int64(3),
        "agent.clip": np.float32(0.25),
        "dir": Path("there"),
    }
    config = compose(values=values).config
    assert (config.env.id, config.seed, config.agent.clip, config.dir) == (
        f"{__name__}:Ident",
        3,
        0.25,
        "there",
    )
    assert config.env.kwargs == {"n": [5, 6], "x": 0.5, "deep": {"flag": True}}
    assert to_yaml(config)
    assert compose(values={"env": {"id": Ident}}).config.env.id == f"{__name__}:Ident"
    assert plain("agent", torch) == "torch"


class Ident:
    """Stands for an environment: it is named, not made."""


def test_values_without_a_name_are_refused_with_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gymnasium.make("CartPole-v1")
    mine = Ident()
    scripted = type("Scripted", (), {"__module__": "__main__"})
    for key, value, said in (
        (
            "env",
            made,
            r"env=<gymnasium\.wrappers.*>: a run makes several of its own; write env='CartPole-v1'",
        ),
        ("env", mine, r"env=<.*Ident>: .*write its class, or the function that makes it"),
        ("env", lambda: made, "it has no name in its module"),
        ("env", scripted, r"env=Scripted: it is defined in the script itself.*write env='my_env:Scripted'"),
        (
            "env.kwargs",
            {"n": len},
            r"env\.kwargs\.n=<builtins\.builtin_function_or_method>: options are saved",
        ),
        ("env.kwargs", {"n": [mine]}, r"env\.kwargs\.n=<.*Ident>: options are saved"),
    ):
        with pytest.raises(ConfigError, match=said):
            compose(values={key: value})
