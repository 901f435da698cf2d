"""The toys' known answers: the best policy gets the best return, others do not."""

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.toys import Bandit, Cue, Faulty, Identity, Quadratic


def total(env, policy, episodes=200):
    returns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        done, value = False, 0.0
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            assert env.observation_space.contains(obs)
            value, done = value + reward, terminated or truncated
        returns.append(value)
    return float(np.mean(returns))


def test_identity():
    assert total(Identity(4, 10), lambda obs: int(obs.argmax())) == 10.0
    assert total(Identity(4, 10), lambda obs: 0) == pytest.approx(2.5, abs=0.3)


def test_bandit():
    assert total(Bandit(3), lambda obs: (int(obs.argmax()) + 1) % 3) == 1.0
    assert total(Bandit(3), lambda obs: (int(obs.argmax()) + 2) % 3) == 0.5
    assert total(Bandit(3), lambda obs: 0) == pytest.approx(0.5, abs=0.1)  # (1 + 0.5 + 0) / 3


def test_quadratic():
    assert total(Quadratic(2), lambda obs: -obs) == 0.0
    # E x_0^2 = 1/3 for a uniform start
    assert total(Quadratic(2), lambda obs: np.zeros(2, np.float32)) == pytest.approx(-10 / 3, abs=0.3)


def test_cue():
    """A policy that remembers the cue is always paid; the rows after the first do not show it."""
    memory = {}

    def remember(obs):
        if obs[:-1].any():
            memory["cue"] = int(obs[:-1].argmax())
        return memory["cue"]

    assert total(Cue(3, delay=4), remember) == 1.0
    assert total(Cue(3, delay=4), lambda obs: int(obs.argmax()) % 3) == pytest.approx(1 / 3, abs=0.1)
    env = Cue(3, delay=4)
    env.reset(seed=0)
    rows = [env.step(0)[0] for _ in range(4)]
    assert not np.any([row[:-1] for row in rows])
    assert [row[-1] for row in rows] == [0, 0, 0, 1]


def test_faulty_refuses_unknown_kinds():
    with pytest.raises(ValueError, match="allowed: raised"):
        Faulty("odd")


def test_batched_quadratic_follows_the_row_rule():
    """Against numbers worked out from x' = x + a, with clipped actions, two episodes long."""
    config = EnvConfig(id="rlkit.envs.toys.batched:Quadratic", lanes=3, kwargs={"size": 2, "length": 3})
    env = make_vec(config, 4)
    row = env.restore(np.zeros(3, np.int64), [np.zeros((0, 2))] * 3)
    assert row.first.all()
    assert row.obs.abs().max() <= 1.0
    starts = [row.obs.clone()]
    actions = [torch.full((3, 2), 0.25), torch.full((3, 2), 5.0), -torch.ones(3, 2)]
    x = row.obs.clone()
    for t, action in enumerate(actions):
        row = env.step(action)
        x = x + action.clamp(-1, 1)
        torch.testing.assert_close(row.obs, x)
        torch.testing.assert_close(row.reward, -x.square().mean(-1))
        assert (row.last == (t == 2)).all()
        assert not row.first.any()
        assert not row.terminated.any()
    row = env.step(torch.ones(3, 2))
    assert row.first.all()
    assert not row.last.any()
    assert not row.reward.any()
    starts.append(row.obs.clone())
    assert len({tuple(start.tolist()) for rows in starts for start in rows}) == 6

    again = make_vec(config, 4)
    k = [0, 2, 3]
    history = [torch.stack(actions)[: k[n], n].numpy() for n in range(3)]
    restored = again.restore(np.zeros(3, np.int64), history)
    for n in range(3):
        expected = starts[0][n] + sum((a[n].clamp(-1, 1) for a in actions[: k[n]]), torch.zeros(2))
        torch.testing.assert_close(restored.obs[n], expected)
    assert restored.last.tolist() == [False, False, True]
    assert restored.first.tolist() == [True, False, False]
    nxt = again.restore(np.ones(3, np.int64), [np.zeros((0, 2))] * 3)
    assert torch.equal(nxt.obs, starts[1])


def test_batched_lanes_do_not_depend_on_the_split():
    kind = "rlkit.envs.toys.batched:Quadratic"
    none = [np.zeros((0, 1))] * 2
    whole = make_vec(EnvConfig(id=kind, lanes=4), 1).restore(np.zeros(4, np.int64), none * 2)
    part = make_vec(EnvConfig(id=kind, lanes=2), 1, first_lane=2).restore(np.zeros(2, np.int64), none)
    assert torch.equal(whole.obs[2:], part.obs)
