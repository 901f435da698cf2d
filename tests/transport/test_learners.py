"""Several learner processes give the weights of one, continue exactly, and leave nothing behind when one dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit import checkpoint, ranks
from rlkit import train as train_run
from rlkit.collect.actor import Actor
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.schema import RunConfig
from rlkit.learn import learners
from rlkit.options import ConfigError
from rlkit.run.probe import probe_env
from rlkit.run.start import prepare
from tests.helpers import forked_ranks
from tests.helpers.processes import all_gone, children
from tests.helpers.runs import FORK, Process, digest, launch, rlkit, wait_for

SMALL = {
    "env": "cartpole", "preset": "none", "env.backend": "inprocess", "env.lanes": 6, "threads": 1, "device": "cpu",
    "network.hidden": [16], "network.normalize": True, "evaluate.every": 10**9, "evaluate.episodes": 1,
    "log.tensorboard": False,
}  # fmt: skip
PPO = SMALL | {
    "agent": "ppo", "agent.steps": 32, "agent.minibatch": 96, "agent.epochs": 4, "agent.sequence": 8,
    "agent.normalize_reward": True, "total_steps": 560, "optim.clip_norm": 0.1,
}  # fmt: skip
REINFORCE = SMALL | {"agent": "reinforce", "agent.steps": 16, "agent.episodes": 6, "total_steps": 600}
RUN = [f"{key}={value}" for key, value in PPO.items()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    parts = checkpoint.newest(run / "checkpoints", "policy", "state", say=print)[2]
    moments = {f"optim.{name}": x for name, x in parts["state"]["agent"]["optim"].items()}
    found: dict[str, torch.Tensor] = parts["policy"]["weights"] | moments
    return found | {"steps": torch.tensor(parts["state"]["clock"]["step"])}


def learners_of(pid: int) -> list[int]:
    """The learner processes that process `pid` started."""
    found = []
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            started = b"rlkit.learn.learners" in Path(f"/proc/{child}/cmdline").read_bytes()
            if started or Path(f"/proc/{child}/comm").read_text() == f"{forked_ranks.NAME}\n":
                found.append(child)
    return found


@pytest.fixture
def forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks are forked in this test, unless its parameter says that they are started."""
    if FORK and getattr(request, "param", True):
        monkeypatch.setenv(forked_ranks.ASKED, "1")
        forked_ranks.install(monkeypatch.setattr)


@pytest.mark.parametrize(
    ("options", "workers", "forked"),
    [
        (PPO | {"agent.target_kl": 0.004, "agent.value_clip": 0.2}, 2, True),
        (PPO | {"agent.recompute_advantage": True, "optim.name": "sgd", "source": "thread"}, 3, False),
        (PPO | {"network.core": "lstm", "env.stack": 3}, 2, True),
        (REINFORCE, 2, True),
        (REINFORCE | {"agent.baseline": "mean", "network.core": "gru", "agent.reward_to_go": False}, 2, True),
    ],
    ids=["ppo", "ppo-thread", "ppo-lstm-stack", "reinforce", "reinforce-gru"],
    indirect=["forked"],
)
def test_a_run_of_several_ranks_has_the_weights_of_one(
    tmp_path: Path, options: dict[str, Any], workers: int, forked: None
) -> None:
    """Whole runs: minibatches, advantages, normalizers, reward scale, clipping, target_kl and episodes alike."""
    one, several = (
        weights(train_run(**(options | {"dir": str(tmp_path), "name": f"w{n}", "learner.workers": n})))
        for n in (1, workers)
    )
    assert one.keys() == several.keys()
    for name, x in one.items():
        assert torch.allclose(x.double(), several[name].double(), rtol=1e-4, atol=2e-6), name
    assert ranks.size() == 1
    assert not torch.distributed.is_initialized()


def make_agent(config: RunConfig) -> Any:
    module = registry.algorithm(config.agent_name)
    torch.manual_seed(config.seed)
    policy = module.Policy(probe_env(config).spec, config.network, config.agent)
    return module.Agent(policy, config.agent, config.optim, seed=config.seed)


def one_rollout(config: RunConfig, policy: Any) -> Any:
    env = registry.env_package().make_vec(config.env, 0, device=torch.device("cpu"))
    actor = Actor(env, policy, config.agent.steps, seed=0, device=torch.device("cpu"))
    return actor.collect()[0].map(torch.clone)


TWO = PPO | {"learner.workers": 2, "precision": "float32"}


@contextmanager
def ranks_are(size: int) -> Iterator[None]:
    """This process is rank 0 of so many inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_size", size)
        yield


@pytest.fixture(scope="class")
def pair() -> Any:
    """Two ranks, the agent that they train, a rollout for it, and the same agent alone."""
    config = compose(values=TWO).config
    agent, alone = make_agent(config), make_agent(config)
    found = learners.Learners(agent, agent.policy, config, torch.device("cpu"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            if FORK:
                forked_ranks.install(patch.setattr)
            found.start()
        yield found, agent, one_rollout(config, agent.policy), alone
    finally:
        found.close()


class TestTwoRanks:
    """Started once: what they compute, how they talk, and the end of one, in this order."""

    def test_the_gradient_is_that_of_the_whole_minibatch(self, pair: Any) -> None:
        """One rank with the whole minibatch, in float32; norms are those before clipping, of the reduced gradient."""
        both, agent, rollout, alone = pair
        for progress in (0.0, 0.1):
            reported = both.learn(replace(rollout), progress)
            with ranks_are(1):
                expected = alone.learn(replace(rollout), progress)
            assert reported.keys() == expected.keys()
            for name in reported:
                assert float(reported[name]) == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-6), name
        assert torch.allclose(agent.optim.vector, alone.optim.vector, rtol=1e-5, atol=1e-6)
        # the first moment is a mean of gradients: of the order of 1e-3
        mean, other = (each.optim.state_dict()["exp_avg"] for each in (agent, alone))
        assert torch.allclose(mean, other, rtol=1e-4, atol=1e-7)

    def test_ranks_talk_over_the_loopback_interface_only(self, pair: Any) -> None:
        pids = [os.getpid(), *(process.process.pid for process in pair[0].processes)]
        sockets = {
            os.readlink(link)
            for pid in pids
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if os.path.lexists(link)
        }
        addresses = [
            line.split()[1].partition(":")[0]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if f"socket:[{line.split()[9]}]" in sockets
        ]
        assert addresses  # of sockets that listen and of connections
        assert set(addresses) <= {"0100007F", "0" * 24 + "01000000"}

    def test_an_error_in_a_rank_is_told_with_its_traceback(self, pair: Any) -> None:
        both, _, rollout, _ = pair
        both.processes[0].send({"op": "learn"})  # an order without tensors
        with pytest.raises(
            learners.LearnerFault, match="raised: learner rank 1: KeyError: 'tensors'"
        ) as caught:
            both.learn(rollout, 0.0)
        assert "_serve" in caught.value.trace
        assert both.processes[0].process.returncode == 1


def test_half_of_a_minibatch_alone_is_another_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above would notice a rank that keeps its gradient to itself."""
    config = compose(values=TWO).config
    agent, alone = make_agent(config), make_agent(config)
    rollout = one_rollout(config, agent.policy)
    monkeypatch.setattr(ranks, "all_mean", lambda *tensors: tensors)
    with ranks_are(2):
        agent.learn(replace(rollout), 0.0)  # rank 0's halves
    alone.learn(replace(rollout), 0.0)
    assert not torch.allclose(agent.optim.vector, alone.optim.vector, rtol=1e-5, atol=1e-4)


def test_a_rank_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(values=TWO).config
    boot = [sys.executable, "-c", "raise SystemExit(7)"]
    monkeypatch.setattr(learners.processes, "command", lambda module, *numbers: boot)
    agent = make_agent(config)
    found = learners.Learners(agent, agent.policy, config, torch.device("cpu"))
    try:
        with pytest.raises(learners.LearnerFault, match="exited: learner rank 1: ended with exit status 7"):
            found.start()
    finally:
        found.close()
    assert ranks.size() == 1 and found.folder is not None and not found.folder.exists()


def saved_updates(run: Path) -> int:
    step = checkpoint.steps(run / "checkpoints")[0][0]
    assert step > 0
    return step


def start_long(folder: Path, learning: bool, *options: str) -> tuple[Process, list[int]]:
    """A run of two ranks that is learning, or that is just starting them, and its learner processes."""
    process = launch(folder, "train", *RUN, "total_steps=2200", "learner.workers=2", "name=b", *options)
    metrics = folder / "runs" / "b" / "metrics.csv"
    wait_for(lambda: bool(learners_of(process.pid)), process)
    if learning:
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 3, process)
    pids = learners_of(process.pid)
    assert len(pids) == 1
    return process, pids


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of a run of two ranks that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = rlkit(
        folder, "train", *RUN, "total_steps=2200", "learner.workers=2", "name=b", "log.every=190"
    )
    assert code == 0, output
    return digest(folder / "runs" / "b")


@pytest.mark.parametrize(
    ("how", "forked"),
    [("ctrl-c", True), ("ctrl-c-at-start", False), ("kill", True), ("rank-dies", True)],
    ids=["ctrl-c", "ctrl-c-at-start", "kill", "rank-dies"],
    indirect=["forked"],
)
def test_a_run_that_was_ended_leaves_no_process_and_continues_exactly(
    tmp_path: Path, whole: dict[str, str], how: str, forked: None
) -> None:
    every = "checkpoint.every=400" if how == "kill" else "checkpoint.every=1000000"
    process, pids = start_long(tmp_path, how != "ctrl-c-at-start", every, "log.every=190")
    victim, signum = {
        "ctrl-c": (process.pid, signal.SIGINT),
        "ctrl-c-at-start": (process.pid, signal.SIGINT),
        "kill": (process.pid, signal.SIGKILL),
        "rank-dies": (pids[0], signal.SIGKILL),
    }[how]
    run = tmp_path / "runs" / "b"
    if how == "kill":
        wait_for(lambda: bool(checkpoint.steps(run / "checkpoints")), process)
    os.kill(victim, signum)
    output, _ = process.communicate(timeout=30)
    assert all_gone(pids, 10)
    assert process.returncode == {"kill": -9, "rank-dies": 1}.get(how, 130), output
    if how == "rank-dies":
        assert "exited: learner rank 1: killed by SIGKILL" in output
        assert f"rlkit resume {Path('runs/b')} continues from step {saved_updates(run):,}" in output
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0 and "resuming from" in output, output
    assert digest(run) == whole


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"agent": "dqn"}, "replay buffer, in one process; type learner.workers=1, or one of agent=ppo"),
        ({"agent": "td3", "env": "pendulum"}, "agent=td3 learns from a replay buffer"),
        (PPO | {"agent.minibatch": 38}, "agent.minibatch=38 .* 5 minibatches .* type agent.minibatch=48"),
        (
            PPO | {"env.lanes": 5, "agent.steps": 31, "agent.minibatch": 31},
            "155 sequences .* type env.lanes=6",
        ),
        (REINFORCE | {"env.lanes": 5}, "env.lanes=5 cannot be shared equally; type env.lanes=6"),
    ],
    ids=["dqn", "td3", "minibatch", "lanes", "reinforce-lanes"],
)
def test_what_ranks_cannot_share_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    values = SMALL | options | {"dir": str(tmp_path), "learner.workers": 4 if "38" in text else 2}
    with pytest.raises(ConfigError, match=f"^learner.workers=. ?.*{text}"):
        train_run(**values)
    assert not list(tmp_path.iterdir())


def check(config: RunConfig, device: str = "cpu") -> None:
    """As `rlkit.run.check.check` asks it."""
    algorithm = registry.algorithm(config.agent_name)
    policy = algorithm.Policy(probe_env(config).spec, config.network, config.agent)
    sharing = algorithm.shared(policy, config.agent)
    learners.check(config, algorithm.feed(config.agent), sharing, torch.device(device))


def test_the_suggested_minibatch_is_accepted() -> None:
    config = compose(values=PPO | {"agent.minibatch": 38, "learner.workers": 4}).config
    with pytest.raises(ConfigError) as caught:
        check(config)
    size = int(str(caught.value).partition("type agent.minibatch=")[2].split()[0])
    fitting = replace(config, agent=replace(config.agent, minibatch=size))
    check(fitting)


def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(values=PPO | {"learner.workers": 3}).config
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    check(config, "cuda")
    with pytest.raises(ConfigError, match="there are 2 from cuda:1 on; type learner.workers=2 or device=cpu"):
        check(config, "cuda:1")


def test_torch_threads_are_shared_by_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    from rlkit.device import choose_threads

    assert [choose_threads(0, True, ranks) for ranks in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert choose_threads(5, True, 2) == 5
    assert choose_threads(0, False, 2) == 1


def test_one_rank_is_everything_and_makes_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("a process group was made")

    x, y = torch.ones(3), torch.zeros(2)
    assert ranks.share(10) == slice(0, 10)
    assert [id(each) for each in ranks.all_mean(x, y)] == [id(x), id(y)]
    assert [id(each) for each in ranks.all_sum(x)] == [id(x)]
    for name in ("init_process_group", "all_reduce", "broadcast", "FileStore"):
        monkeypatch.setattr(torch.distributed, name, refuse)
    train_run(**PPO | {"total_steps": 300, "dir": str(tmp_path)})
    assert "torch.distributed" not in capfd.readouterr().err


def test_a_run_is_put_together_before_ranks_are_started(tmp_path: Path) -> None:
    """Making a session starts no process: what fails on the way leaves none behind."""
    from rlkit.run.console import Console

    config = compose(values=PPO | {"learner.workers": 2}).config
    run = prepare(config, tmp_path, Console(100, "x"))
    try:
        assert not learners_of(os.getpid())
    finally:
        run.feed.close()
