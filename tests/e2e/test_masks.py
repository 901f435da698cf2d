"""Action masks through whole runs: the environment raises where a forbidden action reaches it."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlkit
from rlkit.config.compose import compose
from rlkit.envs import make_env
from rlkit.play.evaluate import evaluate_policy
from rlkit.run.console import Console
from rlkit.run.folder import run_config
from rlkit.run.start import prepare
from tests.helpers.masked import COUNTS, Masked
from tests.helpers.runs import digest, launch, wait_for
from tests.helpers.runs import rlkit as command

SMALL = {
    "env": "tests.helpers.masked:Masked", "preset": "none", "env.lanes": 4, "threads": 1, "total_steps": 256,
    "evaluate.episodes": 4, "log.tensorboard": False, "agent.steps": 16, "agent.minibatch": 16, "agent.epochs": 2,
}  # fmt: skip


def train(folder: Path, **options: Any) -> Path:
    return rlkit.train(console=Console(1, "test", plain=True), **SMALL | {"dir": str(folder)} | options)


CASES = [
    ("Discrete", "array", "inprocess", "auto"),
    ("Discrete", "entry", "workers", "auto"),
    ("Discrete", "array", "inprocess", "lstm"),
    ("MultiDiscrete", "parts", "workers", "auto"),
    ("MultiDiscrete", "entry", "inprocess", "auto"),
    ("Dict", "parts", "inprocess", "gru"),
    ("Dict", "array", "workers", "auto"),
    ("Dict", "entry", "inprocess", "auto"),
]


@pytest.mark.parametrize(("kind", "form", "backend", "network"), CASES)
def test_a_forbidden_action_never_arrives(
    kind: str, form: str, backend: str, network: str, tmp_path: Path
) -> None:
    """Training on shuffled transitions (or sequences), evaluation, and a loaded policy, greedy and sampled."""
    kwargs = {"kind": kind, "form": form}
    run = train(tmp_path, network=network, **{"env.kwargs": kwargs, "env.backend": backend, "env.workers": 2})
    config = run_config(run)
    assert config.env.action_mask == ("none" if form == "entry" else "info")  # decided once, and saved
    agent, env = rlkit.load(run), make_env(config.env)
    evaluate_policy(agent.policy, config, 8, seed=5, device=torch.device("cpu"), greedy=False)
    for episode in range(6):
        obs, _ = env.reset(seed=episode)
        state, ended = None, False
        while not ended:
            action, state = agent(obs, state, greedy=bool(episode % 2))
            obs, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated


@pytest.mark.parametrize("mode", AutoresetMode.__members__)
def test_nor_in_a_vector_of_gymnasium(mode: str, tmp_path: Path) -> None:
    def vector(num_envs: int, **kwargs: Any) -> SyncVectorEnv:
        return SyncVectorEnv([lambda: Masked(**kwargs)] * num_envs, autoreset_mode=AutoresetMode[mode])

    gymnasium.register("MaskedVector-v0", entry_point=Masked, vector_entry_point=vector)
    try:
        run = train(
            tmp_path, env="MaskedVector-v0", **{"env.kwargs": {"kind": "Dict"}, "env.backend": "native"}
        )
        assert run_config(run).env.action_mask == "info"
    finally:
        gymnasium.registry.pop("MaskedVector-v0")


@pytest.mark.parametrize("kind", list(COUNTS))
@pytest.mark.parametrize("network", ["auto", "lstm"])
def test_learning_reads_the_mask_of_its_own_row(kind: str, network: str, tmp_path: Path) -> None:
    """With a vanishing learning rate rho stays 1 in every shuffled minibatch; the entropy is that of the open choices.

    A row with another row's mask would give a taken action probability 0.
    """
    values = SMALL | {
        "env.backend": "inprocess", "optim.lr": 1e-30, "env.kwargs": {"kind": kind}, "network": network,
        "agent.log_std_init": 0.0,
    }  # fmt: skip
    run = prepare(compose(values=values).config, tmp_path, Console(1, "test", plain=True))
    try:
        rollout, _ = run.feed.next()
        mask, last = rollout.obs["action_mask"][:-1].numpy(), rollout.last  # [T, N, choices], [T+1, N]
        assert last[:-1].any()
        assert (rollout.obs["action_mask"][last] == 1).all()
        metrics = {name: float(value) for name, value in run.learner.learn(rollout, 0.0).items()}
    finally:
        run.feed.source.close()
    assert metrics["policy/kl"] < 1e-9 and metrics["policy/clipped"] == 0
    parts = np.split(mask[~last[:-1].numpy()], np.cumsum(COUNTS[kind])[:-1], -1)
    # nearly uniform at the start: log of the number of open choices; the Dict's Box adds two normals
    expected = sum(np.log(part.sum(-1)) for part in parts).mean() + (kind == "Dict") * (
        1 + math.log(2 * math.pi)
    )
    assert metrics["policy/entropy"] == pytest.approx(expected, abs=0.01)


def test_killed_hybrid_run_with_masks_continues_exactly(tmp_path: Path) -> None:
    """Flat action rows are logged, saved and replayed like any other."""
    arguments = [
        "train", "env=tests.helpers.masked:Masked", "env.kwargs={kind:Dict,form:parts,length:7}", "total_steps=1500",
        "env.backend=inprocess", "evaluate.every=500", "evaluate.episodes=3", "log.every=130", "threads=1",
        "env.lanes=4", "agent.steps=16", "agent.minibatch=32", "agent.epochs=2",
    ]  # fmt: skip
    code, output = command(tmp_path, *arguments, "name=a", "checkpoint.every=250", "checkpoint.keep=100")
    assert code == 0, output
    process = launch(tmp_path, *arguments, "name=b", "checkpoint.every=250", "checkpoint.keep=100")
    saved = tmp_path / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = command(tmp_path, "resume", "runs/b")
    assert code == 0, output
    assert "resuming from" in output and "warning" not in output
    assert digest(tmp_path / "runs" / "a") == digest(tmp_path / "runs" / "b")
