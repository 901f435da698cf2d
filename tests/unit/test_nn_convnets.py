"""Convolutional networks from one table: the published blocks, how far maps shrink, and that they can be trained."""

import math

import pytest
import torch
import torch.nn.functional as F

from rlkit.nn.config import NetworkConfig
from rlkit.nn.convnets import FEATURES, NETWORKS, POOL, Dense, Residual, conv, mixed
from rlkit.nn.encoders import CNN, make_encoder
from rlkit.spaces import Box


def network(name, height, width, channels=3, stack=1):
    return make_encoder(Box((height, width, channels), "uint8"), stack, NetworkConfig(encoder=name))


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_every_network_of_the_table_has_its_name():
    for name in NETWORKS:
        assert isinstance(network(name, 8, 8), CNN)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 7), (8, 8), (21, 17), (64, 64), (84, 96)])
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_halved_down_to_two_pixels_at_least(name, size, monkeypatch):
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda weight, gain: weight)  # the most of the time
    net = network(name, *size)
    map_ = net.layers(torch.zeros(1, 3, *size))
    shorter, halvings = min(size), sum(stage.stride > 1 for stage in NETWORKS[name])
    expected = min(halvings, max(0, int(math.log2(shorter)) - 1))  # 2, 4, 8 pixels: 0, 1, 2 halvings
    assert min(map_.shape[2:]) in {shorter // 2**expected, -(-shorter // 2**expected)}
    assert min(map_.shape[2:]) >= min(shorter, 2)
    assert parameters(net.linear) == (map_[0].numel() + 1) * FEATURES
    if shorter >= 64:
        assert 1e5 < parameters(net) < 1.4e6


def test_small_images_keep_their_size_in_the_first_stages():
    """8x8 pixels have two halvings left, the last two of LeNet's four."""
    maps, x = [], torch.zeros(1, 3, 8, 8)
    for layer in network("lenet", 8, 8).layers:
        x = layer(x)
        maps.append(x.shape[-1])
    assert maps == [8, 8, 8, 8, 8, 4, 4, 2, 2]


def test_parameters_by_hand():
    """kernel^2 * channels * width + width a convolution; the linear layer reads the last map."""
    lenet = [(25, 3, 8), (25, 8, 16), (25, 16, 32), (25, 32, 64), (16, 64, 256)]  # 64 pixels end in 4x4
    vgg = [(9, 6, 16), (9, 16, 32), (9, 32, 64), (9, 64, 64), (9, 64, 96), *[(9, 96, 96)] * 3, (4, 96, 256)]
    assert parameters(network("lenet", 64, 64)) == sum(k * c * w + w for k, c, w in lenet)
    assert parameters(network("vgg", 64, 64, stack=2)) == sum(k * c * w + w for k, c, w in vgg)
    assert parameters(mixed(192, 256, 3, 1)) == 163_696  # GoogLeNet's inception 3a


def test_blocks_compute_what_is_published():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 6, 6)

    block = Residual(32, 48, 3, 2)  # He et al., 2016, figure 1b without normalization
    inner = F.conv2d(F.relu(x), block.first.weight, block.first.bias, 2, 1)
    inner = F.conv2d(F.relu(inner), block.second.weight, block.second.bias, 1, 1)
    torch.testing.assert_close(block(x), block.shortcut(x) + inner)
    assert torch.equal(Residual(32, 32, 3, 1).shortcut(x), x), "an identity where the shape stays"

    dense = Dense(32, 80, 3, 1)  # Huang et al., 2017, equation 2: layer l reads [x_0, ..., x_l-1]
    maps = [x]
    for layer in dense.layers:
        maps.append(F.conv2d(F.relu(torch.cat(maps, 1)), layer.weight, layer.bias, 1, 1))
    torch.testing.assert_close(dense(x), torch.cat(maps, 1))
    assert [m.shape[1] for m in maps] == [32, 16, 16, 16]

    block = mixed(32, 64, 3, 1)
    one, three, five, pooled = block.branches
    parts = [one(x), three(x), five(x), pooled[1](F.max_pool2d(x, 3, 1, 1))]
    assert [part.shape[1] for part in parts] == [16, 32, 8, 8]
    torch.testing.assert_close(block(x), torch.cat(parts, 1))

    assert torch.equal(POOL.block(32, 0, 2, 2)(x), F.max_pool2d(x, 2))
    plain = conv(32, 8, 5, 1)
    torch.testing.assert_close(plain(x), F.relu(F.conv2d(x, plain[0].weight, plain[0].bias, 1, 2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_labels_by_heart(name):
    """Random pictures with random labels, which only a network can tell apart through which gradients flow."""
    torch.manual_seed(0)
    obs, labels = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8), torch.randint(0, 8, (8,))
    net = network(name, 8, 8)
    head = torch.nn.Linear(FEATURES, 8)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-3)
    for _ in range(40):
        scores = head(net(obs))
        if (scores.argmax(1) == labels).all():
            return
        optimiser.zero_grad()
        F.cross_entropy(scores, labels).backward()
        optimiser.step()
    pytest.fail("40 steps were not enough")
