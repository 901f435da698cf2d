"""Noise in weights, for exploration that is learned (Fortunato et al., 2018, arXiv:1706.10295).

    y = (mu_w x + mu_b) + (sigma_w * eps_w) x + sigma_b * eps_b
    eps_w = f(e_out) f(e_in)^T,   eps_b = f(e_out),   f(e) = sign(e) sqrt|e|,   e_in, e_out ~ N(0, 1)

The first part is an ordinary linear head, the second one is `Noise`; who wants the mean leaves it out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """The noisy part of a linear head: x [..., inputs] -> [..., outputs]; 0 until the first `resample`."""

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        start = sigma / math.sqrt(inputs)  # sigma_0 / sqrt(p), the paper's
        self.weight = nn.Parameter(torch.full((outputs, inputs), start))
        self.bias = nn.Parameter(torch.full((outputs,), start))
        self.register_buffer("noise_in", torch.zeros(inputs))  # f(e_in); travels with the weights
        self.register_buffer("noise_out", torch.zeros(outputs))  # f(e_out)

    def resample(self, generator: torch.Generator) -> None:
        """New e_in and e_out, written in place."""
        for noise in (self.noise_in, self.noise_out):
            noise.normal_(generator=generator)
            noise.copy_(noise.sign() * noise.abs().sqrt())

    def forward(self, x: Tensor) -> Tensor:
        # ((sigma_w * f(e_out) f(e_in)^T) x)_j = f(e_out)_j (sigma_w (f(e_in) * x))_j
        return self.noise_out * nn.functional.linear(x * self.noise_in, self.weight, self.bias)
