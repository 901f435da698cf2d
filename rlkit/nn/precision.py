"""Whether a lower precision computes the gradients of an encoder; in some releases of torch it fails on some shapes.

The gradient of one random batch is computed in both precisions, several times: what is read from memory that nobody
has written differs from call to call, so freed memory is filled with NaN before each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import make_encoder
from rlkit.spaces import Dict, Discrete, MultiDiscrete, leaves, row_dtype
from rlkit.types import EnvSpec, Obs

BATCH, TRIES = 16, 5
TOLERATED = 0.2  # bfloat16 is off by 0.005 to 0.02 where it works


def gradient_error(spec: EnvSpec, config: NetworkConfig, device: torch.device, dtype: torch.dtype) -> float:
    """How far an encoder's gradient in `dtype` lies from that in float32, as a share of its norm: the worst of TRIES.

    NaN counts as infinitely far.
    """
    encoder = make_encoder(spec.inputs, spec.stack, config).to(device)
    parameters = [each for each in encoder.parameters() if each.requires_grad]
    obs = _random_rows(spec, device)

    def gradient(enabled: bool) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=enabled):
            features = encoder(obs)
        found = torch.autograd.grad(features.float().square().mean(), parameters, allow_unused=True)
        return torch.cat([grad.flatten().float() for grad in found if grad is not None])

    if not parameters:
        return 0.0
    exact, worst = gradient(False), 0.0
    for _ in range(TRIES):
        junk = [torch.full_like(each, torch.nan) for each in parameters]
        del junk
        error = float((gradient(True) - exact).norm() / exact.norm().clamp(min=1e-12))
        worst = max(worst, error if error == error else torch.inf)
    return worst


def _random_rows(spec: EnvSpec, device: torch.device) -> Obs:
    """A batch of observations as an encoder reads them, [B, ...] or with a frame stack [B, k, ...]."""
    generator, rows = torch.Generator().manual_seed(0), {}
    for name, leaf in leaves(spec.inputs):
        shape = (BATCH, *([spec.stack] if spec.stack > 1 else []), *leaf.shape)
        dtype = getattr(torch, row_dtype(leaf))
        if dtype == torch.float32:
            rows[name] = torch.randn(shape, generator=generator)
            continue
        high = 256 if dtype == torch.uint8 else 2
        if isinstance(leaf, Discrete | MultiDiscrete):
            high = leaf.n if isinstance(leaf, Discrete) else min(leaf.nvec)
        rows[name] = torch.randint(0, high, shape, generator=generator, dtype=dtype)
    rows = {name: row.to(device) for name, row in rows.items()}
    return rows if isinstance(spec.inputs, Dict) else rows[""]
