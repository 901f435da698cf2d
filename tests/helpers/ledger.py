"""An environment whose every transition has a name, written to a file as it happens; and the account of a run of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlkit.sources.ray.aggregate import join_chunks
from rlkit.types import Rollout

Name = tuple[int, int]  # (seed of the episode, step in it)


class Ledger(gymnasium.Env[Any, Any]):
    """Observations say (seed // 2^15, seed mod 2^15, step); episodes take 3 to 40 steps.

    folder: where every process has a file of its own; faulty: seeds s with s mod faulty[0] = 0 raise in step 2, those
    with s mod faulty[1] = 0 hang there (0: none do); seconds: that a step takes.
    """

    def __init__(self, folder: str, faulty: tuple[int, int] = (0, 0), seconds: float = 0.0) -> None:
        self.observation_space = spaces.Box(-1.0, 1e9, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.faulty, self.seconds = faulty, seconds
        self.file = os.open(Path(folder) / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _obs(self) -> Any:
        return np.array([self.seed >> 15, self.seed & 0x7FFF, self.t], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.seed, self.t = seed, 0
        self.length = 3 + seed % 38
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.t == 2 and self.faulty[0] and self.seed % self.faulty[0] == 0:
            raise RuntimeError(f"seed {self.seed} is not liked")
        while self.t == 2 and self.faulty[1] and self.seed % self.faulty[1] == 0:
            time.sleep(0.05)
        if self.seconds:
            time.sleep(self.seconds)
        os.write(self.file, f"{self.seed} {self.t}\n".encode())
        return self._obs(), 1.0, self.t == self.length, False, {}


def names(rollout: Rollout) -> list[Name]:
    """The transitions of a rollout."""
    obs, valid = rollout.obs, rollout.valid
    assert not isinstance(obs, dict)
    rows = obs[1:][valid].long()
    return [(int(high) << 15 | int(low), int(t)) for high, low, t in rows.tolist()]


def happened(folder: Path) -> Counter[Name]:
    """What the environments did."""
    lines = [line for file in folder.iterdir() for line in file.read_text().splitlines()]
    return Counter((int(seed), int(t)) for seed, t in (line.split() for line in lines))


def account(received: list[Name], source: Any, folder: Path) -> None:
    """Nothing twice, nothing made up, no hole in an episode, and what is missing is what was reported.

    received: what the learner got from `source` (a RaySource), whose environments wrote to `folder`.
    """
    fleet, done = source.fleet, happened(folder)
    rows = fleet.rows
    under_way = sum(chunk.rows for member in fleet.members for chunk in member.chunks)
    assert rows["asked"] == rows["arrived"] + rows["lost"] + under_way
    unused = [
        join_chunks([chunk], index, fleet.lanes, torch.device("cpu"))
        for chunk in fleet.arrived
        for index in range(len(chunk.value["rollouts"]))
    ] + [rollout for rollout, _, _ in source._ready]
    arrived = received + [name for rollout in unused for name in names(rollout)]
    assert len(set(arrived)) == len(arrived), "a transition arrived twice"
    assert set(arrived) <= done.keys(), "a transition that nobody made"
    steps: dict[int, set[int]] = {}
    for seed, t in arrived:
        steps.setdefault(seed, set()).add(t)
    assert all(found == set(range(1, max(found) + 1)) for found in steps.values()), "a hole in an episode"
    assert sum(done.values()) - len(arrived) <= rows["lost"] + under_way, "missing, but not reported"
