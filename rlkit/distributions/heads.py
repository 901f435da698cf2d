"""Heads: how the outputs of a network become actions of a space, and actions the environment's commands."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rlkit.distributions.families import (
    Bernoulli,
    Categorical,
    Composite,
    Distribution,
    Gaussian,
    MultiCategorical,
    Part,
    TanhGaussian,
)
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, describe, leaves, row_dtype

KINDS = ("gaussian", "tanh")
REACHED = 0.99  # tanh(x) reaches its bounds nowhere; commands beyond this are taken for this


class ActionHead(nn.Module):
    """How the outputs of a network become actions of one space; made by `action_head`.

    It owns no parameters: where `log_std_size` is not 0, the policy passes log_std ([log_std_size], or
    [..., log_std_size]).
    """

    def __init__(self, size: int, noise_size: int, log_std_size: int = 0, choices: int = 0) -> None:
        super().__init__()
        self.size = size  # network outputs
        self.noise_size = noise_size  # uniforms of one action
        self.log_std_size = log_std_size  # continuous components
        self.choices = choices  # entries of an action mask

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        """The distribution of outputs [..., size]; mask [..., choices] (bool or 0/1)."""
        raise TypeError(f"{type(self).__name__} does not say what it distributes")

    def to_env(self, action: Tensor) -> Tensor:
        """The action in the environment's units and shape."""
        return action

    def from_env(self, command: Tensor) -> Tensor:
        """The action [..., K] that `to_env` makes a command of; of several, one that is likely to be drawn."""
        return command


class CategoricalHead(ActionHead):
    """Discrete(n): n logits."""

    def __init__(self, space: Discrete) -> None:
        super().__init__(space.n, 1, choices=space.n)

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        return Categorical(outputs, None if mask is None else mask.bool())


class MultiCategoricalHead(ActionHead):
    """MultiDiscrete(nvec): sum(nvec) logits, masked alike."""

    def __init__(self, space: MultiDiscrete) -> None:
        super().__init__(sum(space.nvec), len(space.nvec), choices=sum(space.nvec))
        self.nvec = space.nvec

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        return MultiCategorical(outputs, self.nvec, None if mask is None else mask.bool())


class BernoulliHead(ActionHead):
    """MultiBinary(n): n logits."""

    def __init__(self, space: MultiBinary) -> None:
        super().__init__(space.n, space.n)

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        _refuse_mask(mask, "MultiBinary")
        return Bernoulli(outputs)


class BoxHead(ActionHead):
    """Box of d numbers: d means; the policy's actions are [..., d] whatever the space's shape.

    Where both bounds are finite, [-1, 1] (of `tanh`: tanh of the action) maps affinely to [low, high] and what lies
    outside is clipped; where one is, the action is only clipped at it; where none is, it passes as it is.
    """

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, space: Box, kind: str) -> None:
        d = int(np.prod(space.shape))
        super().__init__(d, d, log_std_size=d)
        low, high = (np.broadcast_to(bound, space.shape).reshape(-1) for bound in (space.low, space.high))
        bounded = np.isfinite(low) & np.isfinite(high)
        if kind == "tanh" and not bounded.all():
            raise ValueError(
                f"a tanh policy fills bounded actions, but component {int(np.argmin(bounded))} of the action "
                f"space lies in [{low[~bounded][0]}, {high[~bounded][0]}]; use kind='gaussian'"
            )
        self.kind = kind
        self.shape = space.shape
        finite_low, finite_high = (np.where(bounded, bound, 0.0) for bound in (low, high))
        constants = {
            "offset": np.where(bounded, (finite_high + finite_low) / 2, 0.0),
            "scale": np.where(bounded, (finite_high - finite_low) / 2, 1.0),
            "low": _inward(low, np.inf),
            "high": _inward(high, -np.inf),
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        _refuse_mask(mask, "Box")
        if log_std is None:
            raise ValueError(
                f"a {self.kind} policy needs log_std, [{self.size}] or [..., {self.size}]; got None"
            )
        return TanhGaussian(outputs, log_std) if self.kind == "tanh" else Gaussian(outputs, log_std)

    def to_env(self, action: Tensor) -> Tensor:
        unit = torch.tanh(action) if self.kind == "tanh" else action
        scaled = torch.addcmul(self.offset, self.scale, unit).clamp(self.low, self.high)  # [..., d]
        return scaled if len(self.shape) == 1 else scaled.reshape(*action.shape[:-1], *self.shape)

    def from_env(self, command: Tensor) -> Tensor:
        unit = (command.float().flatten(command.dim() - len(self.shape)) - self.offset) / self.scale
        return torch.atanh(unit.clamp(-REACHED, REACHED)) if self.kind == "tanh" else unit


class CompositeHead(ActionHead):
    """Dict (and Tuple, and nested): one head per leaf, their outputs, log_std and masks side by side.

    Actions are flat, [..., K] float32 (see `spaces.action_row`), for the environment too.
    """

    def __init__(self, space: Dict, kind: str) -> None:
        parts = leaves(space)
        if not parts:
            raise ValueError(f"no policy acts in a {describe(space)}: it has no entries")
        heads = []
        for name, leaf in parts:
            try:
                heads.append(action_head(leaf, kind))
            except ValueError as error:
                raise ValueError(f"entry {name} of the action space: {error}") from error
        super().__init__(
            sum(head.size for head in heads),
            sum(head.noise_size for head in heads),
            sum(head.log_std_size for head in heads),
            sum(head.choices for head in heads),
        )
        self.heads = nn.ModuleList(heads)
        self._heads = heads  # the same, typed
        self.layout = [
            Part(
                int(np.prod(leaf.shape)),
                head.noise_size,
                getattr(torch, row_dtype(leaf)),
                isinstance(leaf, Discrete),
            )
            for head, (_, leaf) in zip(heads, parts, strict=True)
        ]

    def distribution(
        self, outputs: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None
    ) -> Distribution:
        if mask is not None and not self.choices:
            _refuse_mask(mask, "Dict of Box and MultiBinary")
        own = torch.split(outputs, [head.size for head in self._heads], -1)
        log_stds = self._split(log_std, [head.log_std_size for head in self._heads])
        masks = self._split(mask, [head.choices for head in self._heads])
        parts = [
            head.distribution(x, s, m)
            for head, x, s, m in zip(self._heads, own, log_stds, masks, strict=True)
        ]
        return Composite(list(zip(parts, self.layout, strict=True)))

    @staticmethod
    def _split(values: Tensor | None, sizes: list[int]) -> list[Tensor | None]:
        """A piece for every head, None for those that take none."""
        if values is None:
            return [None] * len(sizes)
        return [
            piece if size else None for piece, size in zip(torch.split(values, sizes, -1), sizes, strict=True)
        ]

    def to_env(self, action: Tensor) -> Tensor:
        pieces = torch.split(action, [part.columns for part in self.layout], -1)
        scaled = [
            head.to_env(x).reshape(x.shape) if head.log_std_size else x
            for head, x in zip(self._heads, pieces, strict=True)
        ]
        return torch.cat(scaled, -1)

    def from_env(self, command: Tensor) -> Tensor:
        pieces = torch.split(command, [part.columns for part in self.layout], -1)
        own = [
            head.from_env(x).reshape(x.shape) if head.log_std_size else x
            for head, x in zip(self._heads, pieces, strict=True)
        ]
        return torch.cat(own, -1)


def action_head(space: Space, kind: str = "gaussian") -> ActionHead:
    """The head of an action space; `kind` ("gaussian" or "tanh") is for Box alone.

    Raises ValueError for a space that has no head or an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of a continuous policy; allowed: {', '.join(KINDS)}")
    if isinstance(space, Discrete):
        return CategoricalHead(space)
    if isinstance(space, MultiDiscrete):
        return MultiCategoricalHead(space)
    if isinstance(space, MultiBinary):
        return BernoulliHead(space)
    if isinstance(space, Dict):
        return CompositeHead(space, kind)
    if row_dtype(space) == "float32":
        return BoxHead(space, kind)
    raise ValueError(
        f"no policy acts in a {describe(space)} action space; "
        "allowed: Discrete, MultiDiscrete, MultiBinary, Box of floats, and Dict or Tuple of these"
    )


def _refuse_mask(mask: Tensor | None, space: str) -> None:
    if mask is not None:
        raise ValueError(
            f"an action mask needs choices; a {space} action has none: drop it, or use Discrete actions"
        )


def _inward(bound: np.ndarray, towards: float) -> np.ndarray:
    """The bound in float32, moved `towards` the inside where rounding would step over it."""
    rounded = bound.astype(np.float32)
    outside = rounded < bound if towards > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, np.float32(towards)), rounded)
