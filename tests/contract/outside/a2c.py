"""Advantage actor-critic, synchronous (A2C; Mnih et al., 2016, arXiv:1602.01783).

From T transitions of N lanes under pi, with advantages A_t = R_t - V(s_t) (GAE, arXiv:1506.02438), one step on

    L = -mean_t A_t log pi(a_t | s_t)  +  c_V mean_t (V(s_t) - R_t)^2  -  c_H mean_t H(pi(. | s_t))

whose means run over valid transitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlkit import contracts, ranks
from rlkit.config import registry
from rlkit.config.schema import OptimConfig
from rlkit.contracts import LaneShares, Rollouts
from rlkit.distributions import Distribution, action_head
from rlkit.learn.optim import Optimiser
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Network
from rlkit.options import option
from rlkit.returns import gae
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, mask_of, tree_map

ACTIONS = ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict")
METRICS = ("loss/policy", "loss/value", "policy/entropy")
QUICK = {"steps": 8}


@dataclass(frozen=True)
class Config:
    """The paper's hyperparameters."""

    steps: int = option(16, min=1, help="T: transitions per lane and rollout")
    gamma: float = option(0.99, min=0, max=1, help="discount")
    lam: float = option(1.0, min=0, max=1, help="lambda of GAE: 0 is TD(0), 1 is Monte Carlo")
    value_coef: float = option(0.5, min=0, help="c_V")
    entropy_coef: float = option(0.01, min=0, help="c_H")


class Policy(contracts.Policy):
    """pi and V."""

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__()
        self.spec = spec
        self.head = action_head(spec.action)
        self.noise_size = self.head.noise_size
        self.network = Network(spec, network, {"policy": (self.head.size, 0.01), "value": (1, 1.0)})
        self.memoryless = self.network.memoryless
        self.log_std = nn.Parameter(torch.zeros(self.head.log_std_size)) if self.head.log_std_size else None

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        return self.network.initial_state(len(lanes), device)

    def evaluate(self, obs: Obs, first: Tensor, state: State) -> tuple[Distribution, Tensor, State]:
        """obs [T, N, ...], first [T, N] -> pi(. | s), V(s) [T, N], next state."""
        outputs, state = self.network(obs, first, state)
        pi = self.head.distribution(outputs["policy"], self.log_std, mask_of(obs))
        return pi, outputs["value"].squeeze(-1), state

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        pi, _, state = self.evaluate(tree_map(lambda x: x[None], obs), first[None], state)
        action = pi.mode() if noise is None else pi.sample(noise[None])  # [1, N, ...]
        return action[0], state, {}

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        return self.evaluate(obs, first, state)[1]

    def to_env(self, action: Tensor) -> Tensor:
        return self.head.to_env(action)


class Agent:
    """A policy, its optimiser, and one call: `learn`."""

    def __init__(
        self,
        policy: Policy,
        config: Config,
        optim: OptimConfig,
        *,
        seed: int,
        precision: torch.dtype,
        compile: bool,
    ) -> None:
        self.policy, self.config = policy, config
        self.optim = Optimiser(policy, self.loss, optim, precision=precision, compile=compile)

    def learn(self, rollout: Rollout, progress: float) -> dict[str, Tensor]:
        """One step on one rollout [T, N]."""
        config = self.config
        self.optim.set_progress(progress)
        with torch.no_grad():
            value = self.policy.value(rollout.obs, rollout.first, rollout.state)  # [T+1, N]
            advantage = gae(rollout.reward, value, rollout.terminated, rollout.last, config.gamma, config.lam)
        rows = {
            "obs": tree_map(lambda x: x[:-1], rollout.obs),
            "first": rollout.first[:-1],
            "action": rollout.action,
            "advantage": advantage,
            "target": advantage + value[:-1],
            "weight": rollout.valid / rollout.valid.sum().clamp(min=1),  # sums to 1
        }
        lanes = ranks.share(rollout.size[1])  # of several learner processes, each sums over its lanes
        rows = tree_map(lambda x: x[:, lanes], rows)
        metrics, norm = self.optim.minimise_sum([(rows, tree_map(lambda x: x[lanes], rollout.state))])
        self.policy.network.observe(tree_map(lambda x: x[:-1], rollout.obs), rollout.valid)
        return dict(zip(METRICS, metrics, strict=True)) | {"gradient_norm": norm}

    def loss(self, rows: dict[str, Any], state: State) -> tuple[Tensor, Tensor]:
        """L, and the weighted means of METRICS."""
        pi, value, _ = self.policy.evaluate(rows["obs"], rows["first"], state)
        policy_loss = -rows["advantage"] * pi.log_prob(rows["action"])
        value_loss = (value - rows["target"]).square()
        sums = (torch.stack([policy_loss, value_loss, pi.entropy()]) * rows["weight"]).sum((1, 2))  # [3]
        return sums[0] + self.config.value_coef * sums[1] - self.config.entropy_coef * sums[2], sums.detach()

    def state_dict(self) -> dict[str, Any]:
        return {"optim": self.optim.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optim.load_state_dict(state["optim"])


def feed(config: Config) -> Rollouts:
    """Each rollout once."""
    return Rollouts(config.steps)


def shared(policy: Policy, config: Config) -> LaneShares:
    """Each rank sums the loss over its lanes."""
    return LaneShares()


def check(spec: EnvSpec, config: Config) -> None:
    registry.check_actions(__name__, spec.action)
