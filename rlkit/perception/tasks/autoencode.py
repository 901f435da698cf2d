"""What a row looks like, through a bottleneck of few numbers.

    kind=plain     z = f(x),                            L = -log N(x; g(z), s^2)
    kind=denoise   z = f(x + noise e),  e ~ N(0, I),    L = -log N(x; g(z), s^2)
    kind=vae       z ~ q(z|x) = N(mu(x), sigma(x)^2),   L = -E log N(x; g(z), s^2) + beta KL(q || N(0, I))

(denoise: Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with denoising
autoencoders", 2008; vae: Kingma and Welling, 2014, arXiv:1312.6114.) Pictures are between 0 and 1, vectors in standard
units: the noise is a share of these. Disturbed pixels are rounded and cut to what pixels can be; what is missing stays
missing. How x, g and s are made: `rlkit.perception.likelihood`.

Score of a row, which is not disturbed: plain and denoise: the negative mean of (x - g(z))^2; vae: the negative loss per
number, with beta = 1 the evidence lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rlkit.nn.config import NetworkConfig
from rlkit.options import option
from rlkit.perception.likelihood import Describing, kl, normals
from rlkit.perception.model import Rows
from rlkit.perception.table import Table
from rlkit.spaces import Box
from rlkit.types import EnvSpec, Obs

DEFAULTS = {"optim.lr": 1e-3, "optim.lr_schedule": "cosine", "network.standardize": True, "epochs": 10}


@dataclass(frozen=True)
class Config:
    kind: Literal["plain", "denoise", "vae"] = option(
        "vae", help="plain: z is a function of the row; denoise: of the disturbed row; vae: a distribution"
    )
    size: int = option(32, min=1, help="How many numbers z has")
    beta: float = option(1.0, min=0, help="vae: the weight of the KL divergence (Higgins et al., 2017)")
    noise: float = option(
        0.3,
        above=0,
        help="denoise: the deviation of the noise, as a share of the pixels' range, in standard units",
    )


class Model(Describing):
    """Encoder, bottleneck, decoder."""

    METRICS = ("loss/likelihood", "loss/kl", "loss/deviation")
    low: Tensor
    high: Tensor

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        self.kind, self.z = config.kind, config.size
        outputs = config.size * (2 if config.kind == "vae" else 1)
        super().__init__(spec, network, {"label": (outputs, 1.0)}, config.size)
        self.perfect = None if self.kind == "vae" else 0.0
        self.beta, self.noise = config.beta, config.noise
        space = spec.observation
        assert isinstance(space, Box), "pictures and vectors are boxes"
        numbers = spec.stack * int(np.prod(space.shape))
        self.noise_size = {"plain": 0, "denoise": numbers, "vae": config.size}[self.kind]
        for name in ("low", "high"):
            bound = torch.tensor(np.clip(getattr(space, name), 0, 255), dtype=torch.float32)
            self.register_buffer(name, bound, persistent=False)

    def disturbed(self, obs: Obs, noise: Tensor) -> Tensor:
        """obs [B, ...] with noise, in its dtype; noise: uniforms [B, d]."""
        assert isinstance(obs, Tensor), "a single input"
        e = self.noise * normals(noise).view(obs.shape)
        if self.units is not None:
            return (obs + e * self.units.deviation).float()
        x = obs.float() + e * (self.high - self.low)
        return x.round().clamp(self.low, self.high).to(obs.dtype)

    def code(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """obs [B, ...] -> mean and log standard deviation of z, each [B, size]; the latter is learned by vae alone."""
        outputs = self.outputs(obs)
        if self.kind != "vae":
            return outputs, torch.zeros_like(outputs)
        mean, log_std = outputs[:, : self.z], outputs[:, self.z :]
        return mean, log_std.clamp(-10, 10)

    def terms(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """-log N(x; g(z), s^2) and KL of each row, [B]."""
        obs, noise = batch["obs"], batch.get("noise")
        assert noise is None or isinstance(noise, Tensor), "uniforms"
        if self.kind != "vae":
            seen = obs if noise is None else self.disturbed(obs, noise)
            likelihood = self.log_likelihood(obs, self.code(seen)[0])
            return -likelihood, torch.zeros_like(likelihood)
        assert noise is not None, "a sample of z is drawn"
        mean, log_std = self.code(obs)
        z = mean + log_std.exp() * math.sqrt(2) * torch.erfinv(2 * noise - 1)
        return -self.log_likelihood(obs, z), kl(mean, log_std)

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        likelihood, divergence = self.terms(batch)
        loss = (likelihood + self.beta * divergence).mean() / self.numbers
        terms = torch.stack([likelihood.mean() / self.numbers, divergence.mean(), self.log_s.exp()])
        return loss, terms.detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """z [B, size] (its mean); picture [B, C, H, W] in [0, 1], or the vector [B, d] in its units."""
        mean, _ = self.code(obs)
        return {"z": mean, "picture": self.shown(self.decoder(mean).float())}

    def score(self, batch: Rows) -> Tensor:
        if self.kind != "vae":
            obs = batch["obs"]
            wrong = self.errors(obs, self.code(obs)[0]).square().sum(1)
            return -wrong / torch.as_tensor(self.present(obs)).clamp(min=1)
        likelihood, divergence = self.terms(batch)
        return -(likelihood + self.beta * divergence) / self.numbers


def label(table: Table, config: Config) -> str:
    """There is none: the row itself is what is predicted."""
    return ""
