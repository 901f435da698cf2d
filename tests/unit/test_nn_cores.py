"""Every core keeps the contract, alone and in networks; the contract accepts a right core and catches wrong ones."""

import pytest
import torch

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import Core, Identity, make_core
from rlkit.nn.network import Network
from rlkit.spaces import Box, Dict, Discrete
from rlkit.types import EnvSpec, tree_leaves, tree_map
from tests.helpers.core_contract import check_compiled, check_core


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
        if self.fault != "learns through the state":
            h, age = h.detach(), age.detach()
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
            if self.fault == "does not learn through time":
                h = h.detach()
            age = age * keep + 1
            h = torch.tanh(x[t] @ self.weight + 0.7 * h * keep[:, None] + 0.01 * age[:, None])
            out.append(h)
        if self.fault == "state of the middle":
            h = out[len(out) // 2]
        if self.fault == "writes its state":
            state[0].copy_(h)
        if self.fault != "state with gradients":
            h = h.detach()
        return torch.stack(out), (h, (age,))


def test_identity():
    net = make_core(NetworkConfig(), 5)
    assert isinstance(net, Identity)
    assert net.features == 5
    assert net.initial_state(3) == ()
    x = torch.randn(4, 2, 5)
    y, state = net(x, torch.zeros(4, 2, dtype=torch.bool), ())
    assert y is x
    assert state == ()


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_two_layers_keep_the_contract(core):
    """Of one layer, and of every other core: tests/contract/test_cores.py."""
    check_core(make_core(NetworkConfig(core=core, core_size=8, core_layers=2, core_heads=2), 5), 5)


@pytest.mark.parametrize(("window", "heads"), [(3, 1), (5, 8), (9, 4)])
def test_windows_shorter_than_a_call_keep_it_too(window, heads):
    config = NetworkConfig(core="transformer", core_size=8, core_layers=2, core_heads=heads, window=window)
    check_core(make_core(config, 5), 5)


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_compiled_equals_eager(core):
    check_compiled(make_core(NetworkConfig(core=core, core_size=8, window=4), 5), 5)


class Through(Core):
    """A whole network as a core: rows of numbers become observations, its first head is what comes out."""

    def __init__(self, space, stack, observe, **options):
        super().__init__()
        spec = EnvSpec("test", space, Discrete(2), stack)
        self.network = Network(
            spec, NetworkConfig(core_size=8, hidden=(8,), **options), {"a": (3, 1.0), "b": (1, 1.0)}
        )
        self.features = 3
        self.observe = observe

    def initial_state(self, lanes, device="cpu"):
        return self.network.initial_state(lanes, device)

    def forward(self, x, first, state):
        outputs, state = self.network(self.observe(x), first, state)
        return outputs["a"], state


def pixels(x):
    return (x * 40 + 128).clamp(0, 255).to(torch.uint8).view(*x.shape[:2], 5, 4, 3)


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_networks_with_memory_keep_it(core):
    """Behind a frame stack, in a Dict, and over pixels."""
    vector, image = Box((6,), "float32"), Box((5, 4, 3), "uint8")
    parts = Dict((("near", Box((2,), "float32")), ("far", Box((4,), "float32"))))
    vectors, few = {"core": core, "window": 3}, {"rows": 8, "lanes": 2, "gradients": False}
    check_core(Through(vector, 1, lambda x: x, **vectors), 6, gradients=False)
    check_core(Through(vector, 3, lambda x: x, **vectors), 6, gradients=False)
    check_core(
        Through(parts, 1, lambda x: {"near": x[..., :2], "far": x[..., 2:]}, **vectors), 6, gradients=False
    )
    check_core(Through(image, 1, pixels, core=core), 60, **few)
    check_core(Through(image, 2, pixels, core=core, encoder="impala_cnn", core_layers=2), 60, **few)


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_memory_is_float32_under_autocast(core):
    """So are the heads: rounding to bfloat16 would be seen at 1e-2."""
    net = Through(Box((6,), "float32"), 1, lambda x: x, core=core)
    encoded = net.network.encoders[0](torch.randn(12, 6)).view(4, 3, 8)
    first, memory = torch.zeros(4, 3, dtype=torch.bool), net.network.cores[0]
    y, _ = memory(encoded, first, memory.initial_state(3))
    with torch.autocast("cpu", torch.bfloat16):
        z, state = memory(encoded, first, memory.initial_state(3))
        head = net.network.head("a", z)
        out, _ = net(torch.randn(4, 3, 6), first, net.initial_state(3))
    torch.testing.assert_close(z, y, rtol=0, atol=0)
    assert z.dtype == out.dtype == torch.float32
    assert all(leaf.dtype in (torch.float32, torch.int64) for leaf in tree_leaves(state))
    torch.testing.assert_close(head, net.network.head("a", y), rtol=0, atol=0)
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
@pytest.mark.gpu
def test_the_gpu_computes_the_same(core):
    torch.backends.cuda.matmul.allow_tf32 = False
    net = make_core(NetworkConfig(core=core, core_layers=2), 16)
    x, first = torch.randn(70, 9, 16, requires_grad=True), torch.rand(70, 9) < 0.1
    y, state = net(x, first, net.initial_state(9))
    expected = torch.autograd.grad(y.square().sum(), [x, *net.parameters()])
    net.to("cuda")
    z, end = net(x.cuda(), first.cuda(), net.initial_state(9, "cuda"))
    torch.testing.assert_close(z.cpu(), y, rtol=1e-4, atol=1e-5)
    tree_map(lambda a, b: torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-5), end, state)
    gradients = torch.autograd.grad(z.square().sum(), [x, *net.parameters()])
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a.cpu() / b.norm(), b / b.norm(), rtol=0, atol=1e-5)


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
        "learns through the state",
        "does not learn through time",
        "state with gradients",
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


def test_registry(monkeypatch):
    monkeypatch.setitem(registry._registered["core"], "leaky", Leaky)
    assert "leaky" in registry.names("core")
    assert make_core(NetworkConfig(core="leaky"), 4).features == 3
    with pytest.raises(ValueError, match="network.core=identiti: no such core; did you mean identity"):
        make_core(NetworkConfig(core="identiti"), 4)


def test_heads_share_the_width():
    with pytest.raises(
        ValueError, match="core_size=30 with core_heads=4.* make core_size a multiple of core_heads"
    ):
        NetworkConfig(core="transformer", core_size=30)
    assert NetworkConfig(core="lstm", core_size=30).core_size == 30
