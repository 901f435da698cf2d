"""source=ray, source.mode=sync: the numbers of one process, to the last bit, however lanes are dealt out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rlkit
from rlkit.metrics import read_metrics
from rlkit.play.saved import load
from rlkit.run.start import train as task
from rlkit.sources.ray.aggregate import Bundle, Tree
from tests.helpers.rayruns import DQN, PPO, forked_workers, make, same, train


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One Ray for all of these tests, which runs use as it is."""
    import ray

    with forked_workers():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
        )
        yield
        ray.shutdown()


@pytest.mark.parametrize("agent", [PPO, DQN], ids=["ppo", "dqn-lstm"])
def test_local_one_actor_and_two_end_with_the_same_weights(tmp_path: Path, agent: list[str]) -> None:
    begin = make(tmp_path / "begin", *agent)
    untrained = {name: value.clone() for name, value in begin.model.state_dict().items()}
    begin.feed.close()
    local = train(make(tmp_path / "local", *agent, "source=sync", "source.group=4"), 20)
    assert not same(local, untrained)
    for workers in (1, 2):
        options = [*agent, "source=ray", f"source.workers={workers}", "source.group=4"]
        assert same(train(make(tmp_path / str(workers), *options), 20), local)


def test_agents_in_two_workers_see_what_those_in_one_process_see(tmp_path: Path) -> None:
    """Through the eyes of a run that is gone when the workers start, with a stack of frames."""
    source = task(
        task="segment", data="tests.helpers.sights:sights", stack=2, epochs=1, name="source", dir=str(tmp_path),
        **{"network.encoder": "mlp", "network.hidden": [12], "log.tensorboard": False, "threads": 1},
    )  # fmt: skip
    eyes = [*PPO, "env=tests.helpers.sights:Sights", "env.stack=2", f"eyes={source}", "source.group=4"]
    runs = [
        make(tmp_path / str(number), *eyes, *more)
        for number, more in enumerate((["source=sync"], ["source=ray", "source.workers=2"]))
    ]
    shutil.rmtree(source)
    assert same(*(train(run, 5) for run in runs))


def test_aggregators_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    bundles: list[int] = []  # chunks of each
    receive = Tree.receive

    def count(tree: Tree, bundle: Bundle) -> Any:
        bundles.append(len(bundle.chunks))
        return receive(tree, bundle)

    def each(clock: Any, report: dict[str, Any]) -> None:
        tree = run.feed.source.fleet.tree
        if clock.update == 10 and tree is not None:
            ray.get(list(tree.starting.values()))  # from here on all chunks are in bundles

    monkeypatch.setattr(Tree, "receive", count)
    weights = []
    for aggregate in (0, 1):
        options = [*PPO, "source.group=2", "source=ray", "source.workers=2", f"source.aggregate={aggregate}"]
        run = make(tmp_path / str(aggregate), *options)
        weights += [train(run, 20, each)]
        assert bundles == [] or aggregate
    assert same(*weights)
    assert len(bundles) >= 10 and set(bundles) == {2} and run.feed.source.fleet.deaths == 0


LIVES: dict[str, Any] = {  # agents "short" and "long" live 3 and 6 steps
    "env": "rlkit.envs.toys.agents:Lives", "preset": "none", "env.lanes": 4, "seed": 1, "network.hidden": [8],
    "log.tensorboard": False, "device": "cpu", "threads": 1, "evaluate.episodes": 4, "source.group": 2,
    "agent.steps": 7, "agent.minibatch": 14, "agent.epochs": 1,
}  # fmt: skip


GAMES: dict[str, dict[str, Any]] = {
    "shared": {},
    # three agents in two groups with other spaces, one of which remembers
    "groups": {
        "env": "tests.helpers.parallel:Chase", "env.lanes": 12, "source.group": 3, "agent.steps": 8,
        "agent.sequence": 4, "agent.minibatch": 16, "groups.prey.network.core": "gru",
    },
    # the evaluations' weights join, and both workers play against them
    "league": {
        "env": "tictactoe", "env.lanes": 8, "source.group": 4, "agent.steps": 8, "agent.minibatch": 32,
        "evaluate.every": 80, "league.newest": 0.3,
    },
}  # fmt: skip


@pytest.mark.parametrize("game", GAMES)
def test_agents_of_a_game_are_counted_as_in_one_process(tmp_path: Path, game: str) -> None:
    both = []
    for name, more in (("local", {}), ("ray", {"source": "ray", "source.workers": 2})):
        options = LIVES | GAMES[game] | more
        run = rlkit.train("ppo", **options, total_steps=300, dir=str(tmp_path), name=name)
        rows = read_metrics(run / "metrics.csv")
        told = {key for row in rows for key in row if key.endswith(("episodes", "return/mean", "elo"))}
        both.append([{key: row.get(key) for key in told} for row in rows])
        weights = load(run, "last").policy.state_dict()
        both[-1] += [torch.cat([x.flatten().double() for x in weights.values()]).tolist()]
    assert both[0] == both[1]
    assert ("prey/return/mean" in told) == (game == "groups") and ("evaluate/elo" in told) == (
        game == "league"
    )
