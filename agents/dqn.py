"""Deep Q-learning (Mnih et al., Nature 2015) and the refinements of it that stay simple, each an option.

With theta' an old copy of theta (the target network), transitions (s, a, r, s') drawn from a replay buffer, and
gamma' = gamma (1 - terminated):

    y = r + gamma' max_b Q(s', b; theta')                           the paper: double=false, the rest at its default
    y = r + gamma' Q(s', argmax_b Q(s', b; theta); theta')          double      (van Hasselt et al., arXiv:1509.06461)
    L = mean w Huber(y - Q(s, a; theta))
    theta' <- theta' + tau (theta - theta') every `target_every` updates (tau = 1 copies)

    Q = V + A - mean_b A                                            dueling    (Wang et al., arXiv:1511.06581)
    y = r_1 + gamma r_2 + ... + gamma^n Q(s_n, .)                   replay.n_step
    w ~ P(drawn)^-beta, P(drawn) ~ |y - Q|^alpha                    replay.alpha (Schaul et al., arXiv:1511.05952)
    Q = mean_i z_i, L = sum_i mean_j 2 |tau_i - 1{u_ij < 0}| Huber(u_ij), u_ij = y_j - z_i, tau_i = (i - 1/2) / M
                                                                    quantiles=M (Dabney et al., arXiv:1710.10044)
    noise in the head's weights instead of epsilon                  noisy       (Fortunato et al., arXiv:1706.10295)
    epsilon^(1 + alpha i / (N - 1)) in lane i of N                  epsilon_spread=alpha
                                                                    (Ape-X: Horgan et al., arXiv:1803.00933)

With M = 1 the quantile loss is the Huber loss. Maxima and random actions run over allowed actions alone. A network with
memory learns from sequences that start with the memory stored when acting, and from the rows after `burn_in` that only
renew it (R2D2: Kapturowski et al., ICLR 2019). An action of several choices is one choice among their combinations.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit import contracts
from rlkit.config.registry import check_actions
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.distributions.joint import Choices, check_choices
from rlkit.learn.optim import Optimiser, flatten, soft_update
from rlkit.machine import SHARE, How, available, gib
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Head, Network
from rlkit.nn.noisy import Noise
from rlkit.options import option
from rlkit.replay.targets import bootstrapped, warmed
from rlkit.types import Batch, EnvSpec, Lanes, Obs, Span, State, tree_leaves, tree_map

if TYPE_CHECKING:
    from rlkit.replay.memory import Replay

ACTIONS = ("Discrete", "MultiDiscrete", "MultiBinary")
METRICS = ("loss/td", "q/mean", "q/target")
QUICK = {
    "steps": 8,
    "tau": 0.1,
    "target_every": 1,
    "epsilon_fraction": 0.5,
    "replay": {"warmup": 256, "ratio": 0.1, "batch": 128, "sequence": 8, "burn_in": 4},
}


@dataclass(frozen=True)
class Config:
    """What the papers call hyperparameters."""

    steps: int = option(4, min=1, help="T: how many transitions of each lane lie between two calls of learn")
    gamma: float = option(0.99, min=0, max=1, help="The discount of future rewards")
    double: bool = option(True, help="The online network chooses the action that the target network values")
    dueling: bool = option(False, help="Estimate V and A apart: Q = V + A - mean A")
    quantiles: int = option(1, min=1, help="M: quantiles of each action's return; 1: its mean alone")
    noisy: bool = option(False, help="Explore by learned noise in the head's weights, not by epsilon")
    target_every: int = option(
        500, min=1, help="How many updates lie between two moves of the target network"
    )
    tau: float = option(
        1.0, above=0, max=1, help="How far the target network moves then; 1: it becomes a copy"
    )
    epsilon_start: float = option(1.0, min=0, max=1, help="The share of random actions after the warm-up")
    epsilon_end: float = option(0.05, min=0, max=1, help="The share of random actions at last")
    epsilon_fraction: float = option(
        0.1, above=0, max=1, help="The part of the run in which it falls to that"
    )
    epsilon_spread: float = option(0.0, min=0, help="alpha: how much less later lanes explore (Ape-X: 7)")
    replay: ReplayConfig = field(default_factory=ReplayConfig)


class Policy(contracts.Policy):
    """Q, and epsilon-greedy actions of it. Its actions are numbers of choices.

    Its state is the network's and, last, each lane's share of the exploration, which a network passes on as it is.
    """

    epsilon: Tensor
    noise_size = 2  # whether to act at random, and which action then

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__()
        self.spec = spec
        self.noisy, self.dueling, self.quantiles = config.noisy, config.dueling, config.quantiles
        self.spread = config.epsilon_spread
        self.choices = Choices(spec.action)
        size = self.choices.n * config.quantiles
        sizes = {"advantage": size, "value": config.quantiles} if config.dueling else {"q": size}
        self.heads = tuple(sizes)
        heads: dict[str, Head] = {name: (size, 1.0) for name, size in sizes.items()}
        if config.noisy:
            heads |= {f"{name}_noise": partial(Noise, outputs=size) for name, size in sizes.items()}
        self.network = Network(spec, replace(network, shared=True), heads)
        self.memoryless = self.network.memoryless
        for layer in (*self.network.encoders.modules(), *self.network.heads.modules()):
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                # torch's weights, smaller than orthogonal ones: a step on Q(s, a) moves the Q of other states, which
                # it bootstraps from, less, where else both may run away together
                layer.reset_parameters()
        self.register_buffer("epsilon", torch.ones(()))

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [len(lanes), ...]."""
        share = (lanes.share.to(device),) if self.spread else ()
        return (*self.network.initial_state(len(lanes), device), share)

    def returns(
        self, network: Network, obs: Obs, first: Tensor, state: State, noisy: bool = True
    ) -> tuple[Tensor, State]:
        """obs [T, N, ...], first [T, N] -> quantiles z of each action's return [T, N, n, M], next state.

        network: this policy's, or a target network made from it.
        """
        outputs, state = network(obs, first, state)
        if self.noisy and noisy:
            outputs = {name: outputs[name] + outputs[f"{name}_noise"] for name in self.heads}
        shape = (self.choices.n, self.quantiles)
        if not self.dueling:
            return outputs["q"].unflatten(-1, shape), state
        advantage = outputs["advantage"].unflatten(-1, shape)
        # z = V + A - mean_b A
        return outputs["value"].unsqueeze(-2) + advantage - advantage.mean(-2, keepdim=True), state

    def q(self, z: Tensor, obs: Obs) -> Tensor:
        """Q(s, .) of z [..., n, M]: [..., n], and the lowest number for actions that are not allowed."""
        allowed, q = self.choices.allowed(obs), z.mean(-1)
        return q if allowed is None else torch.where(allowed, q, torch.finfo(q.dtype).min)

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, 2] or None for the greedy action -> action [N], state, {}."""
        row = tree_map(lambda x: x[None], obs)
        z, state = self.returns(self.network, row, first[None], state, noisy=noise is not None)
        action = self.q(z[0], obs).argmax(-1)
        if noise is not None:
            random = self.choices.random(noise[:, 1], self.choices.allowed(obs))
            epsilon = self.epsilon
            if self.spread:
                share = next(tree_leaves(state[-1]))  # i / (N - 1), [N]
                # epsilon_i = epsilon^(1 + alpha i / (N - 1))
                epsilon = epsilon ** (1 + self.spread * share)
            action = torch.where(noise[:, 0] < epsilon, random, action)
        return action, state, {}

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """max Q over the allowed actions of rows obs [T, N, ...]: [T, N]."""
        return self.q(self.returns(self.network, obs, first, state, noisy=False)[0], obs).amax(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """The action as the environment takes it."""
        return self.choices.to_env(action)


class Agent:
    """A policy, its target network and optimiser, and one call: `learn`."""

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
        self.policy, self.config, self.network = policy, config, policy.network
        self.target: Network = copy.deepcopy(policy.network)
        self.target_flat = flatten(self.target)[0].detach()
        both = nn.ModuleDict({"network": self.network, "target": self.target})
        self.optim = Optimiser(
            self.network, self.loss, optim, precision=precision, compile=compile, reads=both
        )
        self.noises = [module for module in both.modules() if isinstance(module, Noise)]
        device = self.target_flat.device
        self.generator = torch.Generator(device).manual_seed(seed)
        level = (torch.arange(config.quantiles, device=device) + 0.5) / config.quantiles
        self.level = level[:, None]  # tau_i, [M, 1]
        self.updates = 0

    def learn(self, replay: Replay, progress: float) -> dict[str, Tensor]:
        """The updates that are due; `progress` = step / total_steps drives the schedules."""
        config, reports = self.config, []
        self.optim.set_progress(progress)
        if replay.ready:
            fallen = min(progress / config.epsilon_fraction, 1.0)
            share = config.epsilon_start + fallen * (config.epsilon_end - config.epsilon_start)
            self.policy.epsilon.fill_(0.0 if config.noisy else share)
        for batch in replay.batches(progress):
            for network in (self.network, self.target):
                network.observe(batch.now.obs, ~batch.now.last)
            for noise in self.noises:
                noise.resample(self.generator)
            report, norm = self.optim.minimise(batch)
            replay.prioritise(batch.index, report[3:].view_as(batch.reward))
            reports.append((report, norm))
            self.updates += 1
            if self.updates % config.target_every == 0:
                soft_update(self.target_flat, self.optim.flat, config.tau)
        epsilon = self.policy.epsilon.clone()
        metrics = {"policy/epsilon": epsilon, "updates": torch.full_like(epsilon, self.updates)}
        if reports:
            means = torch.stack([report[:3] for report, _ in reports]).mean(0)
            metrics |= dict(zip(METRICS, means, strict=True))
            metrics["gradient_norm"] = torch.stack([norm for _, norm in reports]).mean()
        return metrics

    @torch.no_grad()
    def targets(self, batch: Batch, later: Span) -> Tensor:
        """y [L, B, M]; `later` are the batch's, with what the online network remembers before them."""
        _, old = warmed(self.target, batch)
        z, _ = self.policy.returns(self.target, *old.inputs)  # [R, B, n, M], and R >= L
        judge = self.policy.returns(self.network, *later.inputs)[0] if self.config.double else z
        best = self.policy.q(judge, later.obs).argmax(-1)  # [R, B]
        value = _of_action(z, best)[-len(batch.action) :]  # [L, B, M], of the row after each
        return bootstrapped(batch, value, self.config.gamma, self.config.replay.n_step)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """L, and METRICS followed by |y - Q| [L * B]."""
        now, later = warmed(self.network, batch)
        target = self.targets(batch, later)  # [L, B, M]
        z, _ = self.policy.returns(self.network, *now.inputs)  # [L, B, n, M]
        z = _of_action(z, batch.action)  # [L, B, M]
        # u_ij = y_j - z_i
        u = target[..., None, :] - z[..., :, None]  # [L, B, M, M]
        huber = F.huber_loss(u, torch.zeros_like(u), reduction="none")
        # sum_i mean_j 2 |tau_i - 1{u_ij < 0}| Huber(u_ij)
        loss = (2 * (self.level - (u.detach() < 0).float()).abs() * huber).mean(-1).sum(-1)  # [L, B]
        valid = batch.valid.float()  # [L, B]
        mean = valid / valid.sum().clamp(min=1)  # weights of a mean over real transitions
        q, y = z.detach().mean(-1), target.mean(-1)
        loss = (mean * batch.weight * loss).sum()
        means = torch.stack([loss.detach(), (mean * q).sum(), (mean * y).sum()])
        return loss, torch.cat([means, ((y - q).abs() * valid).flatten()])

    def state_dict(self) -> dict[str, Any]:
        """What learning depends on beside the policy's own state."""
        return {
            "optim": self.optim.state_dict(),
            "target": {name: x.clone() for name, x in self.target.state_dict().items()},
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s value."""
        self.optim.load_state_dict(state["optim"])
        self.target.load_state_dict(state["target"])
        self.updates = state["updates"]
        self.generator.set_state(state["generator"].cpu())


def feed(config: Config) -> contracts.Replayed:
    """A replay buffer."""
    return contracts.Replayed(config.steps, config.replay, config.gamma)


def check(spec: EnvSpec, config: Config) -> None:
    """Raise ValueError where DQN cannot act in `spec`."""
    check_actions(__name__, spec.action)
    check_choices(spec)
    if config.noisy and config.epsilon_spread:
        raise ValueError(
            f"agent.epsilon_spread={config.epsilon_spread:g}: with agent.noisy=true there is no epsilon; type "
            "agent.epsilon_spread=0 or agent.noisy=false"
        )
    # the loss makes six tensors [B, M, M] of float32 on its way
    free, each = int(SHARE * available(Path.cwd())[0]), 6 * 4 * config.replay.batch
    if each * config.quantiles**2 > free:
        raise ValueError(
            f"agent.quantiles={config.quantiles}: every one is compared with every other, which takes "
            f"{gib(each * config.quantiles**2)} of memory, and {gib(free)} may be used; type agent.quantiles="
            f"{max(math.isqrt(free // each), 1)} or less"
        )


def _of_action(z: Tensor, action: Tensor) -> Tensor:
    """z [..., n, M], action [...] -> z of that action [..., M]."""
    index = action[..., None, None].expand(*action.shape, 1, z.shape[-1])
    return z.gather(-2, index).squeeze(-2)
