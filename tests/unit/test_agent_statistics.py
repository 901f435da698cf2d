"""What agents report and scale by, against slow loops over the rows that are transitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlkit.collect.account import Account
from rlkit.config import registry
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.contracts import Episodes, Timing
from rlkit.learn.feeds import RolloutFeed
from rlkit.nn.config import NetworkConfig
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, Lanes, Rollout
from tests.helpers import experience

T, N, OBS = 7, 3, 2
LAST = [(2, 0), (5, 0), (1, 1), (T, 2)]  # rows that close an episode: none is like another lane's
TERMINATED = [(2, 0), (T, 2)]
TRANSITIONS = [(t, n) for t in range(T) for n in range(N) if (t, n) not in LAST]


def make(name: str, core: str = "identity", **options: Any) -> Any:
    """A new agent whose observations are scaled by what it has seen."""
    algorithm = registry.algorithm(name)
    torch.manual_seed(0)
    config = algorithm.Config(**options)
    action = Box((1,), "float32", -2.0, 4.0) if name == "ddpg" else Discrete(3)
    spec = EnvSpec("test", Box((OBS,), "float32"), action)
    network = NetworkConfig(hidden=(6, 5), core=core, core_size=4, normalize=True)
    optim = OptimConfig(name="sgd", lr=1e-3, clip_norm=0.0)
    return algorithm.Agent(algorithm.Policy(spec, network, config), config, optim)


def rollout(agent: Any, junk: float = 100.0) -> Rollout:
    """Rows without symmetry. Those that are no transitions look like nothing else, and nothing may depend on them."""
    g = torch.Generator().manual_seed(3)
    first, last = torch.zeros(2, T + 1, N, dtype=torch.bool)
    terminated = torch.zeros(T, N, dtype=torch.bool)
    for t, n in LAST:
        last[t, n] = True
        if t < T:
            first[t + 1, n] = True
    for t, n in TERMINATED:
        terminated[t - 1, n] = True
    obs = torch.randn(T + 1, N, OBS, generator=g) * torch.tensor([2.0, 0.5]) + torch.tensor([5.0, -1.0])
    obs[last] += junk
    state = agent.policy.initial_state(Lanes(N))
    noise = torch.rand(T, N, agent.policy.noise_size, generator=g)
    with torch.no_grad():
        found = [agent.policy.act(obs[t], first[t], state, noise[t]) for t in range(T)]
    extra = {name: torch.stack([each[2][name] for each in found]) for name in found[0][2]}
    if "log_prob" in extra:  # of another policy
        extra["log_prob"] = extra["log_prob"] + 0.3 * torch.randn(T, N, generator=g)
    action = torch.stack([each[0] for each in found])
    reward = torch.randn(T, N, generator=g)
    reward[last[:-1]] = junk
    return Rollout(obs, first, last, action, reward, terminated, state, extra)


class Memory:
    """A replay buffer that owes one batch, and keeps what it is told of it."""

    ready = True

    def __init__(self, batch: Any) -> None:
        self.batch, self.td = batch, torch.zeros(0)

    def batches(self, progress: float) -> Iterator[Any]:
        yield self.batch

    def prioritise(self, index: Tensor, td: Tensor) -> None:
        self.td = td.clone()


WEIGHT = (0.5, 2.0, 1.25)
BURN_IN = 2
REPLAY = {"replay": ReplayConfig(sequence=T - BURN_IN, burn_in=BURN_IN, batch=N * (T - BURN_IN))}
LEARNED = [(t, n) for t, n in TRANSITIONS if t >= BURN_IN]  # of a sequence


def learned(name: str) -> tuple[Any, Rollout, dict[str, Tensor], Memory | None]:
    """An agent that has learned once from the rollout; rows, report, and the replay buffer it came from."""
    if name in ("ppo", "reinforce"):
        # steps: REINFORCE's pieces are of unequal length
        agent = make(name, **({"epochs": 1, "minibatch": T * N} if name == "ppo" else {"steps": 4}))
        rows = rollout(agent)
        rows.extra["weight"] = torch.zeros(T, N)
        for t, n in TRANSITIONS:
            rows.extra["weight"][t, n] = 1.0
        return agent, rows, agent.learn(rows.map(torch.clone), 0.0), None
    agent = make(name, core="gru", **REPLAY)
    rows = rollout(agent)
    memory = Memory(experience.sequences(rows, agent.config.gamma, BURN_IN, WEIGHT))
    return agent, rows, agent.learn(memory, 0.0), memory


@pytest.mark.parametrize("name", ["ppo", "reinforce", "dqn", "ddpg"])
def test_observations_are_scaled_by_those_of_transitions(name: str) -> None:
    agent, rows, _, _ = learned(name)
    seen = np.array([rows.obs[t, n].tolist() for t, n in TRANSITIONS], np.float64)  # type: ignore[index]
    norms = [agent.policy.network.encoders[i].flatten.norm for i in range(len(agent.policy.network.encoders))]
    targets = (
        [getattr(agent.target, "network", agent.target).encoders[0].flatten.norm]
        if name in ("dqn", "ddpg")
        else []
    )
    for norm in norms + targets:
        assert float(norm.count) == len(TRANSITIONS)
        assert norm.mean.tolist() == pytest.approx(seen.mean(0).tolist())
        assert norm.var.tolist() == pytest.approx(seen.var(0).tolist())


def mean(value: Callable[[int, int], float], over: list[tuple[int, int]]) -> float:
    return sum(value(t, n) for t, n in over) / len(over)


def test_ppo_reports_means_over_transitions() -> None:
    _, rows, report, _ = learned("ppo")
    agent = make("ppo")  # the same weights, before the step
    with torch.no_grad():
        pi, _, _ = agent.policy.evaluate(rows.obs, rows.first, rows.state)
        entropy = pi.entropy()
        logits = agent.policy.network(rows.obs, rows.first, rows.state)[0]["policy"].log_softmax(-1)
    old = rows.extra["log_prob"]

    def log_ratio(t: int, n: int) -> float:
        return float(logits[t, n, rows.action[t, n]] - old[t, n])

    def kl(t: int, n: int) -> float:
        return math.exp(log_ratio(t, n)) - 1 - log_ratio(t, n)

    def clipped(t: int, n: int) -> float:
        return float(abs(math.exp(log_ratio(t, n)) - 1) > agent.config.clip)

    share = mean(clipped, TRANSITIONS)
    assert 0.2 < share < 0.9
    assert float(report["policy/clipped"]) == pytest.approx(share)
    assert float(report["policy/kl"]) == pytest.approx(mean(kl, TRANSITIONS), rel=1e-4)
    expected = mean(lambda t, n: float(entropy[t, n]), TRANSITIONS)
    assert float(report["policy/entropy"]) == pytest.approx(expected, rel=1e-5)


def test_reinforce_reports_means_over_weighted_rows() -> None:
    _, rows, report, _ = learned("reinforce")
    agent = make("reinforce")
    with torch.no_grad():
        pi, value, _ = agent.policy.evaluate(rows.obs, rows.first, rows.state)
        log_prob = pi.log_prob(torch.cat([rows.action, rows.action[-1:]]))
        entropy = pi.entropy()
    ratio = {
        (t, n): min(1.0, math.exp(float(log_prob[t, n] - rows.extra["log_prob"][t, n])))
        for t, n in TRANSITIONS
    }
    target: dict[tuple[int, int], float] = {}
    for t, n in reversed(TRANSITIONS):
        if bool(rows.terminated[t, n]):
            future = 0.0
        elif t + 1 == T or bool(rows.last[t + 1, n]):
            future = float(value[t + 1, n])
        else:
            future = target[t + 1, n]
        target[t, n] = float(rows.reward[t, n]) + agent.config.gamma * future
    raw = {at: target[at] - float(value[at]) for at in TRANSITIONS}
    centre = mean(lambda t, n: raw[t, n], TRANSITIONS)
    spread = math.sqrt(mean(lambda t, n: (raw[t, n] - centre) ** 2, TRANSITIONS))
    expected = {
        "policy/ratio": mean(lambda t, n: ratio[t, n], TRANSITIONS),
        "policy/entropy": mean(lambda t, n: float(entropy[t, n]), TRANSITIONS),
        "loss/value": mean(lambda t, n: raw[t, n] ** 2, TRANSITIONS),
        "loss/policy": mean(
            lambda t, n: -ratio[t, n] * (raw[t, n] - centre) / spread * float(log_prob[t, n]), TRANSITIONS
        ),
    }
    assert {name: float(report[name]) for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["dqn", "ddpg"])
def test_replayed_batches_are_judged_by_their_transitions(name: str) -> None:
    """Errors (the priorities), q/mean, q/target and both losses by a loop over rows after the burn-in."""
    _, rows, report, memory = learned(name)
    agent = make(name, core="gru", **REPLAY)
    drawn = experience.sequences(rows, agent.config.gamma, BURN_IN, WEIGHT)
    for policy in (agent.policy.network, getattr(agent.target, "network", agent.target)):
        policy.observe(drawn.now.obs, ~drawn.now.last)
    best: dict[tuple[int, int], float] = {}
    with torch.no_grad():
        if name == "dqn":
            z = agent.policy.returns(agent.network, *drawn.later.inputs)[0].mean(-1)
            q = {(t, n): float(z[t, n, rows.action[t, n]]) for t, n in LEARNED}
            ahead = {
                (t, n): float(z[t + 1, n].max()) for t, n in LEARNED
            }  # both networks are the same as yet
            losses = {}
        else:
            features, _ = agent.policy.network.features(*drawn.later.inputs)
            rated = agent.policy.q({k: x[:-1] for k, x in features.items()}, rows.action)[0]
            chosen = agent.policy.q(features, agent.policy.mu(features))[0]
            q = {(t, n): float(rated[t, n]) for t, n in LEARNED}
            ahead = {(t, n): float(chosen[t + 1, n]) for t, n in LEARNED}
            best = {(t, n): float(chosen[t, n]) for t, n in LEARNED}
    y = {
        (t, n): float(rows.reward[t, n]) + (0 if rows.terminated[t, n] else agent.config.gamma * ahead[t, n])
        for t, n in LEARNED
    }
    # DDPG's weights are part of its means of Q and y
    weight = {(t, n): WEIGHT[n] for t, n in LEARNED} if name == "ddpg" else dict.fromkeys(LEARNED, 1.0)
    assert float(report["q/mean"]) == pytest.approx(
        mean(lambda t, n: weight[t, n] * q[t, n], LEARNED), rel=1e-4
    )
    assert float(report["q/target"]) == pytest.approx(
        mean(lambda t, n: weight[t, n] * y[t, n], LEARNED), rel=1e-4
    )
    assert memory is not None
    for t in range(BURN_IN, T):
        for n in range(N):
            error = abs(y[t, n] - q[t, n]) if (t, n) in LEARNED else 0.0
            assert float(memory.td[t - BURN_IN, n]) == pytest.approx(error, rel=1e-3, abs=1e-5), (t, n)
    if name == "ddpg":
        losses = {"loss/critic": mean(lambda t, n: WEIGHT[n] * (q[t, n] - y[t, n]) ** 2, LEARNED)}
        assert float(report["loss/critic"]) == pytest.approx(losses["loss/critic"], rel=1e-4)
        # the critic that judges the actor has made one step of 1e-3
        assert float(report["loss/actor"]) == pytest.approx(-mean(lambda t, n: best[t, n], LEARNED), abs=0.02)


@pytest.mark.parametrize("junk", [0.0, 1e6])
def test_the_actors_loss_takes_no_other_rows(junk: float) -> None:
    agent = make("ddpg", core="gru", **REPLAY)
    drawn = experience.sequences(rollout(agent, junk), agent.config.gamma, BURN_IN, WEIGHT)
    with torch.no_grad():
        now, _, weight = agent.targets(drawn, ())
        features, _ = agent.policy.network.features(*now.inputs)
        q = agent.policy.q(features, agent.policy.mu(features))[0]
        expected = -mean(lambda t, n: float(q[t - BURN_IN, n]), LEARNED)
        assert float(agent.actor_loss(now, weight)[0]) == pytest.approx(expected, rel=1e-5)


def test_recomputed_advantages_are_those_of_the_newest_value() -> None:
    """Before every epoch but the first, with V as it is then."""
    agent = make("ppo", epochs=3, minibatch=T * N, recompute_advantage=True, normalize_advantage=False)
    given, inner = [], agent.advantages

    def advantages(rows: Rollout, value: Tensor, weight: Tensor) -> Any:
        with torch.no_grad():
            given.append((value.clone(), agent.policy.value(rows.obs, rows.first, rows.state)))
        return inner(rows, value, weight)

    agent.advantages = advantages
    agent.learn(rollout(agent), 0.0)
    assert len(given) == 3
    for value, newest in given:
        assert torch.allclose(value, newest, atol=1e-5)
    assert not torch.allclose(given[0][0], given[1][0], atol=1e-5)


def test_greedy_actions_and_values_are_free_of_learned_noise() -> None:
    """An action whose noise is huge is chosen where noise is asked for, and not by the greedy policy."""
    agent = make("dqn", noisy=True)
    policy, heads = agent.policy, agent.network.heads
    heads["q"].weight.data.zero_()
    heads["q"].bias.data.copy_(torch.tensor([1.0, 0.0, 0.0]))
    noise = heads["q_noise"]
    noise.weight.data.zero_()
    noise.bias.data.copy_(torch.tensor([0.0, 0.0, 100.0]))
    noise.noise_out.fill_(1.0)
    policy.epsilon.zero_()
    obs, first, state = torch.zeros(1, OBS), torch.zeros(1, dtype=torch.bool), policy.initial_state(Lanes(1))
    with torch.no_grad():
        assert int(policy.act(obs, first, state, torch.full((1, 2), 0.5))[0]) == 2
        assert int(policy.act(obs, first, state, None)[0]) == 0
        assert float(policy.value(obs[None], first[None], state)) == 1.0


# ---- episodes


def test_returns_and_lengths_are_those_of_a_loop() -> None:
    """Over rollouts cut anywhere, with rewards scaled on their way; a lane that is opened anew ends nothing."""
    stream = experience.Stream.make(60, 3, seed=7, ending=0.15)
    stream.last[30, 1] = False  # lane 1 loses its episode: row 31 opens one
    stream.first[31, 1] = True
    stream.last[31, 1] = False
    policy, account, found = experience.Policy(), Account(3, reward_scale=0.5), []
    start = 0
    for steps in (1, 7, 20, 2, 30):
        episodes = account.take(stream.rollout(policy, start, steps), start)  # type: ignore[arg-type]
        found += list(zip(episodes.returns, episodes.lengths, strict=True))
        start += steps
    expected = []
    for n in range(3):
        total, length = 0.0, 0
        for t in range(60):
            if stream.first[t, n]:
                total, length = 0.0, 0
            if not stream.last[t, n]:
                total, length = total + float(stream.reward[t, n]) / 0.5, length + 1
                if stream.last[t + 1, n]:
                    expected.append((total, length))
    assert len(found) == len(expected) > 10
    flat = np.array(sorted(found, key=lambda each: each[0]))
    assert flat == pytest.approx(np.array(sorted(expected, key=lambda each: each[0])))


class Source:
    """Hands out one rollout again and again, with these episodes."""

    timing = Timing()

    def __init__(self, rows: Rollout, *episodes: Episodes) -> None:
        self.rows, self.episodes = rows, list(episodes)

    def get(self) -> tuple[Rollout, Episodes]:
        return self.rows, self.episodes.pop(0)

    def report(self) -> dict[str, float]:
        return {}


def test_returns_are_reported_over_the_last_hundred_episodes() -> None:
    rows = rollout(make("ppo"))
    groups = [([5.0], [3]), ([float(i * i) for i in range(99)], list(range(99))), ([7.0, -1.0], [4, 8])]
    feed = RolloutFeed(Source(rows, *(Episodes(*group) for group in groups)))  # type: ignore[arg-type]
    everything: list[tuple[float, int]] = []
    for returns, lengths in groups:
        _, steps = feed.next()
        assert steps == len(TRANSITIONS)
        everything += list(zip(returns, lengths, strict=True))
        last = np.array(everything[-100:])
        assert feed.report() == pytest.approx(
            {
                "episodes": len(everything),
                "return/mean": last[:, 0].mean(),
                "return/std": last[:, 0].std(),
                "return/min": last[:, 0].min(),
                "return/max": last[:, 0].max(),
                "length/mean": last[:, 1].mean(),
            }
        )
    assert everything[0][0] == 5.0 and feed.report()["return/min"] == -1.0
