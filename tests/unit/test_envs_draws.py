"""Environments that draw from Python's and NumPy's own generators follow from the run's seed, however they are run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.contracts import VecEnv
from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.backends import draws

DRAWING = "tests.helpers.drawing:Drawing"


def make(
    kind: str, at: str = "all", lanes: int = 10, first: int = 0, seed: int = 3, **options: Any
) -> VecEnv:
    options = {"backend": "inprocess", "action_mask": "none"} | options
    config = EnvConfig(id=DRAWING, kwargs={"kind": kind, "at": at}, lanes=lanes, **options)
    return make_vec(config, seed, first_lane=first)


def play(env: VecEnv, steps: int = 9, begin: int = 0, done: int = 0) -> torch.Tensor:
    """Observations [steps + 1, lanes, 3] from step `done` of episode `begin` on."""
    row = env.restore(np.full(env.lanes, begin, np.int64), [np.zeros(done, np.int64)] * env.lanes)
    found = [row.obs.clone()]  # type: ignore[union-attr]
    for _ in range(steps):
        found.append(env.step(torch.zeros(env.lanes, dtype=torch.int64)).obs.clone())  # type: ignore[union-attr]
    env.close()
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["numpy", "python"])
@pytest.mark.parametrize("at", ["all", "make", "reset", "step"])
def test_a_lane_s_numbers_depend_on_its_seed_alone(kind: str, at: str) -> None:
    whole = play(make(kind, at))
    random.seed(99)
    np.random.seed(99)
    assert torch.equal(whole, play(make(kind, at))), "whatever the process has drawn before"
    parts = [play(make(kind, at, lanes=5, first=first)) for first in (0, 5)]
    assert torch.equal(whole, torch.cat(parts, 1)), "whichever lanes are beside it"
    assert torch.equal(whole[3:7], play(make(kind, at), steps=3, done=3)), "brought back in mid-episode"
    assert torch.equal(whole[7:], play(make(kind, at), steps=2, begin=1)), "and in a later one"
    other = play(make(kind, at, seed=4))
    column = {"all": 2, "make": 0, "reset": 1, "step": 2}[at]
    assert not torch.equal(whole[1, :, column], other[1, :, column])
    assert len(whole[1, :, column].unique()) == 10, "lanes draw numbers of their own"


def test_workers_draw_what_one_process_does() -> None:
    assert torch.equal(play(make("numpy")), play(make("numpy", backend="workers", workers=2)))


def test_the_generators_of_the_process_stay_as_they_are() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand(3).tolist()
    random.seed(1)
    np.random.seed(1)
    play(make("numpy"))
    play(make("python"))
    assert (random.random(), np.random.rand(3).tolist()) == expected


def test_who_draws_nothing_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("none")
    play(env, steps=draws.TRIAL)
    assert all(lane.draws is None and lane.env_step == lane.env.step for lane in env.block.lanes)  # type: ignore[attr-defined]
    env = make("python", "step")
    play(env, steps=draws.TRIAL)
    assert all(lane.draws is not None for lane in env.block.lanes)  # type: ignore[attr-defined]


def test_an_error_puts_the_generators_back() -> None:
    state = random.getstate()
    apart = draws.Draws(draws.Verdict(), leads=True)
    with pytest.raises(ZeroDivisionError):
        apart.reset(lambda seed: 1 / 0, 5)
    assert random.getstate() == state
