"""Convolutional encoders in the style of six published networks, at sizes for images of 64 to 96 pixels.

    name        style                                               source
    lenet       5x5 convolutions, each followed by a pool           LeCun et al., 1998
    alexnet     a wide kernel with stride, then narrower ones       Krizhevsky et al., 2012
    vgg         3x3 convolutions in pairs between pools             Simonyan and Zisserman, 2015, arXiv:1409.1556
    resnet      residual blocks, activation first                   He et al., 2016, arXiv:1603.05027
    inception   kernels of 1, 3 and 5 and a pool side by side       Szegedy et al., 2015, arXiv:1409.4842
    densenet    every layer reads all layers before it              Huang et al., 2017, arXiv:1608.06993

A network is a row of `NETWORKS`: a list of stages, whose blocks are the functions below. There is no batch
normalization: a row's features do not depend on its batch, in training as in acting. Convolutions are padded, so the
halvings alone make a map smaller. An image too small for all of them skips the first ones, as these networks do for
CIFAR; so a map's shorter side stays at least 2 pixels, and images of any size are read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import CNN, Encoder
from rlkit.nn.pixels import Pixels
from rlkit.nn.registry import encoder
from rlkit.spaces import Space

FEATURES = 256
GROWTH = 16  # the channels that each layer of a dense block adds


class Stage(NamedTuple):
    """One block of a network: block(channels, width, kernel, stride) -> module that gives `width` channels."""

    block: Callable[[int, int, int, int], nn.Module]
    width: int
    kernel: int = 3
    stride: int = 1  # 2 halves the map


class Residual(nn.Module):
    """shortcut(x) + conv(relu(conv(relu(x)))); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.second = nn.Conv2d(width, width, kernel, 1, kernel // 2)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


class Beside(nn.Module):
    """Branches that read the same map; their channels one after another."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Dense(nn.Module):
    """Layers that each add `GROWTH` channels to all channels before: x = [x, conv(relu(x))]."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        widths = range(channels, width + 1, GROWTH)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after - before, kernel, stride, kernel // 2)
            for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(F.relu(x))], 1)
        return x


def conv(channels: int, width: int, kernel: int, stride: int) -> nn.Module:
    """A convolution and its activation."""
    return nn.Sequential(nn.Conv2d(channels, width, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


def pool(channels: int, width: int, kernel: int, stride: int) -> nn.Module:
    """The largest value of each square; nothing where it would not halve the map."""
    return nn.MaxPool2d(kernel, stride) if stride > 1 else nn.Identity()


def mixed(channels: int, width: int, kernel: int, stride: int) -> nn.Module:
    """Kernels of 1, 3 and 5 and a pool, which give 4, 8, 2 and 2 of 16 parts of the channels.

    The wide ones read 6 and 1 parts, made by a 1x1 kernel: the shares of GoogLeNet's block 3a.
    """
    part = width // 16
    return Beside(
        conv(channels, 4 * part, 1, 1),
        nn.Sequential(conv(channels, 6 * part, 1, 1), conv(6 * part, 8 * part, 3, 1)),
        nn.Sequential(conv(channels, part, 1, 1), conv(part, 2 * part, 5, 1)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, 2 * part, 1, 1)),
    )


POOL = Stage(pool, 0, 2, 2)

NETWORKS: dict[str, tuple[Stage, ...]] = {
    "lenet": (
        *(Stage(conv, 8, 5), POOL),
        *(Stage(conv, 16, 5), POOL),
        *(Stage(conv, 32, 5), POOL),
        *(Stage(conv, 64, 5), POOL),
    ),
    "alexnet": (
        *(Stage(conv, 32, 7, 2), POOL),
        *(Stage(conv, 48, 5), POOL),
        *(Stage(conv, 96), Stage(conv, 96), Stage(conv, 64), POOL),
    ),
    "vgg": (
        *(Stage(conv, 16), POOL),
        *(Stage(conv, 32), POOL),
        *(Stage(conv, 64), Stage(conv, 64), POOL),
        *(Stage(conv, 96), Stage(conv, 96), POOL),
        *(Stage(conv, 96), Stage(conv, 96), POOL),
    ),
    "resnet": (
        Stage(conv, 16, 5, 2),
        *(Stage(Residual, 32, 3, 2), Stage(Residual, 32)),
        *(Stage(Residual, 64, 3, 2), Stage(Residual, 64)),
        *(Stage(Residual, 96, 3, 2), Stage(Residual, 96)),
    ),
    "inception": (
        *(Stage(conv, 16, 5, 2), POOL),
        *(Stage(mixed, 64), Stage(mixed, 96), POOL),
        *(Stage(mixed, 128), Stage(mixed, 128), POOL),
    ),
    "densenet": (
        *(Stage(conv, 16, 5, 2), POOL),
        *(Stage(Dense, 80), Stage(conv, 48, 1), POOL),
        *(Stage(Dense, 112), Stage(conv, 64, 1), POOL),
        Stage(Dense, 128),
    ),
}


def build(name: str, space: Space, stack: int) -> Encoder:
    """The network `name` for images of `space`."""
    pixels = Pixels(space, stack, name)
    stages = NETWORKS[name]
    # n halvings leave at least 2 pixels of 2^(n+1); the first ones are skipped where there are more
    possible = max(min(pixels.size) // 2, 1).bit_length() - 1
    skipped = sum(stage.stride > 1 for stage in stages) - possible
    layers: list[nn.Module] = []
    channels = pixels.channels
    for block, width, kernel, stride in stages:
        if stride > 1 and skipped > 0:
            skipped, stride = skipped - 1, 1
        layers.append(block(channels, width, kernel, stride))
        channels = width or channels
    return CNN(pixels, nn.Sequential(*layers, nn.ReLU(inplace=True)), FEATURES)


@encoder("lenet")
def lenet(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """5x5 convolutions of 8, 16, 32 and 64 channels, each followed by a pool; 256 features."""
    return build("lenet", space, stack)


@encoder("alexnet")
def alexnet(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """32 7x7 stride 2, 48 5x5, 96, 96 and 64 3x3, three pools; 256 features."""
    return build("alexnet", space, stack)


@encoder("vgg")
def vgg(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """The stages of VGG-11, at 16, 32, 64, 96 and 96 channels of 3x3, each ending in a pool; 256 features."""
    return build("vgg", space, stack)


@encoder("resnet")
def resnet(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """16 5x5 stride 2, then pairs of residual blocks of 32, 64 and 96 channels, each halving the map; 256 features."""
    return build("resnet", space, stack)


@encoder("inception")
def inception(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """16 5x5 stride 2, then blocks of 64, 96, 128 and 128 channels between pools; 256 features."""
    return build("inception", space, stack)


@encoder("densenet")
def densenet(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """16 5x5 stride 2, then three dense blocks with 1x1 convolutions and pools between them; 256 features."""
    return build("densenet", space, stack)
