"""An action of several choices as one choice among their combinations, for agents that value every action."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlkit.spaces import MASK, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from rlkit.types import EnvSpec, Obs, mask_of

LARGEST = 4096  # combinations that are enumerated


class Choices(nn.Module):
    """Discrete, MultiDiscrete or MultiBinary as n choices, in the order of `itertools.product`."""

    table: Tensor
    column: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        nvec = _nvec(space)
        grid = torch.cartesian_prod(*(torch.arange(n) for n in nvec)).view(-1, len(nvec))  # [n, k]
        self.n, self.single = len(grid), isinstance(space, Discrete)
        dtype = torch.int8 if isinstance(space, MultiBinary) else torch.int64
        self.register_buffer("table", grid.to(dtype), persistent=False)
        offset = torch.tensor([0, *nvec[:-1]]).cumsum(0)
        self.register_buffer("column", grid + offset, persistent=False)  # of a mask: [n, k]

    def to_env(self, number: Tensor) -> Tensor:
        """Numbers of choices [...] -> actions of the space [..., k] (Discrete: [...])."""
        return number if self.single else self.table[number]

    def allowed(self, obs: Obs) -> Tensor | None:
        """[..., n] bool by the entry action_mask of an observation, None where it has none.

        The mask of a MultiDiscrete is [..., sum(nvec)]. A row that allows nothing allows everything: nobody acts on it.
        """
        mask = mask_of(obs)
        if mask is None:
            return None
        if not self.single:
            mask = mask[..., self.column].all(-1)  # [..., n, k] -> [..., n]
        return mask | ~mask.any(-1, keepdim=True)

    def random(self, noise: Tensor, allowed: Tensor | None) -> Tensor:
        """A choice for each uniform noise [N] in (0, 1), equally likely among those allowed [N, n]: [N]."""
        if allowed is None:
            return (noise * self.n).long()
        count = allowed.cumsum(-1)  # [N, n]
        before = (noise[:, None] * count[:, -1:]).floor()  # how many of the allowed ones come first
        return (count > before).to(torch.uint8).argmax(-1)


def check_choices(spec: EnvSpec) -> None:
    """Raise ValueError where the combinations are too many, or masked in a way that has no meaning."""
    count = math.prod(_nvec(spec.action))
    if count > LARGEST:
        raise ValueError(
            f"its actions have {count:,} combinations, and each would need a value of its own; "
            f"allowed: up to {LARGEST:,}; type agent=ppo"
        )
    masked = isinstance(spec.observation, Dict) and MASK in dict(spec.observation.entries)
    if masked and isinstance(spec.action, MultiBinary):
        raise ValueError("an action mask needs choices; a MultiBinary action has none: make it MultiDiscrete")


def _nvec(space: Space) -> tuple[int, ...]:
    """How many values each choice has."""
    if isinstance(space, Discrete):
        return (space.n,)
    if isinstance(space, MultiDiscrete):
        return space.nvec
    assert isinstance(space, MultiBinary), f"{type(space).__name__} is no space of choices"
    return (2,) * space.n
