"""bfloat16 is tried on the observations at hand before it is used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlkit.config.compose import compose
from rlkit.nn.config import NetworkConfig
from rlkit.nn.precision import TOLERATED, gradient_error
from rlkit.options import ConfigError
from rlkit.run import probe
from rlkit.spaces import Box, Dict, Discrete, MultiDiscrete
from rlkit.types import EnvSpec

CPU = torch.device("cpu")
IMAGE = Box((2, 2, 3), "uint8", 0.0, 255.0)
MIXED = Dict((("eye", IMAGE), ("near", Box((2,), "float32")), ("gear", MultiDiscrete((2, 3), (0, 0)))))


@pytest.mark.parametrize("observation", [IMAGE, MIXED])
def test_the_error_of_bfloat16_is_that_of_its_rounding(observation):
    spec = EnvSpec("E", observation, Discrete(2), stack=2 if observation is IMAGE else 1)
    error = gradient_error(spec, NetworkConfig(), CPU, torch.bfloat16)
    assert 1e-4 < error < 0.05


class Halved(torch.autograd.Function):
    """Passes what it is given; its gradient is half of that, or was never written."""

    unwritten = False

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, grad):
        return torch.full_like(grad, torch.nan) if Halved.unwritten else grad / 2


@pytest.mark.parametrize("unwritten", [False, True])
def test_a_wrong_gradient_falls_back_to_float32_or_is_refused(unwritten, monkeypatch):
    """The gradient of what lies before the last layer is wrong in the lower precision alone."""
    linear = torch.nn.Linear.forward

    def forward(self, x):
        return linear(self, Halved.apply(x) if torch.is_autocast_enabled("cpu") else x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    monkeypatch.setattr(Halved, "unwritten", unwritten)
    spec = EnvSpec("E", IMAGE, Discrete(2))
    error = gradient_error(spec, NetworkConfig(), CPU, torch.bfloat16)
    assert error == torch.inf if unwritten else TOLERATED < error < 1
    config = compose(["preset=none"]).config
    monkeypatch.setattr(probe, "choose_precision", lambda *_: torch.bfloat16)
    notes: list[str] = []
    assert probe.tested_precision(config, spec, CPU, notes) == torch.float32
    assert len(notes) == 1 and notes[0].startswith(
        "precision: float32, because gradients in bfloat16 are wrong"
    )
    with pytest.raises(
        ConfigError, match="precision=bfloat16: gradients in bfloat16 are wrong .* type precision=float32"
    ):
        probe.tested_precision(replace(config, precision="bfloat16"), spec, CPU, notes)


def test_a_right_one_is_kept():
    config = replace(compose(["preset=none"]).config, precision="bfloat16", threads=1)
    notes: list[str] = []
    assert probe.tested_precision(config, EnvSpec("E", IMAGE, Discrete(2)), CPU, notes) == torch.bfloat16
    assert notes == []
