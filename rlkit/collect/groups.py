"""Acting for some lanes at a time, so that a lane's numbers do not depend on how many others there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from rlkit.types import Obs, State, tree_map

# (obs, first, state, noise) -> (action, the same in the environment's units, state, what the policy reports)
Decide: TypeAlias = Callable[[Obs, Tensor, State, Tensor], tuple[Tensor, Tensor, State, dict[str, Tensor]]]


class Grouped:
    """`decide` for `lanes` lanes, `group` at a time, each in memory of its own (sums may follow its alignment)."""

    def __init__(self, decide: Decide, group: int, lanes: int) -> None:
        self.decide = decide
        self.groups = [slice(start, start + group) for start in range(0, lanes, group)]

    def __call__(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor
    ) -> tuple[Tensor, Tensor, State, dict[str, Tensor]]:
        parts = [
            self.decide(*tree_map(lambda x: x[group].clone(), (obs, first, state, noise)))  # noqa: B023
            for group in self.groups
        ]
        return parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves), *parts)
