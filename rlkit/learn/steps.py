"""The steps of optimisers on one flat vector: Adam by torch's own kernel, RMSprop and SGD as torch.optim has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.config.schema import OptimConfig
from rlkit.options import ConfigError


def make_step(
    flat: nn.Parameter, vector: Tensor, parameters: Sequence[nn.Parameter], config: OptimConfig
) -> Adam | Torch:
    """The step that `config` names. vector: the same memory as `flat`, into which `parameters` are views.

    Raises ConfigError where weights have learning rates of their own (network.encoder_lr) and the step has one for all.
    """
    scales = [float(getattr(p, "lr_scale", 1.0)) for p in parameters]
    if config.name in ("adam", "adamw"):
        return Adam(vector, config, pieces(parameters, scales))
    if set(scales) != {1.0}:
        raise ConfigError(
            f"network.encoder_lr={min(scales):g}: with optim.name={config.name} all weights have one learning rate; "
            "type optim.name=adam or network.encoder_lr=1"
        )
    return Torch(flat, config)


def require_own(flat: nn.Parameter, parameters: Sequence[nn.Parameter]) -> bool:
    """True; raises ConfigError where another optimiser was made of some of these weights: it has taken them away."""
    begin = flat.data_ptr()
    end = begin + flat.numel() * flat.element_size()
    if not all(begin <= p.data_ptr() < end for p in parameters if p.numel()):
        raise ConfigError(
            "two optimisers step the same weights, and the first of them would change nothing any more; put both "
            "losses into one, or give each optimiser modules of its own"
        )
    return True


def pieces(parameters: Sequence[nn.Parameter], scales: Sequence[float]) -> list[tuple[float, slice]]:
    """(factor of the learning rate, where these weights lie in the flat vector)."""
    found: list[tuple[float, slice]] = []
    start = 0
    for parameter, scale in zip(parameters, scales, strict=True):
        end = start + parameter.numel()
        if found and found[-1][0] == scale and found[-1][1].stop == start:
            found[-1] = (scale, slice(found[-1][1].start, end))
        else:
            found.append((scale, slice(start, end)))
        start = end
    return found


class Adam:
    """Adam (Kingma and Ba, 2015) or AdamW: torch's fused kernel, which also divides the gradient.

    Called directly: for small networks torch.optim's own bookkeeping takes longer than the step.
    """

    def __init__(self, flat: Tensor, config: OptimConfig, pieces: list[tuple[float, slice]]) -> None:
        self.flat = flat
        self.kernel = torch._fused_adamw_ if config.name == "adamw" else torch._fused_adam_
        self.constants: dict[str, Any] = {
            "beta1": config.betas[0], "beta2": config.betas[1], "weight_decay": config.weight_decay,
            "eps": config.eps, "amsgrad": False, "maximize": False,
        }  # fmt: skip
        self.state = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
        mean, square = self.state["exp_avg"], self.state["exp_avg_sq"]
        # views of what is stepped with one learning rate, all of it where there is only one
        self.pieces = [
            (scale, None if piece == slice(0, len(flat)) else piece, flat[piece], mean[piece], square[piece])
            for scale, piece in pieces
        ]

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of `state`."""
        for name, value in state.items():
            self.state[name].copy_(value)

    def __call__(self, gradient: Tensor, lr: float, divisor: Tensor | None) -> None:
        step = self.state["step"]
        step += 1
        for scale, piece, flat, mean, square in self.pieces:
            own = gradient if piece is None else gradient[piece]
            self.kernel(
                [flat],
                [own],
                [mean],
                [square],
                [],
                [step],
                lr=scale * lr,
                grad_scale=divisor,
                **self.constants,
            )


class Torch:
    """RMSprop or SGD as torch.optim has them."""

    def __init__(self, flat: nn.Parameter, config: OptimConfig) -> None:
        self.flat = flat
        if config.name == "rmsprop":
            self.torch: torch.optim.Optimizer = torch.optim.RMSprop(
                [flat], config.lr, eps=config.eps, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            self.torch = torch.optim.SGD(
                [flat], config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
            )

    @property
    def state(self) -> dict[str, Tensor]:
        """What torch.optim keeps of the past gradients, by its names."""
        return {name: x for name, x in self.torch.state.get(self.flat, {}).items() if isinstance(x, Tensor)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of `state`."""
        self.torch.state[self.flat] = state

    def __call__(self, gradient: Tensor, lr: float, divisor: Tensor | None) -> None:
        self.flat.grad = gradient if divisor is None else gradient.div_(divisor)
        self.torch.param_groups[0]["lr"] = lr
        self.torch.step()
