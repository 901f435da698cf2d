"""source.inference=shared: a worker acts for environments that other actors step, with the numbers of one process.

First without Ray (fakeray), then with it: processes that are killed, environments that raise and hang.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit import checkpoint
from rlkit.config.compose import compose
from rlkit.options import ConfigError
from rlkit.sources.check import check_lanes
from rlkit.sources.ray import fleet
from rlkit.sources.ray.fleet import WorkersLost
from tests.helpers.fakeray import FakeRay
from tests.helpers.ledger import account, names
from tests.helpers.processes import gone
from tests.helpers.rayruns import DQN, PPO, forked_workers, make, same, train

LOCAL = ["source=sync", "source.group=2"]
SHARED = ["source=ray", "source.inference=shared", "source.group=2"]
QUADRATIC = [
    "agent=ppo", "env=rlkit.envs.toys.batched:Quadratic", "env.backend=auto", "agent.steps=16", "agent.minibatch=64",
    "agent.epochs=2",
]  # fmt: skip
HYBRID = [
    "agent=ppo", "env=tests.helpers.masked:Masked", "env.kwargs={kind: Dict, form: entry}", "agent.steps=8",
    "agent.minibatch=32", "agent.epochs=1", "network=gru", "network.core_size=8", "agent.sequence=4",
]  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """In the fleet's place of Ray and in the workers'."""
    found = FakeRay()
    monkeypatch.setattr(fleet, "connect", lambda config: (found, False))
    monkeypatch.setitem(sys.modules, "ray", found)  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all of these tests, which runs use as it is; as many cores as three workers with two actors want."""
    options = compose(["source=ray", "ray.memory=100", "source.workers=3", "source.inference=shared"]).config
    with forked_workers():
        found, connected = fleet.connect(options)
        assert connected
        yield found
        found.shutdown()


Whole = Callable[[tuple[str, ...], int], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The weights of an agent after so many updates in one process; each is trained once."""
    return functools.cache(
        lambda agent, updates: train(make(tmp_path_factory.mktemp("whole"), *agent, *LOCAL), updates)
    )


def ledger(folder: Path, *options: str, faulty: str = "[0, 0]", seconds: float = 0.0) -> list[str]:
    (folder / "log").mkdir(parents=True)
    env = f"env.kwargs={{folder: {folder / 'log'}, faulty: {faulty}, seconds: {seconds}}}"
    return ["agent=ppo", "agent.steps=8", "env=tests.helpers.ledger:Ledger", env, *SHARED, *options]


def halves(folder: Path, first: list[str], second: list[str], updates: int) -> dict[str, torch.Tensor]:
    """Weights after half the updates of one run, a checkpoint (written and read), and the other half in another."""
    run = make(folder / "first", *first)
    saved: dict[str, Any] = {}

    def save(clock: Any, report: dict[str, Any]) -> None:
        if clock.update == updates // 2:
            saved.update(run.state_dict())
            saved.update(run.feed.parts(saved["state"]["feed"]))
            checkpoint.write(folder / "saved", saved, clock.step)

    train(run, updates // 2, save)
    rest = make(folder / "second", *second)
    rest.load_state_dict(checkpoint.read(folder / "saved", *saved))
    return train(rest, updates)


def collect(run: Any, updates: int) -> list[Any]:
    """The transitions of that many rollouts."""
    received = []
    for update in range(1, updates + 1):
        received += names(run.feed.source.get()[0])
        run.feed.source.publish(update)
    return received


@pytest.mark.parametrize(
    "agent", [PPO, DQN, HYBRID, QUADRATIC], ids=["ppo", "dqn-lstm", "masks-hybrid-gru", "batched"]
)
@pytest.mark.parametrize("way", ["local to shared", "shared to local"])
def test_a_run_in_halves_ends_with_the_weights_of_one_process(
    tmp_path: Path, fake: FakeRay, whole: Whole, agent: list[str], way: str
) -> None:
    """Environments that are replayed from their actions, and those that are saved (batched)."""
    ways = {
        "local to shared": (LOCAL, [*SHARED, "source.workers=2", "source.env_actors=2"]),
        "shared to local": ([*SHARED, "source.workers=1", "source.env_actors=4"], LOCAL),
    }
    before, after = ways[way]
    found = halves(tmp_path, [*agent, *before], [*agent, *after], 8)
    assert same(found, whole((*agent,), 8))


def test_ray_reserves_for_a_worker_and_its_environment_actors(tmp_path: Path, fake: FakeRay) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def remote(kind: type) -> Any:
        found = FakeRay.remote(fake, kind)
        options = found.options
        found.options = lambda **given: (asked.append((kind.__name__, given)), options(**given))[1]
        return found

    fake.remote = remote  # type: ignore[method-assign]
    shared = [
        "source.env_actors=4",
        "source.cpus_per_env_actor=0.5",
        "source.gpus_per_worker=0",
        "source.workers=2",
    ]
    run = make(tmp_path, *PPO, *SHARED, *shared, "source.group=0")
    train(run, 1)
    assert [name for name, _ in asked] == ["Worker", "Worker", "EnvActor", "EnvActor"]
    assert [(given["num_cpus"], given["num_gpus"]) for _, given in asked[1:3]] == [(1.0, 0.0), (0.5, 0)]
    fake.available_resources = lambda: {"CPU": 1.0}  # type: ignore[attr-defined]
    run.feed.source.fleet.members[1].starting = object()
    run.feed.source.fleet._tell_who_is_missing()
    assert "workers [1] to start: each needs 1 cores, 0 GPUs" in run.console.said[-1]  # type: ignore[attr-defined]
    assert "beside it 4 environment actors of 0.5 cores each; free" in run.console.said[-1]  # type: ignore[attr-defined]
    many = compose(
        [*SHARED, "source.workers=500", "source.env_actors=3", "source.cpus_per_env_actor=0.5"]
    ).config
    assert fleet._arguments(many)["num_cpus"] == 1250  # 500 (1 + 3 / 2)
    local = compose(["source=ray", "source.workers=500"]).config
    assert fleet._arguments(local)["num_cpus"] == 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [*SHARED, "source.group=0", "source.workers=1", "source.env_actors=3"],
            "env.lanes=8: source.env_actors=3 of a worker each step as many, so .* multiple of 3; type env.lanes=9$",
        ),
        (
            [*SHARED, "source.workers=3", "source.env_actors=4"],
            "env.lanes=8: source.workers=3 each take as many lanes in groups of source.group=2 and source.env_actors=4 "
            "of a worker each step as many, so it must be a multiple of 12; type env.lanes=12$",
        ),
        (
            ["source=thread", "source.inference=shared"],
            "source.inference=shared: .* given source=thread; .* type source=ray or source.inference=local$",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_lanes(compose(["env.lanes=8", *options]).config)


def test_one_process_one_worker_and_two_end_with_the_same_weights(tmp_path: Path, ray: Any) -> None:
    """Two environment actors each; the second run goes on with one worker where two were."""
    local = train(make(tmp_path / "ppo", *PPO, *LOCAL), 20)
    one = [*SHARED, "source.workers=1", "source.env_actors=2"]
    two = [*SHARED, "source.workers=2", "source.env_actors=2"]
    assert same(train(make(tmp_path / "one", *PPO, *one), 20), local)
    local = train(make(tmp_path / "dqn", *DQN, *LOCAL), 20)
    assert same(halves(tmp_path, [*DQN, *two], [*DQN, *one], 20), local)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_killed_environment_actors_and_workers_lose_what_they_report(tmp_path: Path, ray: Any) -> None:
    """SIGKILL for an environment actor, then for a worker, whose environment actors end with it."""
    run = make(tmp_path, *ledger(tmp_path, "source.workers=2", "source.mode=async", seconds=0.005))
    source, log = run.feed.source, tmp_path / "log"
    received: list[Any] = []

    def update(until: Callable[[], bool]) -> None:
        for _ in range(100_000):
            received.extend(names(source.get()[0]))
            source.publish(source.version + 1)
            if until():
                return
        raise AssertionError("waited in vain")

    def environments() -> set[int]:
        """The processes that step environments."""
        return {int(file.name) for file in log.iterdir()} - {os.getpid()}  # which looked at its spaces

    try:
        update(lambda: True)
        first = environments()
        assert len(first) == 4 and not first & {member.pid for member in source.fleet.members}
        os.kill(min(first), signal.SIGKILL)
        update(lambda: source.fleet.deaths == 1)
        update(lambda: source.fleet.up == 2)
        assert len(environments()) == 6  # its worker is replaced, and both of that one's actors
        wait_for(lambda: sum(map(gone, first)) == 2)
        os.kill(source.fleet.members[1].pid, signal.SIGKILL)
        update(lambda: source.fleet.deaths == 2)
        update(lambda: source.fleet.up == 2)
        wait_for(lambda: sum(map(gone, environments())) == 4)
        update(lambda: True)
        rows = source.fleet.rows
    finally:
        run.feed.close()
    wait_for(lambda: all(map(gone, environments())))
    assert rows["lost"] >= 2 * 8 * 4 and source.fleet.failures == 0
    said = "\n".join(run.console.said)  # type: ignore[attr-defined]
    assert "rows are lost: environment actor " in said and f"process {min(first)}): " in said
    account(received, source, log)


@pytest.mark.parametrize(("faulty", "told"), [("[20, 0]", "is not liked"), ("[0, 20]", "no answer in 0.5 s")])
def test_an_environment_that_raises_or_hangs_is_told(
    tmp_path: Path, ray: Any, faulty: str, told: str
) -> None:
    """About one episode in 20 does, and no replacement is allowed."""
    extra = ["source.workers=1", "source.max_failures=0", "env.deadline=0.5"]
    run = make(tmp_path, *ledger(tmp_path, *extra, faulty=faulty))
    try:
        with pytest.raises(
            WorkersLost, match=r"worker 0 .* failed, as reported above; source.max_failures=0"
        ):
            collect(run, 2000)
    finally:
        run.feed.close()
    (said,) = [text for text in run.console.said if "rows are lost" in text]  # type: ignore[attr-defined]
    assert "worker 0 (lanes 0 to 7) failed, and 64 rows are lost: environment actor" in said
    assert told in said and re.search(r"tests/helpers/ledger\.py:\d+\)$", said)
    assert (run.feed.source.fleet.deaths, run.feed.source.fleet.failures) == (0, 1)


def test_a_worker_whose_environment_raises_or_hangs_is_replaced(tmp_path: Path, ray: Any) -> None:
    """In workers that step their environments: about one episode in 40 raises and one in 120 hangs.

    So it goes until the budget is used up.
    """
    extra = [
        "source.inference=local", "source.mode=async", "agent.steps=16", "source.workers=2", "source.max_failures=3",
        "env.deadline=0.5",
    ]  # fmt: skip
    run = make(tmp_path, *ledger(tmp_path, *extra, faulty="[40, 120]", seconds=0.001))
    source, received = run.feed.source, []

    def learn() -> None:
        for update in range(1, 2000):
            received.extend(names(source.get()[0]))
            source.publish(update)

    try:
        with pytest.raises(
            WorkersLost, match=r"worker \d .* failed, as reported above; source.max_failures=3"
        ):
            learn()
    finally:
        run.feed.close()
    said = "\n".join(run.console.said)  # type: ignore[attr-defined]
    assert said.count("is replaced (") == 3 and "is replaced (3 of 3, source.max_failures)" in said
    assert "RuntimeError('seed" in said and "is not liked" in said and "helpers/ledger.py:" in said
    assert source.fleet.failures == 4 and source.fleet.deaths == 0
    account(received, source, tmp_path / "log")
