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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.cores import Core, core
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
        cache, count = state
        cache = cache.detach()  # type: ignore[union-attr]
        with torch.autocast(x.device.type, enabled=False):
            e = self.embed(x.float().transpose(0, 1))  # [T, N, F] -> [N, T, D]
            parts = []
            for rows, starts in zip(e.split(BLOCK, 1), first.split(BLOCK), strict=True):
                y, cache, count = self._rows(rows, starts, cache, count)  # type: ignore[arg-type]
                parts.append(y)
        return torch.cat(parts, 1).transpose(0, 1), (cache.detach(), count)

    def _rows(self, e: Tensor, first: Tensor, cache: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """e [N, T, D], first [T, N], cache [N, layers, window-1, D], count [N] -> y [N, T, D], cache, count."""
        cached, rows = self.window - 1, e.shape[1]
        time = torch.arange(rows, device=e.device)[:, None]  # [T, 1]
        # where the row's episode starts among [cached rows; rows]
        start = torch.where(first, time, -count).cummax(0).values + cached  # [T, N]
        place = torch.arange(cached + rows, device=e.device)
        other = place < start.T[:, None, :, None]  # [N, 1, T, window-1+T]: rows of earlier episodes
        caches = []
        for layer, before in zip(self.blocks, cache.unbind(1), strict=True):
            context = torch.cat([before, e], 1)  # [N, window-1+T, D]
            caches.append(context[:, rows:])
            e = layer(e, context, other)
        return e, torch.stack(caches, 1), (cached + rows - start[-1]).clamp(max=cached)


class Layer(nn.Module):
    """Attention and a feed-forward network of width 4 D, each behind a gate."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(size, size), nn.Linear(size, 2 * size)
        self.attended = nn.Linear(size, size)
        self.distance = nn.Parameter(torch.zeros(heads, window))  # b, the farthest first
        self.wide, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.gates = nn.ModuleList(Gate(size) for _ in range(2))

    def forward(self, e: Tensor, context: Tensor, other: Tensor) -> Tensor:
        """e [N, T, D], context [N, window-1+T, D], other [N, 1, T, window-1+T] -> [N, T, D]."""
        e = self.gates[0](e, F.relu(self.attend(e.shape[1], self.norms[0](context), other)))
        return self.gates[1](e, F.relu(self.narrow(F.relu(self.wide(self.norms[1](e))))))  # type: ignore[no-any-return]

    def attend(self, rows: int, context: Tensor, other: Tensor) -> Tensor:
        """Each of the last `rows` of context [N, window-1+T, D] to the window that ends in it: [N, T, D]."""
        lanes, length, size = context.shape
        head = size // self.heads
        q = self.query(context[:, -rows:]).view(lanes, rows, self.heads, head).transpose(1, 2)  # [N, H, T, d]
        kv = self.key_value(context).view(lanes, length, 2, self.heads, head)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # [N, H, window-1+T, d]
        scores = (q * head**-0.5) @ k.transpose(-1, -2) + self.band(rows)  # [N, H, T, window-1+T]
        weights = scores.masked_fill(other, -torch.inf).softmax(-1)
        return self.attended((weights @ v).transpose(1, 2).reshape(lanes, rows, size))  # type: ignore[no-any-return]

    def band(self, rows: int) -> Tensor:
        """b of every (row, place in [cached rows; rows]), -inf outside the row's window: [H, T, window-1+T].

        Row t is b moved t places to the right. Rows of (window + T) values, read as rows one value shorter, do that.
        """
        padded = F.pad(self.distance, (0, rows), value=-torch.inf)  # [H, window+T]
        length = padded.shape[1] - 1
        if rows == 1:
            return padded[:, None, :length]
        return padded.repeat(1, rows)[:, : rows * length].view(self.heads, rows, length)


class Gate(nn.Module):
    """The gate of a GRU in place of a residual sum: starts close to x."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.y, self.x = nn.Linear(size, 3 * size), nn.Linear(size, 2 * size, bias=False)
        self.reset = nn.Linear(size, size, bias=False)
        with torch.no_grad():
            self.y.bias[size : 2 * size] = -GATE_BIAS

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [..., D] -> [..., D]."""
        y_r, y_z, y_h = self.y(y).chunk(3, -1)
        x_r, x_z = self.x(x).chunk(2, -1)
        z = torch.sigmoid(y_z + x_z)
        h = torch.tanh(y_h + self.reset(torch.sigmoid(y_r + x_r) * x))
        return torch.lerp(x, h, z)
