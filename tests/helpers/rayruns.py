"""Runs for the tests of source=ray: small, in this process, and what they end with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.config.compose import compose
from rlkit.learn.trainer import fit
from rlkit.run.console import Console
from rlkit.run.session import Session
from rlkit.run.start import prepare
from rlkit.sources.ray import fleet
from tests.helpers import forked_rayworker
from tests.helpers.runs import FORK, server

PPO = ["agent=ppo", "env=cartpole", "agent.steps=16", "agent.minibatch=64", "agent.epochs=2"]
DQN = [
    "agent=dqn", "env=cartpole_novel", "network=lstm", "network.core_size=16", "agent.steps=4",
    "agent.replay.warmup=64", "agent.replay.capacity=2000", "agent.replay.batch=64", "agent.replay.sequence=8",
    "agent.replay.burn_in=4",
    "agent.replay.ratio=0.1",
]  # fmt: skip
COMMON = [
    "preset=none", "network.hidden=[16]", "env.lanes=8", "env.backend=inprocess", "threads=1",
    "evaluate.every=100000000", "log.tensorboard=false", "checkpoint.every=100000000", "ray.memory=100",
]  # fmt: skip


class Quiet(Console):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, step: int, row: Any) -> None:
        pass

    def close(self) -> None:
        pass


def make(folder: Path, *options: str, total: int = 10**8) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    config = compose([*COMMON, *options, f"total_steps={total}", "stop.reward=1e9"]).config
    return prepare(config, folder, Quiet())


class After:
    """A hook that ends the run after a number of updates, and calls `each` after every one."""

    def __init__(self, updates: int, each: Any = None) -> None:
        self.updates, self.each = updates, each

    def after_update(self, clock: Any, report: dict[str, Any]) -> None:
        if self.each is not None:
            self.each(clock, report)
        if clock.update >= self.updates:
            clock.stop_reason = "enough"

    def resume(self, clock: Any) -> None:
        pass

    def close(self, clock: Any, error: BaseException | None) -> None:
        pass


def train(run: Session, updates: int, each: Any = None) -> dict[str, torch.Tensor]:
    """Weights after that many updates; the run is closed."""
    try:
        fit(run.learner, run.feed, [After(updates, each)], run.clock)
        return {name: value.clone() for name, value in run.model.state_dict().items()}
    finally:
        run.close()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def forked_workers() -> Iterator[None]:
    """Rays that are started inside have their workers forked, where they have no environment of their own."""
    from ray._private import ray_constants as constants

    if not FORK:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(forked_rayworker.SERVER, str(server("first")))
        # a name below the folder of Ray's own programs
        patch.setattr(constants, "SETUP_WORKER_FILENAME", forked_rayworker.__file__)
        yield


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """A head without cores and `nodes` nodes of `cpus` cores each, all on this machine's loopback."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # as rlkit.sources.ray.fleet starts Ray
    with forked_workers(), fleet.local_only():
        from ray.cluster_utils import Cluster

        args = {"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        found = Cluster(initialize_head=True, head_node_args={**args, "node_ip_address": "127.0.0.1"})
        try:
            for _ in range(nodes):
                add_node(found, cpus)
            yield found
        finally:
            found.shutdown()


def add_node(found: Any, cpus: int) -> Any:
    return found.add_node(num_cpus=cpus, object_store_memory=100 * 2**20, node_ip_address="127.0.0.1")
