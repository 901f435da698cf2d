"""The engine's steps, compared with torch's gradient at the first and then every thousandth.

torch's loss stays the definition of what is learned. Where the engine's gradient is another one at first, the run goes
on with torch and says so; later, when weights have been made with it, the run stops.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlkit.compile import Compiled, refuse, to_flat
from rlkit.engine.layout import Descent, Unsupported
from rlkit.machine import How

EVERY = 1000  # steps
NEAR = 1e-4  # how far a number may be off, as a share of the largest of its tensor and of the largest of all: what
# is lost in float32 where large numbers cancel; and of the loss, where all of a gradient does
SMALL = 1e-6
LATER = 10  # times as far after the first step, when a kernel that is wrong has been found already


class EngineFault(RuntimeError):
    """The engine and torch no longer agree."""


class Audit:
    """Whole steps on `loss` by the engine."""

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., tuple[Tensor, Tensor]],
        how: How,
        parameters: Sequence[nn.Parameter],
        descent: Descent,
    ) -> None:
        self._loss, self._how, self._parameters, self._descent = loss, how, parameters, descent
        self._compiled = Compiled(module, loss, how, parameters, descent)
        self._steps = 0

    def __call__(self, lr: float, *batch: object) -> tuple[Tensor, Tensor] | None:
        """One step: the loss's metrics and the gradient's norm. None, and nothing done, where torch has to make it."""
        if not self._begin(lr, 1, *batch):
            return None
        norm, metrics = self._compiled(*batch)
        return metrics, norm

    def each(self, lr: float, takes: Sequence[Tensor], *batch: object) -> tuple[Tensor, Tensor] | None:
        """Steps on (batch[0], take, *batch[1:]) for takes of one size: metrics [steps, ...], norms [steps]; or None."""
        if not self._begin(lr, len(takes), batch[0], takes[0], *batch[1:]):
            return None
        norms, metrics = self._compiled.each(takes, *batch)
        return metrics, norms

    def _begin(self, lr: float, steps: int, *batch: object) -> bool:
        """Before so many steps, the first of them on `batch`; False where torch has to make them."""
        if self._steps % EVERY == 0 or self._steps // EVERY < (self._steps + steps - 1) // EVERY:
            try:
                far = self._far(*batch)
            except Unsupported as why:
                refuse(self._how, why)
                return False
            if far and self._steps:
                raise EngineFault(
                    f"after {self._steps} steps the engine's gradient is not torch's: {far}; type compile=false"
                )
            if far:
                warnings.warn(
                    f"the engine's gradient is not torch's ({far}): this run learns without it", stacklevel=4
                )
                return False
        self._steps += steps
        self._descent.settings[0] = lr
        return True

    def _far(self, *batch: object) -> str:
        """What differs between the engine's gradient and torch's; "" where nothing does."""
        found = self._compiled.differentiate(*batch)
        loss, _ = self._loss(*batch)
        expected = torch.autograd.grad(loss, list(self._parameters), allow_unused=True)
        most = max(float(g.abs().max()) for g in expected if g is not None and g.numel())
        near = NEAR if self._steps == 0 else LATER * NEAR
        small = SMALL * max(1.0, abs(float(loss.detach())))
        begin = 0
        for number, (p, g) in enumerate(zip(self._parameters, expected, strict=True)):
            there = found[begin : begin + p.numel()]
            begin += p.numel()
            right = to_flat(g if g is not None else torch.zeros_like(p))
            # a NaN is no difference where torch has it too
            error = torch.where(right.isfinite() | there.isfinite(), (there - right).abs(), 0.0)
            bound = near * (float(right.abs().max()) + most) + small if p.numel() else 0.0
            if p.numel() and not float(error.max()) <= bound and torch.isfinite(right).all():
                return f"tensor {number} by {float(error.max()):.2g}, where {bound:.2g} is allowed"
        return ""
