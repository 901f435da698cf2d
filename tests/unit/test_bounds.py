"""Float observations outside the bounds of their space are told once, counted, and told again at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import rlkit
from rlkit.envs.backends.faults import EnvFault
from rlkit.learn.bounds import Bounds
from rlkit.spaces import Box, Dict, Discrete
from rlkit.types import EnvSpec, Rollout


def rollout(obs):
    """One of T = 2 transitions of 2 lanes; obs: [3, 2, ...] or a dict of these."""
    flags = torch.zeros(3, 2, dtype=torch.bool)
    return Rollout(obs, flags, flags, torch.zeros(2, 2), torch.zeros(2, 2), flags[1:])


def watched(space):
    said: list[str] = []
    return Bounds(EnvSpec("E", space, Discrete(2)), torch.device("cpu"), said.append), said


def test_values_outside_are_told_once_and_counted():
    bounds, said = watched(Box((2,), "float32", np.array([-1.0, -math.inf]), np.array([1.0, 2.0])))
    obs = torch.zeros(3, 2, 2)
    obs[..., 0] = 1.0  # the bound itself is inside
    bounds.look(rollout(obs))
    assert said == []
    obs[0, 1] = 9.0  # the row that the rollout before has shown: not counted again
    obs[1, 0] = torch.tensor([-1.25, -1e30])
    obs[2, 1] = torch.tensor([1.5, 2.5])
    bounds.look(rollout(obs))
    bounds.look(rollout(obs))
    assert len(said) == 1
    assert "warning: observation[0] is -1.25 in lane 0; its space allows [-1, 1]" in said[0]
    assert "env.check=space" in said[0]
    bounds.close()
    bounds.close()  # once
    # 3 + 2 + 2 rows of 2 lanes, 3 values in each of the last two rollouts
    assert said[1:] == ["observation: 6 values in 14 rows outside the bounds of their space, at most by 0.5"]


def test_every_entry_is_watched_but_pixels_choices_and_the_unbounded():
    space = Dict(
        (
            ("free", Box((1,), "float32")),
            ("pixels", Box((4,), "uint8", 0.0, 1.0)),
            ("choice", Discrete(3)),
            ("angle", Box((), "float64", -math.pi, math.pi)),
        )
    )
    bounds, said = watched(space)
    assert [entry.name for entry in bounds.entries] == ["angle"]
    angle = torch.full(
        (3, 2), float(np.float32(math.pi))
    )  # pi as float32 is above pi: a rounding, not a fault
    bounds.look(rollout({"angle": angle}))
    assert said == []
    bounds.look(rollout({"angle": angle + 1e-6}))
    bounds.close()
    assert (
        said[0].startswith("warning: observation entry angle is 3.14159") and "4 values in 10 rows" in said[1]
    )


def test_a_run_goes_on_and_says_so_and_can_be_told_to_stop(tmp_path, capsys):
    """Every episode (of 11 rows) leaves the bounds in its third step; two updates of 20 rows make 82."""
    options = {
        "total_steps": 40, "preset": "none", "dir": str(tmp_path), "threads": 1, "log.tensorboard": False,
        "env.lanes": 2, "env.kwargs": {"kind": "space"}, "env.backend": "inprocess", "evaluate.episodes": 1,
        "network.hidden": [4], "agent.steps": 20, "agent.epochs": 1,
    }  # fmt: skip
    rlkit.train("ppo", "rlkit.envs.toys:Faulty", **options)
    said = capsys.readouterr().out
    assert said.count("warning: observation[1] is 101 in lane 0; its space allows [-100, 100]") == 1
    assert "8 values in 82 rows outside the bounds of their space, at most by 1\n" in said
    with pytest.raises(EnvFault, match="space: environment .*, step 3: obs: entry"):
        rlkit.train("ppo", "rlkit.envs.toys:Faulty", **options, **{"env.check": "space"})
