"""Two agents that leave their game at different times, against rows written down by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_vec, probe
from rlkit.envs.toys.agents import Lives
from rlkit.seeding import Seeds
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvStep, closings

ID = "rlkit.envs.toys.agents:Lives"


def opened(env: Any) -> EnvStep:
    row: EnvStep = env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0, np.int64)] * env.lanes)
    return row


def play(env: Any, actions: torch.Tensor) -> dict[str, torch.Tensor]:
    """The rows under actions [T, N, ...]: [T+1, N, ...]."""
    row = opened(env)
    names = ("obs", "reward", "terminated", "first", "last")
    seen = {name: [getattr(row, name).clone()] for name in names}
    for action in actions:
        row = env.step(action)
        for name in names:
            seen[name].append(getattr(row, name).clone())
    return {name: torch.stack(parts) for name, parts in seen.items()}


def test_rows_of_two_games_by_hand() -> None:
    """Lives of 2 and 3 steps; the short one's action in its last row's place, row 2 to 3, is 1 and changes nothing."""
    env = make_vec(EnvConfig(id=ID, lanes=2, kwargs={"lives": [2, 3]}), 0)
    actions = torch.tensor([[0, 1], [1, 0], [1, 1], [1, 1], [0, 0], [0, 1], [1, 0]])
    seen = play(env, actions)
    age = torch.tensor([[0, 0], [1, 1], [2, 2], [2, 3], [0, 0], [1, 1], [2, 2], [2, 3]]) / 3
    assert torch.equal(seen["obs"][:, :, 0], age)
    assert torch.equal(seen["obs"][:, :, 1], torch.tensor([0.0, 1.0]).expand(8, 2))
    reward = [[0, 0], [1, 1.1], [1.1, 1], [1.1, 1.1], [0, 0], [1, 1], [1, 1.1], [1, 1]]
    assert torch.equal(seen["reward"], torch.tensor(reward))
    last = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1]] * 2).bool()
    assert torch.equal(seen["last"], last) and torch.equal(seen["terminated"], last)
    assert torch.equal(seen["first"], torch.tensor([[1, 1], [0, 0], [0, 0], [0, 0]] * 2).bool())
    assert closings(seen["last"]).sum(0).tolist() == [2, 2]


@pytest.mark.parametrize("continuous", [False, True])
def test_returns_are_those_of_the_docstring(continuous: bool) -> None:
    """Best play, four games side by side, over three games each."""
    env = Lives(8, 0, continuous=continuous)
    assert env.spec.action == Discrete(2) if not continuous else isinstance(env.spec.action, Box)
    best = torch.full((20, 8, 1), 7.0) if continuous else torch.ones(20, 8, dtype=torch.int64)
    seen = play(env, best)
    counted = ~seen["last"][:-1]  # [T, N]: what reached the game
    total = (seen["reward"][1:] * counted).sum(0)
    assert torch.allclose(total, torch.tensor([3 * 1.1 * 3, 3 * 1.1 * 6] * 4))
    assert closings(seen["last"]).sum(0).tolist() == [3] * 8
    worst = play(Lives(2, 0, continuous=True), torch.full((2, 2, 1), -1.0))
    assert worst["reward"][1:].tolist() == [[pytest.approx(0.9)] * 2] * 2


@pytest.mark.parametrize("at", [2, 4, 6, 7])
def test_a_snapshot_continues(at: int) -> None:
    """In a game, while one agent is out of it, at its end, and in the next one's first row."""
    actions = torch.randint(2, (14, 4), generator=torch.Generator().manual_seed(0))
    whole = play(Lives(4, 0), actions)
    env = Lives(4, 0)
    opened(env)
    for action in actions[:at]:
        env.step(action)
    other = Lives(4, 9)
    other.load_snapshot(env.snapshot())
    for t in range(at, 14):
        row = other.step(actions[t])
        for name, values in whole.items():
            assert torch.equal(getattr(row, name), values[t + 1]), name


def test_agents_are_named_and_lanes_are_theirs() -> None:
    found = probe(EnvConfig(id=ID, lanes=6, kwargs={"continuous": True}))
    assert found.spec.agents == ("short", "long") and found.config.backend == "batched"
    vector = make_vec(found.config, 0, first_lane=2)
    assert vector.lanes == 6 and vector.exact == "snapshot"
    with pytest.raises(ValueError, match=r"env\.lanes=3: a game of .*Lives has 2 agents.*multiples of 2"):
        probe(EnvConfig(id=ID, lanes=3))
    with pytest.raises(ValueError, match="lanes=5: a game has 2 agents"):
        Lives(5, 0)
    with pytest.raises(ValueError, match="first_lane=3: a game has 2 agents"):
        Lives(2, 0, first_lane=3)
    with pytest.raises(ValueError, match=r"lives=\(0, 2\): allowed: two whole numbers above 0"):
        Lives(2, 0, lives=(0, 2))


def test_the_seed_rule_of_evaluation_is_in_one_place() -> None:
    """Lane n's episode e is number n + e N of all, whatever the number of lanes."""
    for lanes in (1, 2, 3):
        seeds = Seeds(4, True, 0, lanes)
        assert [seeds.of(number % lanes, number // lanes) for number in range(6)] == [
            Seeds(4, True, 0, 1).of(0, number) for number in range(6)
        ]
