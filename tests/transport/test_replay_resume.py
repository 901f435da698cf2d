"""A replay buffer is part of the checkpoint: whatever happened between the snapshot and the save, or to the files."""

from __future__ import annotations

import itertools
import os
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit import checkpoint
from rlkit.config.schema import ReplayConfig
from rlkit.learn.trainer import Clock
from rlkit.options import ConfigError
from rlkit.replay.memory import Replay
from rlkit.run.hooks import CheckpointHook
from rlkit.types import tree_leaves
from tests.helpers.experience import Policy, Stream
from tests.helpers.runs import digest, hash_tree, launch, rlkit, wait_for

KINDS = {
    "transitions": {},
    "n-step stacks": {"stack": 4, "n_step": 3},
    "priorities": {"alpha": 0.7},
    "sequences": {"memory": True, "stack": 2},
    "sequences by priority": {"memory": True, "alpha": 0.7},
    "disk": {"memory": True, "storage": "disk"},
}
LANES, STEPS = 2, 5


def make(folder: Path, stack: int = 1, memory: bool = False, **options: Any) -> tuple[Replay, Policy]:
    policy = Policy(stack=stack, memory=memory)
    config = ReplayConfig(capacity=80, warmup=0, batch=12, sequence=6, burn_in=2, **options)
    replay = Replay(config, policy, lanes=LANES, steps=STEPS, gamma=0.9, seed=3, folder=folder)
    return replay, policy


def advance(replay: Replay, policy: Policy, stream: Stream) -> list[torch.Tensor]:
    """One rollout and two updates, as a run does it; returns what was drawn."""
    replay.add(stream.rollout(policy, replay.written, STEPS))
    if not replay.ready:
        return []
    replay.due = 2
    seen = []
    for batch in replay.batches(0.5):
        seen += [x.clone() for x in tree_leaves(batch)]
        replay.prioritise(batch.index, batch.reward.sum(0))
    return seen


def until_urgent(replay: Replay, policy: Policy, stream: Stream) -> list[list[torch.Tensor]]:
    """What was drawn until the memory asked for a snapshot."""
    drawn = []
    for _ in range(20):
        if replay.urgent:
            return drawn
        drawn.append(advance(replay, policy, stream))
    raise AssertionError("the memory has gone round and asked for no snapshot")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [0, 3, 8, 9, 30])
def test_what_was_added_after_the_snapshot_is_taken_back(tmp_path: Path, kind: str, before: int) -> None:
    """`before` rollouts, a snapshot, as many more as the slack allows, and only then the save: 8 fill the memory."""
    stream = Stream.make(400, LANES, seed=1)
    replay, policy = make(tmp_path / "first", **KINDS[kind])
    for _ in range(before):
        advance(replay, policy, stream)
    snapshot = replay.snapshot()
    expected = until_urgent(replay, policy, stream)
    assert len(expected) >= 2
    path = checkpoint.write(tmp_path / "step", {"state": snapshot, "replay": replay.saved(snapshot)}, 0)
    parts = checkpoint.read(path, "state", "replay")
    again, policy = make(tmp_path / "second", **KINDS[kind])
    again.load(parts["state"], parts["replay"])
    for drawn in expected:
        other = advance(again, policy, stream)
        assert len(other) == len(drawn)
        assert all(torch.equal(a, b) for a, b in zip(drawn, other, strict=True))
    for name in ("written", "collected", "valid", "items"):
        assert getattr(replay, name) == getattr(again, name)


def test_the_slack_is_enough_for_the_next_rollout_and_no_more_is_promised(tmp_path: Path) -> None:
    stream = Stream.make(400, LANES, seed=1)
    replay, policy = make(tmp_path)
    for _ in range(30):
        advance(replay, policy, stream)
    snapshot = replay.snapshot()
    assert not replay.urgent
    until_urgent(replay, policy, stream)
    replay.saved(snapshot)
    advance(replay, policy, stream)
    with pytest.raises(AssertionError, match="overwritten"):
        replay.saved(snapshot)


def test_snapshots_are_taken_before_rows_are_lost(tmp_path: Path) -> None:
    """However quick the updates: an interrupt in the middle of any rollout finds a snapshot that can be saved."""
    stream = Stream.make(400, LANES, seed=1)
    replay, policy = make(tmp_path)
    saved: list[dict[str, Any]] = []

    class Run:
        """What a checkpoint is made of: the memory alone."""

        @property
        def urgent(self) -> bool:
            return replay.urgent

        def state_dict(self) -> dict[str, Any]:
            return replay.snapshot()

        def save(self, state: Any) -> None:
            saved.append(replay.saved(state))

    hook = CheckpointHook(10**9, Run())
    hook.MIN_SECONDS = 1e9  # type: ignore[misc]
    clock = Clock(10**6)
    hook.begin()
    for _ in range(60):
        rollout = stream.rollout(policy, replay.written, STEPS)
        replay.ring.put(replay.written, {"obs/": rollout.obs.numpy()})  # type: ignore[union-attr]
        replay._touched = replay.written + STEPS  # an interrupt cuts `add` here
        hook.close(clock, KeyboardInterrupt())
        hook._saved = False
        advance(replay, policy, stream)
        clock.advance(LANES * STEPS)
        hook.after_update(clock, {})
    assert len(saved) == 60


def test_a_memory_of_another_size_is_refused(tmp_path: Path) -> None:
    stream = Stream.make(50, LANES, seed=1)
    replay, policy = make(tmp_path)
    advance(replay, policy, stream)
    snapshot = replay.snapshot()
    saved = replay.saved(snapshot)
    config = ReplayConfig(capacity=100, warmup=0)
    other = Replay(config, policy, lanes=LANES, steps=STEPS, gamma=0.9)
    with pytest.raises(ConfigError, match="take back what was changed there"):
        other.load(snapshot, saved)
    with pytest.raises(ConfigError, match="take back what was changed there"):
        make(tmp_path, alpha=0.5)[0].load(snapshot, saved)


def test_saving_and_reading_need_no_second_memory(tmp_path: Path) -> None:
    rows = {"rows": np.random.default_rng(0).integers(0, 255, (64, 2**20), np.uint8)}
    tracemalloc.start()
    try:
        path = checkpoint.write(tmp_path / "step", {"replay": rows}, 0)
        again = checkpoint.read(path, "replay")["replay"]["rows"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(again, rows["rows"])
    assert peak < 4 * 2**20


RUN = [
    "env.backend=inprocess", "env.lanes=2", "evaluate.every=100000", "evaluate.episodes=1", "log.every=100",
    "total_steps=1000", "checkpoint.keep=100", "agent.replay.warmup=100", "agent.replay.batch=16", "env.time_limit=100",
    "agent.replay.ratio=0.2", "threads=1", "preset=none", "network.hidden=[16]", "network.core_size=16",
]  # fmt: skip
DQN = ["train", "agent=dqn", "env=cartpole", "agent.steps=4", *RUN]
DDPG = ["train", "agent=ddpg", "env=pendulum", "agent.steps=4", *RUN]
RUNS = {
    "dqn": [*DQN, "agent.replay.capacity=400"],
    "dqn-stack-priorities": [*DQN, "env.stack=3", "agent.replay.capacity=100000", "agent.replay.alpha=0.6"],
    "dqn-lstm-disk-thread": [
        *DQN, "network=lstm", "source=thread", "agent.replay.storage=disk", "agent.replay.capacity=400",
    ],
    "ddpg": [*DDPG, "agent.replay.capacity=400", "agent.replay.n_step=3"],
}  # fmt: skip


def replay_of(run: Path) -> str:
    """Hash of the memory in the newest checkpoint."""
    return hash_tree(checkpoint.newest(run / "checkpoints", "replay", say=print)[2])


@pytest.mark.parametrize("name", RUNS)
def test_ended_runs_continue_exactly(tmp_path: Path, name: str) -> None:
    """One run is killed and later interrupted in the middle of whatever it does, the other goes through."""
    arguments = RUNS[name]
    code, output = rlkit(tmp_path, *arguments, "name=a", "checkpoint.every=300")
    assert code == 0, output
    assert "replay: " in output
    assert not (tmp_path / "runs" / "a" / "replay").exists()
    process = launch(tmp_path, *arguments, "name=b", "checkpoint.every=300")
    saved = tmp_path / "runs" / "b" / "checkpoints"
    wait_for(lambda: saved.is_dir() and len(list(saved.glob("step-*"))) >= 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process = launch(tmp_path, "resume", "runs/b")
    metrics = tmp_path / "runs" / "b" / "metrics.csv"
    rows = metrics.read_bytes().count(b"\n")
    wait_for(lambda: metrics.read_bytes().count(b"\n") > rows + 1, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, output
    code, output = rlkit(tmp_path, "resume", "runs/b")
    assert code == 0 and "resuming from" in output, output
    runs = [tmp_path / "runs" / run for run in "ab"]
    assert digest(runs[0]) == digest(runs[1])
    assert replay_of(runs[0]) == replay_of(runs[1])


def test_a_damaged_memory_is_told_and_the_checkpoint_before_it_used(tmp_path: Path) -> None:
    code, output = rlkit(tmp_path, *RUNS["dqn"], "name=a", "checkpoint.every=400", "total_steps=800")
    assert code == 0, output
    config = tmp_path / "runs" / "a" / "config.yaml"
    config.write_text(config.read_text().replace("total_steps: 800", "total_steps: 1000"))
    newest = checkpoint.steps(tmp_path / "runs" / "a" / "checkpoints")[0][1]
    file = newest / "replay.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, output = rlkit(tmp_path, "resume", "runs/a")
    text = " ".join(output.split())
    assert code == 0, output
    assert (
        "replay.safetensors is damaged: its SHA-256 is not the manifest's; using the checkpoint before it"
        in text
    )
    for path in itertools.islice(newest.parent.glob("step-*"), 100):
        (path / "replay.safetensors").unlink()
    code, output = rlkit(tmp_path, "resume", "runs/a")
    assert code != 0 and "replay.safetensors: no such file" in " ".join(output.split())
