"""DQN's parts: exploration, masks, schedules, target moves, noise, state, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.agents.dqn import Agent, Config, Policy, check
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.distributions.joint import Choices
from rlkit.nn.config import NetworkConfig
from rlkit.nn.noisy import Noise
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from rlkit.types import Batch, EnvSpec, Lanes, Rollout, tree_leaves, tree_map
from tests.helpers import experience

B = 16


class Batches:
    """A replay buffer that owes `due` random batches in every call."""

    def __init__(self, agent: Agent, due: int, ready: bool = True) -> None:
        self.agent, self.due, self.ready = agent, due, ready
        self.generator = torch.Generator().manual_seed(0)
        self.priorities: list[Tensor] = []

    def batches(self, progress: float) -> Iterator[Batch]:
        for _ in range(self.due):
            yield random_batch(self.agent, self.generator)

    def prioritise(self, index: Tensor, td: Tensor) -> None:
        assert td.shape == (1 if self.agent.policy.memoryless else self.agent.config.replay.sequence, B)
        assert index.shape == (B,)
        self.priorities.append(td)


def random_batch(agent: Agent, generator: torch.Generator) -> Batch:
    config, memoryless = agent.config.replay, agent.policy.memoryless
    length = 1 if memoryless else config.burn_in + config.sequence
    flags = torch.zeros(length + 1, B, dtype=torch.bool)
    terminated = torch.rand(length, B, generator=generator) < 0.1
    rollout = Rollout(
        obs=torch.randn(length + 1, B, 3, generator=generator), first=flags, last=flags,
        action=torch.randint(0, agent.policy.choices.n, (length, B), generator=generator),
        reward=torch.randn(length, B, generator=generator), terminated=terminated,
        state=agent.policy.initial_state(Lanes(B)),
    )  # fmt: skip
    if memoryless:
        return experience.transitions(rollout, 0.99)
    return experience.sequences(rollout, 0.99, config.burn_in)


def make_agent(
    action: Space | None = None, masked: int = 0, core: str = "identity", compile: bool = False,
    precision: torch.dtype = torch.float32, replay: Any = None, normalize: bool = False, **options: Any,
) -> Agent:  # fmt: skip
    torch.manual_seed(0)
    observation: Any = Box((3,), "float32")
    if masked:
        observation = Dict((("state", observation), ("action_mask", Box((masked,), "int8", 0.0, 1.0))))
    spec = EnvSpec("test", observation, action or Discrete(3))
    config = Config(replay=ReplayConfig(**(replay or {"sequence": 4, "burn_in": 2})), **options)
    network = NetworkConfig(hidden=(16,), core=core, core_size=8, normalize=normalize)
    return Agent(Policy(spec, network, config), config, OptimConfig(), compile=compile, precision=precision)


def noise_of(size: int) -> Tensor:
    return torch.rand(size, 2, generator=torch.Generator().manual_seed(3)).clamp(1e-6, 1 - 1e-6)


def act(policy: Policy, obs: Any, noise: Tensor | None) -> Tensor:
    size = len(obs) if isinstance(obs, Tensor) else len(obs["state"])
    with torch.no_grad():
        action, _, extra = policy.act(
            obs, torch.zeros(size, dtype=torch.bool), policy.initial_state(Lanes(size)), noise
        )
    assert extra == {}
    return action


def test_epsilon_is_the_share_of_random_actions() -> None:
    policy = make_agent().policy
    obs, size = torch.randn(1, 3).expand(30_000, 3), 30_000
    greedy = int(act(policy, obs[:1], None))
    for epsilon in (0.0, 0.3, 1.0):
        policy.epsilon.fill_(epsilon)
        counts = torch.bincount(act(policy, obs, noise_of(size)), minlength=3) / size
        expected = torch.full((3,), epsilon / 3)
        expected[greedy] += 1 - epsilon
        assert counts.tolist() == pytest.approx(expected.tolist(), abs=0.01)
    policy.epsilon.fill_(1.0)
    assert (act(policy, obs, None) == greedy).all()


def test_masks_hold_for_random_and_greedy_actions() -> None:
    policy = make_agent(action=Discrete(5), masked=5).policy
    size = 20_000
    state = {"state": torch.randn(1, 3).expand(size, 3)}
    for mask in ([0, 1, 0, 1, 1], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]):
        obs = state | {"action_mask": torch.tensor(mask, dtype=torch.int8).expand(size, 5)}
        policy.epsilon.fill_(1.0)
        share = torch.bincount(act(policy, obs, noise_of(size)), minlength=5) / size
        assert share.tolist() == pytest.approx([each / sum(mask) for each in mask], abs=0.015)
        policy.epsilon.fill_(0.0)
        for noise in (noise_of(size), None):
            assert mask[int(act(policy, obs, noise)[0])] == 1
        rows = tree_map(lambda x: x[:4][None], obs)
        first = torch.zeros(1, 4, dtype=torch.bool)
        z, _ = policy.returns(policy.network, rows, first, policy.initial_state(Lanes(4)))
        best = max(float(z[0, 0, a, 0].detach()) for a in range(5) if mask[a])
        value = policy.value(rows, first, policy.initial_state(Lanes(4)))
        assert value.tolist() == [pytest.approx([best] * 4)]


def test_nothing_allowed_means_everything() -> None:
    choices = Choices(Discrete(3))
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])
    allowed = choices.allowed({"action_mask": mask})
    assert allowed is not None
    assert allowed.tolist() == [[True] * 3, [False, True, True]]


def test_extreme_uniforms_choose_an_allowed_action() -> None:
    for n in (1, 2, 3, 7, 4096):
        choices = Choices(Discrete(n))
        u = torch.tensor([2.0**-24, 1 - 2.0**-24])
        assert choices.random(u, None).tolist() == [0, n - 1]
        assert choices.random(u, torch.ones(2, n, dtype=torch.bool)).tolist() == [0, n - 1]


def test_combined_choices() -> None:
    """Numbers count through the combinations, the last choice fastest; bits are int8."""
    choices = Choices(MultiDiscrete((2, 3), (0, 0)))
    assert choices.n == 6
    assert choices.to_env(torch.arange(6)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    bits = Choices(MultiBinary(2)).to_env(torch.arange(4))
    assert bits.dtype == torch.int8
    assert bits.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert Choices(Discrete(4)).to_env(torch.tensor([3])).tolist() == [3]


@pytest.mark.parametrize("action", [MultiDiscrete((2, 3), (0, 0)), MultiBinary(3)])
def test_spaces_of_several_choices_act_and_learn(action: Space) -> None:
    agent = make_agent(action=action)
    before = agent.optim.flat.clone()
    agent.learn(Batches(agent, 2), 0.5)  # type: ignore[arg-type]
    assert not torch.equal(before, agent.optim.flat)
    chosen = act(agent.policy, torch.randn(7, 3), noise_of(7))
    assert agent.policy.to_env(chosen).shape == (7, *action.shape)


def test_lanes_explore_unequally() -> None:
    """epsilon_i = 0.4^(1 + 7 i / 3): 0.4, 0.047, 0.0056, 0.00066 of the actions of four lanes are random."""
    policy = make_agent(epsilon_spread=7.0).policy
    policy.epsilon.fill_(0.4)
    noise = torch.rand(60_000, 4, 3, generator=torch.Generator().manual_seed(0)).flatten(0, 1)[:, :2]
    obs, first = torch.zeros(4 * 60_000, 3), torch.zeros(4 * 60_000, dtype=torch.bool)

    def acted(lanes: Lanes, noise: Tensor | None) -> Tensor:
        """Each of these lanes 60,000 times, in one call: [60000, lanes]."""
        state = tree_map(lambda x: x.repeat(60_000), policy.initial_state(lanes))
        return policy.act(obs, first, state, noise)[0].view(-1, 4)

    best = acted(Lanes(4), None)
    random = 1.5 * (acted(Lanes(4), noise) != best).float().mean(0)  # a third of the random ones are the best
    expected = torch.tensor([0.4, 0.4 ** (10 / 3), 0.4 ** (17 / 3), 0.4**8])
    assert torch.allclose(random, expected, atol=0.003) and torch.all(random.diff() < 0)
    # the same lanes, had by a worker that has only some of the run's
    shares = [policy.initial_state(Lanes(2, start, 4))[-1] for start in (0, 2)]
    assert torch.equal(torch.cat([x for share in shares for x in tree_leaves(share)]), torch.arange(4) / 3)
    # without a spread all are alike, and no lane has a share
    policy.spread = 0.0
    assert 1.5 * float((acted(Lanes(4), noise) != best).float().mean()) == pytest.approx(0.4, abs=0.003)
    assert policy.initial_state(Lanes(4))[-1] == ()


def test_epsilon_is_a_function_of_progress_and_one_during_warm_up() -> None:
    agent = make_agent(epsilon_start=0.8, epsilon_end=0.2, epsilon_fraction=0.5)
    warming = agent.learn(Batches(agent, 0, ready=False), 0.3)  # type: ignore[arg-type]
    assert float(warming["policy/epsilon"]) == 1.0
    for progress, expected in ((0.0, 0.8), (0.25, 0.5), (0.5, 0.2), (1.0, 0.2)):
        metrics = agent.learn(Batches(agent, 0), progress)  # type: ignore[arg-type]
        assert float(metrics["policy/epsilon"]) == pytest.approx(expected)
    assert "epsilon" in agent.policy.state_dict()  # it travels with the weights


@pytest.mark.parametrize(("tau", "every"), [(1.0, 3), (0.1, 1), (0.5, 2)])
def test_target_moves(tau: float, every: int) -> None:
    """theta' <- theta' + tau (theta - theta') after every `every`-th update, counted across calls of learn."""
    agent = make_agent(tau=tau, target_every=every)
    expected = agent.optim.flat.detach().clone()
    replay = Batches(agent, 1)
    for update in range(1, 8):
        metrics = agent.learn(replay, 0.0)  # type: ignore[arg-type]
        if update % every == 0:
            expected += tau * (agent.optim.flat.detach() - expected)
        assert torch.allclose(agent.target_flat, expected, atol=1e-7)
        assert int(metrics["updates"]) == update
    assert len(replay.priorities) == 7


def test_no_gradient_reaches_the_target_network() -> None:
    agent = make_agent(core="gru", target_every=100)
    before = agent.target_flat.clone()
    agent.learn(Batches(agent, 2), 0.0)  # type: ignore[arg-type]
    assert torch.equal(before, agent.target_flat)
    assert not torch.equal(before, agent.optim.flat.detach())


def test_learning_continues_from_its_state() -> None:
    """Two calls in one go equal one call, a new agent with the saved state, and the other call."""
    options: dict[str, Any] = {"noisy": True, "dueling": True, "normalize": True, "target_every": 3}
    whole = make_agent(**options)
    replay = Batches(whole, 2)
    whole.learn(replay, 0.0)  # type: ignore[arg-type]
    saved = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, whole.state_dict())
    weights = {name: x.clone() for name, x in whole.policy.state_dict().items()}
    random = replay.generator.get_state()
    whole.learn(replay, 0.5)  # type: ignore[arg-type]
    again = make_agent(**options)
    again.policy.load_state_dict(weights)
    again.load_state_dict(saved)
    replay = Batches(again, 2)
    replay.generator.set_state(random)
    again.learn(replay, 0.5)  # type: ignore[arg-type]
    assert torch.equal(whole.optim.flat, again.optim.flat)
    assert torch.equal(whole.target_flat, again.target_flat)
    for name, x in whole.policy.state_dict().items():
        assert torch.equal(x, again.policy.state_dict()[name]), name


def test_both_networks_scale_observations_alike() -> None:
    agent = make_agent(normalize=True, target_every=100)
    agent.learn(Batches(agent, 3), 0.0)  # type: ignore[arg-type]
    ours, theirs = (dict(network.named_buffers()) for network in (agent.network, agent.target))
    assert float(ours["encoders.0.flatten.norm.count"]) == 3 * B
    for name, x in ours.items():
        assert torch.equal(x, theirs[name])


def test_noise_in_a_head_is_a_noisy_linear_layer() -> None:
    """(sigma_w * e_out e_in^T) x + sigma_b e_out, and nothing before the first noise."""
    noise, x = Noise(4, 3), torch.randn(5, 4)
    assert torch.count_nonzero(noise(x)) == 0
    noise.resample(torch.Generator().manual_seed(0))
    with torch.no_grad():
        noise.weight.normal_()
        noise.bias.normal_()
    full = noise.weight * noise.noise_out[:, None] * noise.noise_in[None]
    expected = x @ full.T + noise.bias * noise.noise_out
    assert torch.allclose(noise(x), expected, atol=1e-6)
    e = torch.randn(4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(noise.noise_in, e.sign() * e.abs().sqrt())


def test_noisy_exploration() -> None:
    """Epsilon is 0 after the warm-up; acting feels the noise, greedy acting and values do not."""
    agent = make_agent(noisy=True, dueling=True)
    metrics = agent.learn(Batches(agent, 1), 0.0)  # type: ignore[arg-type]
    assert float(metrics["policy/epsilon"]) == 0.0
    obs, first = torch.randn(1, 6, 3), torch.zeros(1, 6, dtype=torch.bool)
    state, policy = agent.policy.initial_state(Lanes(6)), agent.policy
    noisy, clean = (policy.returns(policy.network, obs, first, state, noisy=n)[0] for n in (True, False))
    assert not torch.allclose(noisy, clean)
    assert torch.equal(policy.value(obs, first, state), clean.mean(-1).amax(-1))
    heads = [head for head in agent.network.heads.values() if isinstance(head, Noise)]
    others = [head for head in agent.target.heads.values() if isinstance(head, Noise)]
    assert len(heads) == 2
    assert not torch.equal(heads[0].noise_in, others[0].noise_in)  # independent in the target network
    for head in heads:
        head.resample(agent.generator)
    assert torch.equal(policy.returns(policy.network, obs, first, state, noisy=False)[0], clean)


@pytest.mark.parametrize("core", ["identity", "gru"])
def test_compiled_equals_eager(core: str) -> None:
    options: dict[str, Any] = {"core": core, "target_every": 2, "replay": {"sequence": 1, "burn_in": 1}}
    results = []
    for compile in (False, True):
        agent = make_agent(compile=compile, **options)
        metrics = agent.learn(Batches(agent, 3), 0.0)  # type: ignore[arg-type]
        results.append((agent.optim.flat.detach().clone(), {name: float(x) for name, x in metrics.items()}))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-3, abs=1e-5)


def test_bfloat16_is_near_float32() -> None:
    losses = []
    for precision in (torch.float32, torch.bfloat16):
        agent = make_agent(precision=precision)
        losses.append(float(agent.learn(Batches(agent, 2), 0.0)["loss/td"]))  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_refusals_name_what_can() -> None:
    observation = Box((3,), "float32")
    with pytest.raises(ValueError, match=r"Box\(2,\).*agent=ppo"):
        check(EnvSpec("test", observation, Box((2,), "float32", -1.0, 1.0)), Config())
    with pytest.raises(ValueError, match=r"16,384 combinations.*4,096.*agent=ppo"):
        check(EnvSpec("test", observation, MultiBinary(14)), Config())
    masked = Dict((("state", observation), ("action_mask", Box((2,), "int8", 0.0, 1.0))))
    with pytest.raises(ValueError, match="MultiBinary"):
        check(EnvSpec("test", masked, MultiBinary(2)), Config())
    with pytest.raises(
        ValueError, match=r"agent.epsilon_spread=7: .*no epsilon; type agent.epsilon_spread=0"
    ):
        check(EnvSpec("test", observation, Discrete(2)), Config(noisy=True, epsilon_spread=7.0))
    for action in (Discrete(3), MultiDiscrete((3, 4), (0, 0)), MultiBinary(12)):
        check(EnvSpec("test", observation, action), Config())
