"""PPO on a hybrid action and on masked choices, with known best returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.learning import score


def trained(tmp_path: Path, stop: float | None = None, **options: Any) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    return score(tmp_path, 40, stop, **options)


def test_a_gear_and_two_pedals(tmp_path: Path) -> None:
    """Best 10; right numbers with any gear, or the right gear without numbers, get 10/3."""
    score = trained(
        tmp_path, env="rlkit.envs.toys.structured:Drive", total_steps=8000,
        **{"agent.steps": 64, "agent.gamma": 0.0, "optim.lr": 3e-3, "agent.log_std_init": -0.5,
           "optim.lr_schedule": "linear"},
    )  # fmt: skip
    assert score > 9.5


def test_locked_arms(tmp_path: Path) -> None:
    """Best 10, a random open arm 10/3, and a locked one raises."""
    score = trained(
        tmp_path, env="rlkit.envs.toys.structured:Locked", total_steps=6000,
        **{"agent.steps": 64, "agent.gamma": 0.0, "optim.lr": 3e-3},
    )  # fmt: skip
    assert score > 9.5
