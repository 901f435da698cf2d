"""source=ray without Ray (fakeray): modes, lag, order, faults, checkpoints, in any order of answers."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlkit import checkpoint
from rlkit.config.compose import compose
from rlkit.learn.signals import Interrupted
from rlkit.options import ConfigError
from rlkit.sources.check import check_lanes
from rlkit.sources.ray import fleet
from rlkit.sources.ray.fleet import WorkersLost
from rlkit.sources.ray.worker import Worker
from rlkit.types import Rollout, tree_leaves
from tests.helpers.fakeray import FakeRay
from tests.helpers.ledger import account, names
from tests.helpers.rayruns import DQN, PPO, make, same, train

RAY = ["source=ray", "source.group=2"]
REINFORCE = ["agent=reinforce", "env=cartpole", "agent.steps=8", "agent.episodes=4"]
HYBRID = [
    "agent=ppo", "env=tests.helpers.masked:Masked", "env.kwargs={kind: Dict, form: entry}", "agent.steps=8",
    "agent.minibatch=32", "agent.epochs=1", "network=gru", "network.core_size=8", "agent.sequence=4",
]  # fmt: skip


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(fleet, "connect", lambda config: (fake, False))
    return fake


Whole = Callable[[tuple[str, ...], int], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The weights of an agent after so many updates in one process; each is trained once."""
    return functools.cache(
        lambda agent, updates: train(
            make(tmp_path_factory.mktemp("whole"), *agent, "source.group=2"), updates
        )
    )


def ledger(folder: Path, *options: str) -> list[str]:
    (folder / "log").mkdir(parents=True)
    env = [f"env.kwargs={{folder: {folder / 'log'}}}", "env=tests.helpers.ledger:Ledger"]
    return ["agent=ppo", "agent.steps=5", *env, *RAY, *options]


@pytest.mark.parametrize(
    "agent", [PPO, DQN, REINFORCE, HYBRID], ids=["ppo", "dqn-lstm", "reinforce", "masks-hybrid-gru"]
)
def test_any_number_of_workers_ends_with_the_weights_of_one_process(
    tmp_path: Path, ray: FakeRay, agent: list[str]
) -> None:
    local = train(make(tmp_path / "local", *agent, "source.group=2"), 5)
    for workers in (1, 2, 4):
        run = make(tmp_path / str(workers), *agent, *RAY, f"source.workers={workers}")
        assert same(train(run, 5), local)
    assert ray.puts == 3 * 5  # weights once per version


@pytest.mark.parametrize("agent", [PPO, DQN], ids=["ppo", "dqn-lstm"])
@pytest.mark.parametrize("way", ["local to ray", "ray to local", "two workers to four"])
def test_a_run_goes_on_with_other_workers_exactly(
    tmp_path: Path, ray: FakeRay, whole: Whole, agent: list[str], way: str
) -> None:
    """Six updates, a checkpoint (written and read), six more elsewhere: the weights of twelve in one process."""
    sources = {
        "local to ray": (["source.group=2"], [*RAY, "source.workers=2"]),
        "ray to local": ([*RAY, "source.workers=4"], ["source.group=2"]),
        "two workers to four": ([*RAY, "source.workers=2"], [*RAY, "source.workers=4"]),
    }
    before, after = sources[way]
    run = make(tmp_path / "a", *agent, *before)
    saved: dict[str, Any] = {}

    def save(clock: Any, report: dict[str, Any]) -> None:
        if clock.update == 6:
            saved.update(run.state_dict())
            saved.update(run.feed.parts(saved["state"]["feed"]))
            checkpoint.write(tmp_path / "saved", saved, clock.step)

    train(run, 6, save)
    rest = make(tmp_path / "b", *agent, *after)
    rest.load_state_dict(checkpoint.read(tmp_path / "saved", *saved))
    assert same(train(rest, 12), whole((*agent,), 12))


@pytest.mark.parametrize("max_lag", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_async_lag_is_bounded_and_nothing_is_dropped(
    tmp_path: Path, ray: FakeRay, max_lag: int, seed: int
) -> None:
    """Whatever the order of arrival; and the lag is really there."""
    ray.random.seed(seed)
    options = ledger(tmp_path, "source.mode=async", f"source.max_lag={max_lag}", "source.workers=4")
    source = make(tmp_path / "run", *options).feed.source
    received, sizes = [], set()
    for update in range(1, 20):
        rollout, _ = source.get()
        received += names(rollout)
        sizes.add(rollout.size)
        assert update - 1 - rollout.version <= max_lag
        source.publish(update)
    assert sizes == {(5, 8)}
    assert max(source.lags()) == max_lag and source.lags() == []
    rows = source.fleet.rows
    assert rows["lost"] == 0 and rows["asked"] - rows["arrived"] <= max_lag * 40
    account(received, source, tmp_path / "log")


def test_async_fast_workers_do_more_where_the_order_is_free(
    tmp_path: Path, ray: FakeRay, monkeypatch: Any
) -> None:
    """Worker 0 answers only when it must: others give more chunks meanwhile, and it never falls behind the bound."""

    def wait(refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        fast = [ref for ref in refs if ref.handle.object.first_lane != 0]
        return FakeRay.wait(ray, fast or refs, num_returns, timeout)

    monkeypatch.setattr(ray, "wait", wait)
    source = make(
        tmp_path / "run", *ledger(tmp_path, "source.mode=async", "source.max_lag=3", "source.workers=4")
    ).feed.source
    for update in range(1, 60):
        rollout, _ = source.get()
        assert update - 1 - rollout.version <= 3
        source.publish(update)
    steps = source._mark["step"]
    assert steps[0] < steps[2:].min()


def test_async_replay_gets_every_lane_in_order(tmp_path: Path, ray: FakeRay) -> None:
    """Chunks of three rollouts, handed out one by one; each goes on where the one before ended."""
    options = [*DQN, *RAY, "source.mode=async", "source.rollouts=3", "source.max_lag=2", "source.workers=4"]
    run = make(tmp_path / "run", *options)
    last: list[Rollout] = []
    add = run.feed.replay.add

    def follow(rollout: Rollout) -> None:
        assert rollout.size == (4, 8)
        if last:
            assert torch.equal(rollout.obs[0], last[0].obs[-1])  # type: ignore[index]
        last[:] = [rollout]
        add(rollout)

    run.feed.replay.add = follow  # type: ignore[method-assign]
    lags: list[int] = []
    train(run, 40, lambda clock, report: lags.extend(run.feed.lags()))
    assert 3 <= max(lags) <= 3 * 3 - 1


@pytest.mark.parametrize(("seconds", "expected"), [(0.006, 8), (0.2, 1)])
def test_the_size_of_chunks_is_measured(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    """After a first rollout that took so many seconds chunks hold 50 ms of work, one rollout at least."""
    collect = Worker.collect

    def timed(self: Worker, *args: Any) -> dict[str, Any]:
        return collect(self, *args) | {"seconds": seconds}

    monkeypatch.setattr(Worker, "collect", timed)
    source = make(tmp_path / "run", *DQN, *RAY, "source.mode=async").feed.source
    source.get()
    assert source.rollouts == expected
    ppo = make(tmp_path / "ppo", *PPO, *RAY, "source.mode=async").feed.source
    ppo.get()
    assert ppo.rollouts == 1  # learned from once: a chunk is a batch


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_workers_that_die_lose_what_is_reported(tmp_path: Path, ray: FakeRay, mode: str, agent: str) -> None:
    """A death every few updates: each row arrives once or is reported, and episodes have no holes."""
    options = ledger(tmp_path, f"source.mode={mode}", "source.workers=4", "source.max_lag=2")
    if agent == "dqn":
        options[0:2] = ["agent=dqn", "agent.steps=5", "source.rollouts=2", "agent.replay.capacity=1000"]
    run = make(tmp_path / "run", *options)
    source, received = run.feed.source, []
    for update in range(1, 45):
        rollout, _ = source.get()
        received += names(rollout)
        source.publish(update)
        if agent == "dqn":
            run.feed.replay.add(rollout)
        if update % 7 == 0:
            source.fleet.members[update % 4].handle.dead = True
    rows, report = source.fleet.rows, source.report()
    assert report["source/restarts"] == 6 and report["source/lost_rows"] == rows["lost"] > 0
    account(received, source, tmp_path / "log")
    if agent == "dqn":
        check_replay(run.feed.replay)


def check_replay(replay: Any) -> None:
    """What can be drawn are transitions that happened: (seed, t) to (seed, t + 1)."""
    rows = range(replay.oldest, replay.written)
    obs, last = replay.ring.fields["obs/"], replay.ring.fields["last"]
    count = 0
    for row in rows:
        here, there = row % len(obs), (row + 1) % len(obs)
        for lane in np.flatnonzero(~last[here]):
            assert (obs[there, lane] - obs[here, lane]).tolist() == [0, 0, 1]
            count += 1
    assert count == replay.valid


def test_deaths_beyond_the_budget_end_the_run(tmp_path: Path, ray: FakeRay) -> None:
    run = make(tmp_path / "run", *ledger(tmp_path, "source.max_restarts=1"))
    source = run.feed.source
    source.get()
    source.fleet.members[1].handle.dead = True
    source.get()
    source.fleet.members[1].handle.dead = True
    with pytest.raises(WorkersLost, match="worker 1 .lanes 4 to 7. died.*type source.max_restarts=NUMBER"):
        source.get()
    assert any("and 20 rows are lost: the actor died" in text for text in run.console.said)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_episode_that_always_fails_is_left_behind(tmp_path: Path, ray: FakeRay, mode: str) -> None:
    """Every third seed raises, so most chunks are lost: no episode is begun twice, and the run goes on."""
    env = f"env.kwargs={{folder: {tmp_path / 'log'}, faulty: [3, 0]}}"
    options = ledger(tmp_path, f"source.mode={mode}", "source.workers=4", "source.max_failures=1000")
    source = make(tmp_path / "run", *options, env).feed.source
    received = []
    for update in range(1, 20):
        received += names(source.get()[0])
        source.publish(update)
    assert source.fleet.failures > 20
    account(received, source, tmp_path / "log")
    begun = [line for file in (tmp_path / "log").iterdir() for line in file.read_text().splitlines()]
    assert len(begun) == len(set(begun)) > len(received)


def test_while_a_worker_is_away_the_others_go_on(tmp_path: Path, ray: FakeRay, monkeypatch: Any) -> None:
    """PPO learns from the chunks of those that are up, replay and episodes wait."""
    source = make(tmp_path / "run", *ledger(tmp_path, "source.mode=async", "source.workers=4")).feed.source
    assert source.get()[0].size == (5, 8)
    source.publish(1)
    away = source.fleet.members[2]
    away.handle.dead = True

    def wait(refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return FakeRay.wait(ray, [ref for ref in refs if ref is not away.starting], num_returns, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(ray, "wait", wait)
        for update in range(2, 6):
            rollout, _ = source.get()
            source.publish(update)
        assert rollout.size == (5, 6) and source.report()["source/workers"] == 3
    for update in range(6, 12):
        rollout, _ = source.get()
        source.publish(update)
    assert rollout.size == (5, 8) and source.report()["source/workers"] == 4


def test_a_worker_that_was_stopped_is_killed_and_replaced(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither answers nor dies, so that Ray has nothing to tell."""
    options = ledger(tmp_path, "source.mode=async", "source.workers=4", "env.deadline=3")
    run = make(tmp_path / "run", *options)
    source = run.feed.source
    source.get()
    source.publish(1)
    found = source.fleet
    victim = subprocess.Popen(["sleep", "60"])
    found.members[2].pid = victim.pid
    still = {victim.pid: 2.9}
    monkeypatch.setattr(found, "_still", SimpleNamespace(seconds=lambda pid: still.get(pid, 0.0)))
    source.get()
    source.publish(2)
    assert found.deaths == 0 and victim.poll() is None
    still[victim.pid] = 3.1
    for update in range(3, 6):
        source.get()
        source.publish(update)
    assert victim.wait(10) == -signal.SIGKILL and found.deaths == 1
    words = f"no answer in 3 s (env.deadline): its process {victim.pid} was stopped"
    assert any(words in text for text in run.console.said)  # type: ignore[attr-defined]
    assert found.members[2].pid == os.getpid() and source.report()["source/workers"] == 4


def test_a_signal_that_ray_reports_as_an_error_of_its_own_stays_what_it_is(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "run", *ledger(tmp_path, "source.workers=4")).feed.source

    def wait(*given: Any, **options: Any) -> None:
        raise SystemError("returned a result with an exception set") from Interrupted(signal.SIGTERM)

    monkeypatch.setattr(ray, "wait", wait)
    with pytest.raises(Interrupted):
        source.get()


def test_an_async_run_resumes_with_new_episodes(tmp_path: Path, ray: FakeRay) -> None:
    """After what was learned from: nothing of it comes twice, and the run says that it is not exact."""
    options = ledger(tmp_path, "source.mode=async", "source.workers=4")
    source = make(tmp_path / "a", *options).feed.source
    received = []
    for update in range(1, 10):
        received += names(source.get()[0])
        source.publish(update)
    state = source.state_dict()
    again = make(tmp_path / "b", *options, "source.workers=2").feed.source
    assert "not exactly" in again.load_state_dict(state)
    assert again.state_dict() == again.state_dict() and again.state_dict()["version"] == 9
    more = []
    for update in range(10, 20):
        rollout, _ = again.get()
        if update == 10:
            assert rollout.first[0].all()
        more += names(rollout)
        again.publish(update)
    assert max(Counter(received + more).values()) == 1


def test_rollouts_of_one_worker_are_not_copied(tmp_path: Path, ray: FakeRay) -> None:
    source = make(tmp_path / "run", *PPO, *RAY, "source.workers=1").feed.source
    source.get()
    chunks: list[Any] = []
    unpack = source._unpack
    source._unpack = lambda found: (chunks.extend(found), unpack(found))  # type: ignore[method-assign]
    rollout, _ = source.get()
    arrays = chunks[0].value["rollouts"][0]
    leaves = tree_leaves(tuple(vars(rollout)[name] for name in arrays if name != "version"))
    given = tree_leaves(tuple(arrays[name] for name in arrays if name != "version"))
    assert all(x.data_ptr() == np.asarray(y).ctypes.data for x, y in zip(leaves, given, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["source=ray", "source.workers=3"],
            "env.lanes=8: source.workers=3 each take as many lanes, .* type env.lanes=9$",
        ),
        (
            ["source=ray", "source.workers=2", "source.group=3"],
            "env.lanes=8: source.workers=2 each take as many lanes in groups of source.group=3, .* multiple of 6; "
            "type env.lanes=6$",
        ),
        (["source.group=16"], "env.lanes=8: source.group=16 lanes act together, .* type env.lanes=16$"),
    ],
)
def test_lanes_that_cannot_be_dealt_out_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_lanes(compose(["env.lanes=8", *options]).config)
