"""The steps of optimisers, by torch's own kernels and with the numbers of torch.optim.

torch.optim itself is not used: making one of its optimisers imports torch's compiler, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlkit.config.schema import OptimConfig
from rlkit.engine.layout import Descent
from rlkit.options import ConfigError


def make_step(
    flat: nn.Parameter, vector: Tensor, parameters: Sequence[nn.Parameter], config: OptimConfig
) -> Adam | SGD | RMSprop:
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
    return SGD(vector, config) if config.name == "sgd" else RMSprop(vector, config)


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

    def descent(self, clip_norm: float) -> Descent | None:
        """This step as the engine makes it, where all weights have one learning rate: the first of its settings."""
        if len(self.pieces) > 1:
            return None
        constants = self.constants
        settings = [0.0, *(constants[name] for name in ("beta1", "beta2", "eps", "weight_decay"))]
        settings += [float(self.kernel is torch._fused_adamw_), clip_norm]
        state = self.state
        return Descent(
            self.flat, state["exp_avg"], state["exp_avg_sq"], state["step"], np.array(settings, np.float64)
        )

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


class SGD:
    """Stochastic gradient descent, with momentum, by torch's fused kernel."""

    def __init__(self, flat: Tensor, config: OptimConfig) -> None:
        self.flat, self.config = flat, config
        self.state: dict[str, Tensor] = {}  # the momentum, once there was a step

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of `state`."""
        self.state = dict(state)

    def __call__(self, gradient: Tensor, lr: float, divisor: Tensor | None) -> None:
        gradient = gradient if divisor is None else gradient.div_(divisor)
        momentum, first = self.config.momentum, not self.state
        if momentum and first:
            self.state["momentum_buffer"] = torch.empty_like(self.flat)
        torch._fused_sgd_(
            [self.flat], [gradient], [self.state["momentum_buffer"]] if momentum else [], lr=lr, momentum=momentum,
            weight_decay=self.config.weight_decay, dampening=0.0, nesterov=False, maximize=False,
            is_first_step=bool(momentum) and first,
        )  # fmt: skip


class RMSprop:
    """RMSprop as torch.optim has it: v <- a v + (1 - a) g^2,  theta <- theta - lr g / (sqrt(v) + eps)."""

    DECAY = 0.99  # a

    def __init__(self, flat: Tensor, config: OptimConfig) -> None:
        self.flat, self.config = flat, config
        self.state = {"step": torch.zeros(()), "square_avg": torch.zeros_like(flat)}
        if config.momentum:
            self.state["momentum_buffer"] = torch.zeros_like(flat)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of `state`; versions that kept nothing before the first step saved an empty one."""
        for name, value in self.state.items() if state else ():
            value.copy_(state[name])

    def __call__(self, gradient: Tensor, lr: float, divisor: Tensor | None) -> None:
        gradient = gradient if divisor is None else gradient.div_(divisor)
        if self.config.weight_decay:
            gradient = gradient.add(self.flat, alpha=self.config.weight_decay)
        self.state["step"] += 1
        square = self.state["square_avg"]
        square.mul_(self.DECAY).addcmul_(gradient, gradient, value=1 - self.DECAY)
        deviation = square.sqrt().add_(self.config.eps)
        if self.config.momentum:
            momentum = self.state["momentum_buffer"].mul_(self.config.momentum).addcdiv_(gradient, deviation)
            self.flat.add_(momentum, alpha=-lr)
        else:
            self.flat.addcdiv_(gradient, deviation, value=-lr)


class AdamOfTensors:
    """Adam on separate tensors, rounded as torch.optim rounds it on a CPU, with its names of what is kept."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters, self.lr = [*parameters], lr
        self.state = [
            {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            for p in self.parameters
        ]

    @torch.no_grad()
    def __call__(self, loss: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        """One step on a loss; what it does not depend on stays."""
        gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for p, g, state in zip(self.parameters, gradients, self.state, strict=True):
            if g is None:
                continue
            step, mean, square = state.values()
            step += 1
            mean.lerp_(g, 1 - betas[0])
            square.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
            unbiased = (1 - betas[1] ** step.item()) ** 0.5
            deviation = (square.sqrt() / unbiased).add_(eps)
            p.addcdiv_(mean, deviation, value=-self.lr / (1 - betas[0] ** step.item()))

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue from `state`, in which each tensor has its number."""
        for number, saved in state.items():
            for name, value in self.state[int(number)].items():
                value.copy_(saved[name])
