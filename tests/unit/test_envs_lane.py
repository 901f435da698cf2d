"""The row rule by hand, explicit seeds, spaces' offsets, and every check of what an environment returns."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.envs import EnvConfig, EnvFault, make_vec
from rlkit.envs.backends.actions import unpack
from rlkit.envs.backends.rows import Check
from rlkit.seeding import Seeds, episode_seed
from rlkit.spaces import MASK, Discrete, from_gymnasium

TOYS = "rlkit.envs.toys:"


def vector(kind, lanes=2, seed=5, **options):
    keys = {"kwargs": options.pop("kwargs", {}), "check": options.pop("check", "space")}
    scale = options.pop("reward_scale", 1.0)
    config = EnvConfig(id=TOYS + kind, lanes=lanes, backend="inprocess", reward_scale=scale, **keys)
    return make_vec(config, seed, **options)


def begin(env, episode=0, actions=None):
    none = [env.rows.action[:0].copy() for _ in range(env.lanes)]
    return env.restore(np.full(env.lanes, episode, np.int64), actions or none)


def test_row_rule_by_hand():
    """lengths (3, 1, 4): episode 0 terminates after 3 steps, 1 is truncated after one, 2 terminates."""
    env = vector("Scripted", lanes=1, kwargs={"lengths": [3, 1, 4], "truncated": [False, True]})
    row = begin(env)
    seeds = [episode_seed(5, 0, episode) % 1000 for episode in range(3)]
    seen = []

    def note():
        seen.append(
            (
                row.obs[0].tolist(),
                round(float(row.reward), 4),
                *(bool(f) for f in (row.terminated, row.first, row.last)),
            )
        )

    note()
    for action in [1, 2, 3, 4, 0, 1, 2]:
        row = env.step(torch.tensor([action]))
        note()
    assert seen == [
        ([0, 0, -1, seeds[0]], 0.0, False, True, False),
        ([0, 1, 1, seeds[0]], 1.1, False, False, False),
        ([0, 2, 2, seeds[0]], 2.2, False, False, False),
        ([0, 3, 3, seeds[0]], 3.3, True, False, True),
        ([1, 0, -1, seeds[1]], 0.0, False, True, False),  # action 4 is ignored
        ([1, 1, 0, seeds[1]], 1.0, False, False, True),  # truncated: last, not terminated
        ([2, 0, -1, seeds[2]], 0.0, False, True, False),
        ([2, 1, 2, seeds[2]], 1.2, False, False, False),
    ]


def test_the_same_tensors_come_back():
    env = vector("Identity")
    assert begin(env) is env.step(torch.zeros(2, dtype=torch.int64))


def test_training_seeds_depend_on_the_global_lane_and_evaluation_seeds_not_on_the_lanes():
    assert Seeds(3, False, 4, 2).of(1, 6) == episode_seed(3, 5, 6, False)
    few, many = Seeds(3, True, 0, 2), Seeds(3, True, 0, 6)
    first = {few.of(lane, episode) for lane in range(2) for episode in range(6)}
    assert first == {many.of(lane, episode) for lane in range(6) for episode in range(2)}
    assert len(first) == 12
    assert not {Seeds(3, False, 0, 2).of(lane, episode) for lane in range(2) for episode in range(6)} & first


def test_lanes_do_not_depend_on_how_they_are_split():
    whole, part = vector("Identity", lanes=4), vector("Identity", lanes=2, first_lane=2)
    both = begin(whole), begin(part)
    for step in range(25):
        assert torch.equal(both[0].obs[2:], both[1].obs), step
        whole.step(torch.arange(4) % 2)
        part.step(torch.arange(2) % 2)


def test_reward_scale_is_for_training_only():
    for evaluation, expected in ((False, 0.55), (True, 1.1)):
        env = vector("Scripted", lanes=1, reward_scale=0.5, evaluation=evaluation)
        begin(env)
        assert float(env.step(torch.tensor([1])).reward) == pytest.approx(expected)


def test_restore_replays_and_stops_where_an_episode_ends_early():
    env, again = vector("Identity", lanes=2), vector("Identity", lanes=2)
    begin(env)
    for t in range(7):
        row = env.step(torch.tensor([t % 4, 1]))
    history = [np.arange(7) % 4, np.ones(7, np.int64)]
    other = again.restore(np.zeros(2, np.int64), history)
    for name in ("obs", "reward", "terminated", "first", "last"):
        assert torch.equal(getattr(row, name), getattr(other, name)), name
    assert again.restore(np.zeros(2, np.int64), [np.zeros(12, np.int64)] * 2).last.all()  # at step 10


@pytest.mark.parametrize(
    ("kind", "check", "found", "field"),
    [
        ("raised", "none", "raised", ""),
        ("quit", "none", "exited", ""),
        ("reset", "none", "raised", "reset"),
        ("nan", "space", "nan", "obs"),
        ("nan", "finite", "nan", "obs"),
        ("nan", "none", None, ""),
        ("reward", "space", "nan", "reward"),
        ("reward", "finite", "nan", "reward"),
        ("reward", "none", None, ""),
        ("shape", "space", "shape", "obs"),
        ("shape", "finite", "shape", "obs"),
        ("dtype", "space", "dtype", "obs"),
        ("dtype", "finite", None, ""),
        ("space", "space", "space", "obs"),
        ("space", "finite", None, ""),
        ("nan", "warn", "nan", "obs"),
        ("reward", "warn", "nan", "reward"),
        ("shape", "warn", "shape", "obs"),
        ("dtype", "warn", "dtype", "obs"),
        ("space", "warn", None, ""),
    ],
)
def test_faults_name_lane_episode_step_seed(kind, check, found, field):
    """Only lane 1 is the victim: its episode 1 opens with that seed, and fails in that episode's step 2."""
    victim = episode_seed(9, 1, 1)
    env = vector(
        "Faulty", lanes=3, seed=9, check=check, kwargs={"kind": kind, "at": 2, "seed": victim, "length": 4}
    )
    begin(env)

    def play():
        for _ in range(9):
            env.step(torch.zeros(3, dtype=torch.int64))

    if found is None:
        play()
        return
    with pytest.raises(EnvFault) as caught:
        play()
    fault = caught.value
    step = 0 if kind == "reset" else 2
    assert (fault.kind, fault.field, fault.lane, fault.episode, fault.step) == (found, field, 1, 1, step)
    assert fault.seed == victim
    text = str(fault)
    assert all(
        part in text for part in (TOYS + "Faulty", "lane 1", "episode 1", f"seed {victim}", f"step {step}")
    )
    assert ("broken" in text) == (kind in ("raised", "reset"))
    if kind == "space":
        assert "entry [1] is 101.0, its space allows [-100.0, 100.0]" in text
        assert "env.check=finite" in text
    for same in (EnvFault(**fault.to_json()), copy.copy(fault)):  # as workers and Ray hand it over
        assert same.to_json() == fault.to_json()
        assert str(same) == text


def check_rows(space, *rows, mode="space"):
    """What the checks say of observation rows (one leaf)."""
    array = np.stack([np.asarray(row) for row in rows])
    reward, last = np.zeros(len(rows), np.float32), np.zeros(len(rows), bool)
    return Check(from_gymnasium(space), Discrete(2), {"": array}, reward, last, mode).find()


@pytest.mark.parametrize("mode", ["warn", "space", "finite", "none"])
def test_a_mask_that_allows_nothing_is_found_where_an_action_follows(mode):
    action = from_gymnasium(spaces.Tuple((spaces.Discrete(2), spaces.MultiDiscrete([3, 1]))))
    observation = from_gymnasium(spaces.Dict({MASK: spaces.MultiBinary(6)}))
    mask = np.array([[1, 0, 0, 1, 0, 1], [1, 1, 0, 0, 0, 1], [0, 1, 1, 1, 1, 0]], np.int8)
    for last, expected in (
        ([False, False, False], (1, "allows nothing in component 1")),
        ([False, True, False], (2, "allows nothing in component 2")),
        ([False, True, True], None),
    ):
        check = Check(observation, action, {MASK: mask}, np.zeros(3, np.float32), np.array(last), mode)
        found = check.find()
        assert found == (None if mode == "none" or expected is None else ("mask", MASK, *expected))


def test_checks_of_bounds():
    box = spaces.Box(np.array([-1.0, -np.inf]), np.array([np.inf, 2.0]), dtype=np.float64)
    row = lambda *x: np.array(x, np.float32)  # noqa: E731
    assert check_rows(box, row(-1.0, -1e30), row(1e30, 2.0)) is None
    assert check_rows(box, row(0, 0), row(-1.5, 0))[:3] == ("space", "obs", 1)
    assert check_rows(box, row(0, 2.5))[:3] == ("space", "obs", 0)
    assert check_rows(box, row(np.inf, 0))[:3] == ("nan", "obs", 0)
    assert check_rows(box, row(0, np.nan))[:3] == ("nan", "obs", 0)
    assert check_rows(box, row(0, 2.5), mode="warn") is None
    assert check_rows(box, row(0, np.inf), mode="warn")[:3] == ("nan", "obs", 0)
    assert check_rows(spaces.Discrete(3), np.int64(3), mode="warn")[0] == "space"
    assert check_rows(spaces.Box(0, 1, (2,), np.uint8), np.array([0, 2], np.uint8), mode="warn")[0] == "space"
    # 0.1 rounds up in float32: a value at its float64 bound is inside
    tenth = spaces.Box(-0.1, 0.1, (1,), np.float64)
    assert check_rows(tenth, row(0.1)) is None
    assert check_rows(spaces.Discrete(3, start=5), np.int64(2)) is None
    assert check_rows(spaces.Discrete(3, start=5), np.int64(3))[0] == "space"
    assert check_rows(spaces.MultiDiscrete([2, 3]), np.array([1, 3]))[0] == "space"
    assert check_rows(spaces.MultiBinary(2), np.array([2, 0], np.int8))[0] == "space"
    assert check_rows(spaces.Box(0, 1, (2,), np.uint8), np.array([0, 2], np.uint8))[0] == "space"
    assert check_rows(spaces.Box(0, 255, (2,), np.uint8), np.array([0, 255], np.uint8)) is None


def test_actions_reach_the_environment_in_its_own_terms():
    cases = [
        (spaces.Discrete(3, start=7), np.array([0, 2]), [7, 9]),
        (spaces.Box(-1, 1, (2,), np.float64), np.array([[0.5, 1.0]], np.float32), [[0.5, 1.0]]),
        (spaces.MultiDiscrete([2, 2]), np.array([[0, 1]]), [[0, 1]]),
        (spaces.MultiBinary((2, 2)), np.array([[0, 1, 1, 0]], np.int8), [[[0, 1], [1, 0]]]),
    ]
    for space, given, expected in cases:
        got = unpack(space, given)
        assert [np.asarray(x).tolist() for x in got] == expected
        for action in got:
            assert space.contains(action)
            if not isinstance(space, spaces.Discrete):
                assert action.dtype == space.dtype
            else:
                assert type(action) is int
