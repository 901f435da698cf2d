"""However lanes are run, transitions are the same: here, in workers, in Gymnasium's autoreset modes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlkit.envs import EnvConfig, EnvFault, make_vec
from rlkit.envs.backends.gymnasium import Native
from rlkit.envs.toys import Faulty, Scripted
from rlkit.seeding import Seeds, episode_seed

LANES, STEPS, SEED = 5, 60, 11
SCRIPT = {"lengths": [6], "truncated": [True], "stop": 4}  # action 4 terminates, else step 6 truncates


def play(env, steps=STEPS, lanes=LANES):
    """Rows of every step under the same actions, as arrays [T+1, N, ...]."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 5, (steps, lanes))
    rows = [env.restore(np.zeros(lanes, np.int64), [np.zeros(0, np.int64)] * lanes)]
    names = ("obs", "reward", "terminated", "first", "last")
    seen = {name: [getattr(rows[0], name).numpy().copy()] for name in names}
    for action in actions:
        row = env.step(torch.from_numpy(action))
        for name in names:
            seen[name].append(getattr(row, name).numpy().copy())
    env.close()
    return {name: np.stack(parts) for name, parts in seen.items()}


def make(kind):
    config = EnvConfig(id="rlkit.envs.toys:Scripted", kwargs=SCRIPT, lanes=LANES, backend="inprocess")
    if kind == "inprocess":
        return make_vec(config, SEED)
    if kind.startswith("workers"):
        return make_vec(EnvConfig(**{**vars(config), "backend": "workers", "workers": int(kind[-1])}), SEED)
    vector = SyncVectorEnv([lambda: Scripted(**SCRIPT)] * LANES, autoreset_mode=AutoresetMode[kind])
    return Native(vector, config, Seeds(SEED, False, 0, LANES))


@pytest.fixture(scope="module")
def reference():
    return play(make("inprocess"))


def test_the_reference_has_every_kind_of_ending(reference):
    """One slow, obvious simulation of Scripted under the row rule."""
    actions = np.random.default_rng(0).integers(0, 5, (STEPS, LANES))
    for lane in range(LANES):
        t, episode, last = 0, 0, False
        for step in range(STEPS + 1):
            action = -1
            if step == 0 or last:
                episode += step > 0
                t, reward, terminated, last, first = 0, 0.0, False, False, True
            else:
                action = actions[step - 1, lane]
                t, first, terminated = t + 1, False, action == 4
                reward, last = t + action / 10, terminated or t == 6
            seed = episode_seed(SEED, lane, episode) % 1000
            assert reference["obs"][step, lane].tolist() == [episode, t, action, seed]
            assert reference["reward"][step, lane] == np.float32(reward)
            for name, value in (("terminated", terminated), ("first", first), ("last", last)):
                assert reference[name][step, lane] == value, (name, step, lane)
    truncated = reference["last"] & ~reference["terminated"]
    assert truncated.sum() > 3
    assert reference["terminated"].sum() > 10


@pytest.mark.parametrize("kind", ["workers1", "workers2", "workers5", "NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_transitions_are_the_same(reference, kind):
    other = play(make(kind))
    for name in ("reward", "terminated", "first", "last"):
        np.testing.assert_array_equal(other[name], reference[name], name)
    # obs[0] counts the object's resets (some adapters reset more often than they show), obs[3] is the seed,
    # which a NEXT_STEP vector draws by itself after the first episode.
    same = {"NEXT_STEP": [1, 2], "SAME_STEP": [1, 2, 3], "DISABLED": [1, 2, 3]}.get(kind, [0, 1, 2, 3])
    np.testing.assert_array_equal(other["obs"][..., same], reference["obs"][..., same])


def test_native_next_step_seeds_the_first_episodes(reference):
    np.testing.assert_array_equal(play(make("NEXT_STEP"))["obs"][0], reference["obs"][0])


class Nested(Scripted):
    """The same with composite observations and offset choices."""

    def __init__(self, **script):
        super().__init__(**script)
        self.observation_space = spaces.Dict(
            {
                "all": spaces.Box(-1, 1e4, (4,), np.float32),
                "deep": spaces.Dict({"t": spaces.Discrete(9, start=2)}),
            }
        )
        self.action_space = spaces.Discrete(5, start=3)

    def step(self, action):
        return super().step(action - 3)

    def _observe(self, action):
        return {"all": super()._observe(action), "deep": {"t": np.int64(self.t + 2)}}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_native_dict_observations_and_offsets(reference, mode):
    config = EnvConfig(id="Nested", lanes=LANES)
    env = Native(
        SyncVectorEnv([lambda: Nested(**SCRIPT)] * LANES, autoreset_mode=mode),
        config,
        Seeds(SEED, False, 0, LANES),
    )
    actions = np.random.default_rng(0).integers(0, 5, (STEPS, LANES))
    row = env.restore(np.zeros(LANES, np.int64), [np.zeros(0, np.int64)] * LANES)
    for t in range(STEPS):
        row = env.step(torch.from_numpy(actions[t]))
        expected = reference["obs"][t + 1]
        np.testing.assert_array_equal(row.obs["all"].numpy()[:, 1:3], expected[:, 1:3])
        np.testing.assert_array_equal(row.obs["deep.t"].numpy(), expected[:, 1])


def test_native_cartpole_keeps_the_row_rule_and_warns_about_replay():
    env = make_vec(EnvConfig(id="CartPole-v1", lanes=4, backend="native"), 0)
    row = env.restore(np.zeros(4, np.int64), [np.zeros(0, np.int64)] * 4)
    opened = 0
    for _ in range(120):
        before = row.last.clone()
        row = env.step(torch.zeros(4, dtype=torch.int64))
        assert torch.equal(row.first, before)
        assert not row.reward[row.first].any()
        opened += int(row.first.sum())
    assert opened > 20
    with pytest.warns(UserWarning, match="cannot replay"):
        row = env.restore(np.zeros(4, np.int64), [np.ones(3, np.int64)] * 4)
    assert row.first.all()
    env.close()


@pytest.mark.parametrize("kind", ["raised", "loop", "space"])
def test_native_faults(kind):
    config = EnvConfig(id="Faulty", lanes=2, deadline=0.5, check="space")
    env = Native(SyncVectorEnv([lambda: Faulty(kind, at=2)] * 2), config, Seeds(SEED, False, 0, 2))
    env.restore(np.zeros(2, np.int64), [np.zeros(0, np.int64)] * 2)
    env.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(EnvFault, match="environment Faulty, lane 0, episode 0") as caught:
        env.step(torch.zeros(2, dtype=torch.int64))
    assert caught.value.kind == {"loop": "hung"}.get(kind, kind)
    assert caught.value.step == 2
    env.close()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_restore_like_one_process(workers):
    """Lanes in different episodes with histories of different lengths, one of them ended."""
    config = EnvConfig(id="Pendulum-v1", lanes=3, backend="inprocess", time_limit=9)
    parts = [config, EnvConfig(**{**vars(config), "backend": "workers", "workers": workers})]
    rng = np.random.default_rng(1)
    history = [rng.uniform(-2, 2, (k, 1)).astype(np.float32) for k in (0, 5, 9)]
    envs = [make_vec(part, 2, first_lane=7) for part in parts]
    rows = [env.restore(np.array([4, 0, 1]), history) for env in envs]
    assert rows[0].last.tolist() == [False, False, True]
    assert rows[0].first.tolist() == [True, False, False]
    for _ in range(12):
        for name in ("obs", "reward", "terminated", "first", "last"):
            assert torch.equal(getattr(rows[0], name), getattr(rows[1], name)), name
        action = torch.from_numpy(rng.uniform(-2, 2, (3, 1)).astype(np.float32))
        rows = [env.step(action) for env in envs]
    for env in envs:
        env.close()


def test_wrapped_frames_and_pictures_come_out_of_workers():
    config = EnvConfig(id="CarRacing-v3", lanes=2, skip=2, gray=True, size=64, backend="inprocess")
    envs = [
        make_vec(config, 0, render=True),
        make_vec(EnvConfig(**{**vars(config), "backend": "workers", "workers": 2}), 0, render=True),
    ]
    none = [np.zeros((0, 3), np.float32)] * 2
    rows = [env.restore(np.zeros(2, np.int64), none) for env in envs]
    for _ in range(3):
        rows = [env.step(torch.tensor([[0.5, 1.0, 0.0], [-0.5, 0.2, 0.0]])) for env in envs]
    assert torch.equal(rows[0].obs, rows[1].obs)
    pictures = [env.render(1) for env in envs]
    assert pictures[0].ndim == 3
    assert pictures[0].std() > 0
    np.testing.assert_array_equal(*pictures)
    for env in envs:
        env.close()
        env.close()  # idempotent
    quiet = make_vec(EnvConfig(id="CartPole-v1", lanes=2, workers=1, backend="workers"), 0)
    quiet.restore(np.zeros(2, np.int64), [np.zeros(0, np.int64)] * 2)
    assert quiet.render(0) is None
    quiet.close()
    with pytest.raises(ValueError, match="closed"):
        quiet.step(torch.zeros(2, dtype=torch.int64))
