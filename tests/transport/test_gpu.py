"""On a GPU: rollouts, advantages, minibatches and updates stay there, without a synchronisation per step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.agents.ppo import Agent, Config, Policy
from rlkit.collect.actor import Actor
from rlkit.config.schema import OptimConfig
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec
from rlkit.nn.config import NetworkConfig
from rlkit.run.console import Console
from rlkit.run.resume import resume
from rlkit.types import tree_leaves

pytestmark = pytest.mark.gpu


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Any wait of the host for the device inside the block is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def make(device: str) -> tuple[Actor, Agent]:
    config = EnvConfig(id="rlkit.envs.toys.batched:Quadratic", lanes=64, backend="batched")
    torch.manual_seed(0)
    env = make_vec(config, 0, device=device)
    ppo = Config(steps=32, epochs=2)
    policy = Policy(env.spec, NetworkConfig(), ppo).to(device)
    agent = Agent(policy, ppo, OptimConfig())
    return Actor(env, policy, 32, seed=0, device=torch.device(device)), agent


def test_the_rollout_stays_on_the_device() -> None:
    actor, _ = make("cuda")
    rollout, _ = actor.collect()
    assert all(x.is_cuda for x in tree_leaves((rollout.obs, rollout.action, rollout.reward, rollout.extra)))


def test_learning_never_waits_for_the_device() -> None:
    actor, agent = make("cuda")
    agent.learn(actor.collect()[0], 0.0)
    rollout, _ = actor.collect()
    with no_synchronisation():
        metrics = agent.learn(rollout, 0.0)
    assert all(bool(torch.isfinite(value)) for value in metrics.values())


def test_the_device_learns_what_the_processor_learns() -> None:
    """The same rollout, noise and minibatches: the same loss to float tolerance."""
    losses = []
    for device in ("cpu", "cuda"):
        actor, agent = make(device)
        rollout, _ = actor.collect()
        batch = {"loss": agent.learn(rollout, 0.0)["loss/value"]}
        losses.append(float(batch["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_trains_and_resumes(tmp_path: Path, precision: str) -> None:
    options = {"checkpoint.every": 5_000, "checkpoint.keep": 100}
    folder = rlkit.train(
        "ppo", "cartpole", total_steps=20_000, device="cuda", precision=precision, dir=str(tmp_path),
        console=Console(1, "test", plain=True), **options,
    )  # fmt: skip
    saved = checkpoint.steps(folder / "checkpoints")
    assert len(saved) == 4
    for _, path in saved[:2]:  # as if the run had been killed half-way
        shutil.rmtree(path)
    resume(folder, Console(1, "test", plain=True))
    assert checkpoint.steps(folder / "checkpoints")[0][0] >= 20_000
    agent = rlkit.load(folder)
    action, _ = agent(torch.zeros(4).numpy())
    assert action in (0, 1)
