"""Replay buffer: adding and drawing, beside Stable-Baselines3's ReplayBuffer in the same run.

    python scripts/bench_replay.py [--json bench_replay.json]

Both hold the same transitions (float32 vectors of 4 as CartPole's, or 84x84 frames stacked 4 high) of the same
number of lanes. add: microseconds per transition; ours in rollouts of T steps, theirs step by step. sample:
microseconds per batch of tensors on the CPU; ours drawn in calls of `due` updates, as an agent takes them, theirs one
by one. Each is the least of several rounds that alternate between the two. Bytes are those of all arrays.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer

from rlkit.agents.dqn import Config, Policy
from rlkit.config.schema import ReplayConfig
from rlkit.nn.config import NetworkConfig
from rlkit.replay.memory import Replay
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, Lanes, Rollout

STACK = 4


def least(*functions: Callable[[], None], rounds: int, repeat: int) -> list[float]:
    """Seconds per call of each function, the least of `rounds` rounds in turn."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            begin = time.perf_counter()
            for _ in range(repeat):
                function()
            best[i] = min(best[i], (time.perf_counter() - begin) / repeat)
    return best


class Pair:
    """Our memory and theirs of `capacity` transitions, and one rollout of T steps to fill them with."""

    def __init__(
        self, kind: str, capacity: int, lanes: int, steps: int, batch: int, alpha: float = 0.0
    ) -> None:
        pixels = kind == "pixels"
        self.steps, self.lanes = steps, lanes
        box = Box((84, 84), "uint8", 0.0, 255.0) if pixels else Box((4,), "float32")
        spec = EnvSpec(kind, box, Discrete(2), STACK if pixels else 1)
        policy = Policy(spec, NetworkConfig(), Config())
        config = ReplayConfig(capacity=capacity, warmup=0, batch=batch, alpha=alpha)
        self.ours = Replay(config, policy, lanes=lanes, steps=steps, gamma=0.99)
        shape = (84, 84, STACK) if pixels else (4,)
        theirs = (
            gymnasium.spaces.Box(0, 255, shape, np.uint8) if pixels else gymnasium.spaces.Box(-1, 1, shape)
        )
        self.theirs = ReplayBuffer(capacity, theirs, gymnasium.spaces.Discrete(2), "cpu", n_envs=lanes)
        rows = (steps + 1, lanes)
        obs = torch.randint(0, 256, (*rows, 84, 84), dtype=torch.uint8) if pixels else torch.randn(*rows, 4)
        flags = torch.rand(rows) < 0.02
        self.rollout = Rollout(
            obs=obs,
            first=torch.zeros(rows, dtype=torch.bool),
            last=flags,
            action=torch.randint(0, 2, (steps, lanes)),
            reward=torch.ones(steps, lanes),
            terminated=flags[1:].clone(),
            state=policy.initial_state(Lanes(lanes)),
        )
        self.row = np.zeros((lanes, *shape), theirs.dtype)
        self.action = np.zeros((lanes, 1), np.int64)
        self.reward, self.done = np.ones(lanes, np.float32), np.zeros(lanes, bool)
        self.infos: list[dict[str, Any]] = [{} for _ in range(lanes)]

    def add_ours(self) -> None:
        """T steps of all lanes."""
        self.ours.add(self.rollout)

    def add_theirs(self) -> None:
        """The same."""
        for _ in range(self.steps):
            self.theirs.add(self.row, self.row, self.action, self.reward, self.done, self.infos)

    def fill(self) -> None:
        """Until both are full."""
        while self.ours.written < self.ours.rows:
            self.add_ours()
        while not self.theirs.full:
            self.add_theirs()

    def sample_ours(self, due: int) -> Callable[[], None]:
        def sample() -> None:
            self.ours.due = due
            for _ in self.ours.batches(0.5):
                pass

        return sample

    def sample_theirs(self, due: int, batch: int) -> Callable[[], None]:
        def sample() -> None:
            for _ in range(due):
                self.theirs.sample(batch)

        return sample


def measure(
    kind: str, capacity: int, lanes: int, steps: int, batch: int, due: int, alpha: float
) -> dict[str, Any]:
    """One row of the table."""
    pair = Pair(kind, capacity, lanes, steps, batch, alpha)
    pair.fill()
    transitions = steps * lanes
    repeat = max(2000 // transitions, 20)
    ours, theirs = (
        1e6 * t / transitions for t in least(pair.add_ours, pair.add_theirs, rounds=5, repeat=repeat)
    )
    pair.sample_ours(due)()  # compiled
    repeat = max((400 if kind == "vector" else 20) // due, 3)
    mine, other = (
        1e6 * t / due
        for t in least(pair.sample_ours(due), pair.sample_theirs(due, batch), rounds=7, repeat=repeat)
    )
    fields = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    their_bytes = sum(getattr(pair.theirs, name).nbytes for name in fields) / capacity
    our_bytes = sum(pair.ours.ring.layout.bytes) / capacity
    return {
        "kind": kind, "lanes": lanes, "steps": steps, "batch": batch, "due": due, "alpha": alpha,
        "add": ours, "add sb3": theirs, "add ratio": theirs / ours,
        "sample": mine, "sample sb3": other, "sample ratio": other / mine,
        "bytes": our_bytes, "bytes sb3": their_bytes, "bytes ratio": their_bytes / our_bytes,
    }  # fmt: skip


def first_use() -> float:
    """Seconds of the first batch of this process: machine code is made, or read from disk."""
    pair = Pair("vector", 1000, 1, 8, 32)
    pair.add_ours()
    begin = time.perf_counter()
    pair.sample_ours(1)()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{date.today()}, torch {torch.__version__}; first batch of the process: {first_use():.2f} s")
    cases = [
        ("vector", 100_000, lanes, steps, batch, due, alpha)
        for lanes, steps, due in ((1, 4, 1), (1, 4, 4), (8, 4, 32), (8, 16, 128))
        for batch in (32, 256)
        for alpha in (0.0,)
    ]
    cases += [("vector", 100_000, 8, 16, 256, 128, 0.6)]
    cases += [("pixels", 5_000, 8, 16, 32, 32, 0.0), ("pixels", 5_000, 8, 16, 256, 32, 0.0)]
    rows = []
    for case in cases:
        rows.append(row := measure(*case))
        print(
            "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
            flush=True,
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
