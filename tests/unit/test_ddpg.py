"""DDPG's and TD3's arithmetic by hand and against slow versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.agents.ddpg import Agent, Config, Policy
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.nn.config import NetworkConfig
from rlkit.returns import n_step
from rlkit.seeding import uniforms
from rlkit.spaces import Box, Discrete, Space
from rlkit.types import Batch, EnvSpec, Lanes, Rollout, State, tree_leaves, tree_map
from tests.helpers import experience

B, L, OBS, D = 5, 7, 3, 2


class Memory:
    """A replay buffer that hands out given batches."""

    def __init__(self, *batches: Batch, ready: bool = True) -> None:
        self.drawn, self.ready = batches, ready
        self.prioritised: list[tuple[Tensor, Tensor]] = []

    def batches(self, progress: float) -> Iterator[Batch]:
        yield from self.drawn

    def prioritise(self, index: Tensor, td: Tensor) -> None:
        self.prioritised.append((index, td))


def make_agent(
    network: dict[str, Any] | None = None,
    *,
    optim: dict[str, Any] | None = None,
    replay: dict[str, Any] | None = None,
    compile: bool = False,
    obs: Space | None = None,
    **options: Any,
) -> Agent:
    torch.manual_seed(0)
    spec = EnvSpec("test", obs or Box((OBS,), "float32"), Box((D,), "float32", -2.0, 4.0))
    config = Config(replay=ReplayConfig(**(replay or {})), **options)
    policy = Policy(
        spec, NetworkConfig(**({"hidden": (8, 6), "activation": "tanh"} | (network or {}))), config
    )
    return Agent(
        policy, config, OptimConfig(**({"lr": 1e-2, "clip_norm": 0.0} | (optim or {}))), compile=compile
    )


def transitions(agent: Agent, seed: int = 0, batch: int = B, after: State | None = None) -> Batch:
    """A memoryless batch: one transition of each lane, the first of them terminated."""
    g = torch.Generator().manual_seed(seed)
    terminated = torch.arange(batch)[None] == 0
    rollout = Rollout(
        obs=torch.randn(2, batch, OBS, generator=g),
        first=torch.zeros(2, batch, dtype=torch.bool),
        last=torch.cat([torch.zeros_like(terminated), terminated]),
        action=torch.rand(1, batch, D, generator=g) * 2 - 1,
        reward=torch.randn(1, batch, generator=g),
        terminated=terminated,
        state=agent.policy.initial_state(Lanes(batch)),
    )
    weight = torch.rand(batch, generator=g) + 0.5
    return experience.transitions(rollout, agent.config.gamma, weight, after)


def sequences(agent: Agent, seed: int = 0, state: State | None = None) -> Batch:
    """A batch of L rows with endings and the reset rows after them, from some state in the middle of episodes."""
    g = torch.Generator().manual_seed(seed)
    last = torch.zeros(L + 1, B, dtype=torch.bool)
    last[3, 0] = last[5, 1] = last[L, 2] = last[2, 3] = True
    first = torch.zeros_like(last)
    first[1:] = last[:-1]
    terminated = last[1:] & (torch.arange(B) % 2 == 0)
    initial = agent.policy.initial_state(Lanes(B))
    state = state or tree_map(lambda x: 0.5 * torch.randn(x.shape, generator=g), initial)
    rollout = Rollout(
        obs=torch.randn(L + 1, B, OBS, generator=g), first=first, last=last,
        action=torch.rand(L, B, D, generator=g) * 2 - 1, reward=torch.randn(L, B, generator=g) * ~last[:-1],
        terminated=terminated, state=state,
    )  # fmt: skip
    return experience.sequences(rollout, agent.config.gamma, agent.config.replay.burn_in)


def by_hand(**options: Any) -> Agent:
    """mu' = 1/2, Q'_1(s, a) = 2 max(s + a, 0), Q'_2(s, a) = 3 max(s + a, 0) - 1, for numbers s and a."""
    torch.manual_seed(0)
    spec = EnvSpec("test", Box((1,), "float32"), Box((1,), "float32", -1.0, 1.0))
    config = Config(**options)
    policy = Policy(spec, NetworkConfig(hidden=(1,), activation="relu"), config)
    agent = Agent(policy, config, OptimConfig())
    with torch.no_grad():
        for p in agent.target.parameters():
            p.fill_(1.0)
        heads = [agent.target.actor, *agent.target.critics]
        for head, w, b in zip(heads, (0.0, 2.0, 3.0), (math.atanh(0.5), 0.0, -1.0), strict=False):
            head.hidden.bias.zero_()
            head.output.weight.fill_(w)
            head.output.bias.fill_(b)
    return agent


def target(agent: Agent, s: float, noise: float | None = None) -> list[float]:
    """y of two transitions to s with reward 1 and discount 0.9, the second terminated."""
    terminated = torch.tensor([[False, True]])
    rollout = Rollout(
        obs=torch.full((2, 2, 1), s), first=torch.zeros(2, 2, dtype=torch.bool),
        last=torch.cat([torch.zeros_like(terminated), terminated]), action=torch.zeros(1, 2, 1),
        reward=torch.ones(1, 2), terminated=terminated, state=agent.policy.initial_state(Lanes(2)),
    )  # fmt: skip
    added = () if noise is None else (torch.full((1, 2, 1), noise),)
    y: Tensor
    _, y, _ = agent.targets(experience.transitions(rollout, 0.9), added)
    return y[0].tolist()


def test_target_by_hand() -> None:
    # s + mu = 1.5: Q'_1 = 3, Q'_2 = 3.5;   y = 1 + 0.9 * 3
    assert target(by_hand(), 1.0) == pytest.approx([3.7, 1.0])


def test_twin_critics_take_the_smaller() -> None:
    agent = by_hand(critics=2)
    assert target(agent, 1.0) == pytest.approx([1 + 0.9 * 3.0, 1.0])  # min(3, 3.5)
    assert target(agent, 0.0) == pytest.approx([1 + 0.9 * 0.5, 1.0])  # min(1, 0.5)


def test_smoothing_moves_the_target_action_within_bounds() -> None:
    agent = by_hand(smoothing=0.2)
    assert target(agent, 1.0, 0.3) == pytest.approx([1 + 0.9 * 3.6, 1.0])  # Q'_1(1, 0.8)
    assert target(agent, 1.0, 0.7) == pytest.approx([1 + 0.9 * 4.0, 1.0])  # clipped to a = 1


def test_smoothing_noise_is_clipped_normal() -> None:
    agent = make_agent(smoothing=0.2, smoothing_clip=0.3)
    (noise,) = agent.noise(transitions(agent, batch=20_000))
    assert noise.shape == (1, 20_000, D)
    assert float(noise.abs().max()) == pytest.approx(0.3)
    # P(|z| > 1.5) = 0.1336
    assert float((noise.abs() == 0.3).float().mean()) == pytest.approx(0.1336, abs=0.01)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.005)
    assert make_agent().noise(transitions(agent)) == ()


def test_critic_loss_is_the_weighted_square() -> None:
    agent = make_agent(critics=2, replay={"alpha": 0.6})
    batch = transitions(agent)
    policy, weight = agent.policy, batch.weight
    with torch.no_grad():
        _, y, _ = agent.targets(batch, ())
        features, _ = policy.network.features(batch.now.obs, batch.now.first, batch.now.state[:-1])
        q = policy.q(features, batch.action)
    expected = sum(
        float(weight[b]) * (float(q[i, 0, b]) - float(y[0, b])) ** 2 / B for i in range(2) for b in range(B)
    )
    memory = Memory(batch)
    report = agent.learn(memory, 0.0)  # type: ignore[arg-type]
    assert float(report["loss/critic"]) == pytest.approx(expected, rel=1e-5)
    (index, error), *_ = memory.prioritised
    assert torch.equal(index, batch.index)
    assert torch.allclose(error, (q - y).abs().mean(0))


def test_actor_gradient_is_the_chain_rule() -> None:
    """-1/B sum_b dQ/da (s_b, mu(s_b)) dmu/dtheta (s_b), transition by transition."""
    agent = make_agent(optim={"name": "sgd", "lr": 1.0}, critics=2)
    batch = transitions(agent)
    now, _, weight = agent.targets(batch, ())
    policy, expected = agent.policy, torch.zeros_like(agent.actor.flat)
    for b in range(B):
        one = slice(b, b + 1)
        state = policy.initial_state(Lanes(1))[:-1]
        features, _ = policy.network.features(batch.now.obs[:, one], batch.now.first[:, one], state)
        mu = policy.mu(features)
        action = mu.detach().requires_grad_()
        slope = torch.autograd.grad(policy.q(features, action)[0].sum(), action)[0]
        for i in range(D):
            gradients = torch.autograd.grad(mu[0, 0, i], agent.actor.parameters, retain_graph=True)
            expected -= slope[0, 0, i] * torch.cat([x.flatten() for x in gradients]) / B
    critic, before = agent.critic.flat.detach().clone(), agent.actor.flat.detach().clone()
    agent.actor.minimise(now, weight)
    assert torch.allclose(before - agent.actor.flat, expected, atol=1e-6)
    assert float(expected.norm()) > 1e-4
    assert torch.equal(agent.critic.flat, critic)


def test_targets_follow_softly_and_late() -> None:
    agent = make_agent(tau=0.1, actor_every=2)
    critic, actor = agent.target_critic.clone(), agent.target_actor.clone()
    assert torch.equal(critic, agent.critic.flat)
    agent.learn(Memory(transitions(agent, 1)), 0.0)  # type: ignore[arg-type]
    assert torch.equal(agent.target_critic, critic)
    assert torch.equal(agent.actor.flat, actor)
    assert not torch.equal(agent.critic.flat, critic)
    report = agent.learn(Memory(transitions(agent, 2)), 0.0)  # type: ignore[arg-type]
    assert "loss/actor" in report
    assert not torch.equal(agent.actor.flat, actor)
    assert torch.allclose(agent.target_critic, 0.9 * critic + 0.1 * agent.critic.flat, atol=1e-7)
    assert torch.allclose(agent.target_actor, 0.9 * actor + 0.1 * agent.actor.flat, atol=1e-7)
    # the target policy's own parameters are views of these vectors
    first = agent.target.actor.hidden.weight
    assert torch.equal(first.detach().flatten(), agent.target_actor[: first.numel()])


def test_learning_rates() -> None:
    agent = make_agent(optim={"lr": 1e-3, "lr_schedule": "linear"}, actor_lr=1e-4)
    agent.learn(Memory(transitions(agent)), 0.5)  # type: ignore[arg-type]
    assert agent.critic.lr == pytest.approx(5e-4)
    assert agent.actor.lr == pytest.approx(5e-5)


def act(agent: Agent, noise: Tensor | None, first: bool = False, lanes: int = B) -> Tensor:
    obs, state = torch.randn(lanes, OBS), agent.policy.initial_state(Lanes(lanes))
    with torch.no_grad():
        return agent.policy.act(obs, torch.full((lanes,), first), state, noise)[0]


def test_warm_up_acts_uniformly_until_replay_is_ready() -> None:
    agent, noise = make_agent(noise_std=0.0), torch.rand(B, D)
    assert torch.allclose(act(agent, noise), 2 * noise - 1)
    agent.learn(Memory(ready=False), 0.0)  # type: ignore[arg-type]
    assert torch.allclose(act(agent, noise), 2 * noise - 1)
    agent.learn(Memory(ready=True), 0.0)  # type: ignore[arg-type]
    assert float(act(agent, noise).abs().max()) < 0.2  # the fresh actor's mean, near 0
    assert not bool(make_agent(replay={"warmup": 0}).policy.random)


def test_gaussian_noise_has_its_deviation_and_bounds() -> None:
    agent = make_agent(noise_std=0.1, replay={"warmup": 0})
    with torch.no_grad():
        agent.actor.flat.zero_()
        lanes = 20_000
        actions = act(
            agent, torch.rand(lanes, D, generator=torch.Generator().manual_seed(0)).clamp(1e-6), lanes=lanes
        )
        assert float(actions.std()) == pytest.approx(0.1, rel=0.02)
        agent.policy.actor.output.bias.fill_(9.0)
        assert float(act(agent, torch.full((B, D), 0.999)).max()) == 1.0


def test_ornstein_uhlenbeck_by_hand_and_in_the_long_run() -> None:
    """x <- (1 - kappa) x + sigma z has the stationary variance sigma^2 / (1 - (1 - kappa)^2)."""
    kappa, sigma, lanes = 0.2, 0.1, 4000
    agent = make_agent(noise="ou", noise_std=sigma, noise_decay=kappa, replay={"warmup": 0})
    policy, obs = agent.policy, torch.zeros(lanes, OBS)
    with torch.no_grad():
        agent.actor.flat.zero_()
        state, x = policy.initial_state(Lanes(lanes)), torch.zeros(lanes, D)
        first = torch.zeros(lanes, dtype=torch.bool)
        noise = torch.from_numpy(uniforms(0, torch.arange(lanes).numpy(), 0, 40, D))
        for u in noise:
            x = (1 - kappa) * x + sigma * torch.distributions.Normal(0, 1).icdf(u)
            action, state, _ = policy.act(obs, first, state, u)
            assert torch.allclose(action, x.clamp(-1, 1), atol=1e-5)
        # (1 - kappa)^80 < 1e-7 of the variance is still missing
        assert float(action.var()) == pytest.approx(sigma**2 / (1 - (1 - kappa) ** 2), rel=0.05)
        first[0] = True  # an episode opens: its noise starts from 0
        half = torch.full((lanes, D), 0.5)
        opened, _, _ = policy.act(obs, first, state, half)
        assert torch.allclose(opened[0], torch.zeros(D), atol=1e-6)
        assert torch.allclose(opened[1:], (1 - kappa) * action[1:], atol=1e-5)
        greedy, kept, _ = policy.act(obs, first, state, None)
        assert float(greedy.abs().max()) == 0
        assert all(torch.equal(a, b) for a, b in zip(tree_leaves(kept), tree_leaves(state), strict=True))


def test_actions_fill_the_bounds() -> None:
    policy = make_agent().policy
    found = policy.to_env(torch.tensor([[-1.0, 1.0], [0.0, 0.5]]))
    assert torch.allclose(found, torch.tensor([[-2.0, 4.0], [1.0, 2.5]]))


def test_value_is_the_smaller_critic_at_the_actors_action() -> None:
    policy = make_agent(critics=2).policy
    obs, first, state = (
        torch.randn(4, B, OBS),
        torch.zeros(4, B, dtype=torch.bool),
        policy.initial_state(Lanes(B)),
    )
    features, _ = policy.network.features(obs, first, state[:-1])
    q = policy.q(features, policy.mu(features))
    assert torch.equal(policy.value(obs, first, state), torch.minimum(q[0], q[1]))


MEMORY = {"replay": {"sequence": 5, "burn_in": 2, "n_step": 2}, "network": {"core": "gru", "core_size": 4}}


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_sequence_targets_equal_stepping_row_by_row(core: str) -> None:
    """The targets remember from the stored state on; the online state is moved over the burn-in."""
    network = {"core": core, "core_size": 4, "window": 4}
    agent = make_agent(network, replay=MEMORY["replay"], critics=2)
    with torch.no_grad():
        agent.target_critic.mul_(1.3)
        agent.target_actor.mul_(0.7)
        # a transformer's state is no free vector
        initial = agent.policy.initial_state(Lanes(B)) if core == "transformer" else None
        batch = sequences(agent, state=initial)
        now, found, weight = agent.targets(batch, ())
        values, state, online = [], batch.now.state, batch.now.state
        for t in range(L + 1):
            row, opens = batch.later.obs[t : t + 1], batch.later.first[t : t + 1]
            values.append(agent.target.value(row, opens, state)[0])
            _, state, _ = agent.target.act(row[0], opens[0], state, None)
            if t < 2:
                _, online, _ = agent.policy.act(row[0], opens[0], online, None)
        terminated, last = batch.discount == 0, batch.later.last[2:]
        y = n_step(batch.reward, torch.stack(values)[2:], terminated, last, agent.config.gamma, 2)
    valid = ~last[:-1]
    assert torch.equal(batch.valid, valid)
    assert torch.allclose(found[valid], y[valid], atol=1e-5)
    for a, b in zip(tree_leaves(now.state), tree_leaves(online[:-1]), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.equal(now.obs, batch.later.obs[2:-1])  # type: ignore[arg-type, index]
    assert float(weight.mean()) == pytest.approx(1.0)
    assert torch.equal(weight > 0, valid)


def test_reset_rows_have_no_influence() -> None:
    """Whatever was done in rows that are no transitions, the update is the same."""
    results = []
    for junk in (0.0, 1.0):
        agent = make_agent(**MEMORY, critics=2)
        batch = sequences(agent)
        batch.action[~batch.valid] = junk
        batch.reward[~batch.valid] = junk
        agent.learn(Memory(batch), 0.0)  # type: ignore[arg-type]
        results.append(torch.cat([agent.actor.flat, agent.critic.flat]).detach().clone())
    assert torch.equal(*results)


def test_acting_moves_the_memories_of_actor_and_critics() -> None:
    agent = make_agent(**MEMORY, critics=2, noise="ou")
    before = agent.policy.initial_state(Lanes(B))
    assert len(before) == 1 + 3 + 1  # frames, actor and two critics, noise
    _, after, _ = agent.policy.act(
        torch.randn(B, OBS), torch.ones(B, dtype=torch.bool), before, torch.rand(B, D)
    )
    assert all(float(x.abs().sum()) > 0 for x in tree_leaves(after))


def test_shared_trunk_is_trained_by_the_critics_alone() -> None:
    agent = make_agent({"shared": True}, optim={"name": "sgd"}, critics=2)
    assert len(agent.policy.network.encoders) == 1
    assert agent.actor.flat.numel() == sum(p.numel() for p in agent.policy.actor.parameters())
    trunk = agent.policy.network.encoders[0].layers[0].weight
    batch = transitions(agent)
    now, y, weight = agent.targets(batch, ())
    before, actor = trunk.detach().clone(), agent.actor.flat.detach().clone()
    agent.actor.minimise(now, weight)
    assert torch.equal(trunk, before)
    assert not torch.equal(agent.actor.flat, actor)
    agent.critic.minimise(now, batch.action, y, weight)
    assert not torch.equal(trunk, before)


def test_normalizers_of_policy_and_target_see_the_same() -> None:
    agent = make_agent({"normalize": True})
    agent.learn(Memory(transitions(agent)), 0.0)  # type: ignore[arg-type]
    mine, theirs = (dict(policy.named_buffers()) for policy in (agent.policy, agent.target))
    counted = [name for name in mine if name.endswith("norm.count")]
    assert counted
    assert all(float(mine[name]) == B for name in counted)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if "norm" in name)


def test_frame_stacks_see_the_row_after_a_transition() -> None:
    """The history of the second row is the one that the memory hands out for it."""
    torch.manual_seed(0)
    spec = EnvSpec("test", Box((OBS,), "float32"), Box((D,), "float32", -1.0, 1.0), stack=2)
    policy = Policy(spec, NetworkConfig(hidden=(8, 6)), Config())
    agent = Agent(policy, Config(), OptimConfig())
    after = ((torch.randn(B, 1, OBS),), *policy.initial_state(Lanes(B))[1:])
    batch = transitions(agent, after=after)
    with torch.no_grad():
        _, y, _ = agent.targets(batch, ())
        value = agent.target.value(batch.later.obs, batch.later.first, after)
    assert torch.allclose(y, batch.reward + batch.discount * value)


@pytest.mark.parametrize(
    "options", [{"smoothing": 0.2, "critics": 2, "actor_every": 2}, MEMORY], ids=["td3", "memory"]
)
def test_state_dict_continues_learning(options: dict[str, Any]) -> None:
    make = sequences if options is MEMORY else transitions
    one, two = (make_agent(**options) for _ in range(2))
    one.learn(Memory(*(make(one, seed) for seed in range(3))), 0.0)  # type: ignore[arg-type]
    two.policy.load_state_dict(one.policy.state_dict())
    two.load_state_dict(one.state_dict())
    for agent in (one, two):
        agent.learn(Memory(*(make(agent, seed) for seed in range(3, 6))), 0.1)  # type: ignore[arg-type]
    for name in ("actor", "critic"):
        assert torch.equal(getattr(one, name).flat, getattr(two, name).flat)
        assert torch.equal(getattr(one, f"target_{name}"), getattr(two, f"target_{name}"))


def test_compiled_learning_equals_eager() -> None:
    """With SGD: Adam's first steps are signs of the gradient, which rounding turns around where it is nearly 0."""
    optim = {"name": "sgd"}
    eager, compiled = (make_agent(compile=flag, optim=optim, smoothing=0.1) for flag in (False, True))
    for agent in (eager, compiled):
        agent.learn(Memory(*(transitions(agent, seed) for seed in range(3))), 0.0)  # type: ignore[arg-type]
    assert torch.allclose(eager.critic.flat, compiled.critic.flat, atol=1e-7)
    assert torch.allclose(eager.actor.flat, compiled.actor.flat, atol=1e-7)
    assert torch.allclose(eager.target_actor, compiled.target_actor, atol=1e-7)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Discrete(3), "agent=ppo"),
        (Box((2,), "float32"), "bounds"),
        (Box((2,), "int64", 0.0, 3.0), "Box"),
    ],
)
def test_refused_actions(action: Space, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy(EnvSpec("test", Box((OBS,), "float32"), action), NetworkConfig(), Config())


def test_a_network_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network.hidden=\[\]"):
        make_agent({"hidden": ()})
