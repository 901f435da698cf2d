"""The engine's steps, compared with torch's gradient at the first and then every thousandth.

torch's loss stays the definition of what is learned. Where the engine's gradient is another one at first, the run goes
on with torch and says so; later, when weights have been made with it, the run stops.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlkit.compile import to_flat

EVERY = 1000  # steps
NEAR = 1e-4  # how far a number may be off, as a share of the largest of its tensor and of the largest of all: what
# is lost in float32 where large numbers cancel; and of the loss, where all of a gradient does
SMALL = 1e-6
LATER = 10  # times as far after the first step, when a kernel that is wrong has been found already


class EngineFault(RuntimeError):
    """The engine and torch no longer agree."""


class Audit:
    """Compares the gradient of `loss` over `parameters` by the engine with torch's, when it is due."""

    def __init__(
        self, loss: Callable[..., tuple[Tensor, Tensor]], parameters: Sequence[nn.Parameter]
    ) -> None:
        self._loss, self._parameters = loss, list(parameters)
        self._steps = 0

    def passes(self, differentiate: Callable[..., tuple[Tensor, Tensor]], steps: int, *batch: object) -> bool:
        """Before so many steps, the first of them on `batch`. False, with a warning, where torch has to make them."""
        begun = self._steps
        if begun % EVERY == 0 or begun // EVERY < (begun + steps - 1) // EVERY:
            gradient, _ = differentiate(*batch)
            far = self._far(gradient, *batch)
            if far and begun:
                raise EngineFault(
                    f"after {begun} steps the engine's gradient is not torch's: {far}; type compile=false"
                )
            if far:
                warnings.warn(
                    f"the engine's gradient is not torch's ({far}): this run learns without it", stacklevel=4
                )
                return False
        self._steps += steps
        return True

    def _far(self, found: Tensor, *batch: object) -> str:
        """What differs between a gradient and torch's; "" where nothing does, or where torch's is not finite."""
        loss, _ = self._loss(*batch)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        expected = [
            to_flat(torch.zeros_like(p) if g is None else g)
            for p, g in zip(self._parameters, gradients, strict=True)
        ]
        if not torch.cat(expected).isfinite().all():
            return ""
        most = float(torch.cat(expected).abs().max())
        near = NEAR if self._steps == 0 else LATER * NEAR
        small = SMALL * max(1.0, abs(float(loss.detach())))
        for number, (right, there) in enumerate(
            zip(expected, torch.split(found, [len(x) for x in expected]), strict=True)
        ):
            if len(right):
                error, bound = (
                    float((there - right).abs().max()),
                    near * (float(right.abs().max()) + most) + small,
                )
                if not error <= bound:  # a NaN is not
                    return f"tensor {number} by {error:.2g}, where {bound:.2g} is allowed"
        return ""
