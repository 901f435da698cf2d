"""highway-env's scenarios by name: spaces, replay, the missing package."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_vec, probe
from rlkit.spaces import Box, Dict, Discrete

ROOT = Path(__file__).parents[2] / "configs"
SCENARIOS = {
    "highway": ((5, 5), Discrete(5)),
    "merge": ((5, 5), Discrete(5)),
    "roundabout": ((5, 5), Discrete(5)),
    "intersection": ((15, 7), Discrete(3)),
    "racetrack": ((2, 12, 12), 1),
    "parking": ({"observation": (6,), "achieved_goal": (6,), "desired_goal": (6,)}, 2),
}


def config(name, **changes):
    yaml = pytest.importorskip("yaml")
    return EnvConfig(**{**yaml.safe_load((ROOT / "env" / f"{name}.yaml").read_text()), **changes})


def test_ids_name_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "highway_env", None)
    for name in SCENARIOS:
        with pytest.raises(
            ValueError, match=r'needs the package highway_env; type: pip install "rlkit\[highway\]"'
        ):
            probe(config(name))


@pytest.mark.parametrize("name", SCENARIOS)
def test_spaces(name):
    pytest.importorskip("highway_env")
    shape, action = SCENARIOS[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is out of date")  # there is a merge-v1
        spec = probe(config(name, backend="inprocess")).spec
    if isinstance(spec.observation, Dict):
        assert {key: leaf.shape for key, leaf in spec.observation} == shape
    else:
        assert spec.observation.shape == shape
    if isinstance(action, int):
        assert isinstance(spec.action, Box) and spec.action.shape == (action,) and spec.action.bounded
    else:
        assert spec.action == action


@pytest.mark.parametrize("name", ["merge", "parking"])
def test_an_episode_follows_from_its_seed_and_its_actions(name):
    """What exact resume needs: a new vector that replays the actions shows the same rows.

    Not compared with worker processes: making an intersection changes constants of highway-env's vehicles for all
    scenarios of the process, so a process that never made one drives differently.
    """
    pytest.importorskip("highway_env")
    lanes, steps = 2, 5
    vector = make_vec(config(name, lanes=lanes, backend="inprocess"), 3)
    space, rows = vector.block.action_space, vector.rows
    space.seed(1)
    vector.restore(np.zeros(lanes, np.int64), [rows.action[:0]] * lanes)
    history = []
    for _ in range(steps):
        action = np.stack([np.asarray(space.sample()) for _ in range(lanes)]).astype(rows.action.dtype)
        history.append(action)
        vector.step(torch.from_numpy(action))
    assert not rows.last.any() and not rows.episode.any()
    other = make_vec(config(name, lanes=lanes, backend="inprocess"), 3)
    actions = [np.stack([action[lane] for action in history]) for lane in range(lanes)]
    other.restore(np.zeros(lanes, np.int64), actions)
    for key, value in rows.obs.items():
        np.testing.assert_array_equal(other.rows.obs[key], value, key)
    np.testing.assert_array_equal(other.rows.reward, rows.reward)
    other.close()
    vector.close()
