"""What every encoder promises: the registered ones, whatever they are, and one from outside the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import Encoder, make_encoder
from rlkit.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space, row_dtype
from tests.helpers.runs import ROOT, program

ENCODERS = ["auto", *registry.names("encoder"), "outside.nets:wide"]
SPACES = {
    "vector": Box((3,), "float32"),
    "scalar": Box((), "float32"),
    "bytes": Box((4,), "uint8", 0.0, 255.0),
    "choice": Discrete(5),
    "choices": MultiDiscrete((3, 2), (0, 0)),
    "bits": MultiBinary(4),
    "large": Box((36, 36), "uint8", 0.0, 255.0),
    "color": Box((5, 4, 3), "uint8", 0.0, 255.0),
    "channels first": Box((3, 6, 5), "uint8", 0.0, 255.0),
    "floats": Box((6, 5, 4), "float32", 0.0, 1.0),
}


@pytest.fixture(autouse=True)
def _quick_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of about the same size: to make large ones orthogonal takes longer than all the rest."""
    monkeypatch.setattr(
        torch.nn.init, "orthogonal_", lambda x, gain=1.0: x.data.normal_(0, gain / x[0].numel() ** 0.5)
    )


def rows(space: Space, *leading: int) -> Tensor:
    """Random rows [*leading, *shape]."""
    g = torch.Generator().manual_seed(0)
    shape = (*leading, *space.shape)  # type: ignore[union-attr]
    kind = row_dtype(space)
    if kind == "float32":
        return torch.randn(shape, generator=g)
    return torch.randint(0, 256 if kind == "uint8" else 2, shape, generator=g, dtype=getattr(torch, kind))


def make(name: str, space: Space, stack: int, normalize: bool = False) -> Encoder | None:
    """The encoder; None where it says in one line that it does not read the space, and what to use."""
    torch.manual_seed(0)
    try:
        return make_encoder(space, stack, NetworkConfig(encoder=name, hidden=(8,), normalize=normalize))
    except ValueError as error:
        text = str(error)
        assert "\n" not in text and "reads" in text and "use " in text, (
            f"not a line that says what to use: {text}"
        )
        return None


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ENCODERS)
def test_rows_become_features(name: str, space: str, stack: int) -> None:
    net = make(name, SPACES[space], stack)
    if net is None:
        return
    obs = rows(SPACES[space], *((4, stack) if stack > 1 else (4,)))
    before = obs.clone()
    out = net(obs)
    assert out.shape == (4, net.features) and out.dtype == torch.float32 and out.isfinite().all()
    assert torch.equal(obs, before) and torch.equal(net(obs), out), "encoding changes the rows or the encoder"
    # a row's features do not depend on its neighbours; what another batch size rounds differently is proportional to
    # the numbers that are summed, so the tolerance is relative to the largest feature
    torch.testing.assert_close(net(obs[1:3]), out[1:3], rtol=0.0, atol=1e-5 * float(out.detach().abs().max()))
    out.square().sum().backward()
    parameters = list(net.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert not parameters or parameters[0].grad.any(), "no gradient reaches the input layer"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ENCODERS)
def test_it_reads_something_and_travels_with_its_state(name: str) -> None:
    read = []
    for space in SPACES.values():
        net, other = (make(name, space, 2, normalize=True) for _ in range(2))
        if net is None or other is None:
            continue
        read.append(space)
        net.observe(rows(space, 6, 4), torch.ones(6, 4, dtype=torch.bool))  # unstacked rows [T, N, ...]
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(rows(space, 4, 2)), other(rows(space, 4, 2)))
    assert read, f"network.encoder={name} reads none of {list(SPACES)}"


def test_a_new_encoder_is_a_new_set_of_tests() -> None:
    """As many as any other has, and nobody wrote its name anywhere but in its decorator."""
    text = (
        "import sys, pytest\nfrom rlkit.nn.registry import encoder\n"
        "encoder('brand_new')(lambda space, stack, config: None)\n"
        f"sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', {__file__!r}]))"
    )
    process = program(ROOT, text)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    counts = [sum(f"[{name}" in line for line in output.splitlines()) for name in ("brand_new", "mlp")]
    assert counts[0] == counts[1] == 2 * len(SPACES) + 1
