"""Killed workers, lost nodes, environments that raise and hang: training goes on, every row is accounted for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rlkit.sources.ray.fleet import WorkersLost
from tests.helpers.ledger import account, names
from tests.helpers.rayruns import add_node, cluster, forked_workers, make


def options(folder: Path, faulty: str = "[0, 0]", seconds: float = 0.001) -> list[str]:
    folder.mkdir(parents=True)
    return [
        "agent=ppo", "agent.steps=16", "env=tests.helpers.ledger:Ledger", "source=ray", "source.mode=async",
        f"env.kwargs={{folder: {folder}, faulty: {faulty}, seconds: {seconds}}}",
    ]  # fmt: skip


def test_a_cluster_that_loses_actors_and_a_node_loses_what_it_reports(tmp_path: Path) -> None:
    """Two nodes of two workers: three workers are killed by SIGKILL, then a node goes and another comes.

    Environments take their time, so that those which go on leave the cores to those which start.
    """
    with cluster(nodes=2, cpus=2) as found:
        slow = options(tmp_path / "log", seconds=0.01)
        run = make(tmp_path, *slow, "source.workers=4", f"ray.address={found.address}")
        source, received = run.feed.source, []

        def update(until: Callable[[], bool], least: int = 3) -> None:
            count = 0
            while not until() or count < least:
                received.extend(names(source.get()[0]))
                source.publish(source.version + 1)
                count += 1

        try:
            update(lambda: True)
            for index in (1, 2, 3):
                os.kill(source.fleet.members[index].pid, signal.SIGKILL)
                update(lambda: source.fleet.up < 4)
            # it goes on with those that are up until the others are back
            update(lambda: source.fleet.up == 4)
            deaths = source.fleet.deaths
            found.remove_node(next(iter(found.worker_nodes)), allow_graceful=False)
            add_node(found, 2)
            update(lambda: source.fleet.deaths > deaths)
            update(lambda: source.fleet.up == 4)
            update(lambda: True, 10)
            rows = source.fleet.rows
        finally:
            run.feed.close()
    assert deaths == 3 and source.fleet.deaths in (4, 5) and source.fleet.failures == 0
    assert rows["lost"] >= 4 * 16 * 2
    assert max(source.lags()) == 1
    account(received, source, tmp_path / "log")


def test_an_environment_that_raises_or_hangs_is_reported_and_replaced(tmp_path: Path) -> None:
    """About one episode in 40 raises and one in 120 hangs, until the budget is used up."""
    extra = ["source.workers=2", "source.max_failures=3", "env.deadline=0.5"]
    run = make(tmp_path, *options(tmp_path / "log", "[40, 120]"), *extra)
    source, received = run.feed.source, []

    def learn() -> None:
        for update in range(1, 2000):
            received.extend(names(source.get()[0]))
            source.publish(update)

    try:
        with (
            forked_workers(),
            pytest.raises(
                WorkersLost, match=r"worker \d .* failed, as reported above; source.max_failures=3"
            ),
        ):
            learn()
    finally:
        run.feed.close()
    said = "\n".join(run.console.said)  # type: ignore[attr-defined]
    assert said.count("is replaced (") == 3 and "is replaced (3 of 3, source.max_failures)" in said
    assert "RuntimeError('seed" in said and "is not liked" in said and "helpers/ledger.py:" in said
    assert source.fleet.failures == 4 and source.fleet.deaths == 0
    account(received, source, tmp_path / "log")
