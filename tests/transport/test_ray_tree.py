"""source.aggregate and source.min_workers: chunks that are joined on their nodes, nodes that come and go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fakeray import FakeRay
from ledger import account, names
from rayruns import DQN, PPO, make, same, train

from rlkit.sources import fleet, worker
from rlkit.sources.lanes import TIME_MAJOR, join_lanes
from rlkit.sources.tree import Aggregator, Chunk, join_chunks
from rlkit.sources.worker import pack_rollout
from rlkit.types import Rollout, tree_map

RAY = ["source=ray", "source.group=2", "source.workers=4"]
NODES = [f"{number:056x}" for number in (1, 2)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """A Ray whose workers say that they run on two nodes by turns."""
    fake, count = FakeRay(), iter(range(10**9))
    monkeypatch.setattr(fleet, "connect", lambda config: (fake, False))
    monkeypatch.setattr(worker, "node_id", lambda: NODES[next(count) % 2])
    return fake


def ledger(folder: Path, *options: str) -> list[str]:
    (folder / "log").mkdir(parents=True)
    env = [f"env.kwargs={{folder: {folder / 'log'}}}", "env=tests.transport.ledger:Ledger"]
    return ["agent=ppo", "agent.steps=5", *env, *RAY, *options]


def some_rollout(lanes: int, version: int) -> Rollout:
    """Random numbers in every field: pixels, a mask, memory."""
    return Rollout(
        obs={"pixels": torch.randint(256, (4, lanes, 2, 3), dtype=torch.uint8), "x": torch.randn(4, lanes)},
        first=torch.rand(4, lanes) < 0.5, last=torch.rand(4, lanes) < 0.5,
        action=torch.randn(3, lanes, 2), reward=torch.randn(3, lanes), terminated=torch.rand(3, lanes) < 0.5,
        state=((torch.randn(lanes, 5),), ()), extra={"log_prob": torch.randn(3, lanes)}, version=version,
    )  # fmt: skip


@pytest.mark.parametrize("taken", [[0, 1, 2, 3], [2, 3, 1], [3], [1, 0, 2]])
def test_joined_chunks_are_those_of_the_workers_in_any_order(fake: FakeRay, taken: list[int]) -> None:
    """Chunks 0 and 2 by themselves, 1 and 3 from a bundle: side by side as if they had all come directly."""
    rollouts = [some_rollout(2, version) for version in (7, 4, 6, 5)]
    handle: Any = fake.remote(type("Worker", (), {"collect": lambda self, i: {"rollouts": [packed[i]]}}))
    packed = [pack_rollout(each, copy=False) for each in rollouts]
    worker = handle.options().remote()
    aggregator = Aggregator()
    aggregator.ray = fake
    answer = aggregator.join([worker.collect.remote(1), worker.collect.remote(3)])
    bundled = {"rollouts": answer["rollouts"]}
    chunks = [
        Chunk(0, 7, 6, None, {"rollouts": [packed[0]]}), Chunk(1, 4, 6, None, dict(bundled), column=0),
        Chunk(2, 6, 6, None, {"rollouts": [packed[2]]}), Chunk(3, 5, 6, None, dict(bundled), column=1),
    ]  # fmt: skip
    found = join_chunks([chunks[i] for i in taken], 0, 2, torch.device("cpu"))
    wanted = join_lanes([rollouts[i] for i in taken], torch.device("cpu"))
    assert found.version == wanted.version == min(rollouts[i].version for i in taken)
    for name in (*TIME_MAJOR, "state"):
        tree_map(
            lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
            getattr(found, name),
            getattr(wanted, name),
        )


@pytest.mark.parametrize("agent", [PPO, DQN], ids=["ppo", "dqn-lstm"])
def test_aggregators_change_no_bit(tmp_path: Path, fake: FakeRay, agent: list[str]) -> None:
    """Also when one of them dies: its chunks come directly, and another is started for the batch after that."""
    local = train(make(tmp_path / "local", *agent, "source.group=2"), 6)
    run = make(tmp_path / "tree", *agent, *RAY, "source.aggregate=3")

    def kill(clock: Any, report: dict[str, Any]) -> None:
        tree = run.feed.source.fleet.tree
        assert sorted(tree.aggregators) == (NODES if clock.update != 4 else NODES[:1])
        if clock.update == 3:
            tree.aggregators[NODES[1]].dead = True

    assert same(train(run, 6, kill), local)
    assert run.feed.source.fleet.deaths == 1 and run.feed.source.fleet.rows["lost"] == 0
    assert any("2 chunks are taken directly, nothing is lost" in text for text in run.console.said)  # type: ignore[attr-defined]
    off = make(tmp_path / "off", *agent, *RAY, "source.aggregate=4")  # not more workers than that
    off.feed.next()
    assert off.feed.source.fleet.tree is None


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("max_lag", [1, 2, 3])
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_the_account_and_the_bound_hold_while_workers_and_aggregators_die(
    tmp_path: Path, fake: FakeRay, agent: str, max_lag: int, seed: int
) -> None:
    """async, in orders of arrival drawn from a seed: bundles of whole nodes, and of what has finished."""
    fake.random.seed(seed)
    options = ledger(tmp_path, "source.mode=async", f"source.max_lag={max_lag}", "source.aggregate=1")
    if agent == "dqn":
        options[0:2] = ["agent=dqn", "agent.steps=5", "source.rollouts=2", "agent.replay.capacity=1000"]
    source = make(tmp_path / "run", *options).feed.source
    received = []
    for update in range(1, 80):
        rollout, _ = source.get()
        received += names(rollout)
        if agent == "ppo":
            assert update - 1 - rollout.version <= max_lag
        source.publish(update)
        if update % 7 == 0:
            source.fleet.members[update % 4].handle.dead = True
        if update % 9 == 0 and (aggregators := source.fleet.tree.aggregators):
            next(iter(aggregators.values())).dead = True
    assert source.fleet.rows["lost"] > 0 and source.fleet.failures == 0
    account(received, source, tmp_path / "log")
