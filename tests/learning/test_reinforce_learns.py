"""REINFORCE on tasks with a known answer that a broken agent cannot pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.learning import score

TOY = "rlkit.envs.toys.tasks"
COMMON = {
    "agent": "reinforce", "checkpoint.every": 10**9, "optim.lr": 1e-2, "agent.steps": 8, "env.lanes": 16,
}  # fmt: skip


def trained(tmp_path: Path, stop: float | None = None, **options: Any) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    return score(tmp_path, 200, stop, **COMMON | options)


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_identity(tmp_path: Path, baseline: str) -> None:
    """Best 10, random 2.5: the reward depends on the observation."""
    options = {"agent.gamma": 0.5, "agent.baseline": baseline}
    assert trained(tmp_path, 9.6, env=f"{TOY}:Identity", total_steps=12_000, **options) > 9.5


def test_identity_credited_with_whole_returns(tmp_path: Path) -> None:
    """Far noisier, but it learns: every action of an episode gets the episode's return."""
    options = {"agent.reward_to_go": False, "agent.gamma": 1.0, "optim.lr": 3e-2}
    assert trained(tmp_path, 9.3, env=f"{TOY}:Identity", total_steps=30_000, **options) > 9


def test_bandit_finds_the_better_arm(tmp_path: Path) -> None:
    """Best 1; an agent that settles for the consolation gets 0.5, one that ignores the context 1/3."""
    assert trained(tmp_path, 0.97, env=f"{TOY}:Bandit", total_steps=12_000) > 0.95


@pytest.mark.parametrize("distribution", ["gaussian", "tanh"])
def test_quadratic_control(tmp_path: Path, distribution: str) -> None:
    """Best 0, doing nothing -10/3: actions of the right sign and size."""
    options = {"agent.gamma": 0.5, "agent.log_std_init": -0.5, "optim.lr_schedule": "linear",
               "agent.distribution": distribution}  # fmt: skip
    assert trained(tmp_path, env=f"{TOY}:Quadratic", total_steps=12_000, **options) > -0.1


CUE = {
    "env": f"{TOY}:Cue", "env.kwargs": {"choices": 4, "delay": 4}, "network.hidden": [32], "network.core_size": 32,
    "agent.steps": 20, "total_steps": 32_000,
    "optim.lr": 2e-3,  # faster, more seeds settle for naming three of the four cues
}  # fmt: skip


# every core passes tests/contract/test_cores.py; here an agent that learns from sequences must use one
@pytest.mark.parametrize("core", ["gru"])
def test_a_network_that_remembers_names_the_cue(tmp_path: Path, core: str) -> None:
    """Best 1, guessing 1/4: the cue was in the first of five rows, the reward is in the last."""
    assert trained(tmp_path, 0.9, **CUE, **{"network.core": core}) >= 0.9


def test_one_that_does_not_guesses(tmp_path: Path) -> None:
    assert trained(tmp_path, **CUE) < 0.4


def test_a_flipped_advantage_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thresholds mean something: with the sign turned around the same test fails by far."""
    from rlkit.agents.reinforce import Agent

    true_advantages = Agent.advantages

    def flipped(self: Agent, *args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        target, advantage = true_advantages(self, *args)  # type: ignore[arg-type]
        return target, -advantage

    monkeypatch.setattr(Agent, "advantages", flipped)
    options = {"agent.gamma": 0.5, "agent.baseline": "none"}
    assert trained(tmp_path, env=f"{TOY}:Identity", total_steps=12_000, **options) < 2.5
