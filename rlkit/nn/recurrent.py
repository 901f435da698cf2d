"""Recurrent cores. From the row's input x_t, with h and c of the row before (0 where an episode opens):

    LSTM (Hochreiter and Schmidhuber, 1997)         GRU (Cho et al., 2014)
    n = tanh(W_n x_t + U_n h + b_n)                 r = sigmoid(W_r x_t + U_r h + b_r)
    i, f, o = sigmoid(W x_t + U h + b) of each      z = sigmoid(W_z x_t + U_z h + b_z)
    c_t = f c + i n                                 n = tanh(W_n x_t + b_n + r U_n h)
    h_t = o tanh(c_t)                               h_t = (1 - z) n + z h

Weights start orthogonal gate by gate, biases at 0, the one of f at 1.

A single row is these lines (`cell`). More rows go through a scan: W x + b is one product for all of them, the loop
keeps what depends on h, and the gradient is written by hand, so that its loop is just as short and U's gradient is one
product too. A scan is an operator of its own, because TorchInductor unrolls loops.

Measured forward and backward, LSTM of width 64, 16 rows of 16 lanes, one core: the lines above under autograd 2.2 ms,
the scan 1.5 ms, compiled 1.0 ms after seconds of compilation (unrolled, half a minute, and 90 s for 32 rows). torch's
own LSTM takes 0.5 ms, but cannot clear a lane's memory between two rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import Core
from rlkit.nn.operators import operator
from rlkit.nn.registry import core
from rlkit.types import State


class Recurrent(Core, ABC):
    """What both share: layers of `gates` blocks of width D; float32 whatever the trunk's precision.

    The state is one tensor [N, layers, D] per remembered quantity.
    """

    gates: int
    remembered: int

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features, self.layers = config.core_size, config.core_layers
        size = self.gates * config.core_size
        widths = [features, *[config.core_size] * (self.layers - 1)]
        self.reads = nn.ModuleList(nn.Linear(width, size) for width in widths)  # W, b
        self.recalls = nn.ParameterList(torch.empty(size, config.core_size) for _ in widths)  # U
        for read, recall in zip(self.reads, self.recalls, strict=True):
            weight, bias = cast(Tensor, read.weight), cast(Tensor, read.bias)
            for block in (*weight.chunk(self.gates), *recall.chunk(self.gates)):
                nn.init.orthogonal_(block)
            nn.init.zeros_(bias)

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        shape = (lanes, self.layers, self.features)
        return tuple(torch.zeros(shape, device=device) for _ in range(self.remembered))

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        keep = (~first).float()[..., None]  # [T, N, 1]
        before = torch.stack(cast(tuple[Tensor, ...], state)).detach()  # [remembered, N, layers, D]
        after = []
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for read, recall, memory in zip(self.reads, self.recalls, before.unbind(2), strict=True):
                gates = read(x)  # [T, N, gates * D]
                if len(x) == 1:
                    ends = self.cell(gates[0], recall, *(memory * keep[0]).unbind(0))
                    x = ends[0][None]
                else:
                    x, ends = self.scan(gates, recall, keep, *memory.unbind(0))
                after.append(ends)
        return x, tuple(torch.stack(ends, 1).detach() for ends in zip(*after, strict=True))

    @abstractmethod
    def cell(self, gates: Tensor, recall: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """W x + b [N, gates * D], U, the cleared memory of the row before, each [N, D] -> the memory after, h first."""

    @abstractmethod
    def scan(
        self, gates: Tensor, recall: Tensor, keep: Tensor, *memory: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """W x + b [T, N, gates * D], U, keep [T, N, 1], memory, not cleared -> h [T, N, D], memory after."""


@core("lstm")
class LSTM(Recurrent):
    """Long short-term memory: `core_layers` of width `core_size`; the state is (h, c)."""

    gates, remembered = 4, 2

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__(features, config)
        for read in self.reads:
            nn.init.ones_(
                cast(Tensor, read.bias)[2 * self.features : 3 * self.features]
            )  # of f: it remembers

    def cell(self, gates: Tensor, recall: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        h, c = memory
        n, i, f, o = torch.addmm(gates, h, recall.t()).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(n)
        return torch.sigmoid(o) * torch.tanh(c), c

    def scan(
        self, gates: Tensor, recall: Tensor, keep: Tensor, *memory: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, c = _LSTMScan.apply(gates, recall, keep, *memory)[:2]  # type: ignore[no-untyped-call]
        return y, (y[-1], c[-1])


@core("gru")
class GRU(Recurrent):
    """Gated recurrent units: `core_layers` of width `core_size`; the state is (h,)."""

    gates, remembered = 3, 1

    def cell(self, gates: Tensor, recall: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        (h,) = memory
        x_r, x_z, x_n = gates.chunk(3, 1)
        h_r, h_z, h_n = (h @ recall.t()).chunk(3, 1)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return (torch.lerp(n, h, torch.sigmoid(x_z + h_z)),)

    def scan(
        self, gates: Tensor, recall: Tensor, keep: Tensor, *memory: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        y = _GRUScan.apply(gates, recall, keep, *memory)[0]  # type: ignore[no-untyped-call]
        return y, (y[-1],)


class _LSTMScan(torch.autograd.Function):
    """gates [T, N, 4D], U [4D, D], keep [T, N, 1], h and c [N, D] -> h, c [T, N, D], n i f o [T, N, 4D].

    Gradients reach gates and U from h alone: the given memory and the cells are constants to whoever calls.
    """

    @staticmethod
    def forward(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor, Tensor], lstm_forward(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        recall, keep, h, c, y, cells, gates = ctx.saved_tensors
        before = torch.cat([c[None], cells[:-1]]) * keep  # the c that each row read
        n, i, f, o = gates.chunk(4, -1)
        squashed = torch.tanh(cells)
        # dc_t = dc + o (1 - tanh(c_t)^2) dh, and of each gate before its activation, d = factor (dc, dc, dc, dh)
        factor = torch.cat(
            [i * (1 - n * n), n * i * (1 - i), before * f * (1 - f), squashed * o * (1 - o)], -1
        )
        through = o * (1 - squashed * squashed)
        d = lstm_backward(dy.contiguous(), factor, through, f * keep, recall, keep)  # [T, N, 4D]
        return d, _recall_gradient(d, y, h, keep), None, None, None


class _GRUScan(torch.autograd.Function):
    """gates [T, N, 3D], U [3D, D], keep [T, N, 1], h [N, D] -> h [T, N, D], r z n U_n h [T, N, 4D].

    Gradients reach gates and U: the given memory is a constant.
    """

    @staticmethod
    def forward(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor], gru_forward(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        recall, keep, h, y, gates = ctx.saved_tensors
        before = torch.cat([h[None], y[:-1]]) * keep  # the h that each row read
        r, z, n, h_n = gates.chunk(4, -1)
        # of each gate before its activation, and of U_n h: d = factor dh
        of_n = (1 - z) * (1 - n * n)
        of_r, of_z = of_n * h_n * r * (1 - r), (before - n) * z * (1 - z)
        d, dh = gru_backward(dy.contiguous(), torch.cat([of_r, of_z, of_n * r], -1), z * keep, recall, keep)
        rows = d.shape[-1] // 3 * 2
        return (
            torch.cat([d[..., :rows], of_n * dh], -1),
            _recall_gradient(d, y, h, keep),
            None,
            None,
        )


def _recall_gradient(d: Tensor, y: Tensor, h: Tensor, keep: Tensor) -> Tensor:
    """dU = sum_t d_t^T h_{t-1}: d [T, N, G], y [T, N, D] after h [N, D] -> [G, D]."""
    before = torch.cat([h[None], y[:-1]]) * keep
    return d.flatten(0, 1).t() @ before.flatten(0, 1)


def _lstm_rows(
    x: Tensor, recall: Tensor, keep: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.new_empty(*x.shape[:2], h.shape[-1])
    return rows, torch.empty_like(rows), x.new_empty(x.shape)


def _gru_rows(x: Tensor, recall: Tensor, keep: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.new_empty(*x.shape[:2], h.shape[-1])
    return rows, x.new_empty(*x.shape[:2], 4 * h.shape[-1])


def _lstm_gradients(
    dy: Tensor, factor: Tensor, through: Tensor, forget: Tensor, recall: Tensor, keep: Tensor
) -> Tensor:
    return factor.new_empty(factor.shape)


def _gru_gradients(
    dy: Tensor, factor: Tensor, carry: Tensor, recall: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    return factor.new_empty(factor.shape), dy.new_empty(dy.shape)


@operator(_lstm_rows)
def lstm_forward(
    x: Tensor, recall: Tensor, keep: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop of `_LSTMScan`, every result written where it belongs."""
    size = h.shape[-1]
    y, cells, gates = (
        x.new_empty(*keep.shape[:2], size),
        x.new_empty(*keep.shape[:2], size),
        torch.empty_like(x),
    )
    h_kept, c_kept, transposed = torch.empty_like(h), torch.empty_like(c), recall.t()
    n, i, f, o = torch.split(gates, size, -1)
    rows = (x, keep, gates, n, gates[..., size:], i, f, o, y, cells)
    for x_t, keep_t, gates_t, n_t, ifo_t, i_t, f_t, o_t, y_t, c_t in zip(
        *(row.unbind(0) for row in rows), strict=True
    ):
        torch.mul(h, keep_t, out=h_kept)
        torch.mul(c, keep_t, out=c_kept)
        torch.addmm(x_t, h_kept, transposed, out=gates_t)
        n_t.tanh_()
        ifo_t.sigmoid_()
        torch.mul(f_t, c_kept, out=c_t).addcmul_(i_t, n_t)
        torch.tanh(c_t, out=y_t).mul_(o_t)
        h, c = y_t, c_t
    return y, cells, gates


@operator(_lstm_gradients)
def lstm_backward(
    dy: Tensor, factor: Tensor, through: Tensor, forget: Tensor, recall: Tensor, keep: Tensor
) -> Tensor:
    """From the last row to the first: the gradients of the gates before their activation [T, N, 4D]."""
    lanes, size = dy.shape[1:]
    d = factor.clone()
    dh, dc = torch.zeros_like(dy[0]), torch.zeros_like(dy[0])
    of_c, of_h = d[..., : 3 * size].view(-1, lanes, 3, size), d[..., 3 * size :]  # n i f, o
    wide = dc.view(lanes, 1, size)
    rows = (dy, through, of_c, of_h, d, forget, keep)
    for dy_t, through_t, of_c_t, of_h_t, d_t, forget_t, keep_t in zip(
        *(reversed(row.unbind(0)) for row in rows), strict=True
    ):
        dh.add_(dy_t)
        dc.addcmul_(dh, through_t)
        of_c_t.mul_(wide)
        of_h_t.mul_(dh)
        torch.mm(d_t, recall, out=dh).mul_(keep_t)
        dc.mul_(forget_t)
    return d


@operator(_gru_rows)
def gru_forward(x: Tensor, recall: Tensor, keep: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The loop of `_GRUScan`, every result written where it belongs."""
    size = h.shape[-1]
    y, gates = x.new_empty(*keep.shape[:2], size), x.new_empty(*keep.shape[:2], 4 * size)
    h_kept, transposed = torch.empty_like(h), recall.t()
    recalled = x.new_empty(h.shape[0], 3 * size)
    recalled_rz, recalled_n = recalled[:, : 2 * size], recalled[:, 2 * size :]
    rz = gates[..., : 2 * size]
    r, z, n, h_n = torch.split(gates, size, -1)
    rows = (x[..., : 2 * size], x[..., 2 * size :], keep, rz, r, z, n, h_n, y)
    for x_rz, x_n, keep_t, rz_t, r_t, z_t, n_t, h_n_t, y_t in zip(
        *(row.unbind(0) for row in rows), strict=True
    ):
        torch.mul(h, keep_t, out=h_kept)
        torch.mm(h_kept, transposed, out=recalled)
        torch.add(x_rz, recalled_rz, out=rz_t).sigmoid_()
        h_n_t.copy_(recalled_n)
        torch.addcmul(x_n, r_t, recalled_n, out=n_t).tanh_()
        torch.lerp(n_t, h_kept, z_t, out=y_t)
        h = y_t
    return y, gates


@operator(_gru_gradients)
def gru_backward(
    dy: Tensor, factor: Tensor, carry: Tensor, recall: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """From the last row to the first: gradients of r z and U_n h [T, N, 3D], and of every h [T, N, D]."""
    lanes, size = dy.shape[1:]
    d, gradient = factor.clone(), dy.clone()
    dh = torch.zeros_like(dy[0])
    rows = (gradient, d.view(-1, lanes, 3, size), d, carry, keep)
    for dh_t, of_h_t, d_t, carry_t, keep_t in zip(*(reversed(row.unbind(0)) for row in rows), strict=True):
        dh_t.add_(dh)
        of_h_t.mul_(dh_t.view(lanes, 1, size))
        torch.mm(d_t, recall, out=dh).mul_(keep_t).addcmul_(dh_t, carry_t)
    return d, gradient
