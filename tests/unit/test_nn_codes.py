"""Codes and texts: sums of table rows against one-hot products, words against a slow reading of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import Encoder, make_encoder
from rlkit.nn.grid import Grid
from rlkit.nn.lookup import Codes, lookup
from rlkit.nn.text import BASE, TABLES, Text
from rlkit.spaces import Box, Dict, Discrete, text_row

VIEW = Box((7, 7, 3), "uint8", 0.0, 255.0, meaning="codes")
SAID = Box((96,), "uint8", 0.0, 255.0, meaning="text")


def codes(*shape: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(0, n, shape, generator=g) for n in (11, 6, 4)], -1).to(torch.uint8)


def texts(*said: str) -> Tensor:
    return torch.stack([torch.tensor(text_row(each, 96)) for each in said])


def test_a_lookup_is_the_product_with_one_hot_rows_and_so_is_its_gradient() -> None:
    g = torch.Generator().manual_seed(1)
    table = torch.randn(9, 4, generator=g, dtype=torch.float64).requires_grad_()
    index = torch.randint(0, 9, (50, 3), generator=g)
    index[0] = 5  # the same row three times
    hot = torch.nn.functional.one_hot(index, 9).sum(1).double()
    ours, known = lookup(index, table), hot @ table
    torch.testing.assert_close(ours, known)
    weight = torch.randn(50, 4, generator=g, dtype=torch.float64)
    gradients = [torch.autograd.grad((each * weight).sum(), table)[0] for each in (ours, known)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(7, 7, 3), (3, 9, 8), (5, 6)])
@pytest.mark.parametrize("stack", [1, 2])
def test_every_channel_of_every_frame_has_rows_of_its_own(shape: tuple[int, ...], stack: int) -> None:
    """e(x) = sum_c W[c, x_c], cell by cell, in the order [B, H, W]."""
    net = Codes(Box(shape, "uint8", 0.0, 19.0), stack, 5, "grid")
    g = torch.Generator().manual_seed(2)
    obs = torch.randint(0, 20, (4, *([stack] if stack > 1 else []), *shape), generator=g, dtype=torch.uint8)
    out = net(obs)
    frames = obs if stack > 1 else obs[:, None]
    if len(shape) == 2:
        frames = frames[..., None]
    elif shape == (3, 9, 8):  # channels first
        frames = frames.movedim(2, -1)
    count = frames.shape[-1]
    assert net.table.shape == (20 * stack * count, 5)
    slow = torch.zeros(4, *frames.shape[2:4], 5)
    for b, k, h, w, c in torch.cartesian_prod(*map(torch.arange, frames.shape)).tolist():
        slow[b, h, w] += net.table[(k * count + c) * 20 + int(frames[b, k, h, w, c])]
    torch.testing.assert_close(out, slow)


def test_two_kinds_of_things_differ_as_much_as_any_others() -> None:
    """A key and a ball are neighbours in number; the features of both differ like those of unlike things."""
    torch.manual_seed(0)
    net = make_encoder(VIEW)
    assert isinstance(net, Grid)
    seen = torch.zeros(3, 7, 7, 3, dtype=torch.uint8)
    seen[:, 3, 3, 0] = torch.tensor([5, 6, 200], dtype=torch.uint8)
    key, ball, other = net(seen)
    assert 0.3 < (key - ball).norm() / (key - other).norm() < 3


def test_small_grids_keep_their_size() -> None:
    for shape in ((1, 1, 2), (2, 6, 1), (4, 4, 3)):
        net = make_encoder(Box(shape, "uint8", 0.0, 3.0, "last", "codes"))
        assert net(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, 128)


def test_an_mlp_looks_codes_up_as_well() -> None:
    net = make_encoder(VIEW, 1, NetworkConfig(encoder="mlp", hidden=(16,)))
    out = net(codes(5, 7, 7))
    assert out.shape == (5, 16) and any(each.shape == (768, 8) for each in net.parameters())


@pytest.mark.parametrize(
    "text", ["", " ", "go", "go to the blue door", "  öffne\tdie Tür ", "a" * 96, "a b" * 32]
)
def test_words_are_those_between_blanks(text: str) -> None:
    net = Text(96, 1, NetworkConfig())
    powers = [1]
    for _ in range(95):
        powers.append(powers[-1] * BASE % (2**31 - 1))
    known = [
        sum((byte + 1) * powers[i] for i, byte in enumerate(word.encode()))
        for word in text.replace("\t", " ").split()
    ]
    hashed, count = net.hashes(texts(text))
    assert int(count) == len(known)
    room = net.words
    folded = (
        known
        if len(known) <= room
        else [sum(known[: len(known) - room + 1]), *known[len(known) - room + 1 :]]
    )
    assert hashed[0].tolist() == [0] * (room - len(folded)) + folded


def features(net: Encoder, *said: str) -> Tensor:
    with torch.no_grad():
        return net(texts(*said))


def test_order_words_and_letters_matter_and_blanks_do_not() -> None:
    torch.manual_seed(0)
    net = make_encoder(SAID)
    assert isinstance(net, Text)
    base, *others = features(
        net, "go to the red door", "go to the door red", "go to the rex door", "to the red door", "der"
    )
    assert all((base - other).norm() > 0.01 for other in others)
    same = features(net, " go  to the red door ")
    torch.testing.assert_close(same[0], base, rtol=0, atol=1e-6)


def test_the_last_state_is_that_of_the_words_alone() -> None:
    """Word by word through the cell, from an empty memory."""
    torch.manual_seed(0)
    net = Text(96, 1, NetworkConfig())
    hashed, _ = net.hashes(texts("pick up the ball"))
    h = torch.zeros(1, 64)
    for value in hashed[0, -4:].tolist():
        x = net.table[value % TABLES[0]] + net.table[TABLES[0] + value % TABLES[1]]
        gates = net.gru.reads[0](x[None])
        (h,) = net.gru.cell(gates, net.gru.recalls[0], h)
    torch.testing.assert_close(features(net, "pick up the ball"), h, rtol=1e-5, atol=1e-6)


def test_words_of_missions_have_different_hashes() -> None:
    net = Text(4096, 1, NetworkConfig())
    words = [
        f"{a}{b}"
        for a in "abcdefghij"
        for b in ("all", "oor", "ed", "ey", "rey", "reen", "ox", "o", "pen", "urple")
    ]
    hashed, _ = net.hashes(torch.tensor(text_row(" ".join(words), 4096))[None])
    pairs = {(value % TABLES[0], value % TABLES[1]) for value in hashed[0, -len(words) :].tolist()}
    assert len(pairs) == len(words) == 100


def test_entries_of_a_dict_are_read_by_what_they_mean() -> None:
    space = Dict((("direction", Discrete(4)), ("image", VIEW), ("mission", SAID)))
    for name, known in (("auto", Grid), ("grid", Grid)):
        net = make_encoder(space, 1, NetworkConfig(encoder=name))
        kinds = [type(entry) for entry in net.entries]  # type: ignore[union-attr]
        assert kinds[1] is known and kinds[2] is Text


def test_traced_they_give_the_same_gradients() -> None:
    """The lookup and the words are operators that a compiled graph calls, not loops that it unrolls."""
    from torch.fx.experimental.proxy_tensor import make_fx

    net = make_encoder(Dict((("image", VIEW), ("mission", SAID))))

    def gradients(image: Tensor, mission: Tensor) -> list[Tensor]:
        loss = net({"image": image, "mission": mission}).square().sum()
        return list(torch.autograd.grad(loss, list(net.parameters())))

    obs = codes(3, 7, 7), texts("go to the red door", "", "a b c")
    graph = make_fx(gradients)(*obs)
    called = [str(node.target) for node in graph.graph.nodes]
    for name, count in (("lookup", 2), ("gru", 1)):
        assert (
            called.count(f"rlkit.{name}_forward.default")
            == called.count(f"rlkit.{name}_backward.default")
            == count
        )
    with torch.no_grad():
        traced = graph(*obs)
    torch.testing.assert_close(traced, gradients(*obs))
