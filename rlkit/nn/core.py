"""Cores: the memory between encoder and heads, as a value.

    core(x [T, N, F], first [T, N] bool, state) -> (y [T, N, D], state)

The state holds what lanes remember before row 0, every leaf [N, ...]; the one returned is theirs after row
T-1. The core alone clears it where `first` marks the start of an episode, before that row is read. Stepping
row by row, unrolling, and uneven chunks give the same numbers (`tests/contract/test_cores.py` checks every
core).

Gradients flow through the rows of one call, never across an episode's start, and end at the state: the one
given is a constant and the one returned is detached. Sequences of L rows are therefore trained by
back-propagation through time truncated to L, and rows that only warm the memory are a call of their own.
Cores that remember compute in float32 under any autocast: what rounds differently in every row adds up.

A new core is a class under `@core("name")` in any file of this folder, taking the number of features it reads and the
configuration; or the same without a decorator in a module of one's own, network.core=my_pkg.mod:Class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.registry import core
from rlkit.types import State


class Core(nn.Module):
    """Base of all cores."""

    features: int  # D, the width of y

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [lanes, ...]. () remembers nothing."""
        return ()

    def forward(self, x: Tensor, first: Tensor, state: State) -> tuple[Tensor, State]:
        """x [T, N, F], first [T, N] bool, state of N lanes -> y [T, N, D], state after the last row."""
        return x, state


def make_core(config: NetworkConfig, features: int) -> Core:
    """The core that `config.core` names, over F = `features` inputs.

    Raises ValueError for an unknown name and for what is no core.
    """
    made = registry.find("core", config.core)(features, config)
    if not isinstance(made, Core) or not isinstance(getattr(made, "features", None), int):
        raise ValueError(
            f"network.core={config.core}: made {type(made).__name__}, which is no rlkit.nn.core.Core with its width "
            "in `features`"
        )
    return made


@core("identity")
class Identity(Core):
    """No memory: y = x."""

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features = features
