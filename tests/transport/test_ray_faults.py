"""Killed workers, lost nodes: training goes on, every row is accounted for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.helpers.ledger import account, names
from tests.helpers.rayruns import add_node, cluster, make


def test_a_cluster_that_loses_actors_and_a_node_loses_what_it_reports(tmp_path: Path) -> None:
    """Two nodes of two workers: three workers are killed by SIGKILL, then a node goes and another comes.

    Environments take their time, so that those which go on leave the cores to those which start.
    """
    log = tmp_path / "log"
    log.mkdir()
    options = [
        "agent=ppo", "agent.steps=16", "source=ray", "source.mode=async", "source.workers=4",
        "env=tests.helpers.ledger:Ledger", f"env.kwargs={{folder: {log}, faulty: [0, 0], seconds: 0.01}}",
    ]  # fmt: skip
    with cluster(nodes=2, cpus=2) as found:
        run = make(tmp_path, *options, f"ray.address={found.address}")
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
                update(lambda killed=index: source.fleet.deaths == killed)
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
    account(received, source, log)
