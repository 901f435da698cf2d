"""DDPG and TD3 on tasks with a known best return that a broken agent cannot pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.types import Span
from tests.helpers.learning import score

TOY = "rlkit.envs.toys.tasks"
COMMON: dict[str, Any] = {
    "network.hidden": [64, 64], "agent.noise_std": 0.3, "agent.tau": 0.02, "agent.replay.capacity": 20_000,
    "agent.replay.warmup": 500, "agent.replay.batch": 64, "agent.replay.ratio": 0.25,
}  # fmt: skip


def trained(
    tmp_path: Path, agent: str, env: str, steps: int, stop: float | None = None, **options: Any
) -> float:
    """Mean greedy return on held-out seeds of a freshly trained agent."""
    values = COMMON | {"agent": agent, "env": f"{TOY}:{env}", "total_steps": steps} | options
    return score(tmp_path, 40, stop, **values)


QUADRATIC = {"agent.gamma": 0.8, "env.reward_scale": 0.1}  # rewards begin at -100


@pytest.mark.parametrize("agent", ["ddpg", "td3"])
def test_quadratic_control(tmp_path: Path, agent: str) -> None:
    """Best 0, doing nothing -10/3: actions of the right sign and size."""
    assert trained(tmp_path, agent, "Quadratic", 7000, **QUADRATIC) > -0.1


def test_an_actor_that_descends_q_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold means something: with the sign of the actor's loss turned around it is missed by far."""
    from rlkit.agents import ddpg

    right = ddpg.Agent.actor_loss

    def wrong(self: ddpg.Agent, now: Span, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, metrics = right(self, now, weight)
        return -loss, metrics

    monkeypatch.setattr(ddpg.Agent, "actor_loss", wrong)
    assert trained(tmp_path, "ddpg", "Quadratic", 7000, **QUADRATIC) < -3


def test_contextual_numbers(tmp_path: Path) -> None:
    """The number that is paid depends on the observation: best 1, ignoring it 0."""
    kwargs = {"choices": 4, "delay": 0, "continuous": True}
    options = {"env.kwargs": kwargs, "optim.lr": 3e-3, "agent.replay.ratio": 0.1}
    assert trained(tmp_path, "ddpg", "Cue", 6000, **options) > 0.9


DELAYED: dict[str, Any] = {
    "env.kwargs": {"choices": 2, "delay": 3, "continuous": True}, "network.core_size": 32, "agent.steps": 2,
    "agent.replay.sequence": 6, "agent.replay.burn_in": 2, "agent.replay.batch": 192, "agent.replay.ratio": 0.125,
    "optim.lr": 3e-3,
}  # fmt: skip


# every core passes tests/contract/test_cores.py; here an agent that learns from sequences must use one
@pytest.mark.parametrize("core", ["lstm"])
def test_memory_carries_a_cue(tmp_path: Path, core: str) -> None:
    """Best 1, without memory 0."""
    assert trained(tmp_path, "ddpg", "Cue", 2500, **DELAYED, network=core) > 0.9


def test_no_memory_no_cue(tmp_path: Path) -> None:
    """What the tests above measure is memory."""
    assert trained(tmp_path, "ddpg", "Cue", 2500, **DELAYED) < 0.2
