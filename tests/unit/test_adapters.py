"""Batched environments through Gymnasium's interfaces: other packages' checkers, and the same episodes as in runs."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import rlkit.envs  # noqa: F401  registers
from rlkit.envs.adapters import Single, value
from rlkit.envs.config import EnvConfig
from rlkit.envs.gym_spaces import gym_space
from rlkit.envs.make import is_batched, make_vec
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, from_gymnasium

IDS = [
    ("rlkit/Maze", {"size": 5}),
    ("rlkit/Maze", {"size": 7, "goal": "vector", "doors": 1}),
    ("rlkit/Maze", {"size": 5, "view": "picture"}),
    ("rlkit/Maze", {"size": 5, "view": "lidar"}),
    ("rlkit/Nav", {"moving": 2, "size": 5.0}),
    ("rlkit/Driving", {"size": 16, "skip": 1}),
    ("rlkit/Driving", {"observation": "vector", "rays": 4}),
]


@pytest.mark.parametrize(("id", "kwargs"), IDS)
def test_the_checkers_pass(id: str, kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(id, **kwargs).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a car's pedals have no negative half, and a window is no array
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|render).*")
        check_env(env)
    env.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("id", "kwargs"), IDS)
def test_the_checker_of_stable_baselines3_passes(id: str, kwargs: dict[str, Any]) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make(id, **kwargs).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checker.check_env(env, warn=False)
    env.close()  # type: ignore[no-untyped-call]


def test_rlkit_itself_steps_all_lanes_at_once() -> None:
    assert is_batched(EnvConfig(id="rlkit/Maze")) and is_batched(EnvConfig(id="rlkit/Driving"))


def test_an_episode_is_that_of_a_run() -> None:
    config = EnvConfig(id="rlkit/Maze", lanes=1, kwargs={"size": 5, "limit": 9, "goal": "vector"})
    vector, env = make_vec(config, 3), gymnasium.make("rlkit/Maze", size=5, limit=9, goal="vector")
    generator = np.random.default_rng(0)
    row = vector.restore(np.zeros(1, np.int64), [np.zeros(0)])
    obs, info = env.reset(seed=3)
    ends = set()
    for _ in range(60):
        assert isinstance(row.obs, dict) and info == {}
        assert all(np.array_equal(obs[name], row.obs[name][0].numpy()) for name in ("view", "goal"))
        action = int(generator.integers(3))
        if row.last.item():
            row, (obs, info) = vector.step(torch.tensor([0])), env.reset()
            continue
        row = vector.step(torch.tensor([action]))
        kept = obs
        before = {name: part.copy() for name, part in kept.items()}
        obs, reward, terminated, truncated, info = env.step(action)
        assert all(np.array_equal(kept[name], before[name]) for name in kept)  # copies
        assert (reward, terminated) == (row.reward.item(), row.terminated.item())
        assert truncated == (row.last.item() and not row.terminated.item())
        ends.add((terminated, truncated))
    assert ends == {(False, False), (True, False), (False, True)}
    env.close()  # type: ignore[no-untyped-call]


def test_a_vector_opens_the_next_episode_in_the_step_after_an_end() -> None:
    kwargs: dict[str, Any] = {"size": 5, "limit": 4}
    env = gymnasium.make_vec("rlkit/Maze", num_envs=3, **kwargs)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    vector = make_vec(EnvConfig(id="rlkit/Maze", lanes=3, kwargs=kwargs), 7)
    row = vector.restore(np.zeros(3, np.int64), [np.zeros(0)] * 3)
    obs, _ = env.reset(seed=7)
    generator = np.random.default_rng(1)
    for _ in range(12):
        assert np.array_equal(obs, row.obs.numpy()) and env.observation_space.contains(obs)  # type: ignore[union-attr]
        actions = generator.integers(0, 3, 3)
        row = vector.step(torch.from_numpy(actions))
        obs, reward, terminated, truncated, _ = env.step(actions)
        assert reward.dtype == np.float64 and np.array_equal(reward, row.reward.numpy().astype(float))
        assert np.array_equal(terminated, row.terminated.numpy())
        assert np.array_equal(terminated | truncated, row.last.numpy()) and not (terminated & truncated).any()
    episode = vector.episode + 1  # type: ignore[attr-defined]
    obs, _ = env.reset()  # the episodes after those
    expected = vector.restore(episode, [np.zeros(0)] * 3).obs
    assert np.array_equal(obs, expected.numpy())  # type: ignore[union-attr]
    assert np.array_equal(env.reset(seed=7)[0], env.reset(seed=7)[0])
    env.close()


def test_continuous_actions_and_pictures_of_every_lane() -> None:
    env = gymnasium.make_vec("rlkit/Driving", num_envs=2, size=16, frames=2, skip=1, render_mode="rgb_array")
    env.reset(seed=0)
    actions = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0]], np.float32)
    obs, _, _, truncated, _ = env.step(actions)
    assert obs.shape == (2, 16, 16) and not truncated.any()
    assert env.step(actions)[3].all()
    pictures = env.render()
    assert pictures is not None and [picture.shape for picture in pictures] == [(400, 600, 3)] * 2
    env.close()


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"env\.kwargs\.size=6: allowed: an odd whole number"):
        gymnasium.make("rlkit/Maze", size=6)
    with pytest.raises(ValueError, match="rlkit/Maze refuses them: no walls; allowed: size, loops"):
        gymnasium.make_vec("rlkit/Maze", num_envs=2, walls=3)
    env = Single("rlkit/Maze")
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        env.step(0)
    several = gymnasium.make_vec("rlkit/Maze", num_envs=2)
    with pytest.raises(TypeError, match=r"reset\(seed=\[1, 2\]\): allowed: one whole number for all lanes"):
        several.reset(seed=[1, 2])  # type: ignore[arg-type]


def test_spaces_and_values_of_every_kind() -> None:
    box = Box((2,), "float32", np.array([-1.0, 0.0]), 1.0)
    inner = Dict((("0", Discrete(3)), ("1", MultiBinary(2))), is_tuple=True)
    space = Dict((("box", box), ("pair", inner), ("several", MultiDiscrete((2, 3), (0, 0)))))
    found = gym_space(space)
    again = from_gymnasium(found)
    assert found["box"].low.tolist() == [-1, 0] and found["box"].dtype == np.float32  # type: ignore[index]
    assert isinstance(again, Dict) and again["pair"] == inner
    rows = {
        "box": torch.tensor([[0.5, 0.25]]),
        "pair.0": torch.tensor([2]),
        "pair.1": torch.tensor([[1, 0]], dtype=torch.int8),
        "several": torch.tensor([[1, 2]]),
    }
    shown = value(space, rows, lambda part: part.numpy()[0].copy())
    assert found.contains(shown) and shown["pair"][0] == 2 and shown["several"].tolist() == [1, 2]
