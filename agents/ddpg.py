"""Deep Deterministic Policy Gradient (Lillicrap et al., 2016, arXiv:1509.02971), with the three changes of TD3.

A deterministic actor mu(s) in [-1, 1]^d and a critic Q(s, a) learn from transitions in a replay buffer. With slowly
following copies Q' and mu', and d_t = gamma^m (1 - terminated) of the m-step transition that the memory hands out,

    y_t   = r_t + d_t Q'(s_{t+m}, mu'(s_{t+m}))
    L_Q   =  mean_t w_t (Q(s_t, a_t) - y_t)^2                  (w_t: importance weights of prioritised replay)
    L_mu  = -mean_t Q(s_t, mu(s_t))                            (its gradient flows through the action into mu alone)
    theta' <- theta' + tau (theta - theta')

Actions are tried out with noise: mu(s) + N(0, sigma^2), or an Ornstein-Uhlenbeck process x <- (1 - kappa) x + sigma z.
Three options, each on its own, make it TD3 (Fujimoto, van Hoof and Meger, 2018, arXiv:1802.09477; agent=td3):

    critics=2     y_t takes min(Q'_1, Q'_2); both critics learn it; the actor follows Q_1
    smoothing     y_t takes mu'(s) + clip(N(0, smoothing^2), -smoothing_clip, smoothing_clip), clipped to [-1, 1]
    actor_every   the actor and all targets move once in so many updates of the critics

Every network reads the observation through a trunk (encoder -> core); the action enters at the last hidden layer, the
second of two as in the paper. With memory, actor and critics remember side by side in one state: sequences start with
the one stored when they were collected, and rows of burn-in only renew it. Where all share a trunk (network.shared;
pixels) the critics' loss alone trains it, and the actor reads its features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rlkit import contracts
from rlkit.compile import Either
from rlkit.config.registry import check_actions
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.distributions import action_head
from rlkit.learn.optim import Optimiser, flatten, soft_update
from rlkit.machine import How
from rlkit.nn.config import NetworkConfig
from rlkit.nn.hidden import HiddenHead
from rlkit.nn.network import Network
from rlkit.options import option
from rlkit.replay.targets import bootstrapped, warmed
from rlkit.spaces import Box, leaves
from rlkit.types import Batch, EnvSpec, Lanes, Obs, Span, State, tree_leaves, tree_map

if TYPE_CHECKING:
    from rlkit.replay.memory import Replay

ACTIONS = ("Box",)
METRICS = ("loss/critic", "q/mean", "q/target", "gradient_norm")
QUICK = {
    "steps": 8,
    "tau": 0.1,
    "noise_std": 0.3,
    "replay": {"warmup": 256, "ratio": 0.1, "batch": 128, "sequence": 8, "burn_in": 4},
}
ACTOR_METRICS = ("loss/actor", "gradient_norm/actor")
PIXEL_HIDDEN = 256  # width of the last hidden layer where images are seen


@dataclass(frozen=True)
class Config:
    """The papers' hyperparameters, with their symbols."""

    steps: int = option(1, min=1, help="T: how many transitions of each lane lie between two calls of learn")
    gamma: float = option(0.99, min=0, max=1, help="The discount of future rewards")
    tau: float = option(0.005, above=0, max=1, help="How far the target networks move at each update")
    noise: Literal["gaussian", "ou"] = option(
        "gaussian", help="The noise of exploration; ou: Ornstein-Uhlenbeck"
    )
    noise_std: float = option(0.1, min=0, help="sigma: its standard deviation, where actions span [-1, 1]")
    noise_decay: float = option(0.15, above=0, max=1, help="kappa: how fast the noise ou returns to 0")
    critics: int = option(1, min=1, max=2, help="2: the smaller of two estimates is the target (TD3)")
    smoothing: float = option(0.0, min=0, help="The standard deviation of noise on target actions (TD3: 0.2)")
    smoothing_clip: float = option(0.5, min=0, help="The largest such noise")
    actor_every: int = option(
        1, min=1, help="How many updates of the critics one of the actor follows (TD3: 2)"
    )
    actor_lr: float | None = option(None, above=0, help="The learning rate of the actor; null: optim.lr")
    replay: ReplayConfig = field(default_factory=ReplayConfig)


class Policy(contracts.Policy):
    """mu, Q and exploration.

    Its state is the network's and, last, that of the noise, which a network passes on as it is.
    """

    random: Tensor

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__()
        check(spec, config)
        if not network.hidden:
            raise ValueError("network.hidden=[]: the action enters at the last hidden layer; give one")
        self.spec, self.config = spec, config
        self.scale = action_head(spec.action)  # [-1, 1] to the bounds, which `check` has found finite
        self.noise_size = d = self.scale.noise_size
        self.names = [f"critic{i}" for i in range(config.critics)]
        trunks = dict.fromkeys(["actor", *self.names])
        self.network = Network(spec, replace(network, hidden=network.hidden[:-1]), trunks)
        self.memoryless = self.network.memoryless
        pixels = any(isinstance(leaf, Box) and leaf.image for _, leaf in leaves(spec.observation))
        shape = (PIXEL_HIDDEN if pixels else network.hidden[-1], network.activation)
        self.actor = HiddenHead(self.network.width("actor"), 0, d, *shape)
        widths = [self.network.width(name) for name in self.names]
        self.critics = nn.ModuleList([HiddenHead(width, d, 1, *shape) for width in widths])
        self.register_buffer("random", torch.tensor(config.replay.warmup > 0))  # warm-up: act at random

    def parts(self) -> tuple[nn.ModuleList, nn.ModuleList]:
        """What L_mu trains and what L_Q trains."""
        actor, critic = nn.ModuleList([self.actor]), nn.ModuleList(list(self.critics))
        read = {self.network.trunk_of[name] for name in self.names}
        for i, trunk in enumerate(zip(self.network.encoders, self.network.cores, strict=True)):
            (critic if i in read else actor).extend(trunk)
        return actor, critic

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [len(lanes), ...]."""
        x = (torch.zeros(len(lanes), self.noise_size, device=device),) if self.config.noise == "ou" else ()
        return (*self.network.initial_state(len(lanes), device), x)

    def mu(self, features: dict[str, Tensor]) -> Tensor:
        """mu(s) in [-1, 1]: [T, N, d]."""
        return torch.tanh(self.actor(features["actor"]))

    def q(self, features: dict[str, Tensor], action: Tensor) -> Tensor:
        """Q(s, a) of every critic, action [T, N, d]: [critics, T, N]."""
        pairs = zip(self.names, self.critics, strict=True)
        return torch.stack([critic(features[name], action).squeeze(-1) for name, critic in pairs])

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, d] or None for mu(s) itself -> action [N, d], state, {}."""
        rows = tree_map(lambda x: x[None], obs)
        # critics remember what the actor sees, so that a stored state starts both
        names = ["actor"] if self.network.memoryless else None
        features, state = self.network.features(rows, first[None], state, names)
        action = self.mu(features)[0]
        if noise is not None:
            x = self.config.noise_std * 2**0.5 * torch.erfinv(2 * noise - 1)  # sigma z
            if self.config.noise == "ou":
                # x <- (1 - kappa) x + sigma z, from 0 where an episode opens
                before = torch.where(first[:, None], 0.0, next(tree_leaves(state[-1])))
                x = x + (1 - self.config.noise_decay) * before
                state = (*state[:-1], (x,))
            action = torch.where(self.random, 2 * noise - 1, (action + x).clamp(-1, 1))
        return action, state, {}

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """The smallest Q(s, mu(s)): obs [T, N, ...], first [T, N] -> [T, N]."""
        features, _ = self.network.features(obs, first, state)
        return self.q(features, self.mu(features)).amin(0)

    def to_env(self, action: Tensor) -> Tensor:
        """From [-1, 1] to the bounds of the environment's actions."""
        return self.scale.to_env(action)


class Agent:
    """A policy, its targets, optimisers of actor and critics, and one call: `learn`."""

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
        self.target = copy.deepcopy(policy)
        self.target_actor, self.target_critic = (flatten(part)[0].detach() for part in self.target.parts())
        actor, critic = policy.parts()
        both = nn.ModuleList([policy, self.target])
        how: dict[str, Any] = {"precision": precision, "compile": compile, "reads": both}
        self.critic = Optimiser(critic, self.critic_loss, optim, **how)
        actor_optim = replace(optim, lr=config.actor_lr or optim.lr)
        self.actor = Optimiser(actor, self.actor_loss, actor_optim, **how)
        self._targets = Either(both, self.targets, compile)
        self.generator = torch.Generator(self.target_critic.device).manual_seed(seed)
        self.updates = 0

    def learn(self, replay: Replay, progress: float) -> dict[str, Tensor]:
        """The updates that are due; `progress` = step / total_steps drives the schedules."""
        critic: list[Tensor] = []
        actor: list[Tensor] = []
        self.critic.set_progress(progress)
        self.actor.set_progress(progress)
        for batch in replay.batches(progress):
            for policy in (self.policy, self.target):
                policy.network.observe(batch.now.obs, ~batch.now.last)
            with torch.no_grad(), self.critic.learning():
                now, y, weight = self._targets(batch, self.noise(batch))
            metrics, norm = self.critic.minimise(now, batch.action, y, weight)
            critic.append(torch.cat([metrics[:3], norm[None]]))
            replay.prioritise(batch.index, metrics[3:].view_as(y))
            self.updates += 1
            if self.updates % self.config.actor_every == 0:
                metrics, norm = self.actor.minimise(now, weight)
                actor.append(torch.cat([metrics, norm[None]]))
                soft_update(self.target_critic, self.critic.flat, self.config.tau)
                soft_update(self.target_actor, self.actor.flat, self.config.tau)
        self.policy.random.fill_(not replay.ready)
        report = {"updates": torch.full_like(self.target_critic[0], self.updates)}
        for names, seen in ((METRICS, critic), (ACTOR_METRICS, actor)):
            if seen:
                report |= dict(zip(names, torch.stack(seen).mean(0), strict=True))
        return report

    def noise(self, batch: Batch) -> tuple[Tensor, ...]:
        """The smoothing of target actions, [L, B, d]; () without."""
        if self.config.smoothing == 0:
            return ()
        z = torch.randn(batch.action.shape, generator=self.generator, device=self.generator.device)
        limit = self.config.smoothing_clip
        return ((self.config.smoothing * z).clamp_(-limit, limit),)

    def targets(self, batch: Batch, noise: tuple[Tensor, ...]) -> tuple[Span, Tensor, Tensor]:
        """The rows that are learned from with the memory before them, y [L, B], and the weights [L, B]."""
        features, _ = self.target.network.features(*batch.later.inputs)
        features = {name: x[-len(batch.action) :] for name, x in features.items()}  # of s_{t+m}, [L, B, D]
        action = self.target.mu(features)
        if noise:
            action = (action + noise[0]).clamp(-1, 1)
        value = self.target.q(features, action).amin(0)  # [L, B]
        y = bootstrapped(batch, value, self.config.gamma, self.config.replay.n_step)
        # mean 1 over transitions, times their importance, and 0 where there is none
        valid = batch.valid.float()
        weight = valid / valid.mean().clamp(min=1 / valid.numel()) * batch.weight
        now, _ = warmed(self.policy.network, batch)
        return now, y, weight

    def critic_loss(self, now: Span, action: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """L_Q, summed over critics; METRICS but the last, then |Q - y| of every row [3 + L B]."""
        features, _ = self.policy.network.features(*now.inputs, self.policy.names)
        q = self.policy.q(features, action)  # [critics, L, B]
        loss = (weight * (q - y).square().sum(0)).mean()
        with torch.no_grad():
            error = (q - y).abs().mean(0) * (weight > 0)
            means = torch.stack([loss, (weight * q[0]).mean(), (weight * y).mean()])
        return loss, torch.cat([means, error.flatten()])

    def actor_loss(self, now: Span, weight: Tensor) -> tuple[Tensor, Tensor]:
        """L_mu, and again for its metrics [1]."""
        policy, network = self.policy, self.policy.network
        with torch.no_grad():  # what a critic sees of s does not depend on the action
            features, _ = network.features(*now.inputs, ["critic0"])
        if network.trunk_of["actor"] == network.trunk_of["critic0"]:
            features["actor"] = features["critic0"]
        else:
            features |= network.features(*now.inputs, ["actor"])[0]
        q = policy.critics[0](features["critic0"], policy.mu(features)).squeeze(-1)  # [L, B]
        valid = (weight > 0).float()
        loss = -(valid * q).sum() / valid.sum().clamp(min=1)
        return loss, loss.detach()[None]

    def state_dict(self) -> dict[str, Any]:
        """What learning depends on beside the policy's own state."""
        return {
            "critic": self.critic.state_dict(),
            "actor": self.actor.state_dict(),
            "target": {name: x.clone() for name, x in self.target.state_dict().items()},
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s value."""
        self.critic.load_state_dict(state["critic"])
        self.actor.load_state_dict(state["actor"])
        self.target.load_state_dict(state["target"])
        self.updates = state["updates"]
        self.generator.set_state(state["generator"].cpu())


def feed(config: Config) -> contracts.Replayed:
    """A replay buffer."""
    return contracts.Replayed(config.steps, config.replay, config.gamma)


def check(spec: EnvSpec, config: Config) -> None:
    """Raise ValueError where DDPG cannot act in `spec`."""
    check_actions(__name__, spec.action)
    assert isinstance(spec.action, Box), "check_actions lets Boxes through"
    if not spec.action.bounded:
        raise ValueError(
            "its actions have no finite bounds, and DDPG fills a bounded Box; type agent=ppo, or bound the action "
            "space of the environment"
        )
