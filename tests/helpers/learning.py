"""Train an agent from nothing and measure it: what every learning test does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import rlkit
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.saved import load
from rlkit.run.console import Console
from rlkit.run.folder import run_config

COMMON: dict[str, Any] = {
    "preset": "none", "env.backend": "inprocess", "log.tensorboard": False, "evaluate.every": 10**9, "threads": 1,
}  # fmt: skip


def score(folder: Path, episodes: int, stop: float | None = None, **options: Any) -> float:
    """Mean greedy return, on held-out seeds, of a freshly trained agent.

    stop: training is over as soon as the mean return of the last 100 episodes, explored ones, reaches it; no agent can
    reach it that would not pass the test. A test that must fail to learn gives none, and trains to the end.
    """
    if stop is not None:
        options |= {"stop.reward": stop}
    run = rlkit.train(console=Console(1, "test", plain=True), **COMMON | {"dir": str(folder)} | options)
    policy = load(run, "last").policy
    found = evaluate_policy(policy, run_config(run), episodes, seed=99, device=torch.device("cpu"))
    return float(np.mean([episode.result for episode in found]))
