"""Groups of a game's agents: a policy, options and an account each, on one stream of rollouts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit.cli.main import main
from rlkit.collect.group_policy import GroupPolicy
from rlkit.collect.make import make_actor, make_policy
from rlkit.config.compose import compose
from rlkit.config.schema import RunConfig
from rlkit.envs import EnvConfig, make_vec, probe
from rlkit.envs.backends.faults import EnvFault
from rlkit.options import ConfigError
from rlkit.play.saved import load
from rlkit.run.resume import resume
from rlkit.spaces import Dict
from rlkit.types import Lanes, tree_leaves
from tests.helpers.resumed import interrupted_at
from tests.helpers.runs import digest

ID = "tests.helpers.parallel:Chase"
SMALL = {
    "env.lanes": 6, "env.backend": "inprocess", "threads": 1, "log.tensorboard": False, "network.hidden": [16],
    "preset": "none",
}  # fmt: skip
PPO = SMALL | {"agent": "ppo", "agent.steps": 8, "agent.minibatch": 16}


def config(options: dict[str, Any]) -> RunConfig:
    found = compose(values={"env": ID, **options}).config
    assert isinstance(found, RunConfig)
    return found


def policy_of(options: dict[str, Any]) -> tuple[RunConfig, GroupPolicy]:
    torch.manual_seed(0)
    found = config(options)
    policy = make_policy(found, probe(found.env).spec)
    assert isinstance(policy, GroupPolicy)
    return found, policy


def test_lanes_hold_what_their_group_sees_and_does() -> None:
    """The others' entries hold a value of their spaces that says nothing; actions reach the game in its own types."""
    env = make_vec(EnvConfig(id=ID, lanes=3, backend="inprocess", show_agent=True), 0)
    assert env.spec.groups == (("hunter", (0, 2)), ("prey", (1,))) and env.spec.agents[1] == "prey_0"
    assert isinstance(env.spec.observation, Dict) and isinstance(env.spec.action, Dict)
    row = env.restore(np.zeros(3, np.int64), [np.zeros(0)] * 3)
    obs = row.obs
    assert isinstance(obs, dict) and set(obs) == {"hunter.obs", "hunter.agent", "prey.sign", "prey.agent"}
    assert obs["hunter.obs"][1].tolist() == [1.0] * 3 and obs["prey.sign"][[0, 2]].tolist() == [[0.0], [0.0]]
    assert obs["hunter.agent"].tolist() == [0, 0, 1] and obs["prey.sign"][1].abs() == 1
    # the second hunter's digit is the next one
    digits = obs["hunter.obs"][[0, 2]].argmax(-1)
    assert digits[1] == (digits[0] + 1) % 3
    action = torch.tensor(
        [[float(digits[0]), 9.0], [9.0, float(obs["prey.sign"][1])], [float(digits[1]), 9.0]]
    )
    assert env.step(action).reward.tolist() == [1.0, 1.0, 1.0]
    part = env.spec.group("hunter")
    assert part.agents == ("hunter_0", "hunter_1") and part.groups == ()
    again = type(env.spec).from_json(env.spec.to_json())
    assert again.groups == env.spec.groups and again.to_json() == env.spec.to_json()


@pytest.mark.parametrize("prey", ["box", "masked", "bits", "many", "both"])
@pytest.mark.parametrize("core", ["identity", "gru"])
def test_each_group_acts_by_its_own_policy(prey: str, core: str) -> None:
    """Actor, action, memory, value and report of every lane are those of its group's policy alone."""
    run, policy = policy_of(PPO | {"env.kwargs": {"prey": prey}, "network.core": core, "agent.sequence": 8})
    actor = make_actor(run, policy, torch.device("cpu"))
    rollout, _ = actor.collect()
    rollout, episodes = actor.collect()
    rollout = rollout.map(torch.clone)  # the actor writes there again
    lanes = {"hunter": [0, 2, 3, 5], "prey": [1, 4]}
    assert {each % 3 for each in episodes.lanes} == {0, 1, 2} and set(episodes.lengths) == {3, 5}
    for name, own in lanes.items():
        alone, part = policy.of(name), policy.part(name, rollout)
        assert part.size == (8, len(own))
        assert torch.equal(part.reward, rollout.reward[:, own]) and torch.equal(
            part.last, rollout.last[:, own]
        )
        state = part.state
        for t in range(8):
            obs = {key: x[t] for key, x in part.obs.items()} if isinstance(part.obs, dict) else part.obs[t]
            log_prob = part.extra["log_prob"][t]
            noise = torch.full((len(own), alone.noise_size), 0.5)
            _, after, told = alone.act(obs, part.first[t], state, noise)
            assert torch.allclose(told["value"], part.extra["value"][t], atol=1e-6)
            # what was done is what its policy says of it
            rows = {key: x[None] for key, x in obs.items()} if isinstance(obs, dict) else obs[None]
            pi, _, _ = alone.evaluate(rows, part.first[t][None], state)  # type: ignore[operator]
            assert torch.allclose(pi.log_prob(part.action[t][None])[0], log_prob, atol=1e-5)
            state = after
        if core == "gru":  # the memory that the next rollout begins with
            after = policy.part(name, actor.collect()[0]).state
            assert all(
                torch.allclose(x, y, atol=1e-6)
                for x, y in zip(tree_leaves(after), tree_leaves(state), strict=True)
            )
            break
    value = policy.value(rollout.obs, rollout.first, rollout.state)
    assert torch.allclose(value[:-1], sum(rollout.extra[f"{name}/value"] for name in lanes), atol=1e-5)  # type: ignore[arg-type]


DQN = {
    "agent": "dqn", "agent.replay.warmup": 32, "agent.replay.batch": 16, "agent.replay.capacity": 600,
    "env.kwargs": {"prey": "masked"},
}  # fmt: skip
KINDS = {
    "ppo": PPO | {"groups.prey.optim.lr": 1e-3},
    "gru": PPO | {"network.core": "gru", "agent.sequence": 4, "env.kwargs": {"prey": "both"}},
    "dqn": SMALL | DQN,
    "reinforce": SMALL | {"agent": "reinforce", "groups.prey.agent.episodes": 7},
}


def test_exploration_is_shared_out_within_a_group() -> None:
    """DQN's share of lane i of N, of the group's own lanes, also where several actors have the lanes."""
    _, policy = policy_of(SMALL | DQN | {"agent.epsilon_spread": 2.0})
    states = [policy.initial_state(Lanes(6, first, 12)) for first in (0, 6)]
    for i, own in ((1, [0, 2, 3, 5]), (2, [1, 4])):
        share = torch.cat([next(tree_leaves(state[i][-1]))[own] for state in states])
        assert torch.allclose(share, torch.linspace(0, 1, 2 * len(own)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_goes_on_exactly(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "env": ID, "dir": str(tmp_path), "total_steps": 400, "evaluate.episodes": 3, "checkpoint.every": 30,
    } | KINDS[kind]  # fmt: skip
    whole = rlkit.train(**options, name="a")
    with interrupted_at(monkeypatch, 3 if kind == "reinforce" else 6), pytest.raises(KeyboardInterrupt):
        rlkit.train(**options, name="b")
    resume(tmp_path / "b")
    assert digest(tmp_path / "b") == digest(whole)


def test_groups_learn_by_their_own_options(tmp_path: Path) -> None:
    """Both find what is paid for; a group that does not learn keeps its weights, and its returns are still counted."""
    options: dict[str, Any] = PPO | {
        "env": ID, "dir": str(tmp_path), "total_steps": 12_000, "env.lanes": 48, "optim.lr": 5e-3,
        "agent.minibatch": 128, "evaluate.episodes": 30, "groups.prey.network.hidden": [24],
    }  # fmt: skip
    folder = rlkit.train(**options, name="both")
    with (folder / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["hunter/evaluate/mean"]) > 4.5 and float(last["prey/evaluate/mean"]) > 2.7
    assert float(last["evaluate/mean"]) == pytest.approx(
        (20 * float(last["hunter/evaluate/mean"]) + 10 * float(last["prey/evaluate/mean"])) / 30
    )
    assert float(last["hunter/length/mean"]) == 5.0 and float(last["prey/length/mean"]) == 3.0
    assert int(last["episodes"]) == int(last["hunter/episodes"]) + int(last["prey/episodes"])
    hunter, prey = (rlkit.load(folder, group=name) for name in ("hunter", "prey"))
    assert [hunter(row)[0] for row in np.eye(3, dtype=np.float32) + 1] == [0, 1, 2]
    assert (
        prey({"sign": np.array([1.0], np.float32)})[0] > 0 > prey({"sign": np.array([-1.0], np.float32)})[0]
    )
    assert prey.policy.network.width("policy") == 24 and hunter.policy.network.width("policy") == 16
    still = rlkit.train(**options | {"total_steps": 2_000, "groups.prey.learn": False}, name="still")
    new = load(still, "last").policy
    assert isinstance(new, GroupPolicy)
    torch.manual_seed(0)
    given = {name: value for name, value in options.items() if name not in ("env", "dir")}
    untrained = make_policy(config(given), new.spec)
    assert isinstance(untrained, GroupPolicy)
    weights = new.of("prey").state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in untrained.of("prey").state_dict().items())
    with (still / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    last, shown = rows[-1], [row for row in rows if row["evaluate/mean"]]
    assert float(last["evaluate/best"]) == max(float(row["hunter/evaluate/mean"]) for row in shown)
    assert float(last["evaluate/best"]) > max(float(row["evaluate/mean"]) for row in shown)
    assert float(last["hunter/evaluate/mean"]) > 2.5 and int(last["prey/episodes"]) > 0
    assert "hunter/loss/policy" in last and "prey/loss/policy" not in last


def test_groups_are_evaluated_and_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rlkit.train(**PPO, env=ID, dir=str(tmp_path), total_steps=100)
    assert main(["evaluate", str(folder), "--episodes", "10", "--trust", "tests.helpers.parallel"]) == 0
    said = capsys.readouterr().out
    # four whole games
    (path,) = (folder / "eval").glob("*.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["hunter", "prey", "hunter"] * 4
    assert [row["length"] for row in rows] == ["5", "3", "5"] * 4
    assert "12 greedy episodes" in said and "hunter: 8 of them" in said and "prey: 4 of them" in said
    film = tmp_path / "film.mp4"
    assert (
        main(["watch", str(folder), "episodes=1", "--trust", "tests.helpers.parallel", "--video", str(film)])
        == 0
    )
    assert film.stat().st_size > 0


def test_a_mask_that_allows_nothing_is_refused_in_the_lanes_of_its_group() -> None:
    """The masks that the others' lanes hold are all zero, and mean nothing."""
    told = r"mask: environment .*, lane [47], .*prey\.action_mask: allows nothing in component 0"
    options = {"id": ID, "lanes": 6, "backend": "inprocess", "kwargs": {"prey": "closed"}}
    env = make_vec(EnvConfig(**options, max_failures=0), 0, first_lane=3)
    env.restore(np.zeros(6, np.int64), [np.zeros(0)] * 6)
    with pytest.raises(EnvFault, match=told):
        env.step(torch.zeros(6, 2))
    env = make_vec(EnvConfig(**options, max_failures=2), 0, first_lane=3)
    env.restore(np.zeros(6, np.int64), [np.zeros(0)] * 6)
    with pytest.warns(RuntimeWarning, match=told):
        row = env.step(torch.zeros(6, 2))
    assert row.last.all() and not row.terminated.any()  # whole games are cut


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"env.groups": {"a": ["hunter_*"]}}, r"prey_0 of .* is in no group; type env.groups={hunter: \[hunter_0,"),
    ({"env.groups": {"a": ["hunter_*"], "b": ["*"]}}, "env.groups.b=.*spaces of hunter_0 and prey_0 differ; type"),
    ({"env.groups": {"a": ["hunter_*"], "b": ["prey_0"], "c": ["hunter_0"]}}, "hunter_0 of .* is in 2 groups; type"),
    ({"env.groups": {"a": ["hunter_*"], "b": ["pray_*"]}}, "has no agent pray_.; its agents are hunter_0, prey_0,"),
    ({"env.groups": {"a/b": ["*"]}}, "names of groups are letters, digits and _; type"),
    ({"groups.pray.optim.lr": 1e-3}, "groups.pray: no such group of agents; allowed: hunter, prey"),
    ({"groups.prey.lr": 1e-3}, "groups.prey.lr=0.001: not an option of a group; allowed: groups.prey.agent.OPTION"),
    ({"groups.prey.optim.lr": -1.0}, "groups.prey: optim.lr=-1.0: too small"),
    ({"groups.prey.agent.clop": 0.1}, "groups.prey: agent.clop.*did you mean agent.clip"),
    ({"groups.prey.learn": 3}, "groups.prey.learn=3: not true or false"),
    ({"groups.prey.agent.steps": 16}, "groups.prey.agent.steps=16: all groups collect rollouts together; type"),
    ({"groups.prey.learn": False, "groups.hunter.learn": False}, "no group learns"),
    ({"env": "cartpole", "groups.a.optim.lr": 1.0}, "groups.a: no such group of agents; .* has none; leave it out"),
    ({"env": "cartpole", "env.groups": {"a": ["*"]}}, "env.groups=.* has one agent; type"),
    ({"source.group": 2}, "source.group=2: a game has 3 agents with policies of their own.*type source.group=3"),
    ({"learner.workers": 2}, "learner.workers=2: groups of agents learn in one process; leave it out"),
    ({"env.lanes": 8}, "env.lanes=8: a game of .* has 3 agents, each a lane; type env.lanes=6 or env.lanes=9"),
    ({"agent": "dqn"}, "agent=dqn cannot act in .*"),
)  # fmt: skip


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_groups_that_cannot_be_are_one_line(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    base = {"agent": "ppo", "env": ID, "dir": str(tmp_path), "threads": 1, "env.lanes": 6, "preset": "none"}
    with pytest.raises(ConfigError, match=says) as found:
        rlkit.train(**base | options)
    assert "\n" not in str(found.value) and not list(tmp_path.iterdir())


def test_whose_policy_is_loaded_must_be_said(tmp_path: Path) -> None:
    folder = rlkit.train(**PPO, env=ID, dir=str(tmp_path), total_steps=50)
    with pytest.raises(
        ConfigError, match="groups of agents have a policy each; type group=hunter or group=prey"
    ):
        rlkit.load(folder)
    with pytest.raises(ConfigError, match="group=pray: no such group; type group=hunter or group=prey"):
        rlkit.load(folder, group="pray")


def test_the_policy_of_a_group_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    from rlkit.runtime import Policy

    folder = rlkit.train(**PPO, env=ID, dir=str(tmp_path), total_steps=50)
    trusted = ["--trust", "tests.helpers.parallel"]
    assert main(["export", str(folder), *trusted]) == 2
    assert "have a policy each; type --group hunter or --group prey" in capsys.readouterr().err
    assert main(["export", str(folder), "--group", "prey", "--steps", "100", *trusted]) == 0
    assert "one group of its agents does not play it alone" in capsys.readouterr().out
    agent, exported = rlkit.load(folder, group="prey"), Policy.load(folder / "export-prey", "numpy")
    for sign in (-1.0, 0.3):
        seen = {"sign": np.array([sign], np.float32)}
        assert np.allclose(exported(seen)[0], agent(seen)[0], atol=1e-5)
