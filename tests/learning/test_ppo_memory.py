"""A cue shown once and asked for later: networks that remember solve it, and one that does not guesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.learning import score

OPTIONS = {
    "agent": "ppo", "env": "rlkit.envs.toys.tasks:Cue",
    "env.kwargs": {"choices": 4, "delay": 4}, "env.lanes": 16, "total_steps": 12_000,
    "network.hidden": [32], "network.core_size": 32,
    "network.shared": True, "agent.steps": 32, "agent.minibatch": 128, "agent.epochs": 4, "optim.lr": 3e-3,
    "optim.lr_schedule": "linear",
}  # fmt: skip


def trained(folder: Path, core: str, stop: float | None = None) -> float:
    """Mean greedy return, on held-out seeds, of a freshly trained agent: best 1, guessing 1/4."""
    return score(folder, 200, stop, **OPTIONS | {"network.core": core})


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_a_network_that_remembers_names_the_cue(tmp_path: Path, core: str) -> None:
    assert trained(tmp_path, core, stop=0.95) >= 0.9


def test_one_that_does_not_guesses(tmp_path: Path) -> None:
    assert trained(tmp_path, "identity") < 0.4
