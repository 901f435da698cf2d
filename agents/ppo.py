"""Proximal Policy Optimisation (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017, arXiv:1707.06347).

From T transitions of N lanes, collected by pi_old, with advantages A_t (GAE, arXiv:1506.02438) and targets
R_t = A_t + V_old(s_t), several epochs of minibatch steps on

    rho_t  = pi(a_t | s_t) / pi_old(a_t | s_t)
    L_pi   = -mean_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)
    L_V    =  mean_t (V(s_t) - R_t)^2            (optionally with V's change clipped, as in the authors' code)
    L      =  L_pi + c_V L_V - c_H mean_t H(pi(. | s_t))

Means run over valid transitions: the row after an episode's end is no transition and has weight 0. Terminations do not
bootstrap, truncations and the rollout's end do (see rlkit.returns.gae).

With a network that remembers, the rollout is cut into sequences of L = `sequence` rows, and minibatches are made of
whole sequences. Each begins with the memory that an unroll of the whole rollout, at the start of `learn` and without
gradients, has there: gradients go back to their sequence's first row and no further (truncated backpropagation through
time, Williams and Peng, 1990). A network without memory has L = 1: its sequences are the transitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from rlkit import contracts
from rlkit.buffers import Rows, cut, minibatches, select, sequences, uncut
from rlkit.config import registry
from rlkit.config.schema import OptimConfig
from rlkit.contracts import Minibatches, Rollouts, Saved
from rlkit.distributions import Distribution, action_head
from rlkit.learn.optim import Optimiser, schedule
from rlkit.machine import How
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Network
from rlkit.nn.norm import ReturnScale
from rlkit.options import ConfigError, option
from rlkit.returns import explained_variance, gae
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, mask_of, tree_map

ACTIONS = ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict")
METRICS = ("loss/policy", "loss/value", "policy/entropy", "policy/kl", "policy/clipped")
QUICK = {"steps": 8, "sequence": 8, "epochs": 4, "minibatch": 64, "log_std_init": -0.5}


@dataclass(frozen=True)
class Config:
    """The paper's hyperparameters, with its symbols."""

    steps: int = option(128, min=1, help="T: how many transitions of each lane make a rollout")
    epochs: int = option(10, min=1, help="How often a rollout is learned from")
    minibatch: int = option(256, min=1, help="How many transitions make a gradient step")
    sequence: int = option(16, min=1, help="L: the rows of a sequence, where the network has memory")
    gamma: float = option(0.99, min=0, max=1, help="The discount of future rewards")
    lam: float = option(0.95, min=0, max=1, help="The lambda of GAE: 0 is TD(0), 1 is Monte Carlo")
    clip: float = option(0.2, above=0, help="eps: how far rho may be from 1")
    clip_schedule: Literal["constant", "linear", "cosine"] = option("constant", help="How clip falls to 0")
    value_coef: float = option(0.5, min=0, help="c_V: the weight of the value's loss")
    value_clip: float | None = option(None, above=0, help="How far V may change on a rollout; null: any")
    entropy_coef: float = option(0.0, min=0, help="c_H: the weight of the entropy")
    normalize_advantage: bool = option(True, help="Scale advantages to mean 0 and standard deviation 1")
    recompute_advantage: bool = option(False, help="Compute values and advantages anew for every epoch")
    target_kl: float | None = option(None, above=0, help="End the epochs at 1.5 times this KL; null: never")
    normalize_reward: bool = option(
        False, help="Divide rewards by the running standard deviation of the return"
    )
    distribution: Literal["gaussian", "tanh"] = option("gaussian", help="How continuous actions are drawn")
    log_std_init: float = option(
        0.0, min=-10, max=3, help="The log standard deviation of continuous actions at the start"
    )


class Policy(contracts.Policy):
    """The policy pi and the value V. Observation scaling and reward scaling are saved with it."""

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__()
        self.spec = spec
        self.head = action_head(spec.action, config.distribution)
        self.noise_size = self.head.noise_size
        self.network = Network(spec, network, {"policy": (self.head.size, 0.01), "value": (1, 1.0)})
        self.memoryless = self.network.memoryless
        self.log_std = (
            nn.Parameter(torch.full((self.head.log_std_size,), config.log_std_init))
            if self.head.log_std_size
            else None
        )
        self.return_scale = ReturnScale(config.gamma)
        if not self.memoryless and config.steps % config.sequence:
            nearest = max(round(config.steps / config.sequence), 1) * config.sequence
            raise ConfigError(
                f"agent.steps={config.steps}: core={network.core} learns from sequences of agent.sequence="
                f"{config.sequence} rows; steps must be a multiple of it: type agent.steps={nearest}"
            )

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [len(lanes), ...]."""
        return self.network.initial_state(len(lanes), device)

    def evaluate(self, obs: Obs, first: Tensor, state: State) -> tuple[Distribution, Tensor, State]:
        """obs [T, N, ...], first [T, N] -> pi(. | s), V(s) [T, N], next state."""
        outputs, state = self.network(obs, first, state)
        pi = self.head.distribution(outputs["policy"], self.log_std, mask_of(obs))
        return pi, outputs["value"].squeeze(-1), state

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, noise_size] or None for the mode -> action, state, {log pi(a|s), V(s)}."""
        pi, value, state = self.evaluate(tree_map(lambda x: x[None], obs), first[None], state)
        action = pi.mode() if noise is None else pi.sample(noise[None])  # [1, N, ...]
        return action[0], state, {"log_prob": pi.log_prob(action)[0], "value": value[0]}

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """V(s) of rows obs [T, N, ...], first [T, N]: [T, N]."""
        return self.evaluate(obs, first, state)[1]

    def to_env(self, action: Tensor) -> Tensor:
        """The action in the environment's units."""
        return self.head.to_env(action)


class Advantages(TypedDict):
    """What the learned values say of a rollout's transitions, in sequences: each [L, S]."""

    advantage: Tensor
    target: Tensor
    value: Tensor  # V_old


class Batch(Advantages):
    """A rollout in S sequences of length L, of which a minibatch takes some."""

    rows: Rows
    action: Tensor  # [L, S, ...]
    log_prob: Tensor  # [L, S] of the action, when it was chosen
    weight: Tensor  # [L, S] mean 1, and 0 where there is no transition


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
        self.length = shared(policy, config).length  # L
        self.optim = Optimiser(policy, self.loss, optim, precision=precision, compile=compile)
        self.generator = torch.Generator(self.optim.flat.device).manual_seed(seed)
        coefficients = (1.0, config.value_coef, -config.entropy_coef, 0.0, 0.0)  # of METRICS in the loss
        self.coefficients = torch.tensor(coefficients, device=self.optim.flat.device)

    def learn(self, rollout: Rollout, progress: float) -> dict[str, Tensor]:
        """All epochs on one rollout [T, N]; `progress` = step / total_steps drives the schedules."""
        config = self.config
        clip = torch.full_like(self.coefficients[0], config.clip * schedule(config.clip_schedule, progress))
        self.optim.set_progress(progress)
        valid = rollout.valid
        if config.normalize_reward:
            rollout.reward = self.policy.return_scale(rollout.reward, rollout.first, rollout.last)
        rows = sequences(rollout, self.length, self.unroll)
        total = valid.numel() // self.length  # sequences of transitions; N more open with the last row
        everything = torch.arange(total + valid.shape[1], device=valid.device)
        last_row = self.values(rows, everything[total:])[0]
        # V of the acting weights, and of the newest ones for the row that nobody acted on
        value = torch.cat([rollout.extra["value"], last_row[None]])  # [T+1, N]
        # mean 1, and 0 where there is no transition
        weight = cut(valid / valid.float().mean().clamp(min=1 / valid.numel()), self.length)
        batch: Batch = {
            "rows": rows,
            "action": cut(rollout.action, self.length),
            "log_prob": cut(rollout.extra["log_prob"], self.length),
            "weight": weight,
            **self.advantages(rollout, value, weight),
        }
        metrics: list[tuple[Tensor, Tensor]] = []
        epochs = 0
        for epoch in range(config.epochs):
            if config.recompute_advantage and epoch > 0:
                value = uncut(self.values(rows, everything), valid.shape[1])[: len(value)]
                batch = {**batch, **self.advantages(rollout, value, weight)}
            start = len(metrics)
            indices = minibatches(total, config.minibatch / self.length, self.generator)
            metrics += self.optim.minimise_each(batch, indices, clip)
            epochs += 1
            if config.target_kl is not None:
                kl = torch.stack([terms[3] for terms, _ in metrics[start:]]).mean()
                if float(kl) > 1.5 * config.target_kl:
                    break
        self.policy.network.observe(tree_map(lambda x: x[:-1], rollout.obs), valid)
        means = torch.stack([terms for terms, _ in metrics]).mean(0)
        return dict(zip(METRICS, means, strict=True)) | {
            "gradient_norm": torch.stack([norm for _, norm in metrics]).mean(),
            "value/explained": explained_variance(batch["target"], batch["value"], weight),
            "epochs": torch.full_like(means[0], epochs),
        }

    def advantages(self, rollout: Rollout, value: Tensor, weight: Tensor) -> Advantages:
        """value [T+1, N], weight [L, S] -> advantage, target and old value, in sequences."""
        config = self.config
        advantage = gae(
            rollout.reward, value, rollout.terminated, rollout.last, config.gamma, config.lam
        )  # [T, N]
        old, advantage = cut(value[:-1], self.length), cut(advantage, self.length)
        target = advantage + old
        if config.normalize_advantage:
            mean = (weight * advantage).mean()
            variance = (weight * (advantage - mean).square()).mean()
            advantage = (advantage - mean) / (variance.sqrt() + 1e-8)
        return {"advantage": advantage, "target": target, "value": old}

    def loss(self, batch: Batch, index: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the weighted means of METRICS over the sequences `index` [B] of a rollout's batch."""
        pi, value, _ = self.policy.evaluate(*select(batch["rows"], index))  # [L, B]
        advantage, target = batch["advantage"][:, index], batch["target"][:, index]
        log_ratio = pi.log_prob(batch["action"][:, index]) - batch["log_prob"][:, index]
        ratio = log_ratio.exp()
        # -min(rho A, clip(rho, 1 - eps, 1 + eps) A)
        policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        # (V - R)^2
        value_loss = (value - target).square()
        if self.config.value_clip is not None:
            old, limit = batch["value"][:, index], self.config.value_clip
            near = old + (value - old).clamp(-limit, limit)
            value_loss = torch.maximum(value_loss, (near - target).square())
        # KL(pi_old || pi) ~ (rho - 1) - log rho, unbiased and never negative (Schulman, 2020)
        kl = (ratio - 1 - log_ratio).detach()
        clipped = ((ratio - 1).abs() > clip).float()
        terms = torch.stack([policy_loss, value_loss, pi.entropy(), kl, clipped])  # [5, L, B]
        means = (terms * batch["weight"][:, index]).mean((1, 2))  # [5]
        return means @ self.coefficients, means.detach()

    @torch.no_grad()
    def values(self, rows: Rows, index: Tensor) -> Tensor:
        """V in the sequences `index` [B], in pieces that fit any memory: [L, B]."""
        pieces = torch.split(index, max(4096 // self.length, 1))
        return torch.cat([self.policy.value(*select(rows, piece)) for piece in pieces], 1)

    @torch.no_grad()
    def unroll(self, obs: Obs, first: Tensor, state: State) -> State:
        """The memory of all lanes after rows obs [L, N, ...], first [L, N]."""
        return self.policy.evaluate(obs, first, state)[2]

    def state_dict(self) -> Saved:
        """What learning depends on beside the policy's own state."""
        return {"optim": self.optim.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Saved) -> None:
        """Continue from `state_dict`'s value."""
        self.optim.load_state_dict(state["optim"])
        self.generator.set_state(state["generator"].cpu())


def feed(config: Config) -> Rollouts:
    """PPO learns from each rollout once."""
    return Rollouts(config.steps)


def shared(policy: Policy, config: Config) -> Minibatches:
    """Ranks share every minibatch; a network without memory learns from sequences of one row."""
    return Minibatches(config.minibatch, 1 if policy.memoryless else config.sequence)


def check(spec: EnvSpec, config: Config) -> None:
    """Raise ValueError where PPO cannot act in `spec`."""
    registry.check_actions(__name__, spec.action)
    action_head(spec.action, config.distribution)
