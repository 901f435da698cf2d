"""source=ray, source.mode=sync: the numbers of one process, to the last bit, however lanes are dealt out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.rayruns import DQN, PPO, make, same, train


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One Ray for all of these tests, which runs use as it is."""
    import ray

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
