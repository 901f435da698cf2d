"""What every core promises (rlkit.nn.core): the registered ones, whatever they are, and one from outside."""

from __future__ import annotations

import pytest
import torch

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import Core, make_core
from rlkit.types import tree_leaves
from tests.helpers.core_contract import check_core

CORES = [*registry.names("core"), "outside.nets:Leaky"]


def make(name: str) -> Core:
    torch.manual_seed(0)
    return make_core(NetworkConfig(core=name, core_size=8, core_heads=2, window=5), 5)


@pytest.mark.parametrize("name", CORES)
def test_memory_is_a_value(name: str) -> None:
    core = make(name)
    check_core(core, 5, remembers=core.initial_state(1) != ())


@pytest.mark.parametrize("name", CORES)
def test_it_computes_in_float32_and_every_weight_learns(name: str) -> None:
    core = make(name)
    x, first = torch.randn(6, 3, 5), torch.zeros(6, 3, dtype=torch.bool)
    y, state = core(x, first, core.initial_state(3))
    assert y.shape == (6, 3, core.features) and y.dtype == torch.float32
    assert all(leaf.shape[0] == 3 for leaf in tree_leaves(state))
    with torch.autocast("cpu", torch.bfloat16):
        z, _ = core(x, first, core.initial_state(3))
    assert torch.equal(y, z)
    if y.requires_grad:
        y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())
    other = make_core(NetworkConfig(core=name, core_size=8, core_heads=2, window=5), 5)
    other.load_state_dict(core.state_dict())
    assert torch.equal(other(x, first, core.initial_state(3))[0], y)
