"""What an environment at work tells before a run: how long its steps take, and whether it can be drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from rlkit.envs.aliases import Env
from rlkit.envs.backends.actions import allow, pack
from rlkit.envs.backends.inprocess import InProcess
from rlkit.envs.backends.lane import Block
from rlkit.envs.config import EnvConfig
from rlkit.seeding import Seeds
from rlkit.spaces import MASK

MEASURE = 0.3  # seconds


def lane_of(env: Env, config: EnvConfig) -> InProcess:
    """An environment as the one lane of a vector, which leaves it open."""
    one, seeds = replace(config, lanes=1, check="none"), Seeds(0, False, 0, 1)
    return InProcess(one, seeds, block=Block(one, seeds, 0, 1, envs=[env]))


def step_seconds(vector: InProcess) -> float:
    """Mean seconds of a random step, resets left out. Raises EnvFault."""
    spent, count = 0.0, 0
    for seconds in random_steps(vector):
        spent += seconds
        count += 1
        if count == 50:
            break
    return spent / max(count, 1)


def random_steps(vector: InProcess) -> Iterator[float]:
    """Seconds of each random step of one environment, resets left out, for at most MEASURE seconds. Raises EnvFault."""
    space, mask, generator = vector.block.action_space, vector.rows.obs.get(MASK), np.random.default_rng(0)
    space.seed(0)
    began = time.perf_counter()
    lanes = range(vector.lanes)
    row = vector.restore(np.zeros(vector.lanes, np.int64), [vector.rows.action[:0] for _ in lanes])
    while time.perf_counter() - began < MEASURE:
        samples = [pack(space, space.sample()) for _ in lanes]
        if mask is not None:
            for lane in lanes:
                allow(vector.spec.action, samples[lane], mask[lane], generator)
        action = torch.from_numpy(np.stack(samples).reshape(vector.rows.action.shape))
        opens, before = bool(row.last.all()), time.perf_counter()
        row = vector.step(action)
        if not opens:
            yield time.perf_counter() - before
