"""EnvPool's rows: the row rule against Gymnasium's environments stepped one by one; seeds, threads, errors."""

import importlib.util
import sys

import gymnasium
import numpy as np
import pytest
import torch

if importlib.util.find_spec("envpool") is None:  # which takes seconds to import
    pytest.skip("EnvPool is not installed", allow_module_level=True)

from rlkit.envs import EnvConfig, make_vec, probe
from rlkit.seeding import episode_seed
from rlkit.spaces import Box, Dict, Discrete

SEED = 5
NAMES = ("obs", "reward", "terminated", "first", "last")


def pool(id, lanes=4, *, seed=SEED, evaluation=False, first_lane=0, workers=0, render=False, **kwargs):
    config = EnvConfig(id=id, backend="envpool", lanes=lanes, workers=workers, kwargs=kwargs)
    return make_vec(config, seed, evaluation=evaluation, first_lane=first_lane, render=render)


def opened(vector, episode=0):
    return vector.restore(np.full(vector.lanes, episode), [np.zeros(0)] * vector.lanes)


def play(vector, actions):
    """The rows under actions [T, N, ...]: arrays [T+1, N, ...]."""
    row = opened(vector)
    seen = {name: [getattr(row, name).numpy().copy()] for name in NAMES}
    for action in actions:
        row = vector.step(torch.from_numpy(action))
        for name in NAMES:
            seen[name].append(getattr(row, name).numpy().copy())
    vector.close()
    return {name: np.stack(parts) for name, parts in seen.items()}


def cartpole_state(obs):
    return np.array(obs, np.float64)


def pendulum_state(obs):
    return np.array([np.arctan2(obs[1], obs[0]), obs[2]], np.float64)


CASES = {
    # id: (the environment's state of an observation, actions, limit, tolerance of observations)
    "CartPole-v1": (cartpole_state, lambda rng: rng.integers(0, 2, (120, 4)), 25, 1e-4),
    "Pendulum-v1": (pendulum_state, lambda rng: rng.uniform(-2, 2, (120, 4, 1)).astype(np.float32), 30, 5e-3),
}


@pytest.mark.parametrize("id", CASES)
def test_rows_are_those_of_gymnasium(id):
    """From each opening observation on, Gymnasium's environment gives the same rewards, endings and lengths."""
    state, draw, limit, tolerance = CASES[id]
    actions = draw(np.random.default_rng(0))
    seen = play(pool(id, max_episode_steps=limit), actions)
    env = gymnasium.make(id, disable_env_checker=True).unwrapped
    kinds = set()
    for lane in range(4):
        steps, over = 0, True
        for row in range(len(actions) + 1):
            first = over
            if first:
                env.reset(seed=0)
                env.state = state(seen["obs"][row, lane])
                expected, reward, terminated, over, steps = seen["obs"][row, lane], 0.0, False, False, 0
            else:
                expected, reward, terminated, _, _ = env.step(actions[row - 1, lane])
                steps += 1
                over = terminated or steps == limit
                kinds.add((terminated, over))
                terminated = terminated and steps < limit  # at the limit EnvPool reports a truncation only
            assert seen["first"][row, lane] == first, (lane, row)
            assert seen["last"][row, lane] == over, (lane, row)
            assert seen["terminated"][row, lane] == terminated, (lane, row)
            np.testing.assert_allclose(seen["obs"][row, lane], expected, atol=tolerance)
            np.testing.assert_allclose(seen["reward"][row, lane], reward, atol=20 * tolerance)
    assert (False, True) in kinds
    assert (id == "Pendulum-v1") or (True, True) in kinds


def test_the_action_after_an_ending_is_ignored():
    actions = np.zeros((40, 2), np.int64)
    seen = play(pool("CartPole-v1", 2), actions)
    after = np.flatnonzero(seen["last"][:-1, 0])
    assert len(after) > 2
    actions[after, 0] = 1
    other = play(pool("CartPole-v1", 2), actions)
    for name in NAMES:
        np.testing.assert_array_equal(other[name], seen[name], name)


def test_pong_without_moving_is_lost_21_to_0_in_both():
    pytest.importorskip("ale_py")
    row_of = make_vec(
        EnvConfig(
            id="ALE/Pong-v5", lanes=1, skip=4, backend="inprocess", kwargs={"repeat_action_probability": 0.0}
        ),
        0,
    )
    for vector in (pool("Pong-v5", 1, stack_num=1), row_of):
        row, total, paid = opened(vector), 0.0, set()
        for _ in range(2000):
            row = vector.step(torch.zeros(1, dtype=torch.int64))
            total += row.reward.item()
            paid.add(row.reward.item())
            if row.last.item():
                break
        assert total == -21 and paid == {-1.0, 0.0} and row.terminated.item()
        row = vector.step(torch.zeros(1, dtype=torch.int64))
        assert row.first.item() and row.reward.item() == 0 and not row.last.item()
        vector.close()


def test_a_lane_is_seeded_by_its_number_and_its_first_episode():
    actions = np.random.default_rng(1).integers(0, 2, (60, 3))
    base = play(pool("CartPole-v1", 3), actions)
    again = play(pool("CartPole-v1", 3, workers=1), actions)  # one thread
    for name in NAMES:
        np.testing.assert_array_equal(again[name], base[name], name)
    assert len(np.unique(base["obs"][0, :, 0])) == 3
    shifted = play(pool("CartPole-v1", 2, first_lane=1), actions[:, 1:])
    np.testing.assert_array_equal(shifted["obs"], base["obs"][:, 1:])
    held_out = play(pool("CartPole-v1", 3, evaluation=True), actions)
    assert not np.isin(held_out["obs"][0], base["obs"][0]).any()
    assert episode_seed(SEED, 0, 2**20, True) < 2**31  # what a pool's seed may be


def test_restore_opens_the_episode_of_that_number_and_says_what_it_cannot():
    vector = pool("CartPole-v1", 2)
    zero = opened(vector).obs.clone()
    three = opened(vector, 3).obs.clone()
    assert not torch.equal(zero, three)
    assert vector.rows.episode.tolist() == [3, 3]
    with pytest.warns(UserWarning, match=r"CartPole-v1: env.backend=envpool cannot replay actions"):
        row = vector.restore(np.array([2, 3]), [np.zeros(4, np.int64), np.zeros(0, np.int64)])
    assert vector.rows.episode.tolist() == [3, 3]
    assert torch.equal(row.obs, three) and row.first.all() and not row.last.any()
    vector.close()


def test_spaces_and_pictures():
    assert probe(EnvConfig(id="Taxi-v3", backend="envpool")).spec.observation == Discrete(500)
    grid = probe(
        EnvConfig(id="Pong-v5", backend="envpool", kwargs={"stack_num": 1, "img_height": 42})
    ).spec.observation
    assert isinstance(grid, Box) and grid.shape == (1, 42, 84) and grid.dtype == "uint8"
    vector = pool("parking-v0", 3, render=True)
    assert isinstance(vector.spec.observation, Dict)
    row = opened(vector)
    assert {name: tuple(leaf.shape) for name, leaf in row.obs.items()} == dict.fromkeys(
        ("observation", "achieved_goal", "desired_goal"), (3, 6)
    )
    row = vector.step(torch.zeros(3, 2))
    assert all(leaf.dtype == torch.float32 for leaf in row.obs.values())
    picture = vector.render(1)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    vector.close()
    vector.close()
    assert pool("CartPole-v1").render() is None


def test_rewards_are_scaled_in_training_only():
    config = EnvConfig(id="CartPole-v1", backend="envpool", lanes=1, reward_scale=0.5)
    for evaluation, expected in ((False, 0.5), (True, 1.0)):
        vector = make_vec(config, 0, evaluation=evaluation)
        opened(vector)
        assert vector.step(torch.zeros(1, dtype=torch.int64)).reward.item() == expected
        vector.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "CartPol-v1"}, r"EnvPool has no such environment; nearest: CartPole-v1"),
        ({"kwargs": {"seed": 3}}, r"rlkit sets seed itself.*allowed: max_episode_steps"),
        ({"kwargs": {"frames": 3}}, r"frames.*allowed: max_episode_steps"),
        ({"kwargs": {"max_episode_steps": "x"}}, r"a value of the wrong type; allowed: max_episode_steps"),
        ({"id": "intersection-multi-agent-v0"}, r"has 2 players"),
        ({"skip": 4}, r"env.skip=4: env.backend=envpool takes its environment as it is.*env.kwargs"),
        ({"time_limit": 9}, r"env.time_limit=9.*max_episode_steps"),
        ({"action_mask": "info"}, r"env.action_mask=info: env.backend=envpool"),
    ],
)
def test_errors_say_what_to_type(fields, message):
    with pytest.raises(ValueError, match=message):
        make_vec(EnvConfig(**{"id": "CartPole-v1", "backend": "envpool", **fields}), 0)


def test_a_missing_package_names_its_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r'needs the package envpool.*pip install "rlkit\[envpool\]"'):
        probe(EnvConfig(id="CartPole-v1", backend="envpool"))


def test_an_id_that_only_envpool_has_is_trained_on(tmp_path, monkeypatch):
    import rlkit

    monkeypatch.chdir(tmp_path)
    options = {
        "env.backend": "envpool",
        "env.lanes": 4,
        "agent.steps": 32,
        "agent.minibatch": 64,
        "threads": 1,
    }
    run = rlkit.train("ppo", "Exit-v0", total_steps=512, seed=1, **options)
    assert rlkit.load(run).spec.observation.shape == (15, 7)
