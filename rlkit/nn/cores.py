"""Cores: the memory between encoder and heads, as a value.

    core(x [T, N, F], first [T, N] bool, state) -> (y [T, N, D], state)

The state holds what lanes remember before row 0, every leaf [N, ...]; the one returned is theirs after row
T-1. The core alone clears it where `first` marks the start of an episode, before that row is read. Stepping
row by row, unrolling, and uneven chunks give the same numbers (`tests/unit/core_contract.py` checks any
core).

Gradients flow through the rows of one call, never across an episode's start, and end at the state: the one
given is a constant and the one returned is detached. Sequences of L rows are therefore trained by
back-propagation through time truncated to L, and rows that only warm the memory are a call of their own.
Cores that remember compute in float32 under any autocast: what rounds differently in every row adds up.

A new core is a class with `@core("name")`, taking the number of features it reads and the configuration.
"""

from __future__ import annotations

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import CORES, Core, core
from rlkit.options import nearest


def make_core(config: NetworkConfig, features: int) -> Core:
    """The core that `config.core` names, over F = `features` inputs. Raises ValueError for an unknown name."""
    if config.core not in CORES:
        raise ValueError(f"network.core={config.core}: no such core; {nearest(config.core, CORES)}")
    return CORES[config.core](features, config)


@core("identity")
class Identity(Core):
    """No memory: y = x."""

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.features = features


from rlkit.nn import recurrent, transformer  # noqa: E402, F401
