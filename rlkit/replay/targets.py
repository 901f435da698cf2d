"""What learning from replayed batches has in common: the memory before their rows, and the targets y."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlkit.returns import n_step
from rlkit.types import Batch, Span, tree_map

if TYPE_CHECKING:
    from rlkit.nn.network import Network


@torch.no_grad()
def warmed(network: Network, batch: Batch) -> tuple[Span, Span]:
    """`now` and `later` without their first W rows, over which `network` has moved its memory once for both.

    Where W is 0 nothing is computed.
    """
    if batch.warm == 0:
        return batch.now, batch.later
    obs, first = tree_map(lambda x: x[: batch.warm], (batch.now.obs, batch.now.first))
    _, memory = network.features(obs, first, batch.now.state)
    return batch.now.after(batch.warm, memory), batch.later.after(batch.warm, memory)


def bootstrapped(batch: Batch, value: Tensor, gamma: float, n: int) -> Tensor:
    """The targets y [L, B, ...] from the value [L, B, ...] of the row after each.

    One row is a transition over m <= n steps, y = reward + discount V(o_{t+m}); of a sequence, targets over `n` steps
    with `gamma` are cut off at its end (`returns.n_step`).
    """
    length, trailing = len(value), (1,) * (value.dim() - 2)
    reward, discount = (x.view(*x.shape, *trailing) for x in (batch.reward, batch.discount))
    if length == 1:
        y: Tensor = reward + discount * value
        return y
    last = batch.later.last[-length - 1 :]
    last = last.view(*last.shape, *trailing)
    # no future counts where the discount is 0; the value before the first row is not read
    return n_step(reward, torch.cat([value[:1], value]), discount == 0, last, gamma, n)
