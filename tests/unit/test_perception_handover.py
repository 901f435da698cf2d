"""What a run takes over from another: an encoder or all weights, bit for bit, and never again after its start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.cli.main import main
from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig
from rlkit.files import named
from rlkit.learn.optim import Optimiser
from rlkit.learn.trainer import Clock
from rlkit.nn.network import Network
from rlkit.options import ConfigError
from rlkit.perception.saved import build_model
from rlkit.play.saved import build_policy
from rlkit.run.console import Console
from rlkit.run.early import EarlyStopHook
from rlkit.run.kinds import kind_of
from rlkit.run.resume import resume
from rlkit.run.start import train
from tests.helpers.sights import ID, OPTIONS

TASK: dict[str, Any] = {
    "data": "tests.helpers.sights:sights", "network.encoder": "mlp", "network.hidden": [12], "stack": 2, "epochs": 1,
    "threads": 1, "log.tensorboard": False, "network.activation": "tanh", "precision": "float32",
}  # fmt: skip
PPO = {**OPTIONS, "network.activation": "tanh"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a task, of an agent, and of a task that taught an agent's policy."""
    folder = tmp_path_factory.mktemp("sources")
    where = {"dir": str(folder)}
    return {
        "seg": train(task="segment", name="seg", **TASK, **where),
        "ppo": train("ppo", ID, name="ppo", **PPO, **where),
        "bc": train("ppo", task="imitate", name="bc", **TASK, **where),
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the newest checkpoint."""
    found: dict[str, torch.Tensor] = checkpoint.newest(named(run) / "checkpoints", "policy", say=print)[2][
        "policy"
    ]["weights"]
    return found


def encoders(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [encoder for part in module.modules() if isinstance(part, Network) for encoder in part.encoders]


def source_encoder(run: Path) -> torch.nn.Module:
    """The encoder of a run's best model."""
    parts = checkpoint.read(named(run) / "best", "policy")["policy"]
    return encoders(build_policy(parts) if "agent" in parts else build_model(parts))[0]


def planned(tmp_path: Path, agent: str, **options: Any) -> tuple[torch.nn.Module, list[str]]:
    """The policy of a run before its first update, and what the console said."""
    said: list[str] = []
    config = compose(values={"agent": agent, "env": ID, **PPO, **options}).config
    plan = kind_of(config).check(config)
    console = Console(1, "x")
    console.say = said.append  # type: ignore[method-assign]
    built = kind_of(config).build(plan, named(tmp_path), console)
    built.close()
    return built.model, [*plan.notes, *said]


@pytest.mark.parametrize("source", ["seg", "ppo", "bc"])
def test_the_first_features_are_those_of_the_source(
    tmp_path: Path, sources: dict[str, Path], source: str
) -> None:
    """Bit for bit, in every encoder of the policy, of a task's run and of an agent's."""
    model, said = planned(tmp_path, "ppo", **{"network.encoder_from": str(sources[source])})
    rows = torch.randint(0, 255, (5, 2, 8, 8), dtype=torch.uint8)
    wanted = source_encoder(sources[source])(rows)
    found = encoders(model)
    assert found and all(torch.equal(each(rows), wanted) for each in found)
    line = next(each for each in said if each.startswith("encoder_from"))
    count = sum(x.numel() for x in source_encoder(sources[source]).state_dict().values())
    assert f"the {count:,} numbers of the encoder of" in line and "they are trained on" in line


def test_target_networks_begin_with_it_too(tmp_path: Path, sources: dict[str, Path]) -> None:
    small = {"agent.replay.warmup": 8, "agent.replay.capacity": 64, "agent.replay.batch": 8}
    options = {key: value for key, value in PPO.items() if not key.startswith("agent.")} | small
    config = compose(
        values={"agent": "dqn", "env": ID, **options, "network.encoder_from": str(sources["seg"])}
    ).config
    built = kind_of(config).build(kind_of(config).check(config), named(tmp_path), Console(1, "x"))
    wanted = source_encoder(sources["seg"]).state_dict()
    target = next(value for value in vars(built.learner).values() if isinstance(value, torch.nn.Module) and value
                  is not built.model)  # fmt: skip
    for module in (built.model, target):
        for each in encoders(module):
            assert all(torch.equal(x, wanted[name]) for name, x in each.state_dict().items())
    built.close()


def moved(run: Path, source: Path) -> float:
    """How far the encoder's weights are from the source's."""
    now = weights(run)
    first = next(name for name in now if "encoders.0." in name).split("encoders.0.")[0] + "encoders.0."
    own = source_encoder(source).state_dict()
    return max(float((now[first + name] - x).abs().max()) for name, x in own.items())


def test_the_learning_rate_of_an_encoder(tmp_path: Path, sources: dict[str, Path]) -> None:
    """0 leaves it as it was, to the last bit, while the rest learns; with 0.1 it moves less than with 1."""
    far, heads = {}, {}
    for factor in (0, 0.1, 1):
        options = {**PPO, "network.encoder_from": str(sources["seg"]), "network.encoder_lr": factor}
        run = train("ppo", ID, name=f"lr{factor}", dir=str(tmp_path), **options)
        far[factor] = moved(run, sources["seg"])
        heads[factor] = {name: x for name, x in weights(run).items() if "heads" in name}
    assert far[0] == 0 < far[0.1] < 0.5 * far[1]
    begin = planned(tmp_path / "lr0", "ppo")[0].state_dict()
    assert heads[0] and all(not torch.equal(x, begin[name]) for name, x in heads[0].items() if x.numel() > 1)
    with pytest.raises(
        ConfigError, match="network.encoder_lr=0.1: with optim.name=sgd .*type optim.name=adam"
    ):
        planned(tmp_path, "ppo", **{"network.encoder_lr": 0.1, "optim.name": "sgd"})


def test_a_frozen_encoder_is_no_part_of_the_gradient(tmp_path: Path) -> None:
    """Its gradient would count in the norm that is clipped."""
    model, _ = planned(tmp_path, "ppo", **{"network.encoder_lr": 0})
    optimiser = Optimiser(
        model,
        lambda: (torch.zeros(()), torch.zeros(1)),
        OptimConfig(),
        precision=torch.float32,
        compile=False,
    )
    learned = sum(x.numel() for name, x in model.named_parameters() if "encoders." not in name)
    assert 0 < optimiser.gradient.numel() == learned < sum(x.numel() for x in model.parameters())


def test_frozen_and_slowed_encoders_are_said(tmp_path: Path, sources: dict[str, Path]) -> None:
    for factor, words in (
        (0, "they are frozen (network.encoder_lr=0)"),
        (0.5, "with the learning rate times 0.5"),
    ):
        options = {"network.encoder_from": str(sources["seg"]), "network.encoder_lr": factor}
        said = planned(tmp_path, "ppo", **options)[1]
        assert any(words in line for line in said), said


def test_all_weights(tmp_path: Path, sources: dict[str, Path]) -> None:
    """Of the same agent, and of a task that taught its policy; the new run begins with exactly these."""
    for source in ("ppo", "bc"):
        model, said = planned(tmp_path, "ppo", init_from=str(sources[source]))
        wanted = checkpoint.read(named(sources[source]) / "best", "policy")["policy"]["weights"]
        found = model.state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[n], x) for n, x in wanted.items())
        assert any(each.startswith("init_from: all") and "they are trained on" in each for each in said)
    run = train("ppo", ID, name="a", dir=str(tmp_path), **PPO, init_from=f"{sources['ppo']}:last")
    assert (run / "best").is_dir()


def test_a_source_may_be_gone_after_the_start(tmp_path: Path, sources: dict[str, Path]) -> None:
    """evaluate, resume and rlkit.load of the new run, in which the encoder is."""
    runs = {}
    for option, source in (("network.encoder_from", "seg"), ("init_from", "bc")):
        shutil.copytree(sources[source], tmp_path / source)
        options = {**PPO, option: str(tmp_path / source), "checkpoint.every": 16}
        runs[source] = [
            train("ppo", ID, name=f"{source}-{name}", dir=str(tmp_path), **{**options, **more})
            for name, more in (("a", {"total_steps": 64}), ("b", {}))
        ]
        shutil.rmtree(tmp_path / source)
    for whole, half in runs.values():
        assert main(["evaluate", str(half), "episodes=1"]) == 0
        assert rlkit.load(half)(np.zeros((8, 8), np.uint8))[0] in (0, 1, 2)
        text = (half / "config.yaml").read_text()
        (half / "config.yaml").write_text(text.replace("total_steps: 32", "total_steps: 64"))
        resume(half)
        one, two = weights(whole), weights(half)
        assert all(torch.equal(one[name], two[name]) for name in one)


def damaged(sources: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(sources["seg"], tmp_path / "damaged")
    for file in (tmp_path / "damaged").rglob("policy.safetensors"):
        file.write_bytes(file.read_bytes()[:-7])
    return tmp_path / "damaged"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network.encoder_from": "SEG", "network.hidden": [13]}, r"encoder_from=.*another encoder than this run's "
         r"\(hidden\); type network.hidden=\[12\]"),
        ({"network.encoder_from": "SEG", "network.encoder": "small_cnn"}, r"another encoder .*\(encoder.*\); type "
         "network.encoder=mlp"),
        ({"network.encoder_from": "SEG", "network.activation": "relu"}, "type network.activation=tanh"),
        ({"network.encoder_from": "SEG", "env.stack": 1}, "reads 2 frames at once, this run's 1; type env.stack=2 .a"),
        ({"network.encoder_from": "SEG", "env.kwargs": {"view": "vector"}}, "its encoder reads .*uint8.*, this run's"),
        ({"network.encoder_from": "runs/none"}, "network.encoder_from=runs/none: runs/none does not exist; rlkit list"),
        ({"network.encoder_from": "SEG:123"}, "checkpoint 123 is not in .*; allowed: best, last"),
        ({"network.encoder_from": "TMP"}, "holds no checkpoint"),
        ({"network.encoder_from": "DAMAGED"}, "network.encoder_from=.*damaged"),
        ({"init_from": "SEG"}, "init_from=.*: task=segment, which has no policy, and this run is of agent=ppo: type a"),
        ({"init_from": "PPO", "agent": "reinforce"}, "agent=ppo, and this run is of agent=reinforce: type a run"),
        ({"init_from": "PPO", "network.hidden": [13]}, "another network than this run's; type its options of network"),
        ({"init_from": "PPO", "env.kwargs": {"continuous": True}}, "its action space is Discrete.*, this run's Box"),
        ({"init_from": "PPO", "env.stack": 3}, "sees 2 frames at once; type env.stack=2"),
        ({"init_from": "DAMAGED"}, "init_from=.*damaged"),
        ({"eyes": "runs/none"}, "eyes=runs/none: runs/none does not exist"),
        ({"eyes": "SEG", "env.stack": 1}, "reads 2 frames at once, this run's 1; type env.stack=2"),
        ({"eyes": "SEG", "env.kwargs": {"view": "vector"}}, "eyes=.*reads .*uint8"),
        ({"eyes": "PPO", "eyes.gives": "prediction"}, "eyes.gives=prediction: of the run of a task alone; type "),
        ({"eyes": "DAMAGED"}, "eyes=.*damaged"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, sources: dict[str, Path], options: dict[str, Any], says: str
) -> None:
    places = {"SEG": sources["seg"], "PPO": sources["ppo"], "TMP": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    found = {}
    for key, value in options.items():
        if isinstance(value, str):
            value = str(damaged(sources, tmp_path)) if value == "DAMAGED" else value
            for name, path in places.items():
                value = value.replace(name, str(path)) if value.startswith(name) else value
        found[key] = value
    agent = found.pop("agent", "ppo")
    base = PPO if agent == "ppo" else {k: v for k, v in PPO.items() if not k.startswith("agent.")}
    given = compose(values={"agent": agent, "env": ID, **base, **found}).config

    def begin() -> None:
        plan = kind_of(given).check(given)
        kind_of(given).build(plan, named(tmp_path), Console(1, "x")).close()

    with pytest.raises(ConfigError, match=says) as error:
        begin()
    assert "\n" not in str(error.value)


def reports(hook: EarlyStopHook, *means: float | None) -> list[str | None]:
    """Why a run ends after each of these evaluations."""
    found = []
    for mean in means:
        clock = Clock(1000)
        hook.after_update(clock, {} if mean is None else {"evaluate/mean": mean})
        found.append(clock.stop_reason)
    return found


def test_early_stopping_by_made_up_evaluations() -> None:
    """A mean that is not above the best counts, reports without an evaluation do not."""
    hook = EarlyStopHook(None, 2)
    assert not any(reports(hook, -5.0, None, -5.0, None, -4.0, -4.5))
    (reason,) = reports(hook, -4.0)
    assert reason == "2 evaluations in a row were not above the best mean, -4 (stop.patience=2)"
    hook = EarlyStopHook(0.9, 0)
    assert not any(reports(hook, 0.1, 0.1, 0.1, 0.1, 0.89))
    assert reports(hook, 0.9) == ["the evaluation's mean 0.9 reached stop.score=0.9"]
    assert not any(reports(EarlyStopHook(None, 0), 3.0, 2.0, 1.0, 0.0))
    assert (
        not any(reports(EarlyStopHook(None, 1), 1.0, 2.0, 3.0))
        and reports(EarlyStopHook(None, 1), 1.0, 1.0)[1]
    )


def test_early_stopping_goes_on_where_it_was() -> None:
    hook, other = EarlyStopHook(None, 3), EarlyStopHook(None, 3)
    reports(hook, 2.0, 1.0, 1.5)
    other.load_state_dict(hook.state_dict())
    assert not any(reports(other, None)) and reports(other, 1.9)[0]


def test_early_stopping_of_runs(tmp_path: Path) -> None:
    """An agent and a task end by it, and a run that was ended by it is complete."""
    options = {**PPO, "dir": str(tmp_path), "total_steps": 160, "evaluate.every": 16}
    run = train("ppo", ID, name="a", **options, **{"stop.score": -1000.0})
    step, _, parts = checkpoint.newest(named(run) / "checkpoints", "state", say=print)
    assert 16 <= step <= 32 and "reached stop.score=-1000" in parts["state"]["clock"]["stop_reason"]
    more = {**TASK, "dir": str(tmp_path), "epochs": 50, "evaluate.every": 64, "optim.lr": 1e-9}
    task = train(task="classify", name="b", **more, **{"stop.patience": 2})
    step, _, parts = checkpoint.newest(named(task) / "checkpoints", "state", say=print)
    assert step == 192 and "2 evaluations in a row" in parts["state"]["clock"]["stop_reason"]
    assert parts["state"]["early"]["since"] == 2
    before = weights(task)
    resume(task)
    assert all(torch.equal(x, before[name]) for name, x in weights(task).items())
