"""An encoder and a core of one's own, outside the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import Core
from rlkit.nn.encoders import MLP, Encoder, Flatten
from rlkit.spaces import Space
from rlkit.types import State


def wide(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """One wide layer over anything, flattened."""
    return MLP(Flatten(space, stack), (24,), nn.SiLU)


class Leaky(Core):
    """h_t = tanh(W x_t + h_{t-1} / 2)."""

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features = config.core_size
        self.read = nn.Linear(features, config.core_size)

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        return (torch.zeros(lanes, self.features, device=device),)

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        h = state[0].detach()  # type: ignore[union-attr]
        with torch.autocast(x.device.type, enabled=False):
            rows = []
            for read, opens in zip(self.read(x.float()), first, strict=True):
                h = torch.tanh(read + torch.where(opens[:, None], 0.0, 0.5 * h))
                rows.append(h)
        return torch.stack(rows), (h.detach(),)
