"""Rewards for what is new, added to those of the environment before any agent learns from them.

    r'_t = r_t + scale b_t,    b_t of the row o_{t+1} that the transition leads to

    count   b = 1 / sqrt(n(o))     n: how often the episode has shown this observation so far (floats in steps of 0.1)
    rnd     b = |g(o) - f(o)|^2 / s     f: a random network that never changes, g: one that is trained to predict it on
            what was seen, s: the running deviation of the discounted sums of these errors (Burda et al., 2019,
            "Exploration by random network distillation", arXiv:1810.12894)

Any agent learns from the sum; what is logged as the return, and every evaluation, is the environment's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.config.schema import ExplorationConfig, RunConfig
from rlkit.contracts import Saved
from rlkit.learn.steps import AdamOfTensors
from rlkit.nn.encoders import make_encoder
from rlkit.nn.norm import ReturnScale
from rlkit.options import ConfigError
from rlkit.spaces import Dict, Space, leaves
from rlkit.types import EnvSpec, Obs, Rollout, tree_map

Hashes = npt.NDArray[np.uint64]
STEP = 0.1  # floats that differ by less may count as the same observation


class Exploration(ABC):
    """Adds its bonus to rollouts, and is saved with the run."""

    def __init__(self, config: ExplorationConfig) -> None:
        self.config, self._numbers = config, dict[str, float]()

    def __call__(self, rollout: Rollout) -> Rollout:
        """The rollout with r + scale b in place of r."""
        bonus = self.bonus(rollout) * rollout.valid
        mean = float(bonus.sum() / rollout.valid.sum().clamp(min=1))
        self._numbers = {"exploration/bonus": mean, "exploration/reward": self.config.scale * mean}
        return replace(rollout, reward=rollout.reward + self.config.scale * bonus)

    def report(self) -> dict[str, float]:
        """The latest rollout's mean bonus, and what was added for it; and the method's own numbers."""
        return dict(self._numbers)

    @abstractmethod
    def bonus(self, rollout: Rollout) -> Tensor:
        """b of every transition, [T, N] float32."""

    @abstractmethod
    def state_dict(self) -> Saved:
        """What the next bonus depends on, copied."""

    @abstractmethod
    def load_state_dict(self, state: Saved) -> None:
        """Continue from there."""


class Count(Exploration):
    """Episodic counts. The hashes of the running episodes' rows are kept, in the order of time."""

    def __init__(self, config: ExplorationConfig) -> None:
        super().__init__(config)
        self.hashes, self.lanes = np.zeros(0, np.uint64), np.zeros(0, np.int64)  # [K] of rows counted so far
        self.latest = np.zeros(0, np.uint64)  # [N] of the latest row

    def bonus(self, rollout: Rollout) -> Tensor:
        hashed = row_hashes(rollout.obs)  # [T+1, N]
        first = rollout.first.cpu().numpy()
        if self.latest.shape != hashed.shape[1:]:
            self.latest = hashed[0] + np.uint64(1)  # no row was counted
        # row 0 was counted as the last one of the rollout before, unless the environment was opened anew
        new = self.latest != hashed[0]
        episode = np.cumsum(first[1:], 0)  # [T, N] 0: the one that row 0 belongs to
        lane = np.broadcast_to(np.arange(hashed.shape[1]), episode.shape)
        keep = ~new[self.lanes] if len(self.lanes) else np.zeros(0, np.bool_)
        before = int(keep.sum()) + int(new.sum())
        hashes = np.concatenate([self.hashes[keep], hashed[0][new], hashed[1:].ravel()])
        lanes = np.concatenate([self.lanes[keep], np.flatnonzero(new), lane.ravel()])
        episodes = np.concatenate([np.zeros(before, np.int64), episode.ravel()])
        count = occurrences(hashes, lanes, episodes)[before:].reshape(episode.shape)
        runs = episodes == episode[-1][lanes]  # of the episodes that go on
        self.hashes, self.lanes, self.latest = hashes[runs], lanes[runs], hashed[-1].copy()
        return torch.from_numpy((1 / np.sqrt(count)).astype(np.float32)).to(rollout.reward.device)

    def state_dict(self) -> Saved:
        return {name: getattr(self, name).copy() for name in ("hashes", "lanes", "latest")}

    def load_state_dict(self, state: Saved) -> None:
        for name, value in state.items():
            setattr(self, name, value.copy())


def row_hashes(obs: Obs) -> Hashes:
    """Rows [T+1, N, ...] -> [T+1, N] hashes of 64 bits: sums of their bytes times fixed odd numbers."""
    parts = [obs] if isinstance(obs, Tensor) else [obs[name] for name in sorted(obs)]
    total: Hashes = np.zeros(parts[0].shape[:2], np.uint64)
    for k, part in enumerate(parts):
        rows = part.cpu().numpy()
        if rows.dtype.kind == "f":
            rows = np.rint(rows / STEP).astype(np.int32)
        flat = np.ascontiguousarray(rows).reshape(*rows.shape[:2], -1)
        codes = flat.astype(np.int64).view(np.uint64)
        factors = np.random.default_rng(k).integers(0, 2**63, flat.shape[-1], dtype=np.uint64) * np.uint64(2)
        mixed = (codes + np.uint64(1)) * (factors + np.uint64(1))
        total += (mixed ^ (mixed >> np.uint64(29))).sum(-1, dtype=np.uint64)
    return total


def occurrences(
    hashes: Hashes, lanes: npt.NDArray[np.int64], episodes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How often each row [K] has occurred in its lane's episode so far, itself included; rows in the order of time."""
    order = np.lexsort((np.arange(len(hashes)), hashes, episodes, lanes))
    ordered = [each[order] for each in (hashes, episodes, lanes)]
    opens = np.ones(len(hashes), np.bool_)
    opens[1:] = np.any([each[1:] != each[:-1] for each in ordered], 0)
    place = np.arange(len(hashes))
    count = np.empty(len(hashes), np.int64)
    count[order] = place - np.maximum.accumulate(np.where(opens, place, 0)) + 1
    return count


class RND(Exploration):
    """Random network distillation, on the newest frame of what the network reads."""

    def __init__(
        self, config: ExplorationConfig, spec: EnvSpec, run: RunConfig, device: torch.device
    ) -> None:
        super().__init__(config)
        inputs = spec.inputs
        if isinstance(inputs, Dict) and not leaves(inputs):
            raise ConfigError(
                "exploration=rnd: the observation holds nothing but masks and labels; type exploration=count or none"
            )
        # a generator of its own: the run's weights are those of exploration=none
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed + 1)
            self.networks = nn.ModuleList(Features(inputs, run, depth) for depth in (0, 1)).to(device)
        self.target, self.predictor = (each for each in self.networks if isinstance(each, Features))
        self.target.requires_grad_(False)
        self.optim = AdamOfTensors(self.predictor.parameters(), config.rnd_lr)
        self.scale = ReturnScale(config.rnd_gamma).to(device)

    def bonus(self, rollout: Rollout) -> Tensor:
        obs = tree_map(lambda x: x.to(rollout.reward.device), rollout.obs)
        valid = rollout.valid
        after = tree_map(lambda x: x[1:], obs)
        for each in (self.target, self.predictor):
            each.encoder.observe(after, valid)
        flat = tree_map(lambda x: x.flatten(0, 1), after)  # [T*N, ...]
        errors, loss = [], 0.0
        chunks = torch.split(valid.flatten(), self.config.rnd_batch)
        for i, real in enumerate(chunks):
            rows = tree_map(
                lambda x, i=i: x[i * self.config.rnd_batch : (i + 1) * self.config.rnd_batch], flat
            )
            error = (self.predictor(rows) - self.target(rows)).square().mean(-1)  # [B]
            step = (error * real).sum() / real.sum().clamp(min=1)
            self.optim(step)
            errors.append(error.detach())
            loss += float(step.detach()) / len(chunks)
        error = torch.cat(errors).view_as(rollout.reward)
        self.loss = loss
        bonus: Tensor = self.scale(error * valid, rollout.first, rollout.last)
        return bonus

    def report(self) -> dict[str, float]:
        return super().report() | {"exploration/loss": self.loss}

    def state_dict(self) -> Saved:
        return {
            "networks": tree_map(torch.clone, dict(self.networks.state_dict())),
            "optim": tree_map(torch.clone, dict(enumerate(self.optim.state))),
            "scale": tree_map(torch.clone, dict(self.scale.state_dict())),
        }

    def load_state_dict(self, state: Saved) -> None:
        self.networks.load_state_dict(state["networks"])
        self.scale.load_state_dict(state["scale"])
        self.optim.load(state["optim"])


class Features(nn.Module):
    """An encoder, `depth` more layers, and 64 features."""

    def __init__(self, space: Space, run: RunConfig, depth: int) -> None:
        super().__init__()
        config = replace(run.network, hidden=(128,), activation="relu", normalize=True)
        self.encoder = make_encoder(space, 1, config)
        width = self.encoder.features
        layers: list[nn.Module] = [
            each for _ in range(depth) for each in (nn.Linear(width, width), nn.ReLU())
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 64))

    def forward(self, obs: Obs) -> Tensor:
        """[B, ...] -> [B, 64]."""
        return self.layers(self.encoder(obs))  # type: ignore[no-any-return]


def make_exploration(spec: EnvSpec, config: RunConfig, device: torch.device) -> Exploration | None:
    """What config.exploration names, None for none. Raises ConfigError where it cannot be."""
    if config.exploration.name == "none":
        return None
    if config.exploration.name == "count":
        if config.source.name == "ray" and config.source.mode == "async":
            raise ConfigError(
                "exploration=count: counts along the episodes of all lanes, whose rows source.mode=async mixes; type "
                "exploration=rnd, or source.mode=sync"
            )
        return Count(config.exploration)
    return RND(config.exploration, spec, config, device)
