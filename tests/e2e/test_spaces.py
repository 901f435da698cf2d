"""Every observation and action space through a whole run: train, evaluate, save, load, act by hand, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlkit
from rlkit.envs import make_env
from rlkit.options import ConfigError
from rlkit.run.console import Console
from rlkit.run.folder import run_config
from tests.helpers.anyspace import ACTIONS, OBSERVATIONS

SMALL = {
    "env": "tests.helpers.anyspace:AnySpace", "preset": "none", "env.lanes": 2, "env.backend": "inprocess",
    "threads": 1, "total_steps": 32, "evaluate.episodes": 2, "log.tensorboard": False, "agent.steps": 8,
    "agent.minibatch": 16,
    "agent.epochs": 1, "precision": "float32",
}  # fmt: skip


def train(folder: Path, **options: Any) -> Path:
    return rlkit.train(console=Console(1, "test", plain=True), **SMALL | {"dir": str(folder)} | options)


def play(run: Path, greedy: bool = True) -> None:
    """Two episodes by hand with the loaded policy; the environment refuses what it does not allow."""
    agent, env = rlkit.load(run), make_env(run_config(run).env)
    for episode in range(2):
        obs, _ = env.reset(seed=episode)
        state, ended = None, False
        while not ended:
            action, state = agent(obs, state, greedy=greedy)
            obs, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated


POSSIBLE = [name for name in ACTIONS if name != "integer_box"]
PAIRS = [(name, POSSIBLE[i % len(POSSIBLE)]) for i, name in enumerate(OBSERVATIONS)]


@pytest.mark.parametrize(("observation", "action"), PAIRS)
def test_every_space(observation: str, action: str, tmp_path: Path) -> None:
    assert {action for _, action in PAIRS} == set(POSSIBLE)
    options: dict[str, Any] = {"env.kwargs": {"observation": observation, "action": action}}
    if observation == "volume":  # bytes of more axes than an image has are flattened where that was typed
        with pytest.raises(
            ConfigError, match=r"got a Box of shape \(3, 4, 5, 2\): use mlp \(network.encoder=mlp\)"
        ):
            train(tmp_path, **options)
        options["network.encoder"] = "mlp"
    run = train(tmp_path, **options)
    play(run)
    play(run, greedy=False)


def test_an_image_too_small_for_an_encoder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 36x36; got 5x4: use impala_cnn, small_cnn or auto"):
        train(tmp_path, network="cnn", **{"env.kwargs": {"observation": "small"}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("action", "words"),
    [("integer_box", r"Box\(2,\) of int32 in \[0, 5\]; ppo acts in .* no agent chooses whole")],
)
def test_a_space_that_nobody_acts_in_is_refused(action: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"agent=ppo cannot act in .*: its action space is {words}"):
        train(tmp_path, **{"env.kwargs": {"action": action}})
