"""The transformer core: by hand, and against one that computes every row from its episode's rows alone."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import make_core
from rlkit.nn.transformer import BLOCK, Gate, Layer, Transformer

FEATURES = 5


def make(layers: int = 1, heads: int = 2, window: int = 4, size: int = 8) -> Transformer:
    core = make_core(
        NetworkConfig(
            core="transformer", core_size=size, core_layers=layers, core_heads=heads, window=window
        ),
        FEATURES,
    )
    assert isinstance(core, Transformer)
    with torch.no_grad():
        for name, p in core.named_parameters():
            if name.endswith(("distance", "norm.weight", "norm.bias")):
                p.add_(torch.randn_like(p))  # what starts at 0 or 1 must show
    return core


# ---------------------------------------------------------------- the slow version


def slow_gate(gate: Gate, x: Tensor, y: Tensor) -> Tensor:
    """x, y [D]."""
    w_r, w_z, w_h = gate.y.weight.chunk(3)
    b_r, b_z, b_h = gate.y.bias.chunk(3)
    u_r, u_z = gate.x.weight.chunk(2)
    r = torch.sigmoid(w_r @ y + u_r @ x + b_r)
    z = torch.sigmoid(w_z @ y + u_z @ x + b_z)
    h = torch.tanh(w_h @ y + b_h + gate.reset.weight @ (r * x))
    return (1 - z) * x + z * h


def slow_layer(layer: Layer, rows: list[Tensor], window: int) -> list[Tensor]:
    """rows [D] of one episode, from its first -> rows [D]."""
    out = []
    size, heads = layer.size, layer.heads
    head = size // heads
    normal = [layer.attention_norm(row) for row in rows]
    for t, row in enumerate(rows):
        seen = range(max(0, t - window + 1), t + 1)
        attended = []
        for h in range(heads):
            q = layer.query(normal[t])[h * head : (h + 1) * head]
            kv = [layer.key_value(normal[s])[2 * h * head : 2 * (h + 1) * head] for s in seen]
            scores = [
                q @ pair[:head] / math.sqrt(head) + layer.distance[h, window - 1 - (t - s)]
                for s, pair in zip(seen, kv, strict=True)
            ]
            weights = torch.stack(scores).softmax(0)
            attended.append(sum(w * pair[head:] for w, pair in zip(weights, kv, strict=True)))
        y = layer.attended(torch.cat(attended))  # type: ignore[arg-type]
        e = slow_gate(layer.attention_gate, row, F.relu(y))
        wide = F.relu(layer.wide(layer.forward_norm(e)))
        out.append(slow_gate(layer.forward_gate, e, F.relu(layer.narrow(wide))))
    return out


def slow(core: Transformer, x: Tensor, first: Tensor) -> Tensor:
    """x [T, N, F], first [T, N], nothing remembered -> [T, N, D], one row at a time."""
    lanes = []
    for lane in range(x.shape[1]):
        starts = sorted({0, len(x), *first[:, lane].nonzero().flatten().tolist()})
        out: list[Tensor] = []
        for a, b in pairwise(starts):
            rows = [core.embed(row) for row in x[a:b, lane]]
            for layer in core.blocks:
                rows = slow_layer(layer, rows, core.window)  # type: ignore[arg-type]
            out += rows
        lanes.append(torch.stack(out))
    return torch.stack(lanes, 1)


@pytest.mark.parametrize(("layers", "heads", "window"), [(1, 1, 2), (1, 2, 4), (2, 4, 3), (2, 2, 30)])
def test_every_row_and_gradient_is_that_of_the_slow_version(layers: int, heads: int, window: int) -> None:
    core = make(layers, heads, window)
    x = torch.randn(19, 3, FEATURES, requires_grad=True)
    first = torch.rand(19, 3) < 0.15
    y, _ = core(x, first, core.initial_state(3))
    expected = slow(core, x, first)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    weights, inputs = torch.randn_like(y), [x, *core.parameters()]
    ours = torch.autograd.grad((y * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_calls_longer_than_a_block_too() -> None:
    """Rows are attended to in blocks; gradients cross their borders."""
    core = make(2, 2, 5)
    rows = 2 * BLOCK + 7
    x = torch.randn(rows, 1, FEATURES, requires_grad=True)
    first = torch.zeros(rows, 1, dtype=torch.bool)
    first[BLOCK + 20] = True
    y, _ = core(x, first, core.initial_state(1))
    expected = slow(core, x, first)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    for t in (BLOCK, BLOCK + 1, BLOCK + 21, 2 * BLOCK):
        (ours,) = torch.autograd.grad(y[t].square().sum(), x, retain_graph=True)
        (theirs,) = torch.autograd.grad(expected[t].square().sum(), x, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(("layers", "reach"), [(1, 2), (2, 4), (3, 6)])
def test_a_row_is_seen_for_window_minus_one_rows_per_layer(layers: int, reach: int) -> None:
    core = make(layers, window=3)
    x, first = torch.randn(12, 1, FEATURES), torch.zeros(12, 1, dtype=torch.bool)
    changed = x.clone()
    changed[2] += 1
    state = core.initial_state(1)
    difference = (core(x, first, state)[0] - core(changed, first, state)[0]).abs().amax((1, 2))
    assert (difference > 0).nonzero().flatten().tolist() == list(range(2, 2 + reach + 1))


@torch.no_grad()
def test_attention_by_hand() -> None:
    """Keys of 0 leave the distances: weights 1, 2, 5 of the rows two back, one back and of the row itself."""
    layer = Layer(2, 1, window=3)
    for p in layer.parameters():
        p.zero_()
    layer.key_value.weight[2:] = torch.eye(2)  # v = the row
    layer.distance[0] = torch.tensor([1.0, 2.0, 5.0]).log()
    rows = torch.tensor([[8.0, 0.0], [0.0, 8.0], [16.0, 0.0], [0.0, 24.0]])
    context = torch.cat([torch.full((2, 2), 77.0), rows])[:, None]  # two cached rows of another episode
    starts = torch.tensor([2, 2, 2, 2])
    earlier = (torch.arange(6) < starts[:, None])[None, None]  # [N, 1, T, window-1+T]
    expected = [
        [8.0, 0.0],
        [16 / 7, 40 / 7],  # (2 * row 0 + 5 * row 1) / 7
        [(8 + 5 * 16) / 8, 2 * 8 / 8],
        [2 * 16 / 8, (8 + 5 * 24) / 8],
    ]
    torch.testing.assert_close(layer.attend(context, earlier), torch.tensor(expected))
    # a product of q and k: q = k = the row, one head of 2: 64 / sqrt 2 apart, row 0 hears only itself
    layer.query.weight.copy_(torch.eye(2))
    layer.key_value.weight[:2] = torch.eye(2)
    layer.distance.zero_()
    small = context / 8
    odds = math.exp(1 / math.sqrt(2))  # of row 1 for itself, against row 0, orthogonal to it
    torch.testing.assert_close(
        layer.attend(small, earlier)[1], torch.tensor([1 / (1 + odds), odds / (1 + odds)])
    )


@torch.no_grad()
def test_a_gate_starts_close_to_what_it_carries() -> None:
    gate = Gate(3)
    for p in (gate.y.weight, gate.x.weight, gate.reset.weight):
        p.zero_()
    gate.y.bias[:3] = gate.y.bias[6:] = 0
    x = torch.tensor([[1.0, -2.0, 0.5]])
    # z = sigmoid(-2) and h = tanh 0
    torch.testing.assert_close(gate(x, torch.ones(1, 3)), x * (1 - 1 / (1 + math.exp(2))))


def test_the_cache_holds_the_newest_rows_of_the_episode_and_never_grows() -> None:
    core = make(2, window=4)
    cache, count = core.initial_state(2)
    assert isinstance(cache, Tensor) and isinstance(count, Tensor)
    assert (cache.shape, count.tolist()) == ((2, 2, 3, 8), [0, 0])
    x = torch.randn(6, 2, FEATURES)
    first = torch.zeros(6, 2, dtype=torch.bool)
    first[4, 1] = True
    counts = []
    state = (cache, count)
    for t in range(6):
        _, state = core(x[t : t + 1], first[t : t + 1], state)
        counts.append(state[1].tolist())
    assert counts == [[1, 1], [2, 2], [3, 3], [3, 3], [3, 1], [3, 2]]
    assert state[0].shape == (2, 2, 3, 8)
    # the inputs of the first layer are the embedded rows, oldest first
    torch.testing.assert_close(state[0][:, 0], core.embed(x[3:]).transpose(0, 1).detach())
    torch.testing.assert_close(core(x, first, core.initial_state(2))[1][0], state[0], rtol=1e-5, atol=1e-5)


def test_weights_of_keys_and_values_learn_from_cached_rows() -> None:
    core = make(window=4)
    x, first = torch.randn(3, 1, FEATURES), torch.zeros(3, 1, dtype=torch.bool)
    _, state = core(x, first, core.initial_state(1))
    key_value = core.blocks[0].key_value.weight
    y, _ = core(x[:1], first[:1], state)
    (with_cache,) = torch.autograd.grad(y.square().sum(), key_value)
    y, _ = core(x[:1], ~first[:1], state)
    (alone,) = torch.autograd.grad(y.square().sum(), key_value)
    keys = torch.arange(16) // 4 % 2 == 0  # per head of width 4: k, then v
    assert alone[keys].abs().max() < 1e-6  # nothing to choose between
    assert with_cache[keys].abs().max() > 1e-4
