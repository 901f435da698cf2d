"""Cutting training episodes that lead nowhere."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.wrappers.stuck import Stuck


class Paid(gymnasium.Env[Any, Any]):
    """Pays what `rewards` says, then 0 for ever."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, rewards: list[float]) -> None:
        self.rewards, self.t = rewards, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self.rewards[self.t] if self.t < len(self.rewards) else 0.0
        self.t += 1
        return np.zeros(1, np.float32), reward, False, False, {}


def test_the_wait_begins_anew_with_every_reward() -> None:
    env = Stuck(Paid([1.0, -2.0, 0.0, 0.5]), 3)
    for _ in range(2):  # the second episode starts with a fresh wait
        env.reset()
        ends = [env.step(0)[2:4] for _ in range(7)]
        # steps 5, 6 and 7 pay nothing
        assert ends == [(False, False)] * 6 + [(True, False)]


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_training_is_cut_and_evaluation_is_not(backend: str) -> None:
    """MountainCar pays -1 for every step: training episodes last 7 steps, evaluated ones 200."""
    config = EnvConfig(id="MountainCar-v0", lanes=2, stuck_after=7, backend=backend, workers=2)
    for evaluation, length in ((False, 7), (True, 200)):
        env = make_vec(config, 0, evaluation=evaluation)
        try:
            row = env.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
            steps = 0
            while not row.last.any():
                row = env.step(torch.zeros(2, dtype=torch.int64))
                steps += 1
            assert steps == length and row.last.all()
            # the environment's own limit bootstraps, getting stuck does not
            assert row.terminated.all() != evaluation
        finally:
            env.close()
