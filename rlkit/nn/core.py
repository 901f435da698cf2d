"""CORE"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
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


CORES: dict[str, Callable[[int, NetworkConfig], Core]] = {}


C = TypeVar("C", bound=Callable[[int, NetworkConfig], Core])


def core(name: str) -> Callable[[C], C]:
    """Register a core under `name`."""

    def register(build: C) -> C:
        CORES[name] = build
        return build

    return register
