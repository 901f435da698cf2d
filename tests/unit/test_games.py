"""PettingZoo's parallel games: every agent is a lane, and what breaks their rules is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit.config.compose import compose
from rlkit.contracts import VecEnv
from rlkit.envs import EnvConfig, EnvFault, make_vec, probe
from rlkit.envs.toys.agents import Lives as Batched
from rlkit.options import ConfigError
from rlkit.run.resume import resume
from rlkit.spaces import MASK
from rlkit.types import Lanes
from tests.helpers.parallel import ID
from tests.helpers.resumed import interrupted_at
from tests.helpers.runs import digest
from tests.helpers.zoo import needs_registry

ROWS = ("reward", "terminated", "first", "last")


def config(**options: Any) -> EnvConfig:
    return EnvConfig(**{"id": ID, "lanes": 4, "backend": "inprocess", "workers": 2, **options})


def play(env: VecEnv, steps: int) -> list[dict[str, torch.Tensor]]:
    row = env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0, np.int64)] * env.lanes)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        found.append({name: getattr(row, name).clone() for name in ROWS} | {"obs": row.obs.clone()})
        row = env.step(torch.randint(0, 2, (env.lanes,), generator=generator))
    return found


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_rows_are_those_of_the_closed_form(backend: str) -> None:
    """The agent that dies after 3 of 6 steps repeats its last row; both open the next game together."""
    env = make_vec(config(backend=backend), 3)
    assert env.spec.agents == ("a0", "a1") and env.lanes == 4
    for row, other in zip(play(env, 20), play(Batched(4, 3), 20), strict=True):
        assert all(torch.equal(row[name], other[name]) for name in (*ROWS, "obs"))
    env.close()


def test_a_game_in_its_midst_comes_back_from_its_actions() -> None:
    env, generator = make_vec(config(), 3), torch.Generator().manual_seed(0)
    wanted = play(env, 12)
    actions = torch.stack([torch.randint(0, 2, (4,), generator=generator) for _ in range(12)])
    for t in range(7, 13):  # the game opens in row 7; row 10 is the last one of the short lives
        again = make_vec(config(), 3)
        row = again.restore(np.ones(4, np.int64), [actions[7 : 7 + t - 7, lane].numpy() for lane in range(4)])
        if t < 12:
            assert torch.equal(row.obs, wanted[t]["obs"]) and torch.equal(row.last, wanted[t]["last"])
            assert torch.equal(row.reward, wanted[t]["reward"]) or t == 7
    probed = probe(config(backend="auto"))
    assert probed.config.backend == "inprocess" and "2 agents" in probed.why
    drawn = make_vec(config(), 3, render=True)
    play(drawn, 3)
    picture = drawn.render(2)
    assert picture is not None and picture.shape == (16, 16, 3) and picture[0, 0, 0] == 30


def test_agents_are_told_apart_and_masks_are_read() -> None:
    env = make_vec(config(show_agent=True, kwargs={"mask": True, "lives": [2, 4, 3]}, lanes=6), 3)
    row = env.restore(np.zeros(6, np.int64), [np.zeros(0, np.int64)] * 6)
    assert isinstance(row.obs, dict) and row.obs["agent"].tolist() == [0, 1, 2, 0, 1, 2]
    assert row.obs[MASK].tolist() == [[1, 0]] * 6 and env.spec.role(MASK) == "mask"
    assert env.step(torch.zeros(6, dtype=torch.int64)).obs[MASK].tolist() == [[1, 1]] * 6  # type: ignore[index]


def test_only_the_value_reads_what_is_privileged(tmp_path: Path) -> None:
    """The whole game's state, as an entry: the policy is the same whatever stands there, the value is not."""
    env = make_vec(config(show_state=True), 3)
    row = env.restore(np.zeros(4, np.int64), [np.zeros(0, np.int64)] * 4)
    for _ in range(4):
        row = env.step(torch.zeros(4, dtype=torch.int64))
    assert isinstance(row.obs, dict)
    # who is out repeats its last row
    assert torch.allclose(row.obs["state"], torch.tensor([[3 / 6, 3 / 6], [3 / 6, 4 / 6]] * 2))
    assert row.last.tolist() == [True, False] * 2
    options = {
        "env.lanes": 4, "env.backend": "inprocess", "threads": 1, "log.tensorboard": False, "network.hidden": [8],
        "env.show_state": True, "network.privileged": ["state"], "agent.steps": 8, "agent.minibatch": 16,
    }  # fmt: skip
    folder = rlkit.train("ppo", ID, dir=str(tmp_path), total_steps=64, preset="none", **options)
    agent = rlkit.load(folder)
    state, first = agent.policy.initial_state(Lanes(4)), torch.ones(4, dtype=torch.bool)
    acted = [
        agent.policy.act(row.obs | {"state": value}, first, state, torch.full((4, 1), 0.3))
        for value in (torch.zeros(4, 2), torch.ones(4, 2))
    ]
    assert torch.equal(acted[0][2]["log_prob"], acted[1][2]["log_prob"])
    assert not torch.equal(acted[0][2]["value"], acted[1][2]["value"])
    # where it is used nobody knows the state
    action, _ = agent({"obs": np.array([0.5, 1.0], np.float32)})
    assert action in (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network.privileged": ["sate"]}, r"network.privileged=\[sate\]: .* no entry sate; allowed: obs, state"),
        ({"network.privileged": ["obs", "state"]}, "leaves the policy nothing to read"),
        ({"network.privileged": ["state"], "network.shared": True}, "type network.shared=false"),
        ({"network.privileged": ["state"], "agent": "dqn"}, "for agents with a value function of their own"),
        ({"network.privileged": ["state"], "env": "cartpole", "env.show_state": False}, "none, it is no Dict"),
        ({"env": "cartpole"}, "env.show_state=true: .* has one agent"),
    ],
)  # fmt: skip
def test_wrong_privileges_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    base = {
        "agent": "ppo",
        "env": ID,
        "env.lanes": 4,
        "env.show_state": True,
        "dir": str(tmp_path),
        "preset": "none",
    }
    with pytest.raises(ConfigError, match=message):
        rlkit.train(**{**base, **options})


def test_a_team_is_paid_its_mean() -> None:
    """While both are in the game the mean of both, then what the one who is left gets."""
    own, team = (play(make_vec(config(reward=kind), 3), 7) for kind in ("own", "team"))
    for t, (row, other) in enumerate(zip(own, team, strict=True)):
        reward = row["reward"].reshape(2, 2)
        wanted = reward.mean(1, keepdim=True).expand(2, 2) if t <= 3 else reward
        assert torch.allclose(other["reward"].reshape(2, 2)[:, 1], wanted[:, 1])
        assert torch.allclose(other["reward"].reshape(2, 2)[:, 0], wanted[:, 0]) or t > 3


def test_random_numbers_of_games_follow_from_the_seed() -> None:
    found = []
    for seed in (3, 3, 4):
        np.random.rand()
        found.append(
            torch.stack([row["obs"] for row in play(make_vec(config(kwargs={"draws": True}), seed), 9)])
        )
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert found[0][..., 0].unique().numel() > 20


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_a_run_with_games_goes_on_exactly(
    tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "env.lanes": 4, "env.backend": "inprocess", "threads": 1, "log.tensorboard": False, "dir": str(tmp_path),
        "total_steps": 200, "evaluate.episodes": 4, "checkpoint.every": 30, "network.hidden": [8], "preset": "none",
        **({"agent.steps": 5, "agent.minibatch": 10} if agent == "ppo" else {"agent.replay.warmup": 20}),
    }  # fmt: skip
    whole = rlkit.train(agent, ID, name="a", **options)
    with interrupted_at(monkeypatch, 8), pytest.raises(KeyboardInterrupt):
        rlkit.train(agent, ID, name="b", **options)
    resume(tmp_path / "b")
    assert digest(tmp_path / "b") == digest(whole)


BROKEN = {
    "raises": r"raised: .*, lane 0, episode 0 .*step 2: RuntimeError\('broken on purpose'\)",
    "missing": "interface: .*step 2: observation: nothing of a1, which is in the game",
    "silent": "interface: .*step 2: agents: a0 has left without being terminated or truncated",
    "revived": "interface: .*step 4: agents: a0 is back in the game after it was out",
    "reset": "interface: .*step 0: reset: says nothing of a1, one of possible_agents",
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_broken_rules_name_the_place(wrong: str) -> None:
    with pytest.raises(EnvFault, match=BROKEN[wrong]):
        play(make_vec(config(kwargs={"wrong": wrong}), 3), 9)


def test_a_game_that_fails_is_cut_for_all_of_its_agents() -> None:
    env = make_vec(config(kwargs={"wrong": "raises"}, max_failures=-1), 3)
    with pytest.warns(RuntimeWarning, match="the episode is cut there"):
        rows = play(env, 4)
    assert [row["last"].tolist() for row in rows] == [
        [False] * 4,
        [False] * 4,
        [True] * 4,
        [False] * 4,
    ]
    assert env.failures == 2 and not rows[2]["reward"].any()


REFUSED: tuple[Any, ...] = (
    ({"lanes": 5}, "env.lanes=5: a game of .* has 2 agents, each a lane; type env.lanes=4 or env.lanes=6"),
    ({"lanes": 1}, "env.lanes=1: a game of .* has 2 agents, each a lane; type env.lanes=2"),
    ({"kwargs": {"lifes": [1]}}, "env.kwargs=.*refuses them: no lifes; allowed: lives"),
    ({"id": "tests.helpers.parallel:Lacking"}, "Lacking: cannot be made: you may need to install more"),
    ({"id": "tests.helpers.parallel:Unknown"}, "has no possible_agents; allowed: games whose agents are known"),
    ({"skip": 4}, "env.skip=4: a game of several agents is taken as it is; its own options go into env.kwargs"),
    ({"stack": 2}, "env.stack=2: a game of several agents is taken as it is"),
    ({"backend": "native"}, "env.backend=native: not possible for a game of several agents; allowed: auto"),
    ({"action_mask": "info"}, "env.action_mask=info: a game of several agents shows masks as an entry"),
    ({"id": "CartPole-v1", "show_agent": True}, "env.show_agent=true: env.id=CartPole-v1 has one agent"),
    ({"id": "CartPole-v1", "reward": "team"}, "env.reward=team: .* has one agent; type env.reward=own"),
    (
        {"id": "rlkit.envs.toys.agents:Lives", "show_agent": True, "backend": "batched"},
        "env.show_agent=true: env.backend=batched takes",
    ),
    pytest.param(
        {"id": "pettingzoo:sisl/persuit-v5"}, "pettingzoo has no game sisl/persuit-v5; nearest: sisl/pursuit-v5",
        marks=needs_registry,
    ),
    ({"id": "tests.helpers.sights"}, "env.id=tests.helpers.sights: the module has neither parallel_env nor env"),
    ({"id": "mpe3.simple_spread_v3"}, "there is no module mpe3"),
)  # fmt: skip


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_games_that_cannot_be_are_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as found:
        probe(config(**options))
    assert "\n" not in str(found.value)


def test_a_module_is_an_environment_by_name(tmp_path: Path) -> None:
    """And a run folder that names one imports nothing that nobody typed."""
    from rlkit.config import trust

    found = compose(["agent=ppo", "env=mpe2.simple_spread_v3", "env.lanes=6"]).config
    assert found.env.id == "mpe2.simple_spread_v3"  # type: ignore[attr-defined]
    assert trust.requests({"env": {"id": "mpe2.simple_spread_v3"}}) == ("mpe2.simple_spread_v3",)
    with pytest.raises(ConfigError, match="env=cartpol: no such environment"):
        compose(["agent=ppo", "env=cartpol"])
