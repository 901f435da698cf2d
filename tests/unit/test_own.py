"""Code of one's own by name: found in the current folder, refused in one line, imported only where it is trusted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import rlkit
from rlkit import own
from rlkit.cli.main import main
from rlkit.config import registry, trust
from rlkit.config.compose import compose, from_yaml, options, to_plain, to_yaml
from rlkit.nn import registry as networks
from rlkit.options import ConfigError
from rlkit.play.saved import load
from rlkit.run.resume import resume

OUTSIDE = Path(__file__).parents[1] / "contract" / "outside"
SMALL = {
    "agent.steps": 8, "env.lanes": 2, "env.backend": "inprocess", "total_steps": 64, "evaluate.episodes": 1,
    "device": "cpu", "threads": 1, "log.tensorboard": False, "network.hidden": [8],
}  # fmt: skip
NAMES = ("mine.a2c", "mine.nets:wide", "mine.nets:Leaky")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a package of one's own, whose import leaves a trace."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OUTSIDE, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine" / "__init__.py").write_text("open('touched', 'w').close()\n")
    forget()
    return tmp_path


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def train(**more: object) -> Path:
    typed = {"network.encoder": "mine.nets:wide", "network.core": "mine.nets:Leaky", "name": "run"}
    return rlkit.train("mine.a2c", "cartpole", **SMALL | typed | more)  # type: ignore[arg-type]


def test_a_run_of_ones_own_code_is_trained_continued_and_loaded(folder: Path) -> None:
    run = train()
    text = (run / "config.yaml").read_text()
    assert "name: mine.a2c\n" in text and "encoder: mine.nets:wide\n" in text and "alias: ''\n" in text
    config = from_yaml(run / "config.yaml")
    assert config.agent_name == "mine.a2c"
    assert trust.requests(to_plain(config)) == NAMES
    (run / "config.yaml").write_text(text.replace("total_steps: 64", "total_steps: 128"))
    resume(run)
    policy = load(run, "last")
    action, state = policy(np.zeros(4, np.float32))
    assert action in (0, 1)
    assert policy(np.ones(4, np.float32), state)[0] in (0, 1)
    assert compose(["agent=mine.a2c", "env=cartpole"]).config.run_name == "mine.a2c-cartpole-0"
    assert compose(["agent=mine.a2c", "env=cartpole"]).preset is None


def test_what_was_never_named_here_is_not_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train()
    (folder / "touched").unlink()
    forget()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "another-machine"))
    asked = " ".join(f"--trust {name}" for name in NAMES)
    for verb in ("resume", "evaluate", "watch"):
        assert main([verb, str(run)]) == 2
        assert capsys.readouterr().err.endswith(f"or add {asked}\n")
    for which in ("best", "last"):
        with pytest.raises(ConfigError, match=r"call rlkit\.config\.trust\.remember\('mine\.a2c', "):
            load(run, which)
    trust.remember(*NAMES[:2])  # not its core
    with pytest.raises(ConfigError, match=r"^this run imports code .* this machine: mine\.nets:Leaky; .*"):
        load(run)
    assert not (folder / "touched").exists() and not any(name.startswith("mine") for name in sys.modules)
    assert main(["evaluate", str(run), "--episodes", "1", "--trust", "mine.nets:Leaky"]) == 0
    assert (folder / "touched").exists()


def test_what_version_0_1_0_remembered_is_still_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "rlkit").mkdir()
    (tmp_path / "rlkit" / "trusted-environments").write_text("own:Line\n")
    trust.require("own:Line")
    trust.remember("mine.a2c", "mine.a2c")
    trust.remember("mine.a2c")
    trust.require("mine.a2c", "own:Line")
    assert (tmp_path / "rlkit" / "trusted").read_text() == "mine.a2c\n"
    with pytest.raises(ConfigError, match="mine.a2d"):
        trust.require("mine.a2c", "mine.a2d")


@pytest.mark.parametrize(
    ("plain", "code"),
    [
        ({}, ()),
        ({"agent": {"name": "ppo"}, "env": {"id": "CartPole-v1"}, "network": {"encoder": "mlp"}}, ()),
        ({"agent": {"name": "os.path"}}, ("os.path",)),
        ({"agent": {"name": "../evil"}}, ()),  # no module's name: there is no such agent
        ({"env": {"id": "rlkit.envs.toys.probes:Seen"}}, ()),
        ({"network": {"encoder": "rlkit.envs.toys.probes:Seen"}}, ("rlkit.envs.toys.probes:Seen",)),
        ({"env": {"id": "rlkit.run.session:train"}}, ("rlkit.run.session:train",)),
        ({"env": {"id": "a:b"}, "network": {"encoder": "a:b", "core": "os:system"}}, ("a:b", "os:system")),
        ({"agent": 3, "env": [], "network": {"core": {"os": "system"}}}, ()),
        ({"env": {"id": "rlkit.envs.backends.worker:main"}}, ("rlkit.envs.backends.worker:main",)),
        ({"env": {"id": "a:b\nc:d"}}, (r'"a:b\nc:d"',)),
        (
            {
                "env": {
                    "id": "highway-v0",
                    "kwargs": {"config": {"n": 3, "other": "evil.mod.Car", "of": [1, "x y"]}},
                }
            },
            ("env.kwargs.config.other=evil.mod.Car", 'env.kwargs.config.of="x y"'),
        ),
        (
            {"env": {"id": "rlkit/Driving", "kwargs": {"observation": "vector"}}},
            (),
        ),  # which imports nothing by name
        ({"env": {"id": "CarRacing-v3", "kwargs": {"continuous": False, "domain": None}}}, ()),
        ({"ray": {"address": "local", "runtime_env": {}, "memory": 80}}, ()),
        ({"ray": {"address": "10.0.0.1:6379"}}, ("ray.address=10.0.0.1:6379",)),
        ({"ray": {"address": "auto"}}, ("ray.address=auto",)),
        (
            {"ray": {"runtime_env": {"py_executable": "sh -c x", "pip": ["y"]}}},
            ('ray.runtime_env={"pip": ["y"], "py_executable": "sh -c x"}',),
        ),
    ],
)
def test_what_a_configuration_asks_for(plain: dict[str, object], code: tuple[str, ...]) -> None:
    assert trust.requests(plain) == code


HARMLESS = {  # options that hold any text or group, and why a folder may set them
    "agent.name": "a name without a dot is a file of rlkit",
    "env.name": "a name alone",
    "env.groups": "names of agents",
    "name": "of a folder that exists already",
    "dir": "where that folder was made",
    "device": "one of torch's",
    "source.resources": "amounts by name",
    "network.encoder_from": "a run that is read as any that somebody sent is: its code is asked for when it is opened",
    "eyes.run": "as network.encoder_from",
    "init_from": "as network.encoder_from",
}


def test_every_option_that_can_hold_any_text_is_asked_for_or_harmless() -> None:
    """A new option of a run must be thought of here before a folder can set it."""
    plain = to_plain(compose(["env=cartpole"]).config)
    free = {"text", "anything", "a group of options"}
    found = {
        option.name
        for agent in registry.names("agents")
        for option, _ in options([f"agent={agent}", "env=cartpole"])
        if option.allowed in free or option.allowed.endswith("module:function")
    }
    different = {"a": {"network": {"encoder": "evil.mod:Evil"}}}  # for a group of agents
    assert trust.requests(plain | {"groups": different}) == ("evil.mod:Evil",)
    for name in found - HARMLESS.keys() - {"groups"}:
        group, key = name.split(".")
        evil = {"x": "evil.mod:Evil"} if isinstance(plain[group][key], dict) else "evil.mod:Evil"
        asked = trust.requests(plain | {group: plain[group] | {key: evil}})
        assert len(asked) == 1 and "evil.mod:Evil" in asked[0], name
    assert found | {"agent.name"} == HARMLESS.keys() | {
        "env.id", "env.kwargs", "network.encoder", "network.core", "ray.address", "ray.runtime_env",
        "groups",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        (["source=ray", "ray.address=127.0.0.1:1"], "ray.address=127.0.0.1:1"),
        (["source=ray", "ray.runtime_env={pip: [evil]}"], """'ray.runtime_env={"pip": ["evil"]}'"""),
        (["env=MountainCarContinuous-v0", "env.kwargs.goal_velocity='a; b'"], """'env.kwargs.goal_velocity="a; b"'"""),
    ],
)  # fmt: skip
def test_what_a_folder_asks_for_is_refused_until_it_is_typed(
    typed: list[str], asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On this machine, in `rlkit train` or after --trust; the value counts, not the option."""
    config = compose(["env=cartpole", *typed]).config
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    no_checkpoint = "the run ended before its first one"
    assert main(["resume", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.endswith(f"or add --trust {asked}\n") and line.count("\n") == 1
    assert main(["resume", str(tmp_path), "--trust", shlex.split(asked)[0]]) == 1
    assert no_checkpoint in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(
        to_yaml(config).replace("127.0.0.1:1", "evil:1").replace("evil", "worse")
    )
    code = main(["resume", str(tmp_path)])
    assert (code, no_checkpoint in capsys.readouterr().err) == (
        (1, True) if "kwargs" in asked else (2, False)
    )


def test_what_was_typed_in_training_is_honoured_when_the_run_goes_on(tmp_path: Path) -> None:
    run = rlkit.train(
        "ppo",
        "MountainCarContinuous-v0",
        dir=tmp_path,
        **SMALL | {"ray.address": "auto", "ray.runtime_env.pip": ["x"], "env.time_limit": 9},
    )  # type: ignore[arg-type]
    assert resume(run) == run


def test_a_playing_agent_reaches_no_other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run was trained in a cluster matters to its training alone; its environment matters to both."""
    run = rlkit.train("ppo", "cartpole", dir=tmp_path, **SMALL | {"ray.address": "auto"})  # type: ignore[arg-type]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-machine"))
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    assert main(["resume", str(run)]) == 2
    typed = ["evaluate", str(run), "--episodes", "1", "env=CartPole-v1", "env.kwargs.render_mode=rgb_array"]
    assert main(typed) == 0
    assert (
        "env.kwargs.render_mode=rgb_array" in (tmp_path / "another-machine" / "rlkit" / "trusted").read_text()
    )


def test_without_a_place_to_remember_trust_lasts_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(trust, "_unsaved", set())
    with pytest.raises(ConfigError, match="never named on this machine: mine.a2c"):
        trust.require("mine.a2c")
    trust.remember("mine.a2c")
    trust.require("mine.a2c")
    assert (tmp_path / "file").read_text() == ""


def write(folder: Path, name: str, text: str) -> None:
    (folder / "mine" / f"{name}.py").write_text(text)


def test_agents_that_cannot_be_are_one_line(folder: Path) -> None:
    write(folder, "broken", "import json\nraise RuntimeError('two\\nlines')\n")
    write(folder, "typo", "def f(:\n")
    write(folder, "needy", "import not_installed_anywhere\n")
    write(
        folder,
        "borrowed",
        "from rlkit.agents.ppo import *\nfrom rlkit.agents.ppo import Config, Policy, Agent\n",
    )
    for typed, said in {
        "a2c": r"no such agent; .*\(a module of your own has a dot in its name: agent=my_pkg\.mod for my_pkg/",
        "mine/a2c.py": "no such agent; ",
        "mine.nothing": r"there is no file of a module mine\.nothing; it is looked for in .* and in the installed",
        "nowhere.a2c": r"there is no module nowhere; it is looked for in ",
        "mine.broken": r"mine\.broken cannot be imported: RuntimeError: two lines \(.*broken\.py:2; --traceback",
        "mine.typo": r"mine\.typo cannot be imported: SyntaxError: .*typo\.py:1; ",
        "mine.needy": r"mine\.needy needs the package not_installed_anywhere; pip install it$",
        "mine.nets": r".*nets\.py has no Config, no Policy, no Agent, no ACTIONS, no feed, no check; ",
        "mine.borrowed": r"its Config is rlkit\.agents\.ppo's; write in .*borrowed\.py: @dataclass",
    }.items():
        with pytest.raises(ConfigError, match=f"^agent={typed}: {said}") as caught:
            compose([f"agent={typed}"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "instead", "said"),
    [
        ("self.noise_size = self.head.noise_size", "pass", "its Policy sets no noise_size; "),
        ("precision=precision, compile=compile", "precision=precision, compile=False", ""),
    ],
)
def test_what_a_file_lacks_is_said_before_a_folder_exists(
    folder: Path, text: str, instead: str, said: str
) -> None:
    file = folder / "mine" / "a2c.py"
    source = file.read_text()
    assert text in source
    source = source.replace(text, instead)
    if not said:
        source = source.replace("        compile: bool,\n", "").replace(", compile: bool", "")
        said = r"its Agent cannot be called as Agent\(.*\): got an unexpected keyword argument 'compile'"
    file.write_text(source)
    with pytest.raises(ConfigError, match=f"^agent=mine.a2c: {said}"):
        train()
    assert not (folder / "runs").exists()


def test_encoders_and_cores_that_cannot_be_are_one_line(folder: Path) -> None:
    write(
        folder, "odd", "def build(space, stack, config):\n    return 3\n\ndef core(features, config): ...\n"
    )
    for option, typed, said in [
        (
            "encoder",
            "wide",
            "no such choice; allowed: auto, alexnet, densenet, grid, impala_cnn, .*small_cnn, text, vgg, or module:",
        ),
        ("encoder", "mlq", "no such choice, did you mean mlp; allowed: "),
        ("encoder", "mine.nets:wader", "mine.nets has no function wader"),
        ("encoder", "nowhere:wide", "there is no module nowhere; it is looked for in "),
        ("encoder", "mine.odd:build", r"made int, which is no rlkit\.nn\.encoders\.Encoder"),
        (
            "encoder",
            "mine.odd:core",
            r"cannot be called with \(space, stack, config\), as what builds the encoder ",
        ),
        ("core", "mine.odd:core", r"made NoneType, which is no rlkit\.nn\.core\.Core"),
        ("core", "mine.odd:build", r"cannot be called with \(features, config\), as "),
        (
            "core",
            "lstn",
            "no such choice, did you mean lstm; allowed: gru, identity, lstm, transformer, or module:",
        ),
    ]:
        with pytest.raises(ConfigError, match=f"^network.{option}={typed}: {said}") as caught:
            train(**{"network.encoder": "mlp", "network.core": "identity", f"network.{option}": typed})
        assert "\n" not in str(caught.value)
    assert not (folder / "runs").exists()


def test_lists_show_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {each.name: each for each, _ in options(["agent=mine.a2c"])}
    assert shown["agent.lam"].help == "lambda of GAE: 0 is TD(0), 1 is Monte Carlo"
    assert shown["network.core"].allowed == "gru, identity, lstm, transformer, or module:function"
    assert main(["list", "networks"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "network.core=NAME gru, identity, lstm, transformer, or your own: my_pkg.mod:Class" in shown


def test_a_file_tells_its_names_without_being_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new.py").write_text(
        'raise SystemExit\n\n@encoder("brand_new")\ndef build(space, stack, config): ...\n\n'
        '"""\n@encoder("in_a_text")\n"""\n\n@core("fresh")\nclass Fresh: ...\n'
    )
    monkeypatch.setattr(networks, "__file__", str(tmp_path / "registry.py"))
    networks._files.cache_clear()
    try:
        assert "brand_new" in networks.names("encoder") and "in_a_text" not in networks.names("encoder")
        assert "fresh" in networks.names("core")
    finally:
        networks._files.cache_clear()


def test_names_of_code() -> None:
    assert own.is_module("a.b") and own.is_module("a.b.c")
    assert not any(own.is_module(name) for name in ("a", "", "a.", ".a", "a..b", "a/b.c", "a.b:c", "a.b c"))
    assert own.is_function("a:b") and own.is_function("a.b:c")
    assert not any(
        own.is_function(name) for name in ("a", "a.b", ":b", "a:", "a:b:c", "a:b.c", "a b:c", "../a:b")
    )
    assert registry.algorithm_of("a.b") == "a.b"
