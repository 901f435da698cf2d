"""Running normalizers, in float64, exactly as if all data had been pooled.

Batches are merged by Chan, Golub and LeVeque (1979): with counts n_a, n_b, means m_a, m_b, sums of squares
S_a, S_b,

    d = m_b - m_a,   n = n_a + n_b,   m = m_a + d n_b / n,   S = S_a + S_b + d^2 n_a n_b / n

All statistics are buffers: they travel with the weights and stand in every checkpoint. Shapes are static and
nothing is read back to the host, so both modules compile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlkit.returns import reverse_scan

EPS = 1e-8
CLIP = 10.0
ROUNDING = torch.finfo(torch.float64).eps


class RunningNorm(nn.Module):
    """x -> clamp((x - mean) / sqrt(var + 1e-8), -10, 10), x [..., *shape]; mean 0, var 1 before any data."""

    count: Tensor
    mean: Tensor
    squares: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(shape, dtype=torch.float64))  # sum of (x - mean)^2
        self.register_buffer("shift", torch.zeros(shape))  # what `forward` reads: the mean in float32 ...
        self.register_buffer("scale", torch.ones(shape))  # ... and 1 / sqrt(var + eps)

    @property
    def var(self) -> Tensor:
        """Population variance, float64 [*shape]; 0 before any data."""
        return self.squares / self.count.clamp(min=1)

    @torch.no_grad()
    def update(self, x: Tensor, valid: Tensor | None = None) -> None:
        """Take in rows x [..., *shape]; where valid [...] (bool) is given, only those it marks."""
        rows = x.reshape(-1, *self.shape).double()  # [B, *shape]
        if valid is None:
            n = torch.full_like(self.count, rows.shape[0])
            mean = rows.sum(0) / n.clamp(min=1)
            deviation = rows - mean
        else:
            keep = valid.reshape(-1, *(1 for _ in self.shape))  # [B, 1, ...]
            n = keep.sum().to(self.count.dtype)
            mean = torch.where(keep, rows, 0).sum(0) / n.clamp(min=1)
            deviation = torch.where(keep, rows - mean, 0)
        total = self.count + n
        part = n / total.clamp(min=1)
        d = mean - self.mean
        self.mean += d * part
        self.squares += (deviation * deviation).sum(0) + d * d * self.count * part
        self.count.copy_(total)
        self.shift.copy_(self.mean)
        # a normalizer that has seen no row stays the identity
        self.scale.copy_(torch.where(total > 0, torch.rsqrt(self.var + EPS), 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., *shape] -> float32 of the same shape."""
        return ((x - self.shift) * self.scale).clamp(-CLIP, CLIP)


class StandardUnits(nn.Module):
    """Numbers of a table [..., D] in standard units, and which of them are missing (NaN): [..., 2 D] float32.

        z_j = (x_j - m_j) / d_j, 0 where x_j is missing,    g_j = 1 where it is, else 0

    m and d are the mean and the deviation (over B, not B - 1) of the rows that `update` is given first, without gaps;
    later ones change nothing. 0 is the mean, so a gap is filled with it. A column that is constant but for rounding has
    the deviation 1. Where a column had no gap in those rows, nothing was learned about gaps: its g stays 0.
    """

    mean: Tensor
    deviation: Tensor
    told: Tensor
    fitted: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(width, dtype=torch.float64))
        self.register_buffer("told", torch.zeros(width, dtype=torch.bool))  # columns whose gaps are told
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, rows: Tensor, valid: Tensor | None = None) -> None:
        """Take in rows [..., D], all at once; where valid [...] is given, only those it marks."""
        if bool(self.fitted):
            return
        x = rows.reshape(-1, self.width).float().double()
        x = x if valid is None else x[valid.reshape(-1)]
        count = (~x.isnan()).sum(0)
        mean = x.nanmean(0).nan_to_num(0.0)  # 0 of an empty column
        variance = (x - mean).square().nanmean(0).nan_to_num(0.0)
        # what rounding alone makes of the variance of a constant column (Chan, Golub and LeVeque, 1983)
        rounding = count * ROUNDING * variance + (count * mean * ROUNDING).square()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(variance > rounding, variance.sqrt(), 1.0))
        self.told.copy_(x.isnan().any(0))
        self.fitted.fill_(True)

    def scaled(self, rows: Tensor) -> Tensor:
        """z of rows [..., D], float32."""
        z: Tensor = ((rows.float().double() - self.mean) / self.deviation).nan_to_num(0.0)
        return z.float()

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([self.scaled(rows), (rows.isnan() & self.told).float()], -1)


class ReturnScale(nn.Module):
    """Rewards divided by the running deviation of the discounted return, so that returns are of order 1.

    For each lane R_t = gamma R_{t-1} + r_t over the transitions of an episode, R = 0 before the first; its
    variance over everything seen scales the reward (not centred: a shift would change what is optimal). The
    lanes' R go on from one rollout to the next and are saved; another number of lanes starts at 0.
    """

    running: Tensor

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.returns = RunningNorm()
        self.register_buffer("running", torch.zeros(0, dtype=torch.float64))  # [N] R of the latest row

    @torch.no_grad()
    def forward(self, reward: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Take in a rollout and scale it: clamp(reward / sqrt(var + 1e-8), -10, 10).

        reward [T, N], first and last [T+1, N] -> [T, N]. Rows that are not valid (last[t]) are not counted.
        """
        if self.running.shape != reward.shape[1:]:
            self.running = torch.zeros(reward.shape[1:], dtype=torch.float64, device=reward.device)
        valid = ~last[:-1]
        decay = self.gamma * (valid & ~first[:-1]).double()
        x = reward.double() * valid
        x = torch.cat((x[:1] + decay[:1] * self.running, x[1:]))  # the first row continues the last rollout
        returns = reverse_scan(x.flip(0), decay.flip(0)).flip(0)  # R_t = x_t + decay_t R_{t-1}
        self.returns.update(returns, valid)
        self.running.copy_(returns[-1])
        return (reward * self.returns.scale).clamp(-CLIP, CLIP)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the number of lanes from the saved state."""
        saved = state_dict.get(f"{prefix}running")
        if isinstance(saved, Tensor):
            self.running = torch.empty_like(saved, device=self.running.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
