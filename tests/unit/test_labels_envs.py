"""Labels beside an observation: which there are, that every backend shows the same, that no policy reads them."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rlkit.agents import ppo
from rlkit.envs import EnvConfig, make_env, make_vec, probe
from rlkit.envs.aliases import Core, Value
from rlkit.envs.labels import Labels, experts, offered
from rlkit.envs.navigation import planner
from rlkit.nn.config import NetworkConfig
from rlkit.spaces import describe
from rlkit.types import Lanes

RACING = EnvConfig(
    id="rlkit/CarRacing",
    lanes=2,
    skip=2,
    gray=True,
    size=64,
    time_limit=16,
    action_mask="none",
    backend="inprocess",
    labels=("mask", "pose", "boxes", "expert"),
)


def config(id: str, *labels: str, **options: Any) -> EnvConfig:
    return EnvConfig(id=id, labels=labels, **{"backend": "auto", "lanes": 1, **options})


def opened(vector: Any) -> Any:
    """The first row of a vector's first episodes."""
    return vector.restore(np.zeros(vector.lanes, np.int64), [np.zeros((0, 3), np.float32)] * vector.lanes)


def ride(given: EnvConfig, steps: int = 14) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    """The specification, and what is shown while the driver by hand is followed, over the end of an episode."""
    vector = make_vec(given, 1)
    row, shown = opened(vector), []
    for _ in range(steps):
        shown.append({name: each.clone() for name, each in row.obs.items()} | {"first": row.first.clone()})
        row = vector.step(row.obs["label.expert"].clone())
    vector.close()
    return vector.spec, shown


@pytest.mark.parametrize(("backend", "workers"), [("threads", 2), ("workers", 1)])
def test_every_backend_shows_the_same(backend: str, workers: int) -> None:
    spec, shown = ride(RACING)
    other, again = ride(EnvConfig(**{**vars(RACING), "backend": backend, "workers": workers}))
    assert spec.to_json() == other.to_json()
    assert spec.labels == ("label.mask", "label.pose", "label.boxes", "label.expert")
    assert sum(int(row["first"].sum()) for row in shown) == 4
    for one, two in zip(shown, again, strict=True):
        for name in one:
            assert torch.equal(one[name], two[name]), name


def test_labels_are_of_the_frame_after_the_skip() -> None:
    """Four decisions of two frames, and the same eight frames one by one; the pictures beside them are unchanged."""
    plain = make_env(EnvConfig(**{**vars(RACING), "labels": ()}))
    by_two = make_env(RACING)
    by_one = make_env(EnvConfig(**{**vars(RACING), "skip": 1}))
    for env in (by_two, by_one, plain):
        env.reset(seed=2)
    for gas in (0.2, 0.9, 0.4, 0.0):
        action = np.array([0.1, gas, 0.0], np.float32)
        by_one.step(action)
        one, two, bare = by_one.step(action)[0], by_two.step(action)[0], plain.step(action)[0]
        np.testing.assert_array_equal(two["image"], bare)
        for name, value in two["label"].items():
            np.testing.assert_array_equal(value, one["label"][name])
    for env in (by_two, by_one, plain):
        env.close()


def test_a_replayed_lane_says_the_same() -> None:
    """What resume does: an episode's seed and its actions bring observation and labels back."""
    vector, other, actions = make_vec(RACING, 1), make_vec(RACING, 1), []
    row = opened(vector)
    for _ in range(4):
        actions.append(row.obs["label.expert"].numpy().copy())
        row = vector.step(torch.from_numpy(actions[-1]))
    back = other.restore(np.zeros(2, np.int64), [np.stack(actions)[:, lane] for lane in range(2)])
    for name in row.obs:
        assert torch.equal(row.obs[name], back.obs[name]), name
    vector.close()
    other.close()


def test_no_policy_reads_them() -> None:
    """The network has the size that it has without, and its outputs do not change with the labels."""
    spec = probe(RACING).spec
    assert [name for name, _ in spec.inputs] == ["image"]
    policy = ppo.Policy(spec, NetworkConfig(), ppo.Config())
    obs = {
        "image": torch.randint(0, 255, (2, 64, 64), dtype=torch.uint8),
        "label.mask": torch.zeros(2, 64, 64, dtype=torch.uint8),
        "label.pose": torch.zeros(2, 7),
        "label.boxes": torch.zeros(2, 6, 5),
        "label.expert": torch.zeros(2, 3),
    }
    noise, first = torch.full((2, policy.noise_size), 0.3), torch.ones(2, dtype=torch.bool)
    acted = []
    for answer in (0, 1):
        said = {name: each if name == "image" else each + answer for name, each in obs.items()}
        with torch.no_grad():
            acted.append(policy.act(said, first, policy.initial_state(Lanes(2)), noise)[0])
    assert torch.equal(*acted)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (config("rlkit/CarRacing", "msk"), r"env.labels=\[msk\]: .*/CarRacing has no label msk; did you mean mask"),
        (config("rlkit/Driving", "x"), "has no label x; allowed: boxes, expert, mask, pose, vector"),
        (config("rlkit/Driving", "pose", "pose"), "pose stands there twice; allowed: each label once"),
        (config("CartPole-v1", "pose"), r"CartPole-v1 says nothing of itself; allowed with CarRacing, .*labels=\[\]"),
        (config("rlkit.envs.toys.batched:Quadratic", "pose"), "says nothing of itself; allowed with CarRacing"),
        (config("CartPole-v1", "pose", backend="native"), r"env.labels=.*native takes its environment as it is"),
    ],
)  # fmt: skip
def test_labels_that_there_are_not(given: EnvConfig, says: str) -> None:
    with pytest.raises(ValueError, match=says) as found:
        make_vec(given, 0)
    assert "\n" not in str(found.value)


def test_names_of_drivers() -> None:
    found = [
        experts(config(id))
        for id in (
            "rlkit/CarRacing",
            "CarRacing-v3",
            "rlkit/Driving",
            "rlkit/Nav",
            "rlkit/Maze",
            "CartPole-v1",
        )
    ]
    assert found == ["pursuit", "pursuit", "pursuit", "planner", None, None]


def test_a_maze_says_what_is_in_front() -> None:
    """What the view of 7 x 7 cells shows ahead of the agent, which is in the middle of its last line."""
    vector = make_vec(config("rlkit/Maze", "front", "pose", lanes=16, kwargs={"doors": 2}), 0)
    row = vector.restore(np.zeros(16, np.int64), [np.zeros(0)] * 16)
    spec = dict(vector.spec.observation)
    assert describe(spec["label"]) == "Dict(front: MultiDiscrete(11, 6, 3), pose: MultiDiscrete(11, 11, 4))"
    assert spec["image"].meaning == "codes"
    generator, kinds, before = torch.Generator().manual_seed(0), set(), None
    for _ in range(60):
        front, pose = row.obs["label.front"], row.obs["label.pose"]
        assert torch.equal(front, row.obs["image"][:, 5, 3].long())
        assert (
            (front < torch.tensor([11, 6, 3])).all()
            and (pose >= 0).all()
            and (pose < torch.tensor([11, 11, 4])).all()
        )
        kinds |= set(front[:, 0].tolist())
        action, before = torch.randint(0, 5, (16,), generator=generator), pose.clone()
        row = vector.step(action)
        walked = (action == 2) & ~row.first
        moved = (row.obs["label.pose"] - before)[walked, :2].abs().sum(1)
        assert (moved <= 1).all() and (row.obs["label.pose"] - before)[walked, 2].abs().max() == 0
    assert {1, 2} < kinds and kinds & {4, 5}, kinds


def test_a_robot_says_where_it_is_and_what_the_planner_does() -> None:
    vector = make_vec(config("rlkit/Nav", "pose", "expert", lanes=3, kwargs={"slip": 0.0}), 0)
    row = vector.restore(np.zeros(3, np.int64), [np.zeros((0, 2))] * 3)
    place = row.obs["label.pose"].clone()
    for _ in range(3):
        plan = planner.plan(row.obs["obs"].numpy(), 3.5)
        np.testing.assert_array_equal(row.obs["label.expert"], plan)
        row = vector.step(torch.from_numpy(plan))
    moved = row.obs["label.pose"] - place
    v = row.obs["obs"][:, 67]
    assert (moved[:, :2].norm(dim=1) <= 0.15 * v.abs().max() + 0.01).all() and (moved.abs() > 0).any()


class Counter(gymnasium.Env[Any, Any]):
    """An environment of one's own that names what it can say."""

    label_family = f"{__name__}:Counted"
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(2, np.float32), 0.0, self.count == 3, False, {}


class Counted(Labels):
    """Its steps so far, and the action that led here."""

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        return ("count", "action")

    def __init__(self, core: Core, names: tuple[str, ...], shape: tuple[int, ...], config: EnvConfig) -> None:
        self.core, self.shape = core, shape
        self.spaces = {"count": gymnasium.spaces.Discrete(4), "action": gymnasium.spaces.Discrete(3)}

    def read(self, action: Value | None) -> dict[str, Value]:
        assert self.shape == (2,)
        return {"count": self.core.count, "action": 2 if action is None else action}


def test_an_environment_of_ones_own_says_what_it_knows() -> None:
    given = config(f"{__name__}:Counter", "count", "action")
    assert offered(given) == ("count", "action") and offered(config("CartPole-v1")) == ()
    vector = make_vec(given, 0)
    row, said = vector.restore(np.zeros(1, np.int64), [np.zeros(0, np.int64)]), []
    for action in (0, 1, 1, 0, 0):
        said.append((int(row.obs["label.count"]), int(row.obs["label.action"]), bool(row.first)))
        row = vector.step(torch.tensor([action]))
    assert [*row.obs] == ["obs", "label.count", "label.action"]
    assert said == [(0, 2, True), (1, 0, False), (2, 1, False), (3, 1, False), (0, 2, True)]


BABY = "BabyAI-GoToRedBallGrey-v0"


def test_a_room_says_what_is_in_front() -> None:
    """MiniGrid's own view of 7 x 7 cells, whose cell ahead of the agent is seen in any case."""
    pytest.importorskip("minigrid")
    env = make_env(config("MiniGrid-DoorKey-6x6-v0", "front", "pose", codes=("image",)))
    assert [*env.observation_space] == [*env.env.observation_space, "label"]
    generator, kinds, (obs, _) = np.random.default_rng(0), set(), env.reset(seed=0)
    for _ in range(150):
        said, core = obs["label"], env.unwrapped
        assert env.observation_space["label"].contains(said)
        np.testing.assert_array_equal(said["front"], obs["image"][3, 5])
        assert said["pose"].tolist() == [*core.agent_pos, obs["direction"]]
        kinds.add(int(said["front"][0]))
        obs, _, terminated, truncated, _ = env.step(int(generator.integers(6)))
        if terminated or truncated:
            obs, _ = env.reset(seed=1)
    assert kinds >= {1, 2, 4}


def test_drafts_that_minigrid_throws_away_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Its module says each of them to whoever looks, but not where a lane opens the same episodes."""
    pytest.importorskip("minigrid")
    vector = make_vec(config("BabyAI-GoToLocal-v0"), 0)
    for episode in range(12):
        vector.restore(np.array([episode]), [np.zeros(0, np.int64)])
    assert capsys.readouterr().out == ""
    del sys.modules["minigrid.envs.babyai.core.roomgrid_level"].print
    core = make_env(config("BabyAI-GoToLocal-v0")).unwrapped
    for seed in range(12):
        core.reset(seed=seed)
    assert "Sampling rejected" in capsys.readouterr().out


def test_the_bot_says_what_it_would_do() -> None:
    """Followed it reaches the ball, also where every third action is another; a replay says the same."""
    pytest.importorskip("minigrid")
    generator, vector = np.random.default_rng(0), make_vec(config(BABY, "expert"), 0)
    assert experts(config(BABY)) == "bot" and experts(config("MiniGrid-Empty-5x5-v0")) is None
    none, rewards, actions = np.zeros(0, np.int64), [], []
    row = vector.restore(np.zeros(1, np.int64), [none])
    while len(rewards) < 8:
        action = row.obs["label.expert"].clone()
        if generator.random() < 0.3:
            action[0] = int(generator.integers(3))
        actions = [] if bool(row.last[0]) else [*actions, int(action[0])]
        row = vector.step(action)
        if bool(row.last[0]):
            rewards.append(float(row.reward[0]))
        elif len(rewards) == 7 and len(actions) == 3:
            said, other = row.obs["label.expert"].clone(), make_vec(config(BABY, "expert"), 0)
            back = other.restore(np.array([7]), [np.array(actions)])
            assert torch.equal(back.obs["label.expert"], said)
            other.close()
    vector.close()
    assert min(rewards) > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (config("MiniGrid-Empty-5x5-v0", "expert"), "has no label expert; allowed: front, pose"),
        (config("BabyAI-KeyInBox-v0", "expert"), "has no label expert; allowed: front, pose"),
        (config(BABY, "expert", skip=2), r"env.skip=2: BabyAI's bot plans every step; .* type env.skip=1"),
    ],
)
def test_levels_that_the_bot_does_not_play(given: EnvConfig, says: str) -> None:
    pytest.importorskip("minigrid")
    with pytest.raises(ValueError, match=says):
        make_env(given)
