"""Decoders: any size, the arithmetic of doubling, and pictures that come back."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlkit.perception.decoders import Decoder, doubled


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 5), (4, 4), (8, 8), (9, 21), (8, 96), (36, 36), (64, 64), (84, 96)]
)
def test_any_size_can_be_made(size):
    torch.manual_seed(0)
    net = Decoder(7, size, 3)
    out = net(torch.randn(2, 7))
    assert out.shape == (2, 3, *size) and out.isfinite().all()
    assert max(net.sizes[0]) <= 4 and net.sizes[-1] == size
    assert all(
        b - 1 <= 2 * a - (a == b) * a <= b + 1
        for pair in pairwise(net.sizes)
        for a, b in zip(*pair, strict=True)
    )
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("size", [(12, 8), (11, 7), (6, 8), (12, 4), (6, 4)])
def test_doubling_is_repetition_and_a_convolution(size):
    torch.manual_seed(0)
    x, layer = torch.randn(2, 5, 6, 4), nn.Conv2d(5, 3, 3, padding=1)
    large = F.interpolate(
        x, tuple(have * (2 if have < want else 1) for have, want in zip(x.shape[2:], size, strict=True))
    )
    expected = layer(large)[:, :, : size[0], : size[1]]
    torch.testing.assert_close(doubled(x, layer, size), expected)
    grads = [
        torch.autograd.grad(y.square().sum(), layer.weight)[0] for y in (doubled(x, layer, size), expected)
    ]
    torch.testing.assert_close(*grads)


def test_an_even_map_leaves_no_checkerboard():
    """Equal pixels in, equal pixels out, away from the borders, which see zeros beyond them."""
    torch.manual_seed(0)
    net = Decoder(4, (64, 64), 2)
    nn.init.zeros_(net.linear.weight)
    net.linear.bias.data = torch.rand(net.width).repeat(4 * 4)  # a row of channels for each of 4x4 pixels
    inner = net(torch.zeros(1, 4))[0, :, 16:-16, 16:-16]
    torch.testing.assert_close(inner, inner[:, :1, :1].expand_as(inner))
    assert inner[:, 0, 0].abs().min() > 1e-3


def test_masks_are_learned():
    """A square whose place is hidden in 64 features; of all squares' pixels, nearly all are found and few others."""
    torch.manual_seed(0)
    place, rows = torch.rand(32, 2), torch.arange(16) / 16
    inside = [(rows > 0.6 * x) & (rows < 0.6 * x + 0.4) for x in place.T[:, :, None]]
    mask = (inside[0][:, :, None] & inside[1][:, None, :]).long()  # [32, 16, 16]
    features = (place @ torch.randn(2, 64) * 5).sin()
    net = Decoder(64, (16, 16), 2)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(50):
        optimiser.zero_grad()
        F.cross_entropy(net(features), mask).backward()
        optimiser.step()
    found = net(features).argmax(1)
    assert (found & mask).sum() / (found | mask).sum() > 0.9


def test_what_cannot_be_made_is_told():
    with pytest.raises(ValueError, match=r"at least 1x1 pixel and 1 channel; got \(0, 4\), 2"):
        Decoder(3, (0, 4), 2)
