"""A cue shown once and asked for later: networks that remember solve it, and one that does not guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rlkit
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.saved import load
from rlkit.run.console import Console
from rlkit.run.folder import run_config

OPTIONS = {
    "agent": "ppo", "env": "rlkit.envs.toys.tasks:Cue", "preset": "none", "env.backend": "inprocess",
    "env.kwargs": {"choices": 4, "delay": 4}, "env.lanes": 16, "total_steps": 12_000, "threads": 1,
    "log.tensorboard": False, "evaluate.every": 10**9, "network.hidden": [32], "network.core_size": 32,
    "network.shared": True, "agent.steps": 32, "agent.minibatch": 128, "agent.epochs": 4, "optim.lr": 3e-3,
    "optim.lr_schedule": "linear",
}  # fmt: skip


def trained(folder: Path, core: str) -> float:
    """Mean greedy return, on held-out seeds, of a freshly trained agent: best 1, guessing 1/4."""
    options = OPTIONS | {"dir": str(folder), "network.core": core}
    run = rlkit.train(console=Console(1, "test", plain=True), **options)
    policy = load(run, "last").policy
    episodes = evaluate_policy(policy, run_config(run), 200, seed=99, device=torch.device("cpu"))
    return float(np.mean([episode.result for episode in episodes]))


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_a_network_that_remembers_names_the_cue(tmp_path: Path, core: str) -> None:
    assert trained(tmp_path, core) >= 0.9


def test_one_that_does_not_guesses(tmp_path: Path) -> None:
    assert trained(tmp_path, "identity") < 0.4
