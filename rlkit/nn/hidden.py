"""A head with a hidden layer of its own, at which an action may enter: how actors and critics end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkit.nn.encoders import ACTIVATIONS


class HiddenHead(nn.Module):
    """y = W_2 f(W_1 x + W_a a + b_1) + b_2 of features x and an action a of d numbers (0: none).

    The last layer runs in float32 whatever the precision, and starts near 0. W_1 and W_a stand apart, so that the
    gradient with respect to a alone needs no product with W_1.
    """

    def __init__(self, features: int, d: int, outputs: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.action = nn.Linear(d, hidden, bias=False) if d else None
        self.activation = ACTIVATIONS[activation]()
        self.output = nn.Linear(hidden, outputs)
        with torch.no_grad():
            joint = nn.init.orthogonal_(torch.empty(hidden, features + d), 2**0.5)  # [W_1 W_a]
            self.hidden.weight.copy_(joint[:, :features])
            if self.action is not None:
                self.action.weight.copy_(joint[:, features:])
        nn.init.orthogonal_(self.output.weight, 0.03)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, a: Tensor | None = None) -> Tensor:
        """[..., features], [..., d] -> [..., outputs]."""
        y = self.hidden(x)
        if self.action is not None:
            y = y + self.action(a)
        y = self.activation(y)
        with torch.autocast(y.device.type, enabled=False):
            return self.output(y.float())  # type: ignore[no-any-return]
