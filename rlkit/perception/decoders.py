"""From features back to a picture: logits of a mask, or the pixels of an autoencoder."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.encoders import orthogonal

SMALLEST = 4  # a side of the first map is at most this long
WIDTHS = (16, 32, 64)  # channels of a map that is to be doubled once, twice, three times and more


class Decoder(nn.Module):
    """A linear layer to a map of at most 4x4 pixels, then doublings: nearest neighbour, 3x3 convolution, ReLU.

    Each side of the picture is halved (rounded up) until it is at most 4 pixels long, and these sizes are gone through
    upwards; so any height and width can be made. Repeating a pixel before a convolution treats all pixels alike, where
    transposed convolutions with weights of their own leave checkerboards (Odena et al., 2016, "Deconvolution and
    checkerboard artifacts"). The last convolution has no activation.
    """

    def __init__(self, features: int, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        if min(size) < 1 or channels < 1:
            raise ValueError(
                f"a decoder makes pictures of at least 1x1 pixel and 1 channel; got {size}, {channels}"
            )
        self.sizes = [size]  # of all maps, the smallest first
        while max(self.sizes[0]) > SMALLEST:
            self.sizes.insert(0, _halved(self.sizes[0]))
        doublings = len(self.sizes) - 1
        widths = [WIDTHS[min(left, len(WIDTHS)) - 1] for left in range(doublings, 0, -1)]
        self.width = widths[0] if widths else WIDTHS[0]
        height, width = self.sizes[0]
        self.linear = orthogonal(nn.Linear(features, height * width * self.width))
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in pairwise([*(widths or [self.width]), channels])
        )
        orthogonal(self.layers)
        nn.init.orthogonal_(self.layers[-1].weight)  # type: ignore[arg-type]
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        """[B, features] -> [B, channels, H, W]."""
        x = F.relu(self.linear(features)).view(-1, *self.sizes[0], self.width).permute(0, 3, 1, 2)
        for layer, size in zip(self.layers, self.sizes[1:] or self.sizes, strict=True):
            x = doubled(x, layer, size)
            if layer is not self.layers[-1]:
                x = F.relu(x)
        return x


def doubled(x: Tensor, layer: nn.Module, size: tuple[int, int]) -> Tensor:
    """The sides of maps [B, C, h, w] doubled by repeating pixels, then a 3x3 convolution, then cut: [B, C', *size].

    A side that is no shorter than `size` says is left as it is. Where both are doubled, both operations are one
    transposed convolution: along a side, input i adds to the outputs 2i-1 to 2i+2

        w_2,   w_1 + w_2,   w_0 + w_1,   w_0

    which is the kernel turned round and summed over pairs. That is 4 products per output instead of 9.
    """
    assert isinstance(layer, nn.Conv2d), "the layers of a decoder are convolutions"
    height, width = size
    if x.shape[2] < height and x.shape[3] < width:
        pairs = 4 * F.avg_pool2d(F.pad(layer.weight.flip(2, 3), (1, 1, 1, 1)), 2, 1)  # [C', C, 4, 4]
        out = F.conv_transpose2d(x, pairs.transpose(0, 1), layer.bias, stride=2, padding=1)
    else:
        times = [1 + (have < want) for have, want in zip(x.shape[2:], size, strict=True)]
        large = x.repeat_interleave(times[0], 2).repeat_interleave(times[1], 3)
        out = F.conv2d(large, layer.weight, layer.bias, padding=1)
    return out[:, :, :height, :width]


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """Half of each side that is too long for the first map, rounded up."""
    height, width = (-(-side // 2) if side > SMALLEST else side for side in size)
    return height, width
