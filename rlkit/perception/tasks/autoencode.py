"""What a row looks like, through a bottleneck of few numbers.

    kind=plain    z = f(x),                        L = -log N(x; g(z), s^2)
    kind=vae      z ~ q(z|x) = N(mu(x), sigma(x)^2),   L = -E log N(x; g(z), s^2) + beta KL(q || N(0, I))

(Kingma and Welling, 2014, arXiv:1312.6114; one learned s for all numbers, so that no weight between both terms is to
be chosen: Rybkin, Daniilidis and Levine, 2021, arXiv:2006.13202.) Sums run over the numbers of a row, pixels between 0
and 1. Score of a row: plain: the negative mean of (x - g(z))^2; vae: the negative loss per number, with beta = 1 the
evidence lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.pixels import Pixels
from rlkit.options import ConfigError, option
from rlkit.perception import model
from rlkit.perception.decoders import Decoder
from rlkit.perception.model import Rows
from rlkit.perception.table import Table
from rlkit.spaces import Box, describe
from rlkit.types import EnvSpec, Obs

DEFAULTS = {"optim.lr": 1e-3, "optim.lr_schedule": "cosine", "epochs": 10}


@dataclass(frozen=True)
class Config:
    kind: Literal["plain", "vae"] = option(
        "vae", help="plain: z is a function of the row; vae: a distribution"
    )
    size: int = option(32, min=1, help="How many numbers z has")
    beta: float = option(1.0, min=0, help="vae: the weight of the KL divergence (Higgins et al., 2017)")


class Model(model.Model):
    """Encoder, bottleneck, decoder."""

    METRICS = ("loss/likelihood", "loss/kl", "loss/deviation")

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        space = spec.observation
        if not isinstance(space, Box) or space.meaning:
            raise ConfigError(
                f"this task learns pictures and vectors of numbers; the table shows {describe(space)}"
            )
        self.vae, self.z = config.kind == "vae", config.size
        super().__init__(spec, network, {"label": (config.size * (2 if self.vae else 1), 1.0)})
        self.perfect = None if self.vae else 0.0
        self.beta, self.noise_size = config.beta, config.size if self.vae else 0
        self.pixels: Pixels | None = None
        self.decoder: nn.Module
        if space.image:
            self.pixels = Pixels(space, spec.stack, "autoencode")
            self.decoder = Decoder(config.size, self.pixels.size, self.pixels.channels)
        elif len(space.shape) == 1 and spec.stack == 1:
            self.decoder = nn.Linear(config.size, space.shape[0])
        else:
            raise ConfigError(f"this task learns pictures and vectors; the table shows {describe(space)}")
        self.log_s = nn.Parameter(torch.zeros(()))

    def target(self, obs: Obs) -> Tensor:
        """What is to be seen again: [B, C, H, W] in [0, 1], or the vector [B, d]."""
        assert isinstance(obs, Tensor), "a single input"
        if self.pixels is None:
            return obs.float()
        with torch.autocast(obs.device.type, enabled=False):
            found: Tensor = self.pixels(obs)
        return found

    def code(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """obs [B, ...] -> mean and log standard deviation of z, each [B, size]; plain: the latter is not learned."""
        outputs = self.outputs(obs)
        if not self.vae:
            return outputs, torch.zeros_like(outputs)
        mean, log_std = outputs[:, : self.z], outputs[:, self.z :]
        return mean, log_std.clamp(-10, 10)

    def terms(self, obs: Obs, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """-log N(x; g(z), s^2) and KL of each row, [B]; noise: uniforms [B, size], None for the mean of z."""
        mean, log_std = self.code(obs)
        z = mean
        if self.vae and noise is not None:
            z = mean + log_std.exp() * math.sqrt(2) * torch.erfinv(2 * noise - 1)
        x = self.target(obs)
        away = (x - self.decoder(z).float()) * torch.exp(-self.log_s)
        numbers = x[0].numel()
        likelihood = 0.5 * away.square().flatten(1).sum(1) + numbers * (
            self.log_s + 0.5 * math.log(2 * math.pi)
        )
        if not self.vae:
            return likelihood, torch.zeros_like(likelihood)
        # KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - log v) / 2
        kl = 0.5 * (mean.square() + torch.exp(2 * log_std) - 1 - 2 * log_std).sum(1)
        return likelihood, kl

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        noise = batch.get("noise")
        assert noise is None or isinstance(noise, Tensor), "uniforms"
        likelihood, kl = self.terms(batch["obs"], noise)
        numbers = self.target(batch["obs"][:1])[0].numel()  # type: ignore[index]
        loss = (likelihood + self.beta * kl).mean() / numbers
        terms = torch.stack([likelihood.mean() / numbers, kl.mean(), self.log_s.exp()])
        return loss, terms.detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """z [B, size] (its mean); picture [B, C, H, W] in [0, 1], or the vector [B, d]."""
        mean, _ = self.code(obs)
        return {"z": mean, "picture": self.decoder(mean).float()}

    def score(self, batch: Rows) -> Tensor:
        obs = batch["obs"]
        x = self.target(obs)
        if not self.vae:
            wrong: Tensor = (x - self.decoder(self.code(obs)[0]).float()).square()
            return -wrong.flatten(1).mean(1)
        noise = batch.get("noise")
        assert isinstance(noise, Tensor), "uniforms"
        likelihood, kl = self.terms(obs, noise)
        return -(likelihood + self.beta * kl) / x[0].numel()


def label(table: Table, config: Config) -> str:
    """There is none: the row itself is what is predicted."""
    return ""
