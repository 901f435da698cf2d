"""Episodes follow from their seed alone, also in an environment object that has played others before."""

import importlib.util

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.single import make_env
from rlkit.envs.wrappers.quirks import fresh_world

NEEDS = {"HalfCheetah-v5": "mujoco", "ALE/Pong-v5": "ale_py"}


def play(env, episode, history):
    """Rows of one lane along a history of actions."""
    env.restore(np.array([episode]), [history[:0]])
    rows = []
    for action in history:
        row = env.step(torch.from_numpy(action[None].copy()))
        rows.append((row.obs.clone(), row.reward.clone(), row.terminated.clone(), row.last.clone()))
        if row.last:
            break
    return rows


@pytest.mark.parametrize(
    ("id", "skip", "length"),
    [
        ("CartPole-v1", 1, 8),
        ("Pendulum-v1", 1, 50),
        ("CarRacing-v3", 1, 50),
        ("CarRacing-v3", 2, 40),
        ("LunarLander-v3", 1, 60),
        ("BipedalWalker-v3", 1, 90),
        ("HalfCheetah-v5", 1, 60),
        ("ALE/Pong-v5", 1, 60),
    ],
)
def test_restore_is_exact_after_other_episodes(id, skip, length):
    if id in NEEDS:
        pytest.importorskip(NEEDS[id])
    if id.startswith("Half") and importlib.util.find_spec("imageio") is None:
        pytest.skip("Gymnasium's MuJoCo environments import imageio")
    config = EnvConfig(id=id, lanes=1, skip=skip, backend="inprocess", check="finite")
    used, new = make_vec(config, 7), make_vec(config, 7)
    space = used.block.action_space
    space.seed(2)  # with these actions BipedalWalker-v3 differs unless its world is made new
    history = [np.asarray(space.sample(), used.rows.action.dtype) for _ in range(length)]
    history = np.stack(history)
    for other in range(4):  # leave traces of other episodes
        play(used, 10 + other, np.roll(history, 5 + other, axis=0))
    a, b = play(used, 2, history), play(new, 2, history)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))
    restored = used.restore(np.array([2]), [history[: len(b)]])
    assert all(
        torch.equal(p, q)
        for p, q in zip(
            (restored.obs, restored.reward, restored.terminated, restored.last), b[-1], strict=True
        )
    )
    if not restored.last:  # and it goes on as the other would
        for action in history[:10]:
            p, q = used.step(torch.from_numpy(action[None])), new.step(torch.from_numpy(action[None]))
            assert torch.equal(p.obs, q.obs)
            assert torch.equal(p.reward, q.reward)
    used.close()
    new.close()


def test_a_box2d_world_is_new_before_each_reset():
    env = make_env(EnvConfig(id="BipedalWalker-v3"))
    renew = fresh_world(env)
    env.reset(seed=0)
    world = env.unwrapped.world
    renew()
    assert env.unwrapped.world is not world
    assert tuple(env.unwrapped.world.gravity) == tuple(world.gravity)
    assert world.bodyCount == 0
    assert fresh_world(make_env(EnvConfig(id="CartPole-v1"))) is None
