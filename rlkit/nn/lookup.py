"""Codes: whole numbers that name things and have no order, as sums of rows of a learned table.

    e(x) = sum_c W[c, x_c]         x a cell with a code x_c in every channel c

Divided by 255, as brightness is, two kinds of things differ by less than a network sees.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlkit.nn.operators import operator
from rlkit.spaces import Box
from rlkit.types import Obs


def lookup(index: Tensor, table: Tensor) -> Tensor:
    """The sums of rows of `table` [V, E] that each row of `index` [M, K] int64 names: [M, E]."""
    if torch.compiler.is_exporting():  # to a format that has no operators of ours
        return F.embedding(index, table).sum(1)
    return _Lookup.apply(index, table)  # type: ignore[no-any-return, no-untyped-call]


class Codes(nn.Module):
    """Cells of a grid of codes: uint8 [B, H, W, C] (or [B, C, H, W], [B, H, W]; stacked [B, k, ...]) -> [B, H, W, E].

    The table has a row for every code of every channel of every frame; they start small, so that their sum has
    variance 1. Raises ValueError for other spaces; name: of the encoder, for that.
    """

    offset: Tensor

    def __init__(self, space: object, stack: int, width: int, name: str) -> None:
        super().__init__()
        if not isinstance(space, Box) or space.dtype != "uint8" or len(space.shape) not in (2, 3):
            given = f"a Box{space.shape} of {space.dtype}" if isinstance(space, Box) else type(space).__name__
            raise ValueError(
                f"encoder {name} reads codes, uint8 of shape (H, W) or (H, W, C); got {given}: use mlp "
                "(network.encoder=mlp)"
            )
        self.first = len(space.shape) == 3 and space.channel_axis == "first"
        self.stack, self.rank = stack, len(space.shape)
        height, width_, *channels = (*space.shape[1:], space.shape[0]) if self.first else space.shape
        self.size = (height, width_)
        self.cell = channels[0] if channels else 1  # codes of a cell of one frame
        high = np.broadcast_to(np.clip(space.high, 0, 255), space.shape)
        if self.rank == 3:
            high = high.max((1, 2) if self.first else (0, 1))
        counts = np.tile(
            np.atleast_1d(high.astype(np.int64) if self.rank == 3 else np.int64(high.max())) + 1, stack
        )
        self.register_buffer("offset", torch.from_numpy(np.cumsum([0, *counts[:-1]])), persistent=False)
        self.table = nn.Parameter(torch.randn(int(counts.sum()), width) / len(counts) ** 0.5)
        self.width = width

    def forward(self, obs: Tensor) -> Tensor:
        if self.first:
            obs = obs.movedim(-3, -1)
        elif self.rank == 2:
            obs = obs.unsqueeze(-1)
        if self.stack > 1:
            obs = obs.movedim(1, -2).flatten(-2)  # [B, k, H, W, C] -> [B, H, W, k*C]
        index = (obs.long() + self.offset).flatten(0, 2)  # [B*H*W, k*C]
        return lookup(index, self.table).view(-1, *self.size, self.width)


class FlatCodes(Codes):
    """The same, flattened for fully connected layers: [B, ...] -> [B, features]."""

    def __init__(self, space: object, stack: int, width: int = 8) -> None:
        super().__init__(space, stack, width, "mlp")
        self.features = self.size[0] * self.size[1] * width

    def observe(self, obs: Obs, valid: Tensor | None = None) -> None:
        """Codes are not normalized."""

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs).flatten(1)


class _Lookup(torch.autograd.Function):
    """index [M, K], table [V, E] -> [M, E]."""

    @staticmethod
    def forward(*arguments: Tensor) -> Tensor:
        return cast(Tensor, lookup_forward(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.rows = inputs[1].shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor]:
        return None, lookup_backward(dy, ctx.saved_tensors[0], ctx.rows)


def _sums(index: Tensor, table: Tensor) -> Tensor:
    return table.new_empty(index.shape[0], table.shape[1])


def _gradients(dy: Tensor, index: Tensor, rows: int) -> Tensor:
    return dy.new_empty(rows, dy.shape[1])


@operator(_sums)
def lookup_forward(index: Tensor, table: Tensor) -> Tensor:
    """What `lookup` gives."""
    return F.embedding_bag(index, table, mode="sum")


@operator(_gradients)
def lookup_backward(dy: Tensor, index: Tensor, rows: int) -> Tensor:
    """dW[v] = the sum of dy[m] over all (m, k) with index[m, k] = v, always added up in this order: [V, E]."""
    gradient = dy.new_zeros(rows, dy.shape[1])
    for column in index.unbind(1):
        gradient.index_add_(0, column, dy)
    return gradient
