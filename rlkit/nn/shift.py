"""Random shifts of the pictures that a loss reads (DrQ: Kostrikov, Yarats and Fergus, 2021, arXiv:2004.13649).

    picture[i, j] -> picture[i + dy, j + dx],    dy, dx uniform in {-p, ..., p}, border pixels repeated

An `Optimiser` turns them on while it computes a loss, so the pictures of acting, evaluation and advantages stay as they
are. Every forward pass of a loss, every network in it and every row has shifts of its own; the rows of a sequence that
a network with memory reads are shifted alike, as are the frames of a stack.

What is drawn is a table, a hash of `key`, which grows by 1 with each loss; the rows of its passes take one entry after
another. The optimiser saves the key: a run that is continued draws what would have come, and weights are the same with
shifts and without. Rows are numbered over all ranks, so several that share a batch shift it as one would. The table is
made before the loss, so a compiled one reads it as it reads weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkit import ranks
from rlkit.spaces import Box, Space, leaves
from rlkit.types import Obs

MASK = 0xFFFFFFFF
TABLE = 1 << 12  # entries; a loss that reads more rows begins anew


class Shift(nn.Module):
    """Shifts the images of observations of `space` by up to `pixels`, where it is on.

    alike: the rows of a lane, too, are shifted alike. Raises ValueError where there is no image.
    """

    key: Tensor
    table: Tensor

    def __init__(self, space: Space, pixels: int, alike: bool) -> None:
        super().__init__()
        self.pixels, self.alike = pixels, alike
        self.heights = {
            name: -3 if leaf.channel_axis == "last" else -2
            for name, leaf in leaves(space)
            if isinstance(leaf, Box)
            and leaf.image
            and not leaf.meaning
            and (leaf.channel_axis or len(leaf.shape) == 2)
        }  # name of each image -> the axis of its lines, from the end
        if not self.heights:
            raise ValueError(
                "network.augment=shift moves images of bytes, and there is none in the observation; type "
                "network.augment=none"
            )
        self.register_buffer("key", torch.randint(2**31, ()), persistent=False)
        self.register_buffer(
            "table", torch.zeros(TABLE, 2, dtype=torch.int64), persistent=False
        )  # down, across
        self.on, self.used = False, 0

    def begin(self, stream: int) -> None:
        """The loss that follows is a new one; `stream` tells its networks apart."""
        self.key += 1
        self.on, self.used = True, 0
        entry = torch.arange(TABLE, device=self.key.device)
        bits = _hashed(_hashed(_hashed(_hashed(self.key) + stream) + entry))
        places = 2 * self.pixels + 1
        self.table.copy_(torch.stack([bits % places, (bits >> 16) % places], 1) - self.pixels)

    def end(self) -> None:
        self.on = False

    def forward(self, obs: Obs, rows: int, lanes: int) -> Obs:
        """Observations [T*N, ...] of T rows and N lanes, or with a frame stack [T*N, k, ...]."""
        everyone = lanes * ranks.size()
        device = self.table.device
        lane = torch.arange(lanes, device=device) + (self.used + ranks.share(everyone).start)
        row = torch.arange(rows, device=device) * (0 if self.alike else everyone)
        entry = (row[:, None] + lane).flatten() % TABLE  # [T*N]
        self.used += everyone if self.alike else rows * everyone
        down, across = self.table.index_select(0, entry).unbind(1)
        if isinstance(obs, Tensor):
            return shifted(obs, down, across, self.pixels, self.heights[""])
        moved = {
            name: shifted(obs[name], down, across, self.pixels, axis) for name, axis in self.heights.items()
        }
        return obs | moved


def shifted(x: Tensor, down: Tensor, across: Tensor, pixels: int, height: int) -> Tensor:
    """Pictures [B, ..., H, W, ...], whose axis of H is `height`, moved by down and across [B] int64, -pixels to pixels.

    Borders are repeated. Lines are widened by `pixels` on both sides; a line of the new picture is a piece of one.
    """
    axis = x.dim() + height
    lines, columns = x.shape[axis : axis + 2]
    flat = x.reshape(
        len(x), -1, lines, columns, x.shape[axis + 2 :].numel()
    )  # [B, frames or channels, H, W, channels]
    left, right = (flat[:, :, :, i : i + 1].expand(-1, -1, -1, pixels, -1) for i in (0, columns - 1))
    wide = torch.cat([left, flat, right], 3)
    line = (torch.arange(lines, device=x.device) + down[:, None]).clamp(0, lines - 1)  # [B, H]
    picture = torch.arange(flat.shape[0] * flat.shape[1], device=x.device).view(len(x), -1, 1)
    begin = (picture * lines + line[:, None]) * (columns + 2 * pixels) + pixels + across[:, None, None]
    width = flat.shape[4]
    pieces = wide.flatten().unfold(0, columns * width, 1)  # a view: every piece as long as a line
    return pieces.index_select(0, begin.flatten() * width).view(x.shape)


def _hashed(x: Tensor) -> Tensor:
    """Whole numbers from 0 on as 32 bits that look random: every bit of the result depends on all 32 lower ones."""
    for _ in range(2):
        x = ((x >> 16) ^ x) * 0x45D9F3B & MASK
    return (x >> 16) ^ x
