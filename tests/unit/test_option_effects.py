"""Every option of every agent does what its help says: two values, one number that follows from each of them.

The tables name every option; one that is added without a row fails `test_every_option_has_a_row`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.config import registry
from rlkit.config.schema import OptimConfig, ReplayConfig, RunConfig
from rlkit.learn.optim import Optimiser
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, build, describe
from rlkit.replay.memory import Replay
from rlkit.spaces import Box, Discrete, Space
from rlkit.types import EnvSpec, Lanes, Rollout
from tests.helpers import experience

Effect = tuple[tuple[object, object], Callable[..., object], tuple[object, object]]
AGENTS = sorted({registry.algorithm_of(name) for name in registry.names("agents")})
BOX = Box((1,), "float32", -2.0, 4.0)


def make(name: str, action: Space, **options: Any) -> Any:
    """A new agent of one observed number and a plain gradient step of size 1."""
    algorithm = registry.algorithm(name)
    replay = {key: options.pop(key) for key in [*options] if key in ReplayConfig.__dataclass_fields__}
    if replay:
        options["replay"] = ReplayConfig(**replay)
    torch.manual_seed(0)
    config = algorithm.Config(**options)
    spec = EnvSpec("test", Box((1,), "float32"), action)
    policy = algorithm.Policy(spec, NetworkConfig(hidden=(4,)), config)
    return algorithm.Agent(policy, config, OptimConfig(name="sgd", lr=1.0, clip_norm=0.0))


def rollout(agent: Any) -> Rollout:
    """Four rows of one lane: rewards 1, 2, 4; the third transition truncates the episode."""
    steps = 3
    obs, first = torch.ones(steps + 1, 1, 1), torch.zeros(steps + 1, 1, dtype=torch.bool)
    last = torch.zeros_like(first)
    first[0], last[steps] = True, True
    state = agent.policy.initial_state(Lanes(1))
    noise = torch.full((steps, 1, agent.policy.noise_size), 0.75)
    with torch.no_grad():
        found = [agent.policy.act(obs[t], first[t], state, noise[t]) for t in range(steps)]
    extra = {name: torch.stack([each[2][name] for each in found]) for name in found[0][2]}
    extra["weight"] = torch.ones(steps, 1)
    reward, none = torch.tensor([[1.0], [2.0], [4.0]]), torch.zeros(steps, 1, dtype=torch.bool)
    return Rollout(obs, first, last, torch.stack([each[0] for each in found]), reward, none, state, extra)


class Steps:
    """Stands in for an optimiser's `minimise`: every call is noted, nothing is learned but what `move` does."""

    def __init__(self, terms: int, *, kl: tuple[float, ...] = (), move: Callable[[], None] = lambda: None):
        self.terms, self.kl, self.move, self.given = terms, kl, move, []  # type: ignore[var-annotated]

    def __call__(self, *batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.given.append(batch)
        self.move()
        terms = torch.zeros(self.terms)
        if self.kl:
            terms[3] = self.kl[min(len(self.given), len(self.kl)) - 1]
        return terms, torch.zeros(())


# ---- PPO and REINFORCE


def of_feed(name: str, field: str) -> Callable[..., object]:
    return lambda **options: getattr(
        registry.algorithm(name).feed(make(name, ANY[name], **options).config), field
    )


def ppo_advantages(value: float = 0.0, what: str = "target") -> Callable[..., object]:
    def found(**options: Any) -> object:
        agent = make("ppo", Discrete(2), **{"normalize_advantage": False, **options})
        advantages = agent.advantages(rollout(agent), torch.full((4, 1), value), torch.ones(1, 3))
        return [round(x, 4) for x in advantages[what].flatten().tolist()]

    return found


def ppo_learn(
    report: Callable[[Any, Steps, Any], object], kl: tuple[float, ...] = (0.0,), progress: float = 0.0
):
    def found(**options: Any) -> object:
        agent = make("ppo", Discrete(2), **{"minibatch": 3, "epochs": 1, **options})
        steps = agent.optim.minimise = Steps(5, kl=kl)
        rows = rollout(agent)
        return report(agent.learn(rows, progress), steps, rows)

    return found


def ppo_order(**options: Any) -> str:
    """A for every computation of advantages, M for every minibatch."""
    agent, order = make("ppo", Discrete(2), epochs=3, minibatch=3, **options), []
    agent.optim.minimise = Steps(5, move=lambda: order.append("M"))
    inner = agent.advantages
    agent.advantages = lambda *given: order.append("A") or inner(*given)
    agent.learn(rollout(agent), 0.0)
    return "".join(order)


def losses(name: str, **options: Any) -> tuple[Any, Any]:
    """The loss of the rollout, and the means that it is made of."""
    agent = make(name, Discrete(2), **options)
    rows = rollout(agent)
    if name == "ppo":
        caught = agent.optim.minimise = Steps(5)
        agent.learn(rows, 0.0)
        batch, index, clip = caught.given[0]
        batch["value"] = batch["value"] + 1.0  # V_old lies 1 above V
        batch["target"] = batch["value"] - 1.0  # and V is right
        return agent.loss(batch, index, clip)
    columns = {
        "action": rows.action, "log_prob": rows.extra["log_prob"], "target": torch.full((3, 1), 5.0),
        "advantage": torch.ones(3, 1), "weight": torch.full((3, 1), 1 / 3),
    }  # fmt: skip
    return agent.loss(rows.obs[:-1], rows.first[:-1], rows.state, columns)


def coefficient(name: str, index: int, **zero: Any) -> Callable[..., object]:
    def found(**options: Any) -> float:
        loss, means = losses(name, **zero, **options)
        sign = -1 if index == 2 else 1
        return round(sign * float(loss.detach() - means[0]) / float(means[index]), 4)

    return found


def ppo_value_loss(**options: Any) -> float:
    return round(float(losses("ppo", **options)[1][1]), 4)


def reinforce_advantages(index: int) -> Callable[..., object]:
    def found(**options: Any) -> object:
        agent = make("reinforce", Discrete(2), **{"gamma": 1.0, "normalize_advantage": False, **options})
        agent.mean.fill_(7.0)
        value = torch.full((4, 1), 3.0 if agent.config.baseline == "value" else 0.0)
        weight = torch.full((3, 1), 1 / 3)
        return [
            round(x, 4) for x in agent.advantages(rollout(agent), value, weight)[index].flatten().tolist()
        ]

    return found


def mode(name: str) -> Callable[..., object]:
    """The greedy action of an output of 1/2 without spread, in an environment's bounds of -2 to 4."""

    def found(**options: Any) -> float:
        policy = make(name, BOX, log_std_init=-10.0, **options).policy
        policy.network.heads["policy"].weight.data.zero_()
        policy.network.heads["policy"].bias.data.fill_(0.5)
        obs, first = torch.zeros(1, 1), torch.ones(1, dtype=torch.bool)
        with torch.no_grad():
            action = policy.act(obs, first, policy.initial_state(Lanes(1)), None)[0]
        return round(float(policy.to_env(action)), 4)

    return found


def deviation(name: str) -> Callable[..., object]:
    def found(**options: Any) -> float:
        """log pi at its mode: -log_std - log(2 pi) / 2."""
        policy = make(name, BOX, **options).policy
        rows = (torch.zeros(1, 1), torch.ones(1, dtype=torch.bool), policy.initial_state(Lanes(1)))
        with torch.no_grad():
            return round(float(policy.act(*rows, None)[2]["log_prob"]), 4)

    return found


NORMAL = -0.5 * math.log(2 * math.pi)
SCALE = np.std([1.0, 2.5, 5.25])  # of the discounted returns so far, gamma 1/2
CENTRED = [round((x - 7 / 3) / math.sqrt(14 / 9), 4) for x in (1, 2, 4)]  # mean 0, deviation 1
PPO: dict[str, Effect] = {
    "steps": ((3, 5), of_feed("ppo", "steps"), (3, 5)),
    "epochs": ((2, 3), ppo_learn(lambda report, steps, _: len(steps.given)), (2, 3)),
    "minibatch": ((1, 3), ppo_learn(lambda report, steps, _: len(steps.given)), (3, 1)),
    "sequence": ((2, 8), lambda sequence: ppo_sequence(sequence), (2, 8)),
    # 1 + g (2 + g 4) and so on
    "gamma": ((0.0, 0.5), lambda gamma: ppo_advantages()(gamma=gamma, lam=1.0), ([1, 2, 4], [3, 4, 4])),
    # as gamma does, where no value stands for what comes later
    "lam": ((0.0, 0.5), lambda lam: ppo_advantages()(gamma=1.0, lam=lam), ([1, 2, 4], [3, 4, 4])),
    "clip": ((0.1, 0.3), ppo_learn(lambda report, steps, _: round(float(steps.given[0][2]), 4)), (0.1, 0.3)),
    "clip_schedule": (
        ("constant", "linear"),
        ppo_learn(lambda report, steps, _: round(float(steps.given[0][2]), 4), progress=0.75),
        (0.2, 0.05),
    ),
    "value_coef": ((0.5, 2.0), coefficient("ppo", 1, entropy_coef=0.0, value_clip=0.5), (0.5, 2.0)),
    # V_old = V + 1 and R = V: V moved by 1, of which 0.25 are allowed
    "value_clip": ((None, 0.25), ppo_value_loss, (0.0, 0.5625)),
    "entropy_coef": ((0.0, 0.3), coefficient("ppo", 2, value_coef=0.0), (0.0, 0.3)),
    "normalize_advantage": (
        (False, True), lambda **o: ppo_advantages(what="advantage")(gamma=0.0, **o), ([1, 2, 4], CENTRED),
    ),
    "recompute_advantage": ((False, True), ppo_order, ("AMMM", "AMAMAM")),
    # the second epoch's own KL, 0.02, is above 1.5 times 0.013; over both epochs it is not
    "target_kl": (
        (None, 0.013),
        lambda target_kl: ppo_learn(lambda report, steps, _: len(steps.given), kl=(0.0, 0.02))(
            epochs=5, target_kl=target_kl
        ),
        (5, 2),
    ),
    "normalize_reward": (
        (False, True),
        lambda **o: ppo_learn(lambda report, steps, rows: [round(x, 4) for x in rows.reward.flatten().tolist()])(
            gamma=0.5, **o
        ),
        ([1, 2, 4], [round(float(x / SCALE), 4) for x in (1, 2, 4)]),
    ),
    # 1 + 3 * 0.5; 1 + 3 tanh(0.5)
    "distribution": (("gaussian", "tanh"), mode("ppo"), (2.5, round(1 + 3 * math.tanh(0.5), 4))),
    "log_std_init": ((0.0, -1.0), deviation("ppo"), (round(NORMAL, 4), round(NORMAL + 1, 4))),
}  # fmt: skip


def ppo_sequence(sequence: int) -> int:
    """The rows of a minibatch's sequences where the network remembers."""
    algorithm = registry.algorithm("ppo")
    config = algorithm.Config(steps=8, sequence=sequence)
    spec = EnvSpec("test", Box((1,), "float32"), Discrete(2))
    policy = algorithm.Policy(spec, NetworkConfig(hidden=(4,), core="gru", core_size=4), config)
    agent: Any = algorithm.Agent(policy, config, OptimConfig())
    return int(agent.length)


REINFORCE: dict[str, Effect] = {
    "steps": ((3, 5), of_feed("reinforce", "steps"), (3, 5)),
    "episodes": ((3, 5), of_feed("reinforce", "minimum"), (3, 5)),
    # R_3 = 4 + gamma V, V = 3
    "gamma": ((0.5, 1.0), reinforce_advantages(0), ([3.375, 4.75, 5.5], [10, 9, 7])),
    "baseline": (("none", "mean"), reinforce_advantages(1), ([7, 6, 4], [0, -1, -3])),
    "value_coef": ((0.5, 2.0), coefficient("reinforce", 1), (0.5, 2.0)),
    "bootstrap": ((False, True), reinforce_advantages(0), ([7, 6, 4], [10, 9, 7])),
    "reward_to_go": (
        (False, True),
        lambda reward_to_go: reinforce_advantages(1)(baseline="none", reward_to_go=reward_to_go),
        ([7, 7, 7], [7, 6, 4]),
    ),
    "entropy_coef": ((0.0, 0.3), coefficient("reinforce", 2, value_coef=0.0), (0.0, 0.3)),
    "normalize_advantage": (
        (False, True),
        lambda **o: reinforce_advantages(1)(gamma=0.0, baseline="none", **o),
        ([1, 2, 4], CENTRED),
    ),
    "distribution": (("gaussian", "tanh"), mode("reinforce"), (2.5, round(1 + 3 * math.tanh(0.5), 4))),
    "log_std_init": ((0.0, -1.0), deviation("reinforce"), (round(NORMAL, 4), round(NORMAL + 1, 4))),
}


def test_a_learned_baseline_is_the_value() -> None:
    assert reinforce_advantages(1)(baseline="value", bootstrap=False) == [4, 3, 1]
    for baseline in ("none", "mean"):  # without a value, a truncation counts nothing
        agent = make("reinforce", Discrete(2), baseline=baseline)
        assert "value" not in agent.policy.network.heads


# ---- DQN and DDPG


class Memory:
    """A replay buffer that owes these batches."""

    def __init__(self, *batches: Any) -> None:
        self.drawn, self.ready = batches, True

    def batches(self, progress: float) -> Any:
        yield from self.drawn

    def prioritise(self, index: Any, td: Any) -> None:
        pass


def batch(agent: Any, lanes: int = 1) -> Any:
    """Transitions of action 0 with reward 1 that do not end."""
    none = torch.zeros(2, lanes, dtype=torch.bool)
    action = torch.zeros((1, lanes) if agent.policy.spec.action == Discrete(2) else (1, lanes, 1))
    if action.dim() == 2:
        action = action.long()
    rows = Rollout(
        torch.zeros(2, lanes, 1), none, none, action, torch.ones(1, lanes), none[:1],
        agent.policy.initial_state(Lanes(lanes)),
    )  # fmt: skip
    return experience.transitions(rows, agent.config.gamma)


def says(network: Any, **outputs: list[float]) -> None:
    """Let linear heads give these numbers whatever they read."""
    for name, values in outputs.items():
        network.heads[name].weight.data.zero_()
        network.heads[name].bias.data.copy_(torch.tensor(values))


def dqn_target(**options: Any) -> float:
    """Reward 1; the target network says 2 and 6, the online one prefers the first."""
    agent = make("dqn", Discrete(2), **options)
    says(agent.network, q=[9.0, 8.0])
    says(agent.target, q=[2.0, 6.0])
    drawn = batch(agent)
    return round(float(agent.targets(drawn, drawn.later)), 4)


def dqn_value(dueling: bool) -> float:
    agent = make("dqn", Discrete(2), dueling=dueling)
    says(agent.network, **({"value": [10.0], "advantage": [1.0, 3.0]} if dueling else {"q": [1.0, 3.0]}))
    with torch.no_grad():
        none = torch.zeros(1, 1, dtype=torch.bool)
        return float(agent.policy.value(torch.zeros(1, 1, 1), none, agent.policy.initial_state(Lanes(1))))


def dqn_epsilon(progress: float = 0.0) -> Callable[..., object]:
    def found(**options: Any) -> float:
        agent = make("dqn", Discrete(2), **{"epsilon_start": 0.8, "epsilon_end": 0.2, **options})
        return round(float(agent.learn(Memory(), progress)["policy/epsilon"]), 4)

    return found


def dqn_spread(epsilon_spread: float) -> list[int]:
    """The actions of three lanes at epsilon 1/2 for the number 1/4: action 1 is drawn, action 0 is greedy."""
    policy = make("dqn", Discrete(2), epsilon_spread=epsilon_spread).policy
    policy.epsilon.fill_(0.5)
    says(policy.network, q=[1.0, 0.0])
    with torch.no_grad():
        rows = (torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool), policy.initial_state(Lanes(3)))
        found: list[int] = policy.act(*rows, torch.tensor([[0.25, 0.9]] * 3))[0].tolist()
    return found


def moves(name: str, **options: Any) -> float:
    """How far the (critics') target has moved in five updates, each of which adds 1 to the weights."""
    agent = make(name, Discrete(2) if name == "dqn" else BOX, **options)
    optim = agent.optim if name == "dqn" else agent.critic
    target = agent.target_flat if name == "dqn" else agent.target_critic
    optim.minimise = Steps(4, move=lambda: optim.vector.add_(1))
    if name == "ddpg":
        agent.actor.minimise = Steps(1)
    before = target.clone()
    agent.learn(Memory(*[batch(agent)] * 5), 0.0)
    return round(float((target - before).mean()), 4)


DQN: dict[str, Effect] = {
    "steps": ((3, 5), of_feed("dqn", "steps"), (3, 5)),
    "gamma": ((0.0, 0.5), dqn_target, (1.0, 2.0)),
    "double": ((False, True), lambda double: dqn_target(gamma=1.0, double=double), (7.0, 3.0)),
    "dueling": ((False, True), dqn_value, (3.0, 11.0)),  # V + A - mean A
    "quantiles": ((1, 3), lambda quantiles: dqn_quantiles(quantiles), ([1.0, 2.0], [0.5, 1.0])),
    "noisy": ((False, True), dqn_epsilon(), (0.8, 0.0)),
    "target_every": ((2, 5), lambda **o: moves("dqn", **o), (4.0, 5.0)),
    "tau": ((0.5, 1.0), lambda tau: moves("dqn", target_every=5, tau=tau), (2.5, 5.0)),
    "epsilon_start": ((0.5, 1.0), dqn_epsilon(), (0.5, 1.0)),
    "epsilon_end": ((0.1, 0.2), dqn_epsilon(progress=1.0), (0.1, 0.2)),
    "epsilon_fraction": ((0.5, 1.0), dqn_epsilon(progress=0.25), (0.5, 0.65)),
    "epsilon_spread": ((0.0, 7.0), dqn_spread, ([1, 1, 1], [1, 0, 0])),  # 1/2, 1/2^4.5, 1/2^8
}


def dqn_quantiles(quantiles: int) -> list[float]:
    """Q of both actions: the mean over what the first one's outputs say, (1, 2) or ((1, 0.5, 0), (2, 1, 0))."""
    agent = make("dqn", Discrete(2), quantiles=quantiles)
    says(agent.network, q=[1.0, 2.0] if quantiles == 1 else [1.0, 0.5, 0.0, 2.0, 1.0, 0.0])
    with torch.no_grad():
        rows = (
            torch.zeros(1, 1, 1),
            torch.zeros(1, 1, dtype=torch.bool),
            agent.policy.initial_state(Lanes(1)),
        )
        z, _ = agent.policy.returns(agent.network, *rows)
    assert agent.level.flatten().tolist() == pytest.approx([(i + 0.5) / quantiles for i in range(quantiles)])
    found: list[float] = agent.policy.q(z, rows[0]).flatten().tolist()
    return found


def ddpg_target(**options: Any) -> float:
    """Reward 1; the target critics say 4, and 2 where there are two."""
    agent = make("ddpg", BOX, **options)
    for critic, value in zip(agent.target.critics, (4.0, 2.0), strict=False):
        critic.output.weight.data.zero_()
        critic.output.bias.data.fill_(value)
    return round(float(agent.targets(batch(agent), ())[1].detach()), 4)


def ddpg_acts(**options: Any) -> list[float]:
    """Two actions around mu = 0: the first one's noise is one deviation, the second one's is none."""
    policy = make("ddpg", BOX, **options).policy
    policy.random.fill_(False)
    policy.actor.output.weight.data.zero_()
    policy.actor.output.bias.data.zero_()
    state, found = policy.initial_state(Lanes(1)), []
    with torch.no_grad():
        for noise, first in ((0.841345, True), (0.5, False)):
            action, state, _ = policy.act(
                torch.zeros(1, 1), torch.tensor([first]), state, torch.tensor([[noise]])
            )
            found.append(round(float(action), 3) + 0.0)
    return found


def ddpg_smoothing(**options: Any) -> list[float]:
    """Smallest and largest noise of many target actions, over the same draws' extremes."""
    agent = make("ddpg", BOX, **options)
    drawn = batch(agent, 1000)
    noise = agent.noise(drawn)
    z = torch.randn(drawn.action.shape, generator=torch.Generator().manual_seed(0))
    return [round(float(noise[0].min()), 3), round(float(noise[0].max() / z.max()), 3)] if noise else []


def ddpg_actor_updates(actor_every: int) -> int:
    agent = make("ddpg", BOX, actor_every=actor_every)
    agent.critic.minimise, actor = Steps(4), Steps(1)
    agent.actor.minimise = actor
    agent.learn(Memory(*[batch(agent)] * 7), 0.0)
    return len(actor.given)


def ddpg_rates(actor_lr: float | None) -> list[float]:
    agent = make("ddpg", BOX, actor_lr=actor_lr)
    agent.learn(Memory(), 0.0)
    return [agent.critic.lr, agent.actor.lr]


LARGEST = round(float(0.1 * torch.randn(1, 1000, 1, generator=torch.Generator().manual_seed(0)).min()), 3)
DDPG: dict[str, Effect] = {
    "steps": ((3, 5), of_feed("ddpg", "steps"), (3, 5)),
    "gamma": ((0.0, 0.5), ddpg_target, (1.0, 3.0)),
    "tau": ((0.5, 1.0), lambda tau: moves("ddpg", actor_every=5, tau=tau), (2.5, 5.0)),
    "noise": (("gaussian", "ou"), ddpg_acts, ([0.1, 0.0], [0.1, 0.085])),
    "noise_std": ((0.1, 0.3), ddpg_acts, ([0.1, 0.0], [0.3, 0.0])),
    "noise_decay": (
        (0.15, 0.5), lambda noise_decay: ddpg_acts(noise="ou", noise_decay=noise_decay), ([0.1, 0.085], [0.1, 0.05]),
    ),
    "critics": ((1, 2), lambda critics: ddpg_target(gamma=1.0, critics=critics), (5.0, 3.0)),
    "smoothing": ((0.0, 0.1), ddpg_smoothing, ([], [LARGEST, 0.1])),
    "smoothing_clip": ((0.2, 9.0), lambda **o: ddpg_smoothing(smoothing=0.1, **o)[:1], ([-0.2], [LARGEST])),
    "actor_every": ((1, 3), ddpg_actor_updates, (7, 2)),
    "actor_lr": ((None, 0.25), ddpg_rates, ([1.0, 1.0], [1.0, 0.25])),
}  # fmt: skip


# ---- replay


STREAM = experience.Stream.make(40, 2, seed=3, ending=0.15)


def memory(steps: int = 10, remembers: bool = False, rows: int = 40, **options: Any) -> Replay:
    """A replay buffer that has been given the rows of two lanes."""
    policy = experience.Policy(memory=remembers)
    folder = options.pop("folder", Path("none"))
    config = ReplayConfig(**{"capacity": 80, "warmup": 0, "batch": 8, **options})
    replay = Replay(config, policy, lanes=2, steps=steps, gamma=0.5, seed=1, folder=folder)  # type: ignore[arg-type]
    for start in range(0, rows, steps):
        replay.add(STREAM.rollout(policy, start, steps))
    return replay


def of_batch(report: Callable[[Any], object], progress: float = 0.0, **fixed: Any) -> Callable[..., object]:
    def found(**options: Any) -> object:
        replay = memory(**fixed, **options)
        replay.due = 1
        return report(next(iter(replay.batches(progress))))

    return found


def oldest(capacity: int) -> int:
    """The oldest row that is ever drawn."""
    replay = memory(capacity=capacity, batch=4000)
    replay.due = 1
    return int(next(iter(replay.batches(0.0))).now.obs[..., 0].min())


def first_due(warmup: int) -> int:
    """How many transitions there are when the first updates are due."""
    replay, policy = memory(rows=0, warmup=warmup, steps=1), experience.Policy()
    for start in range(40):
        replay.add(STREAM.rollout(policy, start, 1))  # type: ignore[arg-type]
        if replay.ready:
            return replay.collected
    raise AssertionError("never")


def reaching(count: int) -> int:
    """How many transitions there are after the first row with which there are at least so many."""
    collected = np.cumsum((~STREAM.last[:-1]).sum(1))
    return int(collected[collected >= count][0])


def largest_n(n_step: int) -> int:
    """The most rewards that a transition sums."""
    replay = memory(n_step=n_step, batch=2000)
    replay.due = 1
    drawn = next(iter(replay.batches(0.0)))
    return int((drawn.later.obs[..., 0] - drawn.now.obs[..., 0]).max())


def preferred(alpha: float) -> float:
    """How many times as likely as one of the others the transition with an error of 16 times theirs is drawn."""
    replay = memory(alpha=alpha, batch=4000)
    if replay.tree is None:
        return 1.0
    valid = np.flatnonzero(~replay.ring.fields["last"].reshape(-1)[: 40 * 2])
    replay.prioritise(torch.from_numpy(valid), torch.ones(len(valid)))
    replay.prioritise(torch.from_numpy(valid[:1]), torch.full((1,), 16.0))
    leaves = replay.tree.leaves[valid]
    return round(float(leaves[0] / leaves[1]), 2)


def weights(beta: float) -> float:
    """The smallest importance weight at the start: (p_other / p)^beta with p 16 times as large."""
    replay = memory(alpha=1.0, beta=beta, batch=4000)
    valid = np.flatnonzero(~replay.ring.fields["last"].reshape(-1)[: 40 * 2])
    replay.prioritise(torch.from_numpy(valid), torch.ones(len(valid)))
    replay.prioritise(torch.from_numpy(valid[:1]), torch.full((1,), 16.0))
    replay.due = 1
    return round(float(next(iter(replay.batches(0.0))).weight.min()), 2)


REPLAY: dict[str, Effect] = {
    "capacity": ((80, 40), oldest, (0, 20)),
    "warmup": ((10, 20), first_due, (reaching(10), reaching(20))),
    "ratio": (
        (0.5, 2.0),
        lambda ratio: memory(ratio=ratio, rows=10).due,
        (int(0.5 * (~STREAM.last[:10]).sum()), 2 * int((~STREAM.last[:10]).sum())),
    ),
    "batch": ((4, 8), of_batch(lambda drawn: len(drawn.index)), (4, 8)),
    "n_step": ((1, 3), largest_n, (1, 3)),
    "sequence": (
        (4, 8),
        lambda sequence: of_batch(lambda drawn: list(drawn.action.shape), remembers=True, steps=4, burn_in=2, batch=8)(
            sequence=sequence
        ),
        ([4, 2], [8, 1]),
    ),
    "burn_in": (
        (0, 3), of_batch(lambda drawn: drawn.warm, remembers=True, steps=4, sequence=4), (0, 3),
    ),
    "alpha": ((0.0, 0.5), preferred, (1.0, 4.0)),
    "beta": ((0.5, 1.0), weights, (0.25, 0.06)),
    "storage": (
        ("memory", "disk"), lambda storage: storage_of(storage), (False, True),
    ),
}  # fmt: skip


def storage_of(storage: str) -> bool:
    """Whether the actions lie in a memory-mapped file."""
    with tempfile.TemporaryDirectory() as folder:
        replay = memory(storage=storage, folder=Path(folder) / "replay")
        found = isinstance(replay.ring.fields["action"], np.memmap)
        replay.close()
    return found


# ---- the optimiser


def descends(
    *gradients: float, progress: float = 0.0, start: float = 1.0, **fixed: Any
) -> Callable[..., object]:
    """Where one weight is after steps along these gradients."""

    def found(**options: Any) -> float:
        module = torch.nn.Linear(1, 1, bias=False)
        module.weight.data.fill_(start)
        config = OptimConfig(**{"name": "sgd", "lr": 0.1, "clip_norm": 0.0, **fixed, **options})

        def loss(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (module.weight * x).sum(), torch.zeros(1)

        optim = Optimiser(module, loss, config, precision=torch.float32, compile=False)
        optim.set_progress(progress)
        for gradient in gradients:
            optim.minimise(torch.tensor(gradient))
        return round(float(module.weight.detach()), 4)

    return found


OPTIM: dict[str, Effect] = {
    "name": (("sgd", "adam"), descends(4.0, eps=1e-9), (0.6, 0.9)),
    "lr": ((0.1, 0.2), descends(4.0), (0.6, 0.2)),
    "lr_schedule": (("constant", "linear"), descends(4.0, progress=0.75), (0.6, 0.9)),
    "clip_norm": ((0.0, 0.5), descends(4.0), (0.6, 0.95)),
    # g / (|g| + eps)
    "eps": ((1e-9, 4.0), descends(4.0, name="adam"), (0.9, 0.95)),
    # the second step: m = (b (1 - b) 4 + 0) / (1 - b^2) with b = 0.5; v with b' = 0
    "betas": (((0.0, 0.0), (0.5, 0.0)), descends(4.0, 2.0, name="adam", eps=1e-9), (0.8, 0.7667)),
    "momentum": ((0.0, 0.5), descends(4.0, 0.0), (0.6, 0.4)),
    "weight_decay": ((0.0, 0.5), descends(0.0), (1.0, 0.95)),
}

ANY = {"ppo": Discrete(2), "reinforce": Discrete(2), "dqn": Discrete(2), "ddpg": BOX}
REPLAYED = {f"replay.{name}": effect for name, effect in REPLAY.items()}
TABLES: dict[str, dict[str, Effect]] = {
    "ppo": PPO, "reinforce": REINFORCE, "dqn": DQN | REPLAYED, "ddpg": DDPG | REPLAYED, "optim": OPTIM,
}  # fmt: skip
CASES = {
    f"{group}.{name}": (name, effect) for group, table in TABLES.items() for name, effect in table.items()
}
for name in REPLAYED:  # the memory is the same for every agent
    del CASES[f"ddpg.{name}"]


@pytest.mark.parametrize("case", CASES)
def test_an_option_changes_what_it_says(case: str) -> None:
    name, (values, observe, expected) = CASES[case]
    assert values[0] != values[1] and expected[0] != expected[1]
    name = name.removeprefix("replay.")
    assert [observe(**{name: value}) for value in values] == [pytest.approx(each) for each in expected]


@pytest.mark.parametrize("group", [*AGENTS, "optim"])
def test_every_option_has_a_row(group: str) -> None:
    """One that is new needs a row here; one that is gone needs none."""
    config = OptimConfig if group == "optim" else registry.algorithm(group).Config
    assert {each.name for each in describe(config)} == set(TABLES[group])


def test_agents_take_their_experience_as_their_options_say() -> None:
    """What an agent with a replay buffer is given depends on its own replay options."""
    for name in ("dqn", "ddpg"):
        algorithm = registry.algorithm(name)
        config = algorithm.Config(replay=ReplayConfig(batch=3), gamma=0.5)  # type: ignore[call-arg]
        fed: Any = algorithm.feed(config)
        assert fed.config is config.replay and fed.gamma == 0.5  # type: ignore[attr-defined]


FLOATS = [
    (cls, each.name, each.default)
    for cls in (RunConfig, *(registry.algorithm(name).Config for name in AGENTS))
    for each in describe(cls, types={"agent": OptimConfig, "env": OptimConfig} if cls is RunConfig else None)
    if "a number" in each.allowed
]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_may_be_infinite(value: float) -> None:
    """As any option that is a number: of a run, of the optimiser, of every agent."""
    assert len(FLOATS) > 40
    for cls, name, default in FLOATS:
        *groups, leaf = name.split(".")
        given: Any = {leaf: (0.5, value) if isinstance(default, tuple) else value}
        for group in reversed(groups):
            given = {group: given}
        types = {"agent": OptimConfig, "env": OptimConfig} if cls is RunConfig else None
        with pytest.raises(ConfigError, match="not a finite number"):
            build(cls, given, types=types)
