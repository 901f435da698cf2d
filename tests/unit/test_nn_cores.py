"""The identity core, and the contract helper itself: it accepts a right core and catches wrong ones."""

import pytest
import torch

from rlkit.nn.config import NetworkConfig
from rlkit.nn.cores import CORES, Core, Identity, core, make_core
from tests.unit.core_contract import check_core


class Leaky(Core):
    """h_t = tanh(x_t W + a h_{t-1}), cleared where an episode opens; two state leaves, one nested."""

    def __init__(self, features, config=None, fault=None):
        super().__init__()
        self.features = 3
        self.fault = fault
        g = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(features, 3, generator=g))

    def initial_state(self, lanes, device="cpu"):
        if self.fault == "lanes second":
            return (torch.zeros(3, lanes), (torch.zeros(lanes),))
        return (torch.zeros(lanes, 3, device=device), (torch.zeros(lanes, device=device),))

    def forward(self, x, first, state):
        h, (age,) = state
        out = []
        for t in range(x.shape[0]):
            keep = (~first[t]).float()
            if self.fault == "never cleared":
                keep = torch.ones_like(keep)
            if self.fault == "cleared too late":
                keep = (~first[t - 1]).float() if t else torch.ones_like(keep)
            if self.fault == "only the first row clears" and t:
                keep = torch.ones_like(keep)
            if self.fault == "forgets":
                keep = torch.zeros_like(keep)
            if self.fault == "mixes lanes":
                h = h.mean(0, keepdim=True).expand_as(h)
            age = age * keep + 1
            h = torch.tanh(x[t] @ self.weight + 0.7 * h * keep[:, None] + 0.01 * age[:, None])
            out.append(h)
        if self.fault == "state of the middle":
            h = out[len(out) // 2]
        if self.fault == "writes its state":
            state[0].copy_(h)
        return torch.stack(out), (h, (age,))


def test_identity():
    net = make_core(NetworkConfig(), 5)
    assert isinstance(net, Identity)
    assert net.features == 5
    assert net.initial_state(3) == ()
    check_core(net, 5, remembers=False)
    x = torch.randn(4, 2, 5)
    y, state = net(x, torch.zeros(4, 2, dtype=torch.bool), ())
    assert y is x
    assert state == ()


@pytest.mark.parametrize("seed", range(3))
def test_a_right_core_passes(seed):
    check_core(Leaky(5), 5, seed=seed)


@pytest.mark.parametrize(
    "fault",
    [
        "never cleared",
        "cleared too late",
        "only the first row clears",
        "forgets",
        "mixes lanes",
        "lanes second",
        "state of the middle",
        "writes its state",
    ],
)
def test_wrong_cores_are_caught(fault):
    with pytest.raises((AssertionError, RuntimeError)):
        check_core(Leaky(5, fault=fault), 5)


def test_memoryless_claim_is_checked():
    with pytest.raises(AssertionError, match="the past changes"):
        check_core(Leaky(5), 5, remembers=False)
    with pytest.raises(AssertionError, match="the past does not change"):
        check_core(Identity(5, NetworkConfig()), 5, remembers=True)


def test_registry():
    core("leaky")(Leaky)
    try:
        assert make_core(NetworkConfig(core="leaky"), 4).features == 3
    finally:
        del CORES["leaky"]
    with pytest.raises(ValueError, match="network.core=identiti: no such core; did you mean identity"):
        make_core(NetworkConfig(core="identiti"), 4)
