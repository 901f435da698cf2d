"""Encoders: rows of observations in their native dtype -> features. Preprocessing is inside, so it travels.

    encoder(obs [B, ...]) -> [B, features]          with a frame stack of k > 1: obs [B, k, ...]

    name        reads                                source
    mlp         anything, flattened (choices one-hot, large ones embedded)
    nature_cnn  images, at least 36x36               Mnih et al., Nature 2015
    impala_cnn  images                               Espeholt et al., 2018, arXiv:1802.01561
    small_cnn   images of any size                   3x3 convolutions of 32 and 64 channels, the second of
                                                     stride 2, then 256 features
    lenet, alexnet, vgg, resnet, inception, densenet
                images of any size                   `rlkit.nn.convnets`
    grid        cells of codes (env.codes): a learned table, two 3x3 convolutions, 128 features
    text        rows of bytes (env.text): words, gated recurrent units, 64 features
    auto        mlp for numbers and choices; nature_cnn for images of at least 36x36, small_cnn for smaller ones;
                grid for codes, text for texts

A Dict gets one encoder per entry, concatenated: the named one for images and codes, auto for the rest. One of your own
reads every entry of a Dict that holds no image. Masks and labels do not come here: a network encodes `EnvSpec.inputs`.

An encoder is one function `(space, stack, config) -> Encoder` under `@encoder("name")`, in any file of this folder; or
the same without a decorator in a module of one's own, network.encoder=my_pkg.mod:function.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.lookup import FlatCodes
from rlkit.nn.norm import RunningNorm, StandardUnits
from rlkit.nn.pixels import Pixels, UnitScale
from rlkit.nn.registry import encoder
from rlkit.own import is_function
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, leaves
from rlkit.types import Obs

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
LARGE = 4096  # a choice among more values than this is looked up in a table instead of written out as one-hot
EMBEDDING = 64  # the numbers that stand for a value there


class Encoder(nn.Module):
    """Base of all encoders."""

    features: int  # width of the output

    def observe(self, obs: Obs, valid: Tensor | None = None) -> None:
        """Let normalizers take in unstacked rows [..., *shape], those that valid [...] marks."""


M = TypeVar("M", bound=nn.Module)


def make_encoder(space: Space, stack: int = 1, config: NetworkConfig | None = None) -> Encoder:
    """The encoder that `config.encoder` names, for observations of `space` with `stack` frames.

    Raises ValueError for an unknown name, for a space that the encoder cannot read, and for what is no encoder.
    """
    config = config or NetworkConfig()
    if config.encoder != "auto":
        registry.find(
            "encoder", config.encoder
        )  # an unknown name is refused, even where nothing would use it
    if isinstance(space, Dict):
        return DictEncoder(space, stack, config)
    return _make(space, stack, config, config.encoder)


def _make(space: Space, stack: int, config: NetworkConfig, name: str) -> Encoder:
    """The encoder `name` for a leaf space."""
    made = registry.find("encoder", auto_encoder(space) if name == "auto" else name)(space, stack, config)
    if not isinstance(made, Encoder) or not isinstance(getattr(made, "features", None), int):
        raise ValueError(
            f"network.encoder={name}: made {type(made).__name__}, which is no rlkit.nn.encoders.Encoder with its width "
            "in `features`"
        )
    return made


@encoder("mlp")
def mlp(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """Fully connected layers of widths `config.hidden`."""
    codes = isinstance(space, Box) and space.meaning == "codes"
    flat = FlatCodes(space, stack) if codes else Flatten(space, stack, config.normalize, config.standardize)
    return MLP(flat, config.hidden, ACTIVATIONS[config.activation])


@encoder("nature_cnn")
def nature_cnn(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """32 8x8 stride 4, 64 4x4 stride 2, 64 3x3 stride 1, 512 features; ReLU throughout."""
    pixels = Pixels(space, stack, "nature_cnn", smallest=36)
    layers = nn.Sequential(
        nn.Conv2d(pixels.channels, 32, 8, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, 1),
        nn.ReLU(inplace=True),
    )
    return CNN(pixels, layers, 512)


@encoder("small_cnn")
def small_cnn(space: Space, stack: int, config: NetworkConfig) -> Encoder:
    """32 3x3, 64 3x3 stride 2, 256 features; ReLU throughout."""
    pixels = Pixels(space, stack, "small_cnn")
    layers = nn.Sequential(
        nn.Conv2d(pixels.channels, 32, 3, 1, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(inplace=True),
    )
    return CNN(pixels, layers, 256)


@encoder("impala_cnn")
def impala_cnn(space: Space, stack: int, config: NetworkConfig, width: int = 1) -> Encoder:
    """16, 32, 32 channels times `width`, each: 3x3, max-pool, two residual blocks; then 256 features."""
    pixels = Pixels(space, stack, "impala_cnn")
    layers: list[nn.Module] = []
    channels = pixels.channels
    for out in (16 * width, 32 * width, 32 * width):
        layers += [nn.Conv2d(channels, out, 3, 1, 1), nn.MaxPool2d(3, 2, 1), Residual(out), Residual(out)]
        channels = out
    return CNN(pixels, nn.Sequential(*layers, nn.ReLU(inplace=True)), 256)


class MLP(Encoder):
    """Flattened input through linear layers, each with its activation."""

    def __init__(
        self, flatten: Flatten | FlatCodes, hidden: tuple[int, ...], activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.flatten = flatten
        widths = (flatten.features, *hidden)
        layers = [
            layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), activation())
        ]
        self.layers = orthogonal(nn.Sequential(*layers))
        self.features = widths[-1]

    def observe(self, obs: Obs, valid: Tensor | None = None) -> None:
        self.flatten.observe(obs, valid)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, ...] -> [B, features]."""
        return self.layers(self.flatten(obs))  # type: ignore[no-any-return]


class CNN(Encoder):
    """Pixels through convolutions, then a linear layer with ReLU. Weights are channels-last, like pixels."""

    def __init__(self, pixels: Pixels, layers: nn.Sequential, features: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.layers = orthogonal(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            size = self.layers(torch.zeros(1, pixels.channels, *pixels.size)).numel()
        self.linear = orthogonal(nn.Linear(size, features))
        self.features = features

    def forward(self, obs: Tensor) -> Tensor:
        """uint8 (or float) images [B, ...] -> [B, features]."""
        x = self.layers(self.pixels(obs))  # [B, C', H', W']
        return F.relu(self.linear(x.flatten(1)))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


class DictEncoder(Encoder):
    """One encoder per leaf of a Dict (observations are flat dicts of dotted names), concatenated."""

    def __init__(self, space: Dict, stack: int, config: NetworkConfig) -> None:
        super().__init__()
        entries = dict(leaves(space))
        if not entries:
            raise ValueError(
                "the observation Dict has nothing to encode; add an entry beside masks and labels"
            )
        images = {name for name, leaf in entries.items() if isinstance(leaf, Box) and _shows(leaf)}
        # an encoder of one's own reads everything where there is no image
        named = images or (entries.keys() if is_function(config.encoder) else set())
        self.names = list(entries)
        self.entries = nn.ModuleList()
        for name, leaf in entries.items():
            try:
                self.entries.append(_make(leaf, stack, config, config.encoder if name in named else "auto"))
            except ValueError as error:
                raise ValueError(f"observation entry {name!r}: {error}") from error
        self.features = sum(entry.features for entry in self._encoders())

    def _encoders(self) -> list[Encoder]:
        return [entry for entry in self.entries if isinstance(entry, Encoder)]

    def observe(self, obs: Obs, valid: Tensor | None = None) -> None:
        if isinstance(obs, Tensor):
            raise TypeError("a Dict observation is a dict of tensors; got one tensor")
        for name, entry in zip(self.names, self._encoders(), strict=True):
            entry.observe(obs[name], valid)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """name -> [B, ...], to [B, features]."""
        return torch.cat([entry(obs[name]) for name, entry in zip(self.names, self.entries, strict=True)], -1)


class Flatten(nn.Module):
    """Rows [B, ...] (or [B, k, ...]) of a leaf space as float32 [B, features].

    Discrete and MultiDiscrete become one-hot, but a component of more than LARGE values a row of a learned table;
    MultiBinary 0 and 1, uint8 boxes go through a `UnitScale`; `normalize` gives other boxes a `RunningNorm` (one for
    all frames of a stack), `standardize` a `StandardUnits`, which doubles their width.
    """

    choice: Tensor
    component: Tensor

    def __init__(self, space: Space, stack: int, normalize: bool = False, standardize: bool = False) -> None:
        super().__init__()
        if isinstance(space, Dict):
            raise ValueError("a Dict observation is encoded entry by entry; got a Dict inside an entry")
        self.rank = len(space.shape)
        self.stack = stack
        self.scale = UnitScale(space) if isinstance(space, Box) and space.dtype == "uint8" else None
        nvec: tuple[int, ...] = ()
        if isinstance(space, Discrete | MultiDiscrete):
            nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
        self.embedded = [i for i, n in enumerate(nvec) if n > LARGE]
        self.tables = nn.ModuleList(nn.Embedding(nvec[i], EMBEDDING) for i in self.embedded)
        small = [(i, n) for i, n in enumerate(nvec) if n <= LARGE]
        width = sum(n for _, n in small) if nvec else int(np.prod(space.shape))
        self.one_hot = bool(nvec)
        # feature j says whether component[j] of the row has the value choice[j]
        choice = torch.cat([torch.arange(0), *(torch.arange(n) for _, n in small)])
        self.register_buffer("choice", choice, persistent=False)
        component = np.repeat([i for i, _ in small], [n for _, n in small]).astype(np.int64)
        self.register_buffer("component", torch.from_numpy(component), persistent=False)
        numbers = not nvec and self.scale is None and not isinstance(space, MultiBinary)
        self.norm: RunningNorm | StandardUnits | None = None
        if standardize and numbers:
            self.norm = StandardUnits(width)
            width *= 2
        elif normalize and numbers:
            self.norm = RunningNorm((width,))
        self.features = stack * (width + EMBEDDING * len(self.embedded))

    def frames(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., width] before normalization."""
        x = obs.flatten(obs.dim() - self.rank) if self.rank else obs.unsqueeze(-1)  # [..., numbers of a row]
        if self.one_hot:
            rows = [table(x[..., i]) for i, table in zip(self.embedded, self.tables, strict=True)]
            if x.shape[-1] > 1:
                x = x.index_select(-1, self.component)  # [..., width]
            hot = (x == self.choice).float()
            return torch.cat([hot, *rows], -1) if rows else hot
        return x.float() if self.scale is None else self.scale(x.float())

    def observe(self, obs: Obs, valid: Tensor | None = None) -> None:
        """Unstacked rows [..., *shape]."""
        if self.norm is not None and isinstance(obs, Tensor):
            self.norm.update(self.frames(obs), valid)

    def forward(self, obs: Tensor) -> Tensor:
        x = self.frames(obs)
        if self.norm is not None:
            x = self.norm(x)
        return x.flatten(1) if self.stack > 1 else x


def auto_encoder(space: Space) -> str:
    """What network.encoder=auto is for a leaf space."""
    if isinstance(space, Box) and space.meaning:
        return {"codes": "grid", "text": "text"}[space.meaning]
    if not (isinstance(space, Box) and _shows(space)):
        return "mlp"
    height, width = Pixels(space, 1, "auto").size
    return "nature_cnn" if min(height, width) >= 36 else "small_cnn"


def _shows(box: Box) -> bool:
    """Whether a Box is an image, or bytes of more axes than one, which no encoder but mlp reads."""
    return box.dtype == "uint8" and len(box.shape) >= 2


def orthogonal(module: M) -> M:
    """Orthogonal weights of gain sqrt(2), zero biases, for every linear and convolutional layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
