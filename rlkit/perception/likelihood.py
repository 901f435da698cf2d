"""Models that say what a row looks like: p(x | c) of pictures and of vectors of numbers, c a code of few numbers.

    log p(x | c) = log N(x; g(c), s^2) = -sum_j [ (x_j - g_j(c))^2 / (2 s^2) + log s + log(2 pi) / 2 ]

x are the pixels between 0 and 1, or the numbers in standard units of the training rows; g is a decoder, s one learned
number, so that no weight between this and other terms is to be chosen (Rybkin, Daniilidis and Levine, 2021,
arXiv:2006.13202). Sums run over the numbers that are there: what is missing in a row (NaN) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Head
from rlkit.nn.norm import StandardUnits
from rlkit.nn.pixels import Pixels
from rlkit.options import ConfigError
from rlkit.perception import model
from rlkit.perception.decoders import Decoder
from rlkit.spaces import Box, describe
from rlkit.types import EnvSpec, Obs


class Describing(model.Model):
    """A model with a decoder. code: the width of c."""

    def __init__(self, spec: EnvSpec, network: NetworkConfig, heads: Mapping[str, Head], code: int) -> None:
        space = spec.observation
        picture = isinstance(space, Box) and space.image and not space.meaning
        vector = isinstance(space, Box) and not space.meaning and len(space.shape) == 1 and spec.stack == 1
        if not isinstance(space, Box) or not (picture or vector):
            raise ConfigError(
                f"this task learns pictures, and vectors of numbers with stack=1; the table shows {describe(space)}"
                f"{f', stack={spec.stack}' if spec.stack > 1 else ''}; make one column [rows, numbers] of it"
            )
        super().__init__(spec, network, heads)
        self.pixels: Pixels | None = None
        self.units: StandardUnits | None = None
        self.decoder: nn.Module
        if picture:
            self.pixels = Pixels(space, spec.stack, "autoencode")
            self.decoder = Decoder(code, self.pixels.size, self.pixels.channels)
            self.numbers = self.pixels.channels * math.prod(self.pixels.size)  # d, of a row
        else:
            self.units = StandardUnits(space.shape[0])
            self.decoder = nn.Linear(code, space.shape[0])
            self.numbers = space.shape[0]
        self.log_s = nn.Parameter(torch.zeros(()))

    def prepare(self, obs: Obs, label: Tensor | None) -> None:
        super().prepare(obs, label)
        if self.units is not None:
            assert isinstance(obs, Tensor), "a single input"
            self.units.update(obs)

    def target(self, obs: Obs) -> Tensor:
        """x: [B, C, H, W] in [0, 1], or [B, d] in standard units, 0 where a number is missing."""
        assert isinstance(obs, Tensor), "a single input"
        if self.units is not None:
            return self.units.scaled(obs)
        assert self.pixels is not None, "a picture, where it is no vector"
        with torch.autocast(obs.device.type, enabled=False):
            found: Tensor = self.pixels(obs)
        return found

    def shown(self, x: Tensor) -> Tensor:
        """x as the table shows it: pixels stay between 0 and 1, numbers get their units back."""
        return x if self.units is None else (x * self.units.deviation + self.units.mean).float()

    def present(self, obs: Obs) -> Tensor | int:
        """How many numbers of each row are there."""
        assert isinstance(obs, Tensor), "a single input"
        return self.numbers if self.units is None else (~obs.isnan()).sum(1)

    def errors(self, obs: Obs, code: Tensor) -> Tensor:
        """x - g(c), flat [B, d], 0 where a number is missing. code: [B, size]."""
        wrong = (self.target(obs) - self.decoder(code).float()).flatten(1)
        return wrong if self.units is None else torch.where(obs.isnan(), 0.0, wrong)  # type: ignore[union-attr]

    def log_likelihood(self, obs: Obs, code: Tensor) -> Tensor:
        """log p(x | c) of each row, [B]."""
        away = self.errors(obs, code) * torch.exp(-self.log_s)
        spread = self.log_s + 0.5 * math.log(2 * math.pi)
        return -(0.5 * away.square().sum(1) + self.present(obs) * spread)


def kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - log v) / 2, summed over the last axis."""
    return 0.5 * (mean.square() + torch.exp(2 * log_std) - 1 - 2 * log_std).sum(-1)


def normals(noise: Tensor) -> Tensor:
    """Standard normal numbers of uniforms in (0, 1)."""
    return math.sqrt(2) * torch.erfinv(2 * noise - 1)
