"""REINFORCE's gradient against the one derived by hand, its returns, its baselines, and its pieces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlkit.agents.reinforce import Agent, Config, Policy
from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig
from rlkit.nn.config import NetworkConfig
from rlkit.run.console import Console
from rlkit.run.start import prepare
from rlkit.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rlkit.types import EnvSpec, Lanes, Rollout

PLAIN = {"baseline": "none", "normalize_advantage": False}


def make_agent(action: Space, size: int = 1, network: dict[str, Any] | None = None, **options: Any) -> Agent:
    """An agent whose step is plainly minus the gradient."""
    torch.manual_seed(0)
    config = Config(**options)
    policy = Policy(
        EnvSpec("test", Box((size,), "float32"), action), NetworkConfig(**(network or {})), config
    )
    return Agent(policy, config, OptimConfig(name="sgd", lr=1.0, clip_norm=0.0))


def one_step_episodes(agent: Agent, action: list[int], reward: list[float], weight: list[float]) -> Rollout:
    """N lanes of one transition each, acted by the agent's own policy."""
    lanes = len(action)
    obs, first = torch.ones(2, lanes, 1), torch.tensor([[True], [False]]).expand(2, lanes)
    chosen, state = torch.tensor([action]), agent.policy.initial_state(Lanes(lanes))
    with torch.no_grad():
        log_prob = agent.policy.evaluate(obs[:1], first[:1], state)[0].log_prob(chosen)
    extra = {"log_prob": log_prob, "weight": torch.tensor([weight])}
    ended = torch.ones(1, lanes, dtype=torch.bool)
    return Rollout(obs, first, ~first, chosen, torch.tensor([reward]), ended, state, extra)


def test_gradient_of_a_bandit_by_hand() -> None:
    """d log pi(a) / d l_k = 1{a = k} - p_k, so -dL/dl = mean_i r_i (1{a_i = k} - p_k)."""
    agent = make_agent(Discrete(2), **PLAIN)
    bias = agent.policy.network.heads["policy"].bias
    bias.data += torch.tensor([0.0, math.log(3)])
    hidden = agent.policy.network.heads["policy"].weight.data
    hidden.zero_()  # so p = (1/4, 3/4)
    before = bias.detach().clone()
    metrics = agent.learn(one_step_episodes(agent, [0, 1, 1], [2.0, 1.0, -4.0], [1.0, 1.0, 1.0]), 0.0)
    # k = 0: (2 (1 - 1/4) + 1 (0 - 1/4) - 4 (0 - 1/4)) / 3 = (3/2 - 1/4 + 1) / 3 = 3/4
    assert (bias.detach() - before).tolist() == pytest.approx([0.75, -0.75], abs=1e-6)
    # -mean r log p = -(2 log 1/4 - 3 log 3/4) / 3;  H = -(1/4 log 1/4 + 3/4 log 3/4)
    assert float(metrics["loss/policy"]) == pytest.approx(-(2 * math.log(0.25) - 3 * math.log(0.75)) / 3)
    assert float(metrics["policy/entropy"]) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))


def test_gradient_of_entropy_by_hand() -> None:
    """dH/dl_k = -p_k (log p_k + H)."""
    agent = make_agent(Discrete(2), entropy_coef=0.5, **PLAIN)
    head = agent.policy.network.heads["policy"]
    head.bias.data += torch.tensor([0.0, math.log(3)])
    head.weight.data.zero_()
    before = head.bias.detach().clone()
    agent.learn(one_step_episodes(agent, [0], [0.0], [1.0]), 0.0)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = [-0.5 * p * (math.log(p) + entropy) for p in (0.25, 0.75)]
    assert (head.bias.detach() - before).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("baseline", ["mean", "value"])
def test_a_baseline_does_not_bias(baseline: str) -> None:
    """The step in expectation over the actions (weights p_a) is the same, whatever the baseline says."""
    steps = []
    for kind in ("none", baseline):
        agent = make_agent(Discrete(3), baseline=kind, normalize_advantage=False, value_coef=0.0)
        agent.mean.fill_(7.0)
        with torch.no_grad():
            agent.policy.network.heads["policy"].weight.zero_()
            agent.policy.network.heads["policy"].bias.copy_(torch.tensor([0.3, -0.2, 0.9]))
            if kind == "value":
                agent.policy.network.heads["value"].bias.fill_(-5.0)
            obs, first = torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
            pi = agent.policy.evaluate(obs, first, agent.policy.initial_state(Lanes(1)))[0]
            probability = [float(pi.log_prob(torch.tensor([[a]])).exp()) for a in range(3)]
        head = agent.policy.network.heads["policy"].bias
        before = head.detach().clone()
        agent.learn(one_step_episodes(agent, [0, 1, 2], [1.0, 2.0, -1.0], probability), 0.0)
        steps.append((head.detach() - before).tolist())
    assert steps[0] == pytest.approx(steps[1], abs=1e-5)
    assert max(map(abs, steps[0])) > 0.1


def rows(values: list[Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


def two_episodes(agent: Agent) -> Rollout:
    """One lane: rewards 1, 2, 4 and termination, the reset row, rewards 8, 16 and truncation."""
    no, yes = False, True
    return Rollout(
        obs=torch.zeros(7, 1, 1),
        first=rows([yes, no, no, no, yes, no, no], torch.bool),
        last=rows([no, no, no, yes, no, no, yes], torch.bool),
        action=torch.zeros(6, 1, dtype=torch.int64),
        reward=rows([1, 2, 4, 0, 8, 16]),
        terminated=rows([no, no, yes, no, no, no], torch.bool),
        state=agent.policy.initial_state(Lanes(1)),
        extra={"log_prob": torch.full((6, 1), math.log(0.5)), "weight": rows([1, 1, 1, 0, 1, 1])},
    )


VALUE = rows([10, 20, 30, 40, 50, 60, 70])  # [T+1, N]


@pytest.mark.parametrize(
    ("options", "target", "advantage"),
    [
        # R = 1 + (2 + 4/2)/2, 2 + 4/2, 4;  8 + 16/2, 16
        ({"baseline": "none", "bootstrap": False}, [3, 4, 4, 16, 16], [3, 4, 4, 16, 16]),
        # the truncated episode goes on with 70/2 after its last reward: 16 + 35, 8 + 51/2
        ({"baseline": "value"}, [3, 4, 4, 33.5, 51], [3 - 10, 4 - 20, 4 - 30, 33.5 - 50, 51 - 60]),
        ({"baseline": "value", "bootstrap": False}, [3, 4, 4, 16, 16], [-7, -16, -26, -34, -44]),
        # the whole return, and V of the first row
        ({"baseline": "value", "reward_to_go": False}, [3, 4, 4, 33.5, 51], [-7, -7, -7, -16.5, -16.5]),
        ({"baseline": "mean", "bootstrap": False}, [3, 4, 4, 16, 16], [1, 2, 2, 14, 14]),
    ],
    ids=["to-go", "value", "value-no-bootstrap", "whole", "mean"],
)
def test_returns_and_advantages_by_hand(
    options: dict[str, Any], target: list[float], advantage: list[float]
) -> None:
    agent = make_agent(Discrete(2), gamma=0.5, normalize_advantage=False, **options)
    agent.mean.fill_(2.0)
    rollout = two_episodes(agent)
    value = VALUE if options["baseline"] == "value" else torch.zeros_like(VALUE)
    weight = rollout.extra["weight"] / 5
    found = agent.advantages(rollout, value, weight)
    marked = weight[:, 0] > 0
    assert found[0][marked, 0].tolist() == pytest.approx(target)
    assert found[1][marked, 0].tolist() == pytest.approx(advantage)


def test_without_a_learned_value_truncation_counts_nothing() -> None:
    """bootstrap is true by default, and V is 0 where none is learned."""
    agent = make_agent(Discrete(2), gamma=0.5, **PLAIN)
    rollout = two_episodes(agent)
    value, _ = agent.sweep(rollout)
    assert not value.any()
    target, _ = agent.advantages(rollout, value, rollout.extra["weight"] / 5)
    assert target[:, 0].tolist() == pytest.approx([3, 4, 4, 0, 16, 16])
    with pytest.raises(ValueError, match=r"agent\.baseline=none learns no value; type agent\.baseline=value"):
        agent.policy.value(rollout.obs, rollout.first, rollout.state)


def test_normalized_advantages() -> None:
    agent = make_agent(Discrete(2), baseline="none")
    rollout = two_episodes(agent)
    weight = rollout.extra["weight"] / 5
    advantage = agent.advantages(rollout, torch.zeros(7, 1), weight)[1]
    assert float((weight * advantage).sum()) == pytest.approx(0, abs=1e-6)
    assert float((weight * advantage.square()).sum()) == pytest.approx(1)


def test_running_mean_of_returns() -> None:
    """The baseline of a batch comes from the batches before it: 0, then 1/10 of the way to 43/5."""
    agent = make_agent(Discrete(2), gamma=0.5, baseline="mean", bootstrap=False)
    agent.learn(two_episodes(agent), 0.0)
    assert float(agent.mean) == pytest.approx(0.86)
    other = make_agent(Discrete(2), gamma=0.5, baseline="mean")
    other.load_state_dict(agent.state_dict())
    assert float(other.mean) == pytest.approx(0.86)


def random_rollout(agent: Agent, steps: int, lanes: int, seed: int = 0) -> Rollout:
    """Rows with endings, acted by the agent, its memory carried along; about half the episodes are marked."""
    generator = torch.Generator().manual_seed(seed)
    policy = agent.policy
    last = torch.rand(steps + 1, lanes, generator=generator) < 0.2
    last[0] = False
    last[1:] &= ~last[:-1]
    first = torch.cat([torch.ones(1, lanes, dtype=torch.bool), last[:-1]])
    obs = torch.randn(steps + 1, lanes, 3, generator=generator)
    noise = torch.rand(steps, lanes, policy.noise_size, generator=generator).clamp(1e-6, 1 - 1e-6)
    opening = state = policy.initial_state(Lanes(lanes))
    acted = []
    with torch.no_grad():
        for t in range(steps):
            action, state, extra = policy.act(obs[t], first[t], state, noise[t])
            acted.append((action, extra["log_prob"]))
    weight = (~last[:-1] & (torch.rand(steps, lanes, generator=generator) < 0.5)).float()
    extra = {"log_prob": torch.stack([each[1] for each in acted]), "weight": weight}
    reward = torch.randn(steps, lanes, generator=generator)
    terminated = last[1:] & (torch.rand(steps, lanes, generator=generator) < 0.5)
    action = torch.stack([each[0] for each in acted])
    return Rollout(obs, first, last, action, reward, terminated, opening, extra)


SPACES = [Discrete(3), MultiDiscrete((2, 3), (0, 0)), MultiBinary(4), Box((2,), "float32", -2.0, 2.0)]


@pytest.mark.parametrize("action", SPACES, ids=lambda space: type(space).__name__)
def test_pieces_add_up(action: Space) -> None:
    """Whatever the length of the pieces (the last one may be short), the step is the same."""
    results = []
    for steps in (12, 4, 5):
        agent = make_agent(action, 3, steps=steps, entropy_coef=0.01)
        metrics = agent.learn(random_rollout(agent, 12, 4), 0.0)
        assert float(metrics["policy/ratio"]) == pytest.approx(1, abs=1e-5)
        results.append(agent.optim.flat.detach().clone())
    assert torch.allclose(results[0], results[1], atol=1e-5)
    assert torch.allclose(results[0], results[2], atol=1e-5)


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_memory_is_carried_over_pieces(core: str) -> None:
    """Unrolled in pieces, the probabilities of the actions are those that acting had: rho = 1 in every row."""
    agent = make_agent(Discrete(3), 3, {"core": core, "core_size": 8, "window": 6}, steps=4)
    for head in agent.policy.network.heads.values():
        head.weight.data.mul_(100)
    rollout = random_rollout(agent, 12, 4)
    _, states = agent.sweep(rollout)
    for (piece, obs, first), state in zip(agent.pieces(rollout), states, strict=True):
        pi = agent.policy.evaluate(obs, first, state)[0]
        assert torch.allclose(pi.log_prob(rollout.action[piece]), rollout.extra["log_prob"][piece], atol=1e-4)
    forgetful = agent.policy.initial_state(Lanes(4))
    pi = agent.policy.evaluate(obs, first, forgetful)[0]
    assert not torch.allclose(pi.log_prob(rollout.action[piece]), rollout.extra["log_prob"][piece], atol=1e-3)


def test_importance_ratio() -> None:
    """Actions that mu took twice as often as pi count half; those it took half as often, once."""
    steps = []
    for shift in (0.0, math.log(2), -math.log(2)):
        agent = make_agent(Discrete(2), **PLAIN)
        bias = agent.policy.network.heads["policy"].bias
        rollout = one_step_episodes(agent, [0], [1.0], [1.0])
        rollout.extra["log_prob"] = rollout.extra["log_prob"] + shift
        before = bias.detach().clone()
        metrics = agent.learn(rollout, 0.0)
        steps.append(float((bias.detach() - before)[0]))
        assert float(metrics["policy/ratio"]) == pytest.approx(min(1.0, math.exp(-shift)))
    assert steps[1] == pytest.approx(steps[0] / 2)
    assert steps[2] == pytest.approx(steps[0])


def test_rows_without_weight_have_no_influence() -> None:
    results = []
    for junk in (0, 1):
        agent = make_agent(Discrete(3), 3, steps=6)
        rollout = random_rollout(agent, 12, 4)
        idle = rollout.extra["weight"] == 0
        rollout.extra["log_prob"][idle] -= junk
        rollout.action[idle] = junk
        agent.learn(rollout, 0.0)
        results.append(agent.optim.flat.detach().clone())
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("options", [{"network": "lstm"}, {"env.stack": 3}, {"source": "thread"}], ids=str)
def test_the_first_batch_of_a_run_is_on_policy(tmp_path: Any, options: dict[str, Any]) -> None:
    """From feed to agent: what acting reported is what learning computes, and the clock counts every step."""
    values = {
        "agent": "reinforce", "env": "cartpole", "preset": "none", "env.lanes": 3, "agent.steps": 8, "threads": 1,
        "env.backend": "inprocess", "log.tensorboard": False, "network.core_size": 8, "total_steps": 1,
    }  # fmt: skip
    run = prepare(compose(values=values | options).config, tmp_path, Console(1, "test", plain=True))
    try:
        run.model.network.heads["policy"].weight.data.mul_(100)
        batch, steps = run.feed.next()
        metrics = run.learner.learn(batch, 0.0)
    finally:
        run.feed.close()
    assert float(metrics["policy/ratio"]) == pytest.approx(1, abs=1e-4)
    assert int(batch.extra["weight"].sum()) <= steps
    assert steps <= run.feed.source.actor.step * 3
