"""Kill workers and nodes of a Ray run, have environments raise and hang, and check that every row is accounted for.

    python scripts/faults_distributed.py [--kills 20] [--nodes 3] [--seed 0] [--seconds 0.02]

A cluster of two nodes is simulated on this machine (ray.cluster_utils.Cluster); PPO trains in `source.mode=async` on an
environment whose transitions have names and are written to files as they happen (tests/helpers/ledger.py), so what
the learner got is compared with what was done. About one episode in 50 raises and one in 500 hangs (1,000 steps are
some 50 episodes); a step takes `--seconds`, so that workers are up longer than they take to start. Printed: seconds
from each kill until those workers collect again, and the account at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.helpers.ledger import account, names  # noqa: E402
from tests.helpers.rayruns import add_node, cluster, make  # noqa: E402


class Trial:
    """A run, what its learner got, and how it goes on."""

    def __init__(self, folder: Path, address: str, seconds: float) -> None:
        self.log = folder / "log"
        self.log.mkdir()
        self.run = make(
            folder, "agent=ppo", "agent.steps=16", "env=tests.helpers.ledger:Ledger", "source=ray",
            f"env.kwargs={{folder: {self.log}, faulty: [50, 500], seconds: {seconds}}}", "env.deadline=2",
            "source.mode=async", "source.workers=4", "source.max_failures=-1", "source.max_restarts=-1",
            f"ray.address={address}",
        )  # fmt: skip
        self.source: Any = self.run.feed.source
        self.received: list[tuple[int, int]] = []
        self.batches = 0

    def update(self) -> None:
        """One batch."""
        batch, _ = self.run.feed.next()
        self.received += names(batch)
        self.run.learner.learn(batch, 0.0)
        self.batches += 1
        self.run.feed.learned(self.batches)

    def strike(self, event: str, found: Any, dice: random.Random) -> float:
        """Kill a worker, or a node with its workers; train until others have taken their place. Returns seconds."""
        fleet = self.source.fleet
        while not fleet.up:
            self.update()
        victims = [dice.choice([member for member in fleet.members if member.up])]
        if event == "node":
            node = next(each for each in found.worker_nodes if each.node_id == victims[0].node)
            victims = [member for member in fleet.members if member.up and member.node == node.node_id]
        before = [(member, member.pid) for member in victims]
        begin = time.monotonic()
        if event == "kill":
            os.kill(victims[0].pid, signal.SIGKILL)
        else:
            found.remove_node(node, allow_graceful=False)
            add_node(found, 2)
        while not all(member.up and member.pid != pid for member, pid in before):
            self.update()
        return time.monotonic() - begin


def main() -> int:
    """Run the trial and print its account."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.02)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    events = ["kill"] * arguments.kills + ["node"] * arguments.nodes
    dice.shuffle(events)
    away: dict[str, list[float]] = {"kill": [], "node": []}
    with tempfile.TemporaryDirectory() as folder, cluster(nodes=2, cpus=2) as found:
        trial = Trial(Path(folder), found.address, arguments.seconds)
        try:
            trial.update()
            for event in events:
                for _ in range(dice.randrange(2, 8)):
                    trial.update()
                away[event].append(trial.strike(event, found, dice))
                print(
                    f"{event}: collecting again after {away[event][-1]:.1f} s; {trial.source.report()}",
                    flush=True,
                )
            rows = trial.source.fleet.rows
            deaths, failures = trial.source.fleet.deaths, trial.source.fleet.failures
        finally:
            trial.run.feed.close()
        account(trial.received, trial.source, trial.log)
    for event, seconds in away.items():
        if seconds:
            print(
                f"{event}: {len(seconds)}, median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s"
            )
    print(
        f"{deaths} deaths, {failures} environments that raised or hung, {trial.batches} batches; rows: {rows}"
    )
    print("asked = arrived + lost + under way; nothing arrived twice; episodes have no holes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
