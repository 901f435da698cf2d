"""source=ray, source.mode=sync: the numbers of one process, to the last bit, however lanes are dealt out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.run.start import train as task
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
