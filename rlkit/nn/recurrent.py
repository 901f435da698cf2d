"""Recurrent cores: LSTM and GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.cores import Core, core
from rlkit.types import State


class Recurrent(Core):
    """Layers of `gates` blocks of width D."""

    gates: int

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features, self.layers = config.core_size, config.core_layers
        size = config.core_size
        widths = [features] + [size] * (self.layers - 1)
        self.inputs = nn.ModuleList(nn.Linear(width, self.gates * size) for width in widths)
        self.hidden = nn.ModuleList(nn.Linear(size, self.gates * size) for _ in widths)
        for layer in (*self.inputs, *self.hidden):
            for block in layer.weight.chunk(self.gates):  # type: ignore[operator, union-attr]
                nn.init.orthogonal_(block)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@core("lstm")
class LSTM(Recurrent):
    gates = 4

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        zeros = torch.zeros(lanes, self.layers, self.features, device=device)
        return zeros, zeros.clone()

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        hs, cs = state
        ends = []
        for i in range(self.layers):
            h, c = hs[:, i].detach(), cs[:, i].detach()
            out = []
            for row, opens in zip(self.inputs[i](x.float()), first, strict=True):
                keep = (~opens).float()[:, None]
                h, c = h * keep, c * keep
                g_i, g_f, g_g, g_o = (row + self.hidden[i](h)).chunk(4, -1)
                c = torch.sigmoid(g_f + 1) * c + torch.sigmoid(g_i) * torch.tanh(g_g)
                h = torch.sigmoid(g_o) * torch.tanh(c)
                out.append(h)
            x = torch.stack(out)
            ends.append((h.detach(), c.detach()))
        return x, (torch.stack([h for h, _ in ends], 1), torch.stack([c for _, c in ends], 1))


@core("gru")
class GRU(Recurrent):
    gates = 3

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        return (torch.zeros(lanes, self.layers, self.features, device=device),)

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        ends = []
        for i in range(self.layers):
            h = state[0][:, i].detach()
            out = []
            for row, opens in zip(self.inputs[i](x.float()), first, strict=True):
                h = h * (~opens).float()[:, None]
                g_r, g_z, g_n = row.chunk(3, -1)
                h_r, h_z, h_n = self.hidden[i](h).chunk(3, -1)
                r, z = torch.sigmoid(g_r + h_r), torch.sigmoid(g_z + h_z)
                n = torch.tanh(g_n + r * h_n)
                h = (1 - z) * n + z * h
                out.append(h)
            x = torch.stack(out)
            ends.append(h.detach())
        return x, (torch.stack(ends, 1),)
