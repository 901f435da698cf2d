"""Classic control in machine code beside Gymnasium's environments: every bit, whatever the lanes meet."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv

import rlkit
from rlkit.envs import EnvConfig, EnvFault, make_vec
from rlkit.envs.backends.games import make_block
from rlkit.envs.backends.inprocess import InProcess
from rlkit.envs.backends.lane import Block
from rlkit.envs.backends.rows import Rows
from rlkit.envs.classic import block as classic
from rlkit.envs.classic.problems import PROBLEMS, suits
from rlkit.seeding import Seeds

LANES = 5


def plain(config, seed=3):
    """The lanes that step Gymnasium's environments."""
    seeds = Seeds(seed, False, 0, config.lanes)
    return InProcess(config, seeds, block=Block(config, seeds, 0, config.lanes))


def both(**options):
    """Our lanes and Gymnasium's, with their first episodes opened."""
    config = EnvConfig(lanes=LANES, backend="inprocess", action_mask="none", **options)
    vectors = make_vec(config, 3), plain(config)
    assert [type(each.block) for each in vectors] == [classic.ClassicBlock, Block]
    for each in vectors:
        each.restore(np.zeros(LANES, np.int64), [each.rows.action[:0]] * LANES)
    return vectors


def actions(vector, count, wide=1.0):
    """Random actions [count, N, ...], held for a few steps so that cars leave their valley."""
    space, generator = vector.block.action_space, np.random.default_rng(0)
    if vector.rows.action.dtype.kind == "i":
        drawn = generator.integers(space.n, size=(count, LANES))
    else:
        drawn = generator.uniform(wide * space.low, wide * space.high, (count, LANES, *space.shape))
    held = np.arange(count) // 3 * 3
    return torch.from_numpy(drawn[held].astype(vector.rows.action.dtype))


def equal(ours, theirs):
    """Whether all that two vectors show is the same, bit for bit."""
    names = ("reward", "terminated", "first", "last", "episode", "steps", "failures")
    arrays = [(getattr(ours.rows, name), getattr(theirs.rows, name)) for name in names]
    arrays.append((ours.rows.obs[""], theirs.rows.obs[""]))
    return all(one.tobytes() == other.tobytes() for one, other in arrays)


@pytest.mark.parametrize(
    ("id", "steps", "options"),
    [
        ("CartPole-v0", 300, {"reward_scale": 0.5}),
        ("CartPole-v1", 600, {"check": "space", "stack": 2}),
        ("Pendulum-v1", 450, {"check": "space", "reward_scale": 0.1}),
        ("Acrobot-v1", 300, {"time_limit": 120}),
        ("MountainCar-v0", 450, {}),
        ("MountainCarContinuous-v0", 450, {"time_limit": 150, "check": "none"}),
    ],
)
def test_whole_episodes_have_gymnasiums_bits(id, steps, options):
    ours, theirs = both(id=id, **options)
    assert equal(ours, theirs)
    for action in actions(theirs, steps, wide=1.5):
        ours.step(action)
        theirs.step(action)
        assert equal(ours, theirs)
    assert int(ours.rows.episode.min()) >= 1, "every lane opened an episode of its own"


@pytest.mark.parametrize(
    ("id", "control"),
    [
        ("Acrobot-v1", lambda obs: 1 + np.sign(obs[:, 5]).astype(np.int64)),
        ("MountainCar-v0", lambda obs: 1 + np.sign(obs[:, 1]).astype(np.int64)),
        ("MountainCarContinuous-v0", lambda obs: np.sign(obs[:, 1:] + 1e-9) * np.float32(1.2)),
    ],
)
def test_episodes_that_reach_the_goal_end_there(id, control):
    ours, theirs = both(id=id)
    ended = 0
    for _ in range(260):
        action = torch.from_numpy(control(theirs.rows.obs[""]).astype(theirs.rows.action.dtype))
        ours.step(action)
        theirs.step(action)
        assert equal(ours, theirs)
        ended += int(ours.rows.terminated.sum())
    assert ended >= 3


def test_a_checkpoint_of_one_is_continued_by_the_other():
    ours, theirs = both(id="MountainCarContinuous-v0")
    drawn = actions(theirs, 40)
    history = [drawn[:k, n].numpy() for n, k in enumerate((0, 1, 7, 39, 20))]
    for each in (ours, theirs):
        each.restore(np.arange(LANES), history)
    assert equal(ours, theirs)
    for action in drawn:
        ours.step(action)
        theirs.step(action)
        assert equal(ours, theirs)


@pytest.mark.parametrize(
    ("id", "bad", "kind"),
    [
        ("CartPole-v1", 2, "raised"),
        ("Pendulum-v1", float("nan"), "nan"),
        ("MountainCarContinuous-v0", 1e30, "nan"),
    ],
)
@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_actions_that_are_none_fail_as_in_gymnasium(id, bad, kind, limit):
    ours, theirs = both(id=id, max_failures=limit)
    drawn = actions(theirs, 12)
    drawn[6, 2] = bad
    for step, action in enumerate(drawn):
        told = []
        for each in (ours, theirs):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", RuntimeWarning)
                try:
                    each.step(action)
                except EnvFault as fault:
                    told.append((fault.kind, fault.lane, fault.step, fault.seed))
                else:
                    told.append([str(each.message) for each in said if "cut there" in str(each.message)])
        assert told[0] == told[1]
        assert bool(told[0]) == (step == 6)
        if step == 6 and not limit:
            assert told[0][:3] == (kind, 2, 7)
            return
        assert equal(ours, theirs)


def test_parts_of_the_lanes_have_their_own_seeds():
    """Blocks of lanes 0, 1 and 2 to 4, as workers have them, on the seeds of evaluations."""
    config, seeds = EnvConfig(id="CartPole-v1", lanes=LANES, check="none"), Seeds(3, True, 0, LANES)
    theirs = InProcess(config, seeds, block=Block(config, seeds, 0, LANES))
    theirs.restore(np.zeros(LANES, np.int64), [theirs.rows.action[:0]] * LANES)
    blocks = [make_block(config, seeds, *part) for part in ((0, 2), (2, LANES))]
    rows = Rows(blocks[0].observation, blocks[0].action, LANES)
    for block in blocks:
        block.attach(rows)
        count = block.stop - block.start
        block.restore(np.zeros(count, np.int64), [rows.action[:0]] * count)
    for action in actions(theirs, 150):
        theirs.step(action)
        rows.action[:] = action.numpy()
        for block in blocks:
            block.step()
        assert rows.obs[""].tobytes() == theirs.rows.obs[""].tobytes()
        assert rows.episode.tobytes() == theirs.rows.episode.tobytes()
    assert rows.episode.min() > 1


@pytest.mark.parametrize(
    "options",
    [
        {"kwargs": {"sutton_barto_reward": True}},
        {"skip": 2},
        {"keep": (0, 2)},
        {"stuck_after": 5},
        {"pixels": 32},
        {"labels": ("pose",)},
        {"action_mask": "info"},
        {"id": "LunarLander-v3"},
    ],
)
def test_what_is_not_the_plain_problem_is_gymnasiums(options):
    usual = EnvConfig(id="CartPole-v1")
    assert suits(usual)
    assert suits(replace(usual, time_limit=50, reward_scale=2.0, stack=4))
    assert not suits(replace(usual, **options))


def test_lanes_that_are_drawn_are_gymnasiums():
    vector = make_vec(EnvConfig(id="CartPole-v1", lanes=1, backend="inprocess"), 0, render=True)
    assert type(vector.block) is Block
    vector.close()


@pytest.mark.parametrize("id", PROBLEMS)
def test_an_unchanged_gymnasium_is_recognized(id):
    assert classic.difference(id, PROBLEMS[id][1]) == ""


@pytest.fixture
def unknown():
    """Whether the installed Gymnasium is the same is asked anew, before and after."""
    classic.same.cache_clear()
    yield
    classic.same.cache_clear()


def test_another_gravity_is_noticed_and_gymnasium_steps(monkeypatch, unknown):
    made = CartPoleEnv.__init__

    def heavier(self, *arguments, **named):
        made(self, *arguments, **named)
        self.gravity = np.nextafter(9.8, 10)

    monkeypatch.setattr(CartPoleEnv, "__init__", heavier)
    with pytest.warns(
        UserWarning, match="CartPole-v1: step .* differs from ours, so Gymnasium's own environments"
    ):
        vector = make_vec(EnvConfig(id="CartPole-v1", lanes=2, backend="inprocess"), 0)
    assert type(vector.block) is Block
    vector.close()


def test_another_class_or_interface_is_gymnasiums(monkeypatch, unknown):
    class Other(CartPoleEnv):
        pass

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv", Other)
    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv", Other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not classic.same("CartPole-v1")
    monkeypatch.setattr(Continuous_MountainCarEnv, "step", lambda self, action: (None,) * 3)
    with pytest.warns(UserWarning, match="ValueError"):
        assert not classic.same("MountainCarContinuous-v0")


def test_a_run_ends_with_the_weights_of_gymnasiums_lanes(tmp_path, monkeypatch):
    options = {
        "env.lanes": 4, "agent.steps": 32, "agent.minibatch": 64, "network.hidden": [8], "threads": 1,
        "log.tensorboard": False, "preset": "none", "compile": False, "evaluate.episodes": 2,
    }  # fmt: skip

    def weights(name):
        run = rlkit.train("ppo", "cartpole", dir=str(tmp_path), name=name, total_steps=512, **options)
        last = max((run / "checkpoints").iterdir())
        return last.name, (last / "policy.safetensors").read_bytes()

    ours = weights("ours")
    for module in ("make", "backends.games"):
        monkeypatch.setattr(f"rlkit.envs.{module}.known", lambda config: False)
    assert weights("gymnasium") == ours
