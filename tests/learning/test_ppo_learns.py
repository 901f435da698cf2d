"""Tasks with a known best return that a broken agent cannot pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.config.compose import compose
from rlkit.run.console import Console
from rlkit.types import Lanes
from tests.helpers.learning import COMMON, score

TOY = "rlkit.envs.toys.tasks"


def trained(tmp_path: Path, stop: float | None = None, **options: Any) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    return score(tmp_path, 40, stop, **options)


def test_identity(tmp_path: Path) -> None:
    """Best 10, random 2.5: the reward depends on the observation."""
    score = trained(
        tmp_path,
        env=f"{TOY}:Identity",
        total_steps=4000,
        **{"agent.steps": 32, "optim.lr": 3e-3, "agent.gamma": 0.5},
    )
    assert score > 9.5


def test_bandit_finds_the_better_arm(tmp_path: Path) -> None:
    """Best 1; an agent that settles for the consolation gets 0.5, one that ignores the context 1/3."""
    options = {"agent.steps": 32, "optim.lr": 3e-3}
    score = trained(tmp_path, 0.97, env=f"{TOY}:Bandit", total_steps=8000, **options)
    assert score > 0.95


@pytest.mark.parametrize("distribution", ["gaussian", "tanh"])
def test_quadratic_control(tmp_path: Path, distribution: str) -> None:
    """Best 0, doing nothing -10/3: actions of the right sign and size."""
    score = trained(
        tmp_path, env=f"{TOY}:Quadratic", total_steps=8000,
        **{"agent.steps": 64, "optim.lr": 3e-3, "agent.gamma": 0.8, "agent.distribution": distribution,
           "agent.log_std_init": -0.5, "optim.lr_schedule": "linear"},
    )  # fmt: skip
    assert score > -0.1


def test_batched_environment(tmp_path: Path) -> None:
    """The same control with rows that are born as tensors."""
    score = trained(
        tmp_path, env="rlkit.envs.toys.batched:Quadratic", total_steps=12_000,
        **{"env.backend": "batched", "env.lanes": 16, "agent.steps": 64, "optim.lr": 3e-3, "agent.gamma": 0.8,
           "agent.log_std_init": -0.5, "optim.lr_schedule": "linear"},
    )  # fmt: skip
    assert score > -0.1


def test_an_agent_with_a_flipped_advantage_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thresholds mean something: the same test with the advantage's sign turned around fails by far."""
    from rlkit.agents import ppo

    true_gae = ppo.gae
    monkeypatch.setattr(ppo, "gae", lambda *args: -true_gae(*args))
    score = trained(
        tmp_path,
        env=f"{TOY}:Identity",
        total_steps=4000,
        **{"agent.steps": 32, "optim.lr": 3e-3, "agent.gamma": 0.5},
    )
    assert score < 2.5


def test_cartpole_while_a_thread_collects(tmp_path: Path) -> None:
    """Under a third of the preset's steps balance it, with each of six seeds. The other tasks here collect in turn."""
    options = {"env": "cartpole", "preset": "auto", "optim.lr": 1e-3, "source": "thread"}
    assert trained(tmp_path, 400, agent="ppo", total_steps=30_000, seed=2, **options) > 400


def test_pixels_with_a_frame_stack(tmp_path: Path) -> None:
    """An image task whose answer is only in the frame before: no stack, no score above chance."""
    options = {
        "env": "tests.helpers.pixels:Before", "total_steps": 4000, "agent.steps": 32, "optim.lr": 1e-3,
        "agent.gamma": 0.0, "agent.epochs": 4, "precision": "float32",
    }  # fmt: skip
    assert trained(tmp_path, **options, **{"env.stack": 2}) > 9
    assert trained(tmp_path, **options, **{"env.stack": 1}) < 8


def test_value_of_a_constant_reward_through_truncation() -> None:
    """Reward 1 for ever, cut by a time limit: V = 1 / (1 - gamma), which only bootstrapping at truncation finds."""
    from rlkit.run.start import prepare

    values = COMMON | {
        "env": "tests.helpers.pixels:Constant", "env.time_limit": 5, "agent.steps": 32, "agent.gamma": 0.8,
        "optim.lr": 1e-2, "total_steps": 12_000, "agent.lam": 0.9, "threads": 1, "optim.clip_norm": 0.0,
    }  # fmt: skip
    config = compose(values=values).config
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = prepare(config, Path(folder), Console(1, "test", plain=True))
        run.train()
        obs, first = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.bool)
        value = run.model.evaluate(obs, first, run.model.initial_state(Lanes(1)))[1]
    assert float(value.detach()) == pytest.approx(5.0, abs=0.25)
