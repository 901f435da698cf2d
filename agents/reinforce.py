"""REINFORCE (Williams, 1992, Machine Learning 8:229-256): the Monte Carlo policy gradient, from whole episodes.

Of each complete episode s_0, a_0, r_0, ..., s_H, with the reward-to-go

    R_t = r_t + gamma R_{t+1},   R_H = 0 where it terminated; V(s_H) where it was truncated (bootstrap, baseline=value)

and a baseline b_t that does not depend on a_t, so that it changes the variance and not the expectation,

    b_t = 0                                     none
    b_t = running mean of R over past batches   mean  (Williams' reinforcement comparison)
    b_t = V(s_t)                                value (learned by regression on R)

    A_t = R_t - b_t                             reward_to_go; else every t of the episode has A_0
    L   = -mean_t rho_t A_t log pi(a_t | s_t)  +  c_V mean_t (V(s_t) - R_t)^2  -  c_H mean_t H(pi(. | s_t))

makes one gradient step per batch of episodes; the mean is over all their transitions. As usual, the factor gamma^t of
the discounted objective's gradient is left out.

Every episode is learned from once, as soon as it is complete. One that is still running when a batch is full goes on
under the new weights, so its first actions were drawn by an older policy mu: their terms are weighted by the truncated
importance ratio rho_t = min(1, pi(a_t | s_t) / mu(a_t | s_t)), as in V-trace; it is 1 for all actions of the current
weights. Memory is computed anew from each episode's start. The gradient flows through it within the `steps` rows of a
rollout and not from one rollout into the one before (truncated back-propagation through time); pieces of that length
also bound the memory that long episodes take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rlkit import contracts, ranks
from rlkit.config import registry
from rlkit.config.schema import OptimConfig
from rlkit.contracts import LaneShares, Saved, WholeEpisodes
from rlkit.distributions import Distribution, action_head
from rlkit.learn.optim import Optimiser
from rlkit.machine import How
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Network
from rlkit.options import option
from rlkit.returns import discounted
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, mask_of, tree_map

ACTIONS = ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict")
METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/ratio")
QUICK = {"steps": 4, "episodes": 8, "log_std_init": -0.5}
RATE = 0.1  # of the running mean of baseline=mean


@dataclass(frozen=True)
class Config:
    """How much experience makes a step, and what each action is credited with."""

    steps: int = option(32, min=1, help="Transitions of each lane in a rollout; memory learns over as many")
    episodes: int = option(8, min=1, help="How many complete episodes make a batch, at least")
    gamma: float = option(0.99, min=0, max=1, help="The discount of future rewards")
    baseline: Literal["none", "mean", "value"] = option("value", help="b: 0, running mean of R, or learned V")
    value_coef: float = option(0.5, min=0, help="c_V: the weight of the value's loss (baseline=value)")
    bootstrap: bool = option(True, help="Truncated episodes go on with V (baseline=value); false: with 0")
    reward_to_go: bool = option(True, help="Credit actions with what follows; false: with the whole return")
    entropy_coef: float = option(0.0, min=0, help="c_H: the weight of the entropy")
    normalize_advantage: bool = option(True, help="Scale advantages to mean 0 and standard deviation 1")
    distribution: Literal["gaussian", "tanh"] = option("gaussian", help="How continuous actions are drawn")
    log_std_init: float = option(
        0.0, min=-10, max=3, help="The log standard deviation of continuous actions at the start"
    )


class Policy(contracts.Policy):
    """The policy pi, and the value V where that is the baseline."""

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__()
        self.spec, self.baseline = spec, config.baseline
        self.head = action_head(spec.action, config.distribution)
        self.noise_size = self.head.noise_size
        heads = {"policy": (self.head.size, 0.01)}
        if config.baseline == "value":
            heads["value"] = (1, 1.0)
        self.network = Network(spec, network, heads)
        self.memoryless = self.network.memoryless
        self.log_std = (
            nn.Parameter(torch.full((self.head.log_std_size,), config.log_std_init))
            if self.head.log_std_size
            else None
        )

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [len(lanes), ...]."""
        return self.network.initial_state(len(lanes), device)

    def evaluate(self, obs: Obs, first: Tensor, state: State) -> tuple[Distribution, Tensor, State]:
        """obs [T, N, ...], first [T, N] -> pi(. | s), V(s) [T, N] (0 without it), next state."""
        outputs, state = self.network(obs, first, state)
        pi = self.head.distribution(outputs["policy"], self.log_std, mask_of(obs))
        value = (
            outputs["value"].squeeze(-1)
            if "value" in outputs
            else torch.zeros_like(first, dtype=torch.float32)
        )
        return pi, value, state

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """V of rows [T, N, ...]: [T, N]. Raises ValueError where no V is learned."""
        if self.baseline != "value":
            raise ValueError(f"agent.baseline={self.baseline} learns no value; type agent.baseline=value")
        return self.evaluate(obs, first, state)[1]

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, noise_size] or None for the mode -> action, state, {log pi(a|s)}."""
        pi, _, state = self.evaluate(tree_map(lambda x: x[None], obs), first[None], state)
        action = pi.mode() if noise is None else pi.sample(noise[None])  # [1, N, ...]
        return action[0], state, {"log_prob": pi.log_prob(action)[0]}

    def to_env(self, action: Tensor) -> Tensor:
        """The action in the environment's units."""
        return self.head.to_env(action)


class Agent:
    """A policy, its optimiser, and one call: `learn`."""

    def __init__(
        self,
        policy: Policy,
        config: Config,
        optim: OptimConfig,
        *,
        seed: int = 0,
        precision: torch.dtype = torch.float32,
        compile: How = False,
    ) -> None:
        self.policy, self.config = policy, config
        self.optim = Optimiser(policy, self.loss, optim, precision=precision, compile=compile)
        coefficients = (1.0, config.value_coef, -config.entropy_coef, 0.0)  # of METRICS in the loss
        self.coefficients = torch.tensor(coefficients, device=self.optim.flat.device)
        self.mean = torch.zeros_like(self.coefficients[0])  # running mean of R

    def learn(self, rollout: Rollout, progress: float) -> dict[str, Tensor]:
        """One step on the episodes that extra["weight"] [T, N] marks with 1; `progress` = step / total_steps."""
        self.optim.set_progress(progress)
        rows = rollout.extra["weight"]
        weight = rows / rows.sum()  # sums to 1
        value, states = self.sweep(rollout)
        target, advantage = self.advantages(rollout, value, weight)
        columns = {
            "action": rollout.action,
            "log_prob": rollout.extra["log_prob"],
            "target": target,
            "advantage": advantage,
            "weight": weight,
        }
        lanes = ranks.share(rollout.size[1])  # of several learner processes, each sums over its lanes
        metrics, norm = self.optim.minimise_sum(
            (
                *tree_map(lambda x: x[:, lanes], (obs, first)),
                tree_map(lambda x: x[lanes], state),
                tree_map(lambda x: x[piece, lanes], columns),  # noqa: B023
            )
            for (piece, obs, first), state in zip(self.pieces(rollout), states, strict=True)
        )
        self.mean.lerp_((weight * target).sum(), RATE)
        self.policy.network.observe(tree_map(lambda x: x[:-1], rollout.obs), rows > 0)
        report = dict(zip(METRICS, metrics, strict=True)) | {"gradient_norm": norm}
        if self.config.baseline != "value":
            del report["loss/value"]
        return report

    def pieces(self, rollout: Rollout) -> Iterator[tuple[slice, Obs, Tensor]]:
        """The batch in rollouts of `steps` rows: their place in time, obs [steps, N, ...], first [steps, N]."""
        for start in range(0, rollout.size[0], self.config.steps):
            piece = slice(start, min(start + self.config.steps, rollout.size[0]))
            yield piece, tree_map(lambda x: x[piece], rollout.obs), rollout.first[piece]  # noqa: B023

    @torch.no_grad()
    def sweep(self, rollout: Rollout) -> tuple[Tensor, list[State]]:
        """V of all rows [T+1, N] under the current weights, and the memory before each piece."""
        values, states, state = [], [], rollout.state
        with self.optim.autocast:
            for _, obs, first in self.pieces(rollout):
                states.append(state)
                _, value, state = self.policy.evaluate(obs, first, state)
                values.append(value)
            last = tree_map(lambda x: x[-1:], rollout.obs)
            values.append(self.policy.evaluate(last, rollout.first[-1:], state)[1])
        return torch.cat(values), states

    def advantages(self, rollout: Rollout, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """value [T+1, N], weight [T, N] -> R and A, [T, N]; what they are on rows of weight 0 does not matter."""
        config = self.config
        end = value if config.bootstrap else torch.zeros_like(value)
        target = discounted(rollout.reward, rollout.terminated, rollout.last, end, config.gamma)
        advantage = target - (self.mean if config.baseline == "mean" else value[:-1])
        if not config.reward_to_go:
            row = torch.arange(len(advantage), device=advantage.device)[:, None]
            # [T, N] the row in which the episode opened
            opened = torch.where(rollout.first[:-1], row, 0).cummax(0).values
            advantage = advantage.gather(0, opened)
        if config.normalize_advantage:
            advantage = advantage - (weight * advantage).sum()
            advantage = advantage / ((weight * advantage.square()).sum().sqrt() + 1e-8)
        return target, advantage

    def loss(
        self, obs: Obs, first: Tensor, state: State, columns: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A piece's share of L, and of the weighted means of METRICS. Columns are [steps, N, ...]."""
        pi, value, _ = self.policy.evaluate(obs, first, state)
        log_prob = pi.log_prob(columns["action"])  # [steps, N]
        # rho = min(1, pi / mu)
        ratio = (log_prob.detach() - columns["log_prob"]).exp().clamp(max=1)
        policy_loss = -ratio * columns["advantage"] * log_prob
        # (V - R)^2
        value_loss = (value - columns["target"]).square()
        terms = torch.stack([policy_loss, value_loss, pi.entropy(), ratio])  # [4, steps, N]
        sums = (terms * columns["weight"]).sum((1, 2))  # [4]
        return sums @ self.coefficients, sums.detach()

    def state_dict(self) -> Saved:
        """What learning depends on beside the policy's own state."""
        return {"optim": self.optim.state_dict(), "mean": self.mean.clone()}

    def load_state_dict(self, state: Saved) -> None:
        """Continue from `state_dict`'s value."""
        self.optim.load_state_dict(state["optim"])
        self.mean.copy_(state["mean"])


def feed(config: Config) -> WholeEpisodes:
    """REINFORCE learns from whole episodes, once."""
    return WholeEpisodes(config.steps, config.episodes)


def shared(policy: Policy, config: Config) -> LaneShares:
    """Each rank sums the loss over its lanes of the batch."""
    return LaneShares()


def exempt(config: Config) -> dict[str, str]:
    """The probes of `rlkit doctor` that do not hold with these options, and why."""
    return (
        {} if config.bootstrap else {"truncation": "agent.bootstrap=false counts nothing after a truncation"}
    )


def check(spec: EnvSpec, config: Config) -> None:
    """Raise ValueError where REINFORCE cannot act in `spec`."""
    registry.check_actions(__name__, spec.action)
    action_head(spec.action, config.distribution)
