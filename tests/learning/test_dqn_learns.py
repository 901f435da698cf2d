"""DQN on tasks with a known answer that a broken agent cannot pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.types import Batch, Span
from tests.helpers.learning import score

TOY = "rlkit.envs.toys.tasks"
COMMON = {
    "agent": "dqn", "checkpoint.every": 10**9, "optim.lr": 3e-3, "optim.clip_norm": 10.0, "agent.steps": 8,
    "agent.replay.warmup": 200, "agent.replay.ratio": 0.05, "agent.replay.batch": 128, "agent.target_every": 10,
    "agent.epsilon_fraction": 0.5,
}  # fmt: skip
PAPER = {"agent.double": False}
ALL = {
    "agent.double": True, "agent.dueling": True, "agent.replay.n_step": 2, "agent.replay.alpha": 0.6,
    "agent.quantiles": 5, "agent.noisy": True, "agent.tau": 0.1, "agent.target_every": 1,
}  # fmt: skip


def trained(tmp_path: Path, stop: float | None = None, **options: Any) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    return score(tmp_path, 100, stop, **COMMON | options)


@pytest.mark.parametrize("options", [PAPER, ALL], ids=["paper", "all"])
def test_identity(tmp_path: Path, options: dict[str, object]) -> None:
    """Best 10, random 2.5: the value depends on the observation."""
    score = trained(tmp_path, 9.4, env=f"{TOY}:Identity", total_steps=6000, **{"agent.gamma": 0.5}, **options)
    assert score > 9.5


@pytest.mark.parametrize("options", [PAPER, ALL], ids=["paper", "all"])
def test_bandit_finds_the_better_arm(tmp_path: Path, options: dict[str, object]) -> None:
    """Best 1; an agent that settles for the consolation gets 0.5, one that ignores the context 1/3."""
    assert trained(tmp_path, 0.95, env=f"{TOY}:Bandit", total_steps=6000, **options) > 0.95


MEMORY = {
    "env": f"{TOY}:Cue", "total_steps": 12_000, "agent.steps": 4, "agent.replay.sequence": 8, "agent.replay.burn_in": 4,
    "agent.replay.batch": 256, "agent.gamma": 0.9,
}  # fmt: skip


# every core passes tests/contract/test_cores.py; here an agent that learns from sequences must use one
@pytest.mark.parametrize("core", ["gru", "transformer"])
def test_cue_needs_memory(tmp_path: Path, core: str) -> None:
    """Best 1, guessing 0.5: the cue was in the first of five rows, the reward is in the last."""
    assert trained(tmp_path, 0.93, **MEMORY, **{"network.core": core, "network.core_size": 32}) > 0.9


def test_cue_without_memory_is_guessed(tmp_path: Path) -> None:
    assert trained(tmp_path, **MEMORY) < 0.7


def test_forbidden_actions_do_not_count(tmp_path: Path) -> None:
    """Best 0.5; the unmasked maximum of the next state is a forbidden action that would pay 1."""
    options = {"env": "tests.helpers.bait:Bait", "total_steps": 6000}
    assert trained(tmp_path, **options) > 0.45


def test_unmasked_bootstrap_falls_for_the_bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold means something: with the mask taken from the targets alone the same agent fails."""
    from rlkit.agents import dqn

    true_targets = dqn.Agent.targets

    def open_to_all(span: Span) -> Span:
        assert isinstance(span.obs, dict)
        everything: Tensor = torch.ones_like(span.obs["action_mask"])
        return replace(span, obs=span.obs | {"action_mask": everything})

    def unmasked(self: dqn.Agent, batch: Batch, later: Span) -> Tensor:
        return true_targets(self, replace(batch, later=open_to_all(batch.later)), open_to_all(later))

    monkeypatch.setattr(dqn.Agent, "targets", unmasked)
    options = {"env": "tests.helpers.bait:Bait", "total_steps": 6000}
    assert trained(tmp_path, **options) < 0.4
