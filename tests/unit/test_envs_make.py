"""Finding environments by the three forms of id; missing packages; choosing a backend; time limits."""

import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from rlkit.config.compose import compose
from rlkit.envs import EnvConfig, make, make_env, make_vec, probe
from rlkit.envs.lookup import only_here
from rlkit.machine import cores
from rlkit.options import ConfigError
from rlkit.run.probe import probe_env
from rlkit.spaces import Box, Dict, Discrete, MultiDiscrete

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "env").glob("*.yaml"))
TOYS = "rlkit.envs.toys:"

MODULE = '''
import gymnasium, numpy as np, time
from gymnasium import spaces

class Mine(gymnasium.Env):
    """Dict observations, offset choices, float64, a slow step if asked for."""
    def __init__(self, pause=0.0):
        self.pause = pause
        self.observation_space = spaces.Dict({
            "place": spaces.Box(-9.0, 9.0, (2,), np.float64),
            "inner": spaces.Dict({"color": spaces.Discrete(4, start=3)}),
            "pair": spaces.Tuple((spaces.MultiBinary(3), spaces.MultiDiscrete([3, 4], start=[10, 20]))),
        })
        self.action_space = spaces.MultiDiscrete([3, 3], start=[-1, 5])
    def observe(self):
        return {"place": self.place, "inner": {"color": self.color},
                "pair": (np.array([1, 0, 1], np.int8), np.array([12, 23]))}
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.color = np.zeros(2), 3
        return self.observe(), {}
    def step(self, action):
        time.sleep(self.pause)
        self.place = np.array([action[0], action[1]], np.float64)
        self.color = 6
        return self.observe(), 1, False, False, {}

class Composite(Mine):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Dict({"a": spaces.Discrete(2)})

class Written(Mine):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Text(3)

gymnasium.register("MineRegistered-v0", entry_point=Mine, max_episode_steps=4)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's module in the current directory."""
    (tmp_path / "mine_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "mine_module"
    sys.modules.pop("mine_module", None)
    gymnasium.registry.pop("MineRegistered-v0", None)


def open_all(vector):
    """The first rows of every lane."""
    none = [np.zeros((0, *vector.spec.action.shape), np.int64) for _ in range(vector.lanes)]
    return vector.restore(np.zeros(vector.lanes, np.int64), none)


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
@pytest.mark.parametrize("name", ["Mine", "MineRegistered-v0"])
def test_users_class_from_the_current_directory(mine, backend, name):
    config = EnvConfig(id=f"{mine}:{name}", lanes=2, workers=2, backend=backend)
    vector = make_vec(config, 0)
    try:
        row = open_all(vector)
        assert list(row.obs) == ["inner.color", "pair.0", "pair.1", "place"]  # Gymnasium sorts them
        assert row.obs["place"].dtype == torch.float32
        assert row.obs["inner.color"].tolist() == [0, 0]  # 3 - start
        assert row.obs["pair.0"].tolist() == [[1, 0, 1]] * 2
        assert row.obs["pair.1"].tolist() == [[2, 3]] * 2
        row = vector.step(torch.tensor([[0, 0], [2, 0]]))
        assert row.obs["place"].tolist() == [[-1.0, 5.0], [1.0, 5.0]]  # the starts were added
        assert row.obs["inner.color"].tolist() == [3, 3]
        assert row.reward.tolist() == [1.0, 1.0]
        assert vector.spec.action == MultiDiscrete((3, 3), (-1, 5))
    finally:
        vector.close()


def test_probe_reads_composite_actions(mine):
    assert probe(EnvConfig(id=f"{mine}:Composite", lanes=1)).spec.action == Dict((("a", Discrete(2)),))


def test_probe_reads_spaces_through_wrappers():
    spec = probe(EnvConfig(id="CarRacing-v3", skip=2, gray=True, size=64, stack=2, lanes=1)).spec
    assert isinstance(spec.observation, Box)
    assert (spec.observation.shape, spec.observation.dtype, spec.stack) == ((64, 64), "uint8", 2)
    assert probe(EnvConfig(id="CartPole-v1", lanes=1)).spec.action == Discrete(2)
    batched = probe(EnvConfig(id="rlkit.envs.toys.batched:Quadratic", kwargs={"size": 3})).spec
    assert batched.observation.shape == (3,)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (
            "CartPol-v1",
            r"env\.id=CartPol-v1: no such environment; nearest: CartPole-v1.*rlkit list environments",
        ),
        ("cartpole-v1", "nearest: CartPole-v1"),
        ("no.such:Thing", "there is no module no"),
        ("rlkit.envs.toys:Identiti", "nearest: Identity"),
        ("math:pi", "math has no pi"),
        ("", "missing"),
    ],
)
def test_unknown_ids_name_the_nearest(id, message):
    with pytest.raises(ValueError, match=message):
        make_env(EnvConfig(id=id))


def test_missing_packages_name_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(
        ValueError, match=r'HalfCheetah-v5: needs the package mujoco; type: pip install "rlkit\[mujoco\]"'
    ):
        make_env(EnvConfig(id="HalfCheetah-v5"))
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ValueError, match=r'pip install "rlkit\[atari\]"'):
        make_env(EnvConfig(id="ALE/Pong-v5"))


def test_wrong_arguments_and_wrong_frames_are_for_the_user():
    with pytest.raises(
        ValueError,
        match=r"env\.kwargs=.*CartPole-v1 refuses them: no speed; allowed: sutton_barto_reward",
    ):
        make_env(EnvConfig(id="CartPole-v1", kwargs={"speed": 3}))
    with pytest.raises(ValueError, match=r"env\.gray=true.*type env\.gray=false"):
        make_env(EnvConfig(id="CartPole-v1", gray=True))
    with pytest.raises(ValueError, match="makes no vector of its own"):
        make_vec(EnvConfig(id="Pendulum-v1", backend="native"), 0)
    with pytest.raises(ValueError, match="workers take plain values"):
        make_vec(
            EnvConfig(id="CartPole-v1", backend="workers", kwargs={"x": object()}, action_mask="none"), 0
        )
    with pytest.raises(ValueError, match=r"env\.backend=workers: not possible"):
        make_vec(EnvConfig(id="rlkit.envs.toys.batched:Quadratic", backend="workers"), 0)
    with pytest.raises(ValueError, match="evaluation lanes count from 0"):
        make_vec(EnvConfig(id="CartPole-v1"), 0, evaluation=True, first_lane=8)


def test_users_errors_from_a_worker_are_the_same(mine):
    for backend in ("inprocess", "workers"):
        with pytest.raises(ValueError, match=r"space Text is not supported"):
            make_vec(EnvConfig(id=f"{mine}:Written", backend=backend), 0)


@pytest.mark.parametrize(("id", "own"), [(TOYS + "Identity", 10), ("CartPole-v1", 500)])
@pytest.mark.parametrize("skip", [1, 2])
def test_time_limit_counts_environment_steps(id, own, skip):
    config = EnvConfig(id=id, lanes=1, time_limit=4, skip=skip, backend="inprocess")
    vector = make_vec(config, 0)
    open_all(vector)
    lasts = []
    for _ in range(4 // skip):
        row = vector.step(torch.zeros(1, dtype=torch.int64))
        lasts.append((bool(row.last), bool(row.terminated)))
    assert lasts == [(False, False)] * (4 // skip - 1) + [(True, False)]
    vector.close()


def test_own_time_limit_is_a_truncation():
    vector = make_vec(EnvConfig(id="Pendulum-v1", lanes=1, backend="inprocess"), 0)
    open_all(vector)
    flags = []
    for _ in range(201):
        row = vector.step(torch.zeros(1, 1))
        flags.append((bool(row.first), bool(row.last), bool(row.terminated)))
    assert flags == [(False, False, False)] * 199 + [(False, True, False), (True, False, False)]
    vector.close()


def test_backend_follows_the_step_time(mine, monkeypatch):
    """A threshold far from both: how busy this machine is does not matter."""
    monkeypatch.setattr(make, "SLOW_STEP", 0.03)
    slow = EnvConfig(id=f"{mine}:Mine", kwargs={"pause": 0.06}, lanes=4)
    found = probe(slow)
    if cores() > 1:
        assert found.config.backend == "workers"
        assert 2 <= found.config.workers <= 4
        assert "worker processes" in found.why
    fast = probe(EnvConfig(id="CartPole-v1"))
    assert fast.config.backend == "inprocess"
    assert ("all lanes in this process" in fast.why) == (cores() > 1)
    alone = probe(replace(slow, lanes=1))
    assert (alone.config.backend, alone.why) == ("inprocess", "")
    given = probe(EnvConfig(id="CartPole-v1", backend="workers", workers=9, lanes=3))
    assert (given.config.workers, given.why) == (3, "")


class Unknown(gymnasium.Env):
    """Registered by the tests alone; its steps are slow."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(0.003)
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture
def registered():
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium.register("Mine-v0", entry_point=Unknown)
        gymnasium.register("Named-v0", entry_point="tests.unit.test_envs_make:Unknown")
        gymnasium.register("Short-v1", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
    yield before
    for name in set(gymnasium.registry) - set(before):
        del gymnasium.registry[name]


def test_what_only_this_process_knows(registered):
    others = ["CartPole-v1", "CarRacing-v3", "HalfCheetah-v5", "rlkit/CarRacing", "rlkit/Driving", "mine:Env"]
    assert not [id for id in others if only_here(id)]
    assert not [
        id
        for id, spec in gymnasium.registry.items()
        if only_here(id) and "-v0" not in id and "Short" not in id
    ]
    assert all(only_here(id) for id in ("Mine-v0", "Named-v0", "Short-v1", "__main__:Mine"))


def test_an_environment_that_other_processes_do_not_know_stays_here(registered, monkeypatch):
    monkeypatch.setattr("rlkit.envs.make.cores", lambda: 4)
    found = probe(EnvConfig(id="Mine-v0", lanes=4))
    assert (found.config.backend, found.config.workers) == ("inprocess", 0)
    assert (
        "ms per step, so all lanes in this process after all: other processes do not know Mine-v0"
        in found.why
    )
    known = probe(EnvConfig(id="tests.unit.test_envs_make:Unknown", lanes=4))
    assert (known.config.backend, known.config.workers) == ("workers", 4) and "do not know" not in known.why
    with pytest.raises(
        ValueError, match=r"^env.backend=workers: .*env=my_module:Class; type env.backend=inprocess$"
    ):
        probe(EnvConfig(id="Mine-v0", lanes=4, backend="workers"))
    with pytest.raises(
        ConfigError, match=r"^source=ray: other processes do not know Mine-v0.*type source=sync$"
    ):
        probe_env(compose(["env=Mine-v0"]).config, distributed=True)


class Team:
    """As PettingZoo's environments are."""

    possible_agents = ("left", "right")


def test_a_pettingzoo_environment_is_refused_by_its_name():
    with pytest.raises(
        ValueError, match="a PettingZoo environment of several agents, which are not trained yet"
    ):
        make_env(EnvConfig(id=f"{__name__}:Team"))
