"""PPO's arithmetic against a slow version, its schedules, and its parts one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.agents.ppo import METRICS, Agent, Config, Policy
from rlkit.config.schema import OptimConfig
from rlkit.learn.optim import schedule
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError
from rlkit.returns import gae
from rlkit.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rlkit.types import EnvSpec, Lanes, Rollout, tree_map

T, N = 6, 4


def spec_of(action: Space, stack: int = 1) -> EnvSpec:
    return EnvSpec("test", Box((3,), "float32"), action, stack)


def make_agent(action: Space, compile: bool = False, **options: object) -> Agent:
    optim = {
        name: options.pop(name) for name in ("lr", "clip_norm", "lr_schedule", "name") if name in options
    }
    network = NetworkConfig(core=str(options.pop("core", "identity")), core_size=8, window=4)
    spec = spec_of(action, int(options.pop("stack", 1)))  # type: ignore[call-overload]
    torch.manual_seed(0)
    config = Config(**{"steps": T, "minibatch": T * N, "epochs": 1, "sequence": 3} | options)  # type: ignore[arg-type]
    policy = Policy(spec, network, config)
    return Agent(policy, config, OptimConfig(**optim), compile=compile)  # type: ignore[arg-type]


def make_rollout(agent: Agent, seed: int = 0) -> Rollout:
    """Random rows with terminations, truncations and the reset rows after them, in the middle of episodes."""
    generator = torch.Generator().manual_seed(seed)
    last = torch.rand(T + 1, N, generator=generator) < 0.3
    last[1:] &= ~last[:-1]
    last[0] = False
    first = torch.zeros_like(last)
    first[1:] = last[:-1]
    terminated = last[1:] & (torch.rand(T, N, generator=generator) < 0.5)
    obs = torch.randn(T + 1, N, 3, generator=generator)
    noise = torch.rand(T, N, agent.policy.noise_size, generator=generator).clamp(1e-6, 1 - 1e-6)
    earlier = torch.randn(3, N, 3, generator=generator)
    with torch.no_grad():
        none = torch.zeros(3, N, dtype=torch.bool)
        opening = state = agent.policy.evaluate(earlier, none, agent.policy.initial_state(Lanes(N)))[2]
        actions, extras = [], []
        for t in range(T):
            action, state, extra = agent.policy.act(obs[t], first[t], state, noise[t])
            actions.append(action)
            extras.append(extra)
    reward = torch.randn(T, N, generator=generator) * ~last[:-1]
    reported = {name: torch.stack([extra[name] for extra in extras]) for name in ("log_prob", "value")}
    return Rollout(obs, first, last, torch.stack(actions), reward, terminated, opening, reported)


def plain_batch(agent: Agent, size: int) -> dict[str, Any]:
    """Transitions of action 0 with advantage 1, target 0 and the policy's own log-probability and value."""
    first, action = torch.zeros(1, size, dtype=torch.bool), torch.zeros(size, dtype=torch.int64)
    obs, state = torch.randn(1, size, 3), agent.policy.initial_state(Lanes(size))
    pi, value, _ = agent.policy.evaluate(obs, first, state)
    return {
        "rows": {"obs": obs, "first": first, "cores": state[1:]},
        "action": action[None],
        "log_prob": pi.log_prob(action[None]).detach(),
        "value": value.detach(),
        "advantage": torch.ones(1, size),
        "target": torch.zeros(1, size),
        "weight": torch.ones(1, size),
    }


def slow_loss(agent: Agent, rollout: Rollout, shift: float) -> tuple[float, float, float]:
    """Policy loss, value loss and entropy, transition by transition in Python floats."""
    config, policy = agent.config, agent.policy
    with torch.no_grad():
        pi, value, _ = policy.evaluate(rollout.obs, rollout.first, rollout.state)
        log_prob = agent.policy.head.distribution(
            policy.network(rollout.obs, rollout.first, rollout.state)[0]["policy"][:-1], policy.log_std
        ).log_prob(rollout.action)
        entropy = pi.entropy()
    V, advantages = value.tolist(), {}
    for n in range(N):
        running = 0.0
        for t in reversed(range(T)):
            if rollout.last[t, n]:
                running = 0.0
                continue
            bootstrap = 0.0 if rollout.terminated[t, n] else V[t + 1][n]
            delta = float(rollout.reward[t, n]) + config.gamma * bootstrap - V[t][n]
            running = delta + config.gamma * config.lam * (0.0 if rollout.last[t + 1, n] else running)
            advantages[t, n] = running
    mean = sum(advantages.values()) / len(advantages)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages.values()) / len(advantages))
    policy_loss = value_loss = total_entropy = 0.0
    for (t, n), advantage in advantages.items():
        scaled = (advantage - mean) / (deviation + 1e-8)
        ratio = math.exp(float(log_prob[t, n]) - (float(rollout.extra["log_prob"][t, n]) + shift))
        clipped = min(max(ratio, 1 - config.clip), 1 + config.clip)
        policy_loss -= min(ratio * scaled, clipped * scaled)
        value_loss += advantage**2  # V - R = V - (A + V)
        total_entropy += float(entropy[t, n])
    count = len(advantages)
    return policy_loss / count, value_loss / count, total_entropy / count


SPACES = [Discrete(3), MultiDiscrete((2, 3), (0, 0)), MultiBinary(4), Box((2,), "float32", -2.0, 2.0)]


@pytest.mark.parametrize("action", SPACES, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3])
def test_loss_equals_the_slow_one(action: Space, shift: float) -> None:
    agent = make_agent(action)
    rollout = make_rollout(agent)
    expected = slow_loss(agent, rollout, shift)
    rollout.extra["log_prob"] = rollout.extra["log_prob"] + shift
    metrics = agent.learn(rollout, 0.0)
    found = [float(metrics[name]) for name in METRICS[:3]]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_first_step_has_ratio_one() -> None:
    """Acting and learning read the same log-probabilities: no KL, nothing clipped before the first step."""
    for action in SPACES:
        agent = make_agent(action)
        metrics = agent.learn(make_rollout(agent), 0.0)
        assert abs(float(metrics["policy/kl"])) < 1e-6
        assert float(metrics["policy/clipped"]) == 0


CORES = ["identity", "lstm", "gru", "transformer"]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("stack", [1, 3])
def test_sequences_begin_where_acting_was(core: str, stack: int) -> None:
    """What was reported while acting, row by row, is what sequences, stacks and memories included, say again."""
    agent = make_agent(Discrete(3), core=core, stack=stack)
    rollout = make_rollout(agent)
    metrics = agent.learn(rollout, 0.0)
    assert abs(float(metrics["policy/kl"])) < 1e-6
    value = agent.policy.value(rollout.obs, rollout.first, rollout.state)
    assert value.shape == (T + 1, N)
    agent = make_agent(Discrete(3), core=core, stack=stack)  # with the weights that acted
    value = agent.policy.value(rollout.obs, rollout.first, rollout.state)
    torch.testing.assert_close(value[:-1], rollout.extra["value"], rtol=1e-4, atol=1e-5)


def slow_gradient(agent: Agent, rollout: Rollout, shift: float) -> torch.Tensor:
    """One unroll over all rows and lanes, whose memory passes no gradient on where a sequence starts."""
    config, policy, state = agent.config, agent.policy, rollout.state
    with torch.no_grad():
        value = policy.value(rollout.obs, rollout.first, rollout.state)
    advantage = gae(rollout.reward, value, rollout.terminated, rollout.last, config.gamma, config.lam)
    chosen = advantage[rollout.valid]
    scaled = (advantage - chosen.mean()) / (chosen.std(unbiased=False) + 1e-8)
    total = torch.zeros(())
    for t in range(0, T, config.sequence):
        rows = slice(t, t + config.sequence)
        state = tree_map(torch.Tensor.detach, state)
        pi, now, state = policy.evaluate(rollout.obs[rows], rollout.first[rows], state)  # type: ignore[index]
        ratio = (pi.log_prob(rollout.action[rows]) - rollout.extra["log_prob"][rows] - shift).exp()
        gain = torch.minimum(
            ratio * scaled[rows], ratio.clamp(1 - config.clip, 1 + config.clip) * scaled[rows]
        )
        error = (now - advantage[rows] - value[rows]).square()
        terms = -gain + config.value_coef * error - config.entropy_coef * pi.entropy()
        total = total + terms[rollout.valid[rows]].sum()
    agent.optim.gradient.zero_()
    (total / rollout.valid.sum()).backward()  # type: ignore[no-untyped-call]
    return agent.optim.gradient.clone()


@pytest.mark.parametrize(
    ("core", "sequence", "compile"),
    [*((core, sequence, False) for core in CORES for sequence in (1, 2, T)), ("lstm", 2, True)],
)
def test_gradient_is_that_of_one_unroll_cut_at_sequence_starts(
    core: str, sequence: int, compile: bool
) -> None:
    agent = make_agent(
        Discrete(3),
        core=core,
        sequence=sequence,
        entropy_coef=0.1,
        name="sgd",
        lr=1.0,
        clip_norm=0.0,
        compile=compile,
    )
    rollout = make_rollout(agent)
    before, expected = agent.optim.flat.detach().clone(), slow_gradient(agent, rollout, 0.1)
    rollout.extra["log_prob"] = rollout.extra["log_prob"] + 0.1
    agent.learn(rollout, 0.0)
    torch.testing.assert_close(before - agent.optim.flat, expected, rtol=1e-4, atol=1e-6)


def test_gradients_stop_at_sequence_starts() -> None:
    """The same rollout in longer sequences gives another gradient: the memory's past is learned from."""
    found = []
    for sequence in (1, T):
        agent = make_agent(Discrete(3), core="lstm", sequence=sequence)
        found.append(slow_gradient(agent, make_rollout(agent), 0.0))
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_steps_that_are_no_multiple_of_the_sequence_say_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"agent\.steps=6: core=lstm .*sequence=4 .*type agent\.steps=8"):
        make_agent(Discrete(2), core="lstm", sequence=4)
    make_agent(Discrete(2), sequence=4)  # without memory there are no sequences


def test_clip_stops_the_gradient() -> None:
    """With rho far outside the trust region on the improving side, the policy's gradient is exactly 0."""
    agent = make_agent(Discrete(2), value_coef=0.0, normalize_advantage=False, epochs=1)
    batch = plain_batch(agent, 8)
    ones = torch.ones(1, 8)
    for advantage, shift, moves in (
        (ones, -1.0, False),
        (ones, 1.0, True),
        (-ones, 1.0, False),
        (-ones, -1.0, True),
    ):
        agent.optim.gradient.zero_()
        shifted = batch | {"advantage": advantage, "log_prob": batch["log_prob"] + shift}
        agent.loss(shifted, torch.arange(8), torch.tensor(0.2))[0].backward()
        assert (float(agent.optim.gradient.norm()) > 1e-6) is moves


def test_reset_rows_have_no_influence() -> None:
    """Whatever stands in rows that are no transitions, the update is the same."""
    results = []
    for junk in (0.0, 50.0):
        agent = make_agent(Discrete(3), epochs=2)
        rollout = make_rollout(agent)
        invalid = rollout.last[:-1]
        assert invalid.any()
        rollout.extra["log_prob"][invalid] += junk / 100
        rollout.action[invalid] = 0 if junk else 1
        agent.learn(rollout, 0.0)
        results.append(agent.optim.flat.detach().clone())
    assert torch.equal(results[0], results[1])


def test_explained_variance_is_that_of_the_transitions() -> None:
    """1 - Var(R - V) / Var(R) with R = A + V by a loop over the rows whose action reached the environment."""
    agent = make_agent(Discrete(3), normalize_advantage=False)
    rollout = make_rollout(agent)
    config, last = agent.config, rollout.last
    with torch.no_grad():
        final = agent.policy.value(rollout.obs[-1:], rollout.first[-1:], agent.policy.initial_state(Lanes(N)))
    value = torch.cat([rollout.extra["value"], final]).double()
    targets, errors = [], []
    for n in range(N):
        following = 0.0
        for t in reversed(range(T)):
            if last[t, n]:
                following = 0.0
                continue
            future = 0.0 if rollout.terminated[t, n] else float(value[t + 1, n])
            delta = float(rollout.reward[t, n]) + config.gamma * future - float(value[t, n])
            going = 0.0 if last[t + 1, n] else 1.0
            following = delta + config.gamma * config.lam * going * following
            targets.append(following + float(value[t, n]))
            errors.append(following)
    assert len(targets) == int(rollout.valid.sum()) < T * N
    right = 1 - np.var(errors) / np.var(targets)
    assert agent.learn(rollout, 0.0)["value/explained"].item() == pytest.approx(right, abs=1e-5)
    one = make_agent(Discrete(3), steps=1, minibatch=1)
    row = Rollout(
        *(part[:2, :1] for part in (rollout.obs, rollout.first, rollout.last * False)),
        *(part[:1, :1] for part in (rollout.action, rollout.reward, rollout.terminated)),
        one.policy.initial_state(Lanes(1)),
        {name: part[:1, :1] for name, part in rollout.extra.items()},
    )
    assert one.learn(row, 0.0)["value/explained"] == 0, "one transition has no variance"


def test_value_clip_takes_the_larger_loss() -> None:
    agent = make_agent(Discrete(2), value_clip=0.1)
    batch = plain_batch(agent, 4)
    # V_old = V - 1, R = V: V itself is right, but clipped to V_old + 0.1 it is 0.9 away
    batch |= {"target": batch["value"], "value": batch["value"] - 1}
    metrics = agent.loss(batch, torch.arange(4), torch.tensor(0.2))[1]
    assert float(metrics[1]) == pytest.approx(0.81, rel=1e-4)


def test_kl_stop_ends_the_epochs() -> None:
    eager = make_agent(Discrete(3), epochs=20, lr=0.05)
    assert float(eager.learn(make_rollout(eager), 0.0)["epochs"]) == 20
    careful = make_agent(Discrete(3), epochs=20, lr=0.05, target_kl=0.01)
    assert 1 < float(careful.learn(make_rollout(careful), 0.0)["epochs"]) < 20


def test_recomputed_advantages_follow_the_value() -> None:
    plain, fresh = (
        make_agent(Discrete(3), epochs=4, lr=0.01, recompute_advantage=flag) for flag in (False, True)
    )
    for agent in (plain, fresh):
        agent.learn(make_rollout(agent), 0.0)
    assert not torch.equal(plain.optim.flat, fresh.optim.flat)


def test_schedules_are_functions_of_progress() -> None:
    assert [schedule("linear", p) for p in (0, 0.25, 1, 2)] == [1, 0.75, 0, 0]
    assert [schedule("constant", p) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert schedule("cosine", 0.5) == pytest.approx(0.5)
    agent = make_agent(Discrete(2), lr=0.1, lr_schedule="linear")
    agent.learn(make_rollout(agent), 0.75)
    assert agent.optim.lr == pytest.approx(0.025)
    # a clip that has fallen to 0 clips everything that moved
    agent = make_agent(Discrete(2), epochs=3, lr=0.05, clip_schedule="linear")
    assert float(agent.learn(make_rollout(agent), 1.0)["policy/clipped"]) > 0.5


def test_reward_normalization_divides_by_the_return_deviation() -> None:
    agent = make_agent(Discrete(2), normalize_reward=True)
    rollout = make_rollout(agent)
    raw = rollout.reward.clone()
    agent.learn(rollout, 0.0)
    scale = agent.policy.return_scale.returns.scale
    assert torch.allclose(rollout.reward, raw * scale)
    assert "return_scale.returns.mean" in agent.policy.state_dict()


def test_state_dict_continues_learning() -> None:
    one = make_agent(Discrete(3), epochs=3, minibatch=8)
    one.learn(make_rollout(one), 0.0)
    two = make_agent(Discrete(3), epochs=3, minibatch=8)
    two.policy.load_state_dict(one.policy.state_dict())
    two.load_state_dict(one.state_dict())
    rollout = make_rollout(one, seed=5)
    one.learn(rollout, 0.1)
    two.learn(rollout, 0.1)
    assert torch.equal(one.optim.flat, two.optim.flat)


def test_a_rollout_without_a_transition_changes_nothing_but_moments() -> None:
    """One step per rollout, all lanes resetting at once: no division by a count of zero."""
    agent = make_agent(Discrete(2))
    rollout = make_rollout(agent)
    rollout.last[:] = True
    metrics = agent.learn(rollout, 0.0)
    assert torch.isfinite(agent.optim.flat).all()
    assert float(metrics["loss/policy"]) == 0
