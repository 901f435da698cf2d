"""source.inference=shared: a worker acts for environments that other actors step, with the numbers of one process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from ledger import account, names
from rayruns import DQN, PPO, make, same, train

from rlkit import checkpoint
from rlkit.config import compose
from rlkit.envs.make import make_vec, probe
from rlkit.options import ConfigError
from rlkit.sources import check_lanes, fleet
from rlkit.sources.fleet import WorkersLost
from rlkit.sources.remote_env import RemoteVecEnv
from rlkit.types import EnvStep, tree_leaves

SHARED = ["source=ray", "source.inference=shared", "source.env_actors=2", "source.group=4"]
QUADRATIC = [
    "agent=ppo", "env=rlkit.envs.toys.batched:Quadratic", "agent.steps=16", "agent.minibatch=64", "agent.epochs=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all of these tests, which runs use as it is."""
    with fleet.local_only():
        import ray

        ray.init(
            address="local",
            num_cpus=6,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
            _node_ip_address="127.0.0.1",
        )
    yield ray
    ray.shutdown()


def gone(pid: int) -> bool:
    """Ended; a zombie waits for a parent that may never ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("agent", "workers"), [(PPO, 1), (PPO, 2), (DQN, 2), (QUADRATIC, 2)], ids=["ppo-1", "ppo-2", "dqn-lstm", "batched"]
)
def test_local_and_shared_end_with_the_same_weights(
    tmp_path: Path, ray: Any, agent: list[str], workers: int
) -> None:
    extra = ["env.backend=auto"] if agent is QUADRATIC else []
    begin = make(tmp_path / "begin", *agent, *extra)
    untrained = {name: value.clone() for name, value in begin.policy.state_dict().items()}
    begin.feed.close()
    local = train(make(tmp_path / "local", *agent, *extra, "source=sync", "source.group=4"), 20)
    assert not same(local, untrained)
    shared = make(tmp_path / "shared", *agent, *extra, *SHARED, f"source.workers={workers}")
    assert same(train(shared, 20), local)
