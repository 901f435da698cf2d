"""LSTM and GRU: by hand, against torch's own episode by episode, and the gradient of the scan."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import make_core
from rlkit.nn.recurrent import GRU, LSTM, Recurrent, gru_backward, gru_forward, lstm_backward, lstm_forward

FEATURES, SIZE = 5, 6


def make(name: str, layers: int = 1, size: int = SIZE, features: int = FEATURES) -> Recurrent:
    core = make_core(NetworkConfig(core=name, core_size=size, core_layers=layers), features)
    assert isinstance(core, Recurrent)
    return core


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@torch.no_grad()
def of_width_one(name: str, weights: list[float], recalls: list[float], biases: list[float]) -> Recurrent:
    """A core of one unit and one feature: a number per gate."""
    core = make(name, size=1, features=1)
    core.reads[0].weight.copy_(torch.tensor(weights)[:, None])  # type: ignore[operator]
    core.reads[0].bias.copy_(torch.tensor(biases))  # type: ignore[operator]
    core.recalls[0].copy_(torch.tensor(recalls)[:, None])
    return core


def test_lstm_by_hand() -> None:
    core = of_width_one(
        "lstm", [1.0, 0.5, -0.5, 2.0], [0.3, -0.2, 0.1, 0.4], [0.1, 0.2, 1.0, -0.3]
    )  # n i f o
    h, c = 0.25, -0.5
    for x in (2.0, -1.0):
        n, i = math.tanh(x + 0.3 * h + 0.1), sigmoid(0.5 * x - 0.2 * h + 0.2)
        f, o = sigmoid(-0.5 * x + 0.1 * h + 1), sigmoid(2 * x + 0.4 * h - 0.3)
        c = f * c + i * n
        h = o * math.tanh(c)
    state = (torch.tensor([[[0.25]]]), torch.tensor([[[-0.5]]]))
    first = torch.zeros(2, 1, dtype=torch.bool)
    y, (h_end, c_end) = core(torch.tensor([[[2.0]], [[-1.0]]]), first, state)
    assert y[-1].item() == h_end.item() == pytest.approx(h, abs=1e-6)
    assert c_end.item() == pytest.approx(c, abs=1e-6)


def test_gru_by_hand() -> None:
    core = of_width_one("gru", [1.0, 0.5, -0.5], [0.3, -0.2, 0.7], [0.1, 0.2, -0.3])  # r z n
    h = 0.25
    for x in (2.0, -1.0):
        r, z = sigmoid(x + 0.3 * h + 0.1), sigmoid(0.5 * x - 0.2 * h + 0.2)
        n = math.tanh(-0.5 * x - 0.3 + r * 0.7 * h)
        h = (1 - z) * n + z * h
    first = torch.zeros(2, 1, dtype=torch.bool)
    y, (end,) = core(torch.tensor([[[2.0]], [[-1.0]]]), first, (torch.tensor([[[0.25]]]),))
    assert y[-1].item() == end.item() == pytest.approx(h, abs=1e-6)


def test_the_start_of_an_episode_is_a_memory_of_zeros() -> None:
    core = of_width_one("gru", [1.0, 0.5, -0.5], [0.3, -0.2, 0.7], [0.1, 0.2, -0.3])
    y, _ = core(torch.tensor([[[2.0]]]), torch.tensor([[True]]), (torch.tensor([[[0.25]]]),))
    assert y.item() == pytest.approx((1 - sigmoid(1.2)) * math.tanh(-1.3), abs=1e-6)


def of_torch(core: Recurrent) -> nn.LSTM | nn.GRU:
    """torch's own with the weights of `core` (its LSTM orders the gates i f n o, its GRU as we do)."""
    kind = nn.LSTM if isinstance(core, LSTM) else nn.GRU
    net = kind(FEATURES, SIZE, core.layers)
    order = (1, 2, 0, 3) if isinstance(core, LSTM) else (0, 1, 2)

    def ordered(p: Tensor) -> Tensor:
        blocks = p.detach().chunk(core.gates)
        return torch.cat([blocks[i] for i in order])

    with torch.no_grad():
        for i, (read, recall) in enumerate(zip(core.reads, core.recalls, strict=True)):
            getattr(net, f"weight_ih_l{i}").copy_(ordered(read.weight))  # type: ignore[arg-type]
            getattr(net, f"bias_ih_l{i}").copy_(ordered(read.bias))  # type: ignore[arg-type]
            getattr(net, f"weight_hh_l{i}").copy_(ordered(recall))
            getattr(net, f"bias_hh_l{i}").zero_()
    return net


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_each_episode_is_what_torch_computes(name: str, layers: int) -> None:
    """Outputs, final memory and every gradient: torch's own runs each episode of each lane from zeros."""
    core = make(name, layers)
    net = of_torch(core)
    rows, lanes = 17, 3
    x = torch.randn(rows, lanes, FEATURES, requires_grad=True)
    first = torch.rand(rows, lanes) < 0.2
    first[4:6, 1] = first[-1, 2] = True
    given = tuple(torch.randn_like(s).clamp(-0.9, 0.9) for s in core.initial_state(lanes))  # type: ignore[arg-type]
    y, state = core(x, first, given)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()

    z = x.detach().clone().requires_grad_(True)
    parts, ends = [], []
    for lane in range(lanes):
        memory = tuple(s[lane].clone() for s in given)  # [layers, D]
        starts = sorted({0, rows, *first[:, lane].nonzero().flatten().tolist()})
        pieces = []
        for a, b in pairwise(starts):
            if first[a, lane]:
                memory = tuple(torch.zeros_like(s) for s in memory)
            out, end = net(z[a:b, lane], memory if name == "lstm" else memory[0])
            memory = end if name == "lstm" else (end,)
            pieces.append(out)
        parts.append(torch.cat(pieces))
        ends.append(memory)
    expected = torch.stack(parts, 1)
    (expected * weights).sum().backward()

    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(state, zip(*ends, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # our gradients as weights, so that of_torch puts them in torch's order
        for p in core.parameters():
            assert p.grad is not None
            p.copy_(p.grad)
    for (name, ours), theirs in zip(of_torch(core).named_parameters(), net.parameters(), strict=True):
        if "bias_hh" not in name:
            torch.testing.assert_close(ours.detach(), theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_weights_start_orthogonal_and_an_lstm_remembers(name: str) -> None:
    core = make(name, 2)
    for recall in core.recalls:
        for block in recall.chunk(core.gates):
            torch.testing.assert_close(block @ block.T, torch.eye(SIZE), rtol=0, atol=1e-5)
    expected = torch.zeros(core.gates, SIZE)
    if name == "lstm":
        expected[2] = 1
    for read in core.reads:
        torch.testing.assert_close(read.bias, expected.flatten())


def test_operators_are_what_compilers_are_told() -> None:
    """Shapes and strides of the results without computing them, nothing written to: torch's own checks."""
    T, N, D = 3, 2, 4
    keep, h, rows = torch.ones(T, N, 1), torch.randn(N, D), torch.randn(T, N, D)
    checks = ("test_schema", "test_faketensor")
    lstm, gru = torch.randn(T, N, 4 * D), torch.randn(T, N, 3 * D)
    for operator, arguments in (
        (lstm_forward, (lstm, torch.randn(4 * D, D), keep, h, h.clone())),
        (lstm_backward, (rows, lstm, rows.clone(), rows.clone(), torch.randn(4 * D, D), keep)),
        (gru_forward, (gru, torch.randn(3 * D, D), keep, h)),
        (gru_backward, (rows, gru, rows.clone(), torch.randn(3 * D, D), keep)),
    ):
        found = torch.library.opcheck(operator, arguments, test_utils=checks)
        assert found == dict.fromkeys(checks, "SUCCESS")


def test_one_row_with_gradients_is_one_row_of_a_scan() -> None:
    for kind in (LSTM, GRU):
        core = kind(FEATURES, NetworkConfig(core_size=SIZE))
        x, first = torch.randn(2, 3, FEATURES), torch.zeros(2, 3, dtype=torch.bool)
        state = core.initial_state(3)
        weights = torch.linspace(1, 2, SIZE)
        both, _ = core(x, first, state)
        one, _ = core(x[:1], first[:1], state)
        parameters = list(core.parameters())
        a = torch.autograd.grad((both[0] * weights).sum(), parameters)
        b = torch.autograd.grad((one[0] * weights).sum(), parameters, allow_unused=True)
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p, torch.zeros_like(p) if q is None else q, rtol=1e-5, atol=1e-6)
