"""A gated transformer over a sliding window of rows: GTrXL (Parisotto et al., 2019, arXiv:1910.06764).

    e = W x                                              the rows, at width D
    for each layer, at row t of an episode:
        s_d = q_t . k_{t-d} / sqrt(D / heads) + b_d      d = 0 .. window-1, rows of this episode alone
        y_t = sum_d softmax(s)_d v_{t-d}                 q, k, v: linear in LN(e), per head
        e'  = gate(e, relu(W_y y))
        e   = gate(e', relu(W_2 relu(W_1 LN(e'))))
    gate(x, y):
        r = sigmoid(W_r y + U_r x),   z = sigmoid(W_z y + U_z x - 2),   h = tanh(W_h y + U_h (r x))
        gate = (1 - z) x + z h                           with bias 2 close to x at the start

Position is relative: one learned number b_d per head and distance. The window is finite, so that is every distance
there is; the sinusoids of Transformer-XL serve distances not seen in training, at two more products per layer.

Layer l reads `window` rows of the output of layer l-1, so row t depends on rows t - layers (window-1) .. t. The state
holds the newest window-1 rows of every layer's inputs [N, layers, window-1, D] and how many of them belong to the
lane's episode [N]; keys and values are computed from them anew, as in Transformer-XL: half the memory of a cache of
keys and values, and their weights learn from cached rows too.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import Core
from rlkit.nn.registry import core
from rlkit.types import State

GATE_BIAS = 2.0
BLOCK = 64  # rows attended to at once: longer calls would compute mostly masked scores


@core("transformer")
class Transformer(Core):
    """GTrXL with `core_layers` layers of width `core_size`, `core_heads` heads and a `window`."""

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features, self.window = config.core_size, config.window
        self.embed = nn.Linear(features, config.core_size)
        self.blocks = nn.ModuleList(
            Layer(config.core_size, config.core_heads, config.window) for _ in range(config.core_layers)
        )

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        shape = (lanes, len(self.blocks), self.window - 1, self.features)
        return torch.zeros(shape, device=device), torch.zeros(lanes, dtype=torch.int64, device=device)

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        cache, count = cast(tuple[Tensor, Tensor], state)
        caches = cache.detach().permute(1, 2, 0, 3)  # [layers, window-1, N, D]
        with torch.autocast(x.device.type, enabled=False):
            x = self.embed(x.float())
            if len(x) <= BLOCK:
                x, caches, count = self._rows(x, first, caches, count)
            else:
                parts = []
                for rows, starts in zip(torch.split(x, BLOCK), torch.split(first, BLOCK), strict=True):
                    y, caches, count = self._rows(rows, starts, caches, count)
                    parts.append(y)
                x = torch.cat(parts)
        return x, (caches.detach().permute(2, 0, 1, 3).contiguous(), count)

    def _rows(self, e: Tensor, first: Tensor, caches: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """e [T, N, D], first [T, N], caches [layers, window-1, N, D], count [N] -> y, caches, count after."""
        rows, cached = len(e), self.window - 1
        time = torch.arange(rows + cached, device=e.device)
        # where each row's episode starts among [cached rows; rows]
        start = torch.where(first, time[cached:, None], cached - count)  # [T, N]
        if (
            rows > 1
        ):  # the largest so far; of a single row it is the row, and exported graphs have no such operator
            start = start.cummax(0).values
        earlier = time < start.t()[:, None, :, None]  # [N, 1, T, window-1+T]: belongs to an episode before
        after = []
        for layer, cache in zip(self.blocks, caches.unbind(0), strict=True):
            context = torch.cat([cache, e])  # [window-1+T, N, D]
            after.append(context[rows:])
            e = layer(e, context, earlier)
        return e, torch.stack(after), (cached + rows - start[-1]).clamp(max=cached)


class Layer(nn.Module):
    """Attention and a feed-forward network of width 4 D, each behind a gate."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.distance = nn.Parameter(torch.zeros(heads, window))  # b, the farthest first
        self.attention_norm, self.forward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)  # per head: k, then v
        self.attended = nn.Linear(size, size)
        self.attention_gate, self.forward_gate = Gate(size), Gate(size)
        self.wide, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, e: Tensor, context: Tensor, earlier: Tensor) -> Tensor:
        """e [T, N, D], context [window-1+T, N, D], earlier [N, 1, T, window-1+T] -> [T, N, D]."""
        rows = e.view(-1, self.size)  # [T*N, D]
        y = self.attend(self.attention_norm(context), earlier)
        rows = self.attention_gate(rows, F.relu(self.attended(y)))
        y = F.relu(self.narrow(F.relu(self.wide(self.forward_norm(rows)))))
        return self.forward_gate(rows, y).view_as(e)  # type: ignore[no-any-return]

    def attend(self, context: Tensor, earlier: Tensor) -> Tensor:
        """Each of the last T rows of context [window-1+T, N, D] to the window that ends in it: [T*N, D].

        Time comes first throughout, so that lanes and heads are one batch dimension without a copy.
        """
        length, lanes, _ = context.shape
        rows, batch, head = earlier.shape[2], lanes * self.heads, self.size // self.heads
        q = self.query(context[-rows:]).view(rows, batch, head).transpose(0, 1)  # [N*H, T, d]
        k, v = self.key_value(context).view(length, batch, 2, head).unbind(2)  # [window-1+T, N*H, d] each
        bias = torch.where(earlier, -torch.inf, self.band(rows)).flatten(0, 1)
        scores = torch.baddbmm(bias, q, k.permute(1, 2, 0), alpha=head**-0.5)  # [N*H, T, window-1+T]
        y: Tensor = scores.softmax(-1) @ v.transpose(0, 1)  # [N*H, T, d]
        return y.transpose(0, 1).reshape(-1, self.size)

    def band(self, rows: int) -> Tensor:
        """b of every (row, place in [cached rows; rows]), -inf outside the row's window: [H, T, window-1+T].

        Row t is b moved t places to the right: rows of window + T values, read as rows one value shorter.
        """
        length = self.distance.shape[1] + rows - 1
        if rows == 1:
            return self.distance[:, None]
        padded = F.pad(self.distance, (0, rows), value=-torch.inf)  # [H, window+T]
        return padded.repeat(1, rows)[:, : rows * length].view(self.heads, rows, length)


class Gate(nn.Module):
    """The gate of a GRU in place of a residual sum: close to x at the start."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.y = nn.Linear(size, 3 * size)  # W_r, W_z, W_h and biases
        self.x, self.reset = (
            nn.Linear(size, 2 * size, bias=False),
            nn.Linear(size, size, bias=False),
        )  # U_r, U_z; U_h
        with torch.no_grad():
            self.y.bias[size : 2 * size] = -GATE_BIAS

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [B, D] -> [B, D]."""
        y_rz, y_h = torch.split(self.y(y), [2 * self.size, self.size], 1)
        r, z = torch.addmm(y_rz, x, self.x.weight.t()).sigmoid().chunk(2, 1)
        h = torch.addmm(y_h, r * x, self.reset.weight.t()).tanh()
        return torch.lerp(x, h, z)
