"""PPO on a hybrid action and on masked choices, with known best returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import rlkit
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.saved import load
from rlkit.run.console import Console
from rlkit.run.folder import run_config

COMMON = {
    "preset": "none", "env.backend": "inprocess", "log.tensorboard": False, "evaluate.every": 10**9, "threads": 1,
}  # fmt: skip


def trained(tmp_path: Path, **options: object) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    folder = rlkit.train(console=Console(1, "test", plain=True), **COMMON | {"dir": str(tmp_path)} | options)
    agent = load(folder, "last")
    episodes = evaluate_policy(agent.policy, run_config(folder), 40, seed=99, device=torch.device("cpu"))
    return float(np.mean([episode.result for episode in episodes]))


def test_a_gear_and_two_pedals(tmp_path: Path) -> None:
    """Best 10; right numbers with any gear, or the right gear without numbers, get 10/3."""
    score = trained(
        tmp_path, env="rlkit.envs.toys.structured:Drive", total_steps=24_000,
        **{"agent.steps": 64, "agent.gamma": 0.0, "optim.lr": 3e-3, "agent.log_std_init": -0.5,
           "optim.lr_schedule": "linear"},
    )  # fmt: skip
    assert score > 9.5


def test_locked_arms(tmp_path: Path) -> None:
    """Best 10, a random open arm 10/3, and a locked one raises."""
    score = trained(
        tmp_path, env="rlkit.envs.toys.structured:Locked", total_steps=16_000,
        **{"agent.steps": 64, "agent.gamma": 0.0, "optim.lr": 3e-3},
    )  # fmt: skip
    assert score > 9.5
