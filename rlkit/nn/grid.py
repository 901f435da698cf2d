"""The encoder `grid`: a board or a field of view whose cells hold codes, such as MiniGrid's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import Encoder, orthogonal
from rlkit.nn.lookup import Codes
from rlkit.nn.registry import encoder
from rlkit.spaces import Space

EMBEDDING = 16  # the numbers that stand for a cell
FEATURES = 128


@encoder("grid")
def grid(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """16 learned numbers a cell, 32 3x3, 64 3x3, 128 features; ReLU throughout."""
    return Grid(Codes(space, stack, EMBEDDING, "grid"))


class Grid(Encoder):
    """Codes through a table and two convolutions, which keep a side of less than 5 cells, then a linear layer."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes = codes
        padding = int(codes.size[0] < 5), int(codes.size[1] < 5)
        layers = nn.Sequential(
            nn.Conv2d(codes.width, 32, 3, padding=padding),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, padding=padding),
            nn.ReLU(inplace=True),
        )
        self.layers = orthogonal(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            size = self.layers(torch.zeros(1, codes.width, *codes.size)).numel()
        self.linear = orthogonal(nn.Linear(size, FEATURES))
        self.features = FEATURES

    def forward(self, obs: Tensor) -> Tensor:
        """uint8 [B, H, W, C] -> [B, features]."""
        x = self.codes(obs).permute(0, 3, 1, 2)  # [B, E, H, W], in channels-last memory
        return F.relu(self.linear(self.layers(x).flatten(1)))
