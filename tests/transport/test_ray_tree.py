"""source.aggregate and source.min_workers: chunks that are joined on their nodes, nodes that come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlkit.options import ConfigError
from rlkit.sources.ray import fleet, worker
from rlkit.sources.ray.aggregate import Aggregator, Chunk, join_chunks
from rlkit.sources.ray.lanes import TIME_MAJOR, join_lanes
from rlkit.sources.ray.wire import pack_rollout
from rlkit.types import Rollout, tree_map
from tests.helpers.fakeray import FakeRay
from tests.helpers.ledger import account, names
from tests.helpers.rayruns import DQN, PPO, add_node, cluster, make, same, train

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
    env = [f"env.kwargs={{folder: {folder / 'log'}}}", "env=tests.helpers.ledger:Ledger"]
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
    fake.aggregators_start = False
    slow = make(tmp_path / "slow", *agent, *RAY, "source.aggregate=3")
    assert (
        same(train(slow, 6), local) and len(slow.feed.source.fleet.tree.starting) == 2
    )  # nobody waits for them
    off = make(tmp_path / "off", *agent, *RAY, "source.aggregate=4")  # not more workers than that
    off.feed.next()
    assert off.feed.source.fleet.tree is None


@pytest.mark.parametrize("max_lag", [1, 3])
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_the_account_and_the_bound_hold_while_workers_and_aggregators_die(
    tmp_path: Path, fake: FakeRay, agent: str, max_lag: int
) -> None:
    """async, in orders of arrival drawn from a seed: bundles of whole nodes, and of what has finished."""
    options = ledger(tmp_path, "source.mode=async", f"source.max_lag={max_lag}", "source.aggregate=1")
    if agent == "dqn":
        options[0:2] = ["agent=dqn", "agent.steps=5", "source.rollouts=2", "agent.replay.capacity=1000"]
    source = make(tmp_path / "run", *options).feed.source
    received = []
    for update in range(1, 45):
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


@pytest.mark.parametrize(("max_lag", "aggregate"), [(1, 0), (3, 1)])
def test_a_run_begins_with_the_workers_that_are_up_and_grows(
    tmp_path: Path, fake: FakeRay, monkeypatch: pytest.MonkeyPatch, max_lag: int, aggregate: int
) -> None:
    """Two of four start, and the others after 20 updates: batches of 4 lanes, then of 8; the lag stays bounded."""
    extra = [f"source.max_lag={max_lag}", f"source.aggregate={aggregate}", "source.min_workers=2"]
    run = make(tmp_path / "run", *ledger(tmp_path, "source.mode=async", *extra))
    source, received, sizes = run.feed.source, [], []

    def wait(refs: list[Any], num_returns: int, timeout: float | None, **options: Any) -> Any:
        waiting = {member.starting for member in source.fleet.members[2:]} if len(sizes) < 20 else set()
        return FakeRay.wait(fake, [ref for ref in refs if ref not in waiting], num_returns, timeout)

    monkeypatch.setattr(fake, "wait", wait)
    for update in range(1, 60):
        rollout, _ = source.get()
        received += names(rollout)
        sizes.append(rollout.size[1])
        assert update - 1 - rollout.version <= max_lag
        source.publish(update)
        if update == 20:  # nobody has been asked for anything
            assert not any(member.chunks for member in source.fleet.members[2:])
    assert set(sizes[:20]) == {4} and sizes[-1] == 8 and source.report()["source/workers"] == 4
    assert [text for text in run.console.said if "begins" in text] == [  # type: ignore[attr-defined]
        "the run begins with 2 of 4 workers; others join as they start"
    ]
    account(received, source, tmp_path / "log")


def test_who_is_waited_for_is_told_every_30_seconds(
    tmp_path: Path, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing happens for five minutes, however often the wait is interrupted."""
    run = make(tmp_path / "run", *ledger(tmp_path, "source.mode=async", "source.min_workers=2"))
    clock = [0.0]
    monkeypatch.setattr(fleet, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(fake, "available_resources", lambda: {"CPU": 1.0}, raising=False)

    def wait(refs: list[Any], num_returns: int, timeout: float | None) -> Any:
        clock[0] += 10.0
        return [], refs

    run.feed.source._start()
    monkeypatch.setattr(fake, "wait", wait)
    for _ in range(30):
        run.feed.source.fleet.wait()
    told = [text for text in run.console.said if "waiting for workers [0, 1, 2, 3] to start" in text]  # type: ignore[attr-defined]
    assert 7 <= len(told) <= 10 and told[0].endswith("free are {'CPU': 1.0, 'GPU': 0.0}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*PPO, "source.mode=async", "source.min_workers=5"], "only source.workers=4; .* type source.workers=5$"),
        (
            [*PPO, "source.mode=async", "source.min_workers=2", "learner.workers=2"],
            "learner.workers=2 share batches of one size, and these grow; type learner.workers=1, or",
        ),
        ([*PPO, "source.min_workers=2"], "source.mode=sync every batch .*; type source.mode=async"),
        ([*DQN, "source.mode=async", "source.min_workers=2"], "agent=dqn needs .* type source.min_workers=0$"),
    ],
)  # fmt: skip
def test_min_workers_is_refused_where_all_are_needed(
    tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, *RAY, *options)


def test_nodes_come_and_go_while_workers_and_aggregators_are_killed(tmp_path: Path) -> None:
    """A run begins on one node, another joins; a worker and an aggregator are killed; the node goes.

    Environments take their time, so that those which go on leave the cores to those which start.
    """
    options = ledger(
        tmp_path, "source.mode=async", "source.aggregate=1", "source.min_workers=2", "source.max_lag=2"
    )
    options[1] = "agent.steps=16"
    options[2] = f"env.kwargs={{folder: {tmp_path / 'log'}, seconds: 0.01}}"
    with cluster(nodes=1, cpus=2) as found:
        import ray

        run = make(tmp_path / "run", *options, f"ray.address={found.address}")
        source, received = run.feed.source, []

        def update(until: Callable[[], bool], least: int = 5) -> int:
            """Lanes of the last batch."""
            count = 0
            while count < least or not until():
                rollout, _ = source.get()
                received.extend(names(rollout))
                source.publish(source.version + 1)
                count += 1
            return rollout.size[1]

        try:
            assert update(lambda: True) == 4 and source.fleet.up == 2
            node = add_node(found, 2)
            update(lambda: source.fleet.up == 4)
            workers, tree = source.fleet.members, source.fleet.tree
            update(lambda: len(tree.aggregators) == 2 and not tree.starting)
            assert update(lambda: True) == 8
            aggregator = tree.aggregators[node.node_id]
            os.kill(ray.get(aggregator.start.remote()), signal.SIGKILL)
            os.kill(workers[1].pid, signal.SIGKILL)
            update(lambda: source.fleet.deaths == 2)
            update(lambda: source.fleet.up == 4 and not tree.starting)
            lost = source.fleet.rows["lost"]
            assert lost <= 2 * 16 * 2  # of the worker, nothing of the aggregator
            assert tree.aggregators[node.node_id] is not aggregator
            assert update(lambda: True) == 8
            found.remove_node(node, allow_graceful=False)
            update(lambda: source.fleet.up == 2)
            assert update(lambda: True) == 4 and source.report()["source/workers"] == 2
        finally:
            run.feed.close()
    assert source.fleet.rows["lost"] > lost and source.fleet.failures == 0
    assert max(source.lags()) <= 2
    account(received, source, tmp_path / "log")
