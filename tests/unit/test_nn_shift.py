"""Random shifts: pixels by hand, only in losses, the same numbers again, and independent of what they should be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit import ranks
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig
from rlkit.learn.optim import Optimiser
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Network
from rlkit.nn.shift import Shift, shifted
from rlkit.options import ConfigError
from rlkit.perception.run import check
from rlkit.spaces import MASK, Box, Dict, Discrete, MultiBinary
from rlkit.types import EnvSpec

IMAGE = Box((12, 10, 3), "uint8", 0.0, 255.0)
CONFIG = NetworkConfig(encoder="small_cnn", augment="shift", augment_pixels=2)


def bytes_(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make(space: Box = IMAGE, pixels: int = 2, alike: bool = False) -> Shift:
    torch.manual_seed(0)
    shift = Shift(space, pixels, alike)
    shift.begin(0)
    return shift


def test_pixels_are_those_of_a_padded_crop() -> None:
    """DrQ: pad by p with the border's pixels, cut the size out again."""
    x = bytes_(20, 12, 10, 3)
    down, across = torch.randint(-2, 3, (2, 20), generator=torch.Generator().manual_seed(1))
    padded = F.pad(x.permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="replicate").permute(0, 2, 3, 1).byte()
    expected = torch.stack(
        [
            p[2 + i : 14 + i, 2 + j : 12 + j]
            for p, i, j in zip(padded, down.tolist(), across.tolist(), strict=True)
        ]
    )
    assert torch.equal(shifted(x, down, across, 2, -3), expected)
    assert torch.equal(shifted(x.permute(0, 3, 1, 2), down, across, 2, -2).permute(0, 2, 3, 1), expected)
    assert torch.equal(shifted(x[..., 0], down, across, 2, -2), expected[..., 0])
    stack = torch.stack([x, x], 1)  # frames of a stack are moved alike
    assert torch.equal(shifted(stack, down, across, 2, -3), torch.stack([expected, expected], 1))


def moves(shift: Shift, rows: int, lanes: int) -> Tensor:
    """Where each row was moved, down and across [rows, lanes, 2]: read off pixels that say where they are."""
    line = torch.arange(24, dtype=torch.uint8).expand(24, 24)
    new = shift(torch.stack([line.T, line], -1).expand(rows * lanes, 24, 24, 2), rows, lanes)
    assert isinstance(new, Tensor)
    return (new[:, 12, 12].long() - 12).view(rows, lanes, 2)


PLACES = Box((24, 24, 2), "uint8", 0.0, 255.0, "last")


def losses(count: int) -> Iterator[Shift]:
    """One network in several losses."""
    shift = make(PLACES, 4)
    for _ in range(count):
        yield shift
        shift.begin(0)


def test_every_shift_is_as_likely_as_another() -> None:
    found = torch.cat([moves(shift, 20, 100).view(-1, 2) for shift in losses(3)])
    counts = (found[:, 0] + 4 + 9 * (found[:, 1] + 4)).bincount(minlength=81)
    assert len(counts) == 81
    assert ((counts - 6000 / 81) ** 2 / (6000 / 81)).sum() < 120  # chi squared of 80: 80, deviation 13
    for a, b in (
        (found[:-1, 0], found[1:, 0]),
        (found[:, 0], found[:, 1]),
        (found[:-2000, 1], found[2000:, 1]),
    ):
        assert torch.corrcoef(torch.stack([a, b]).double())[0, 1].abs() < 0.05


def test_losses_passes_networks_and_rows_draw_apart() -> None:
    shift = make(PLACES, 4)
    first = moves(shift, 3, 20)
    assert not torch.equal(first, moves(shift, 3, 20)), "another pass of the same loss"
    assert not torch.equal(first[0], first[1]), "another row"
    shift.key -= 1
    shift.begin(1)
    assert not torch.equal(first, moves(shift, 3, 20)), "another network"
    shift.begin(0)
    assert not torch.equal(first, moves(shift, 3, 20)), "another loss"
    assert torch.equal(first, moves(make(PLACES, 4), 3, 20)), "the same key"
    alike = moves(make(PLACES, 4, alike=True), 3, 20)
    assert torch.equal(alike[0], alike[1]) and not torch.equal(alike[0, :-1], alike[0, 1:])


def test_ranks_shift_a_shared_batch_as_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = moves(make(PLACES, 4), 2, 6)
    monkeypatch.setattr(ranks, "_size", 2)
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "_rank", rank)
        assert torch.equal(moves(make(PLACES, 4), 2, 3), whole[:, 3 * rank : 3 * rank + 3])


def network(augment: str = "shift", space: Box | Dict = IMAGE, stack: int = 1) -> Network:
    torch.manual_seed(0)
    return Network(
        EnvSpec("test", space, Discrete(2), stack), replace(CONFIG, augment=augment), {"q": (2, 1.0)}
    )


def run(net: Network, obs: Tensor) -> Tensor:
    """The outputs of one row of lanes."""
    lanes = len(obs)
    return net(obs[None], torch.ones(1, lanes, dtype=torch.bool), net.initial_state(lanes))[0]["q"][0]


class Losses:
    """A network, its optimiser, and what it said of the same rows in each loss."""

    def __init__(self, augment: str) -> None:
        self.net, self.target = network(augment), network(augment)
        self.seen: list[Tensor] = []
        both = nn.ModuleDict({"net": self.net, "target": self.target})
        config = OptimConfig(name="adam", lr=1e-3)
        self.optim = Optimiser(
            self.net, self.loss, config, precision=torch.float32, compile=False, reads=both
        )

    def loss(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        found = [run(self.net, obs), run(self.net, obs), run(self.target, obs)]
        self.seen.append(torch.stack(found).detach())
        return found[0].square().mean(), torch.zeros(1)


def test_only_losses_see_shifted_pictures() -> None:
    obs, plain, with_shift = bytes_(8, 12, 10, 3), Losses("none"), Losses("shift")
    before = run(with_shift.net, obs)
    assert torch.equal(before, run(plain.net, obs)), "weights or acting differ"
    for each in (plain, with_shift):
        each.optim.minimise(obs)
    assert torch.equal(plain.seen[0][0], plain.seen[0][1]) and torch.equal(plain.seen[0][0], before)
    online, again, target = with_shift.seen[0]
    assert not any(torch.equal(a, b) for a, b in ((online, before), (online, again), (online, target)))
    assert torch.equal(run(with_shift.net, obs), run(with_shift.net, obs))
    assert with_shift.net.state_dict().keys() == plain.net.state_dict().keys()


def test_a_loss_that_fails_leaves_nothing_on() -> None:
    losses = Losses("shift")
    with pytest.raises(ValueError, match="unpack"):
        losses.optim.minimise(torch.zeros(3))
    assert not any(shift.on for shift in losses.optim.shifts)


def test_what_is_continued_draws_what_would_have_come() -> None:
    obs, losses = bytes_(8, 12, 10, 3), Losses("shift")
    for _ in range(3):
        losses.optim.minimise(obs)
    state = copy.deepcopy((losses.net.state_dict(), losses.optim.state_dict()))
    other = Losses("shift")
    other.net.augment.key += 99  # type: ignore[union-attr]
    other.net.load_state_dict(state[0])
    other.optim.load_state_dict(state[1])
    for each in (losses, other):
        each.optim.minimise(obs)
    assert torch.equal(losses.seen[-1], other.seen[-1])
    assert torch.equal(losses.optim.flat, other.optim.flat)
    assert not torch.equal(losses.seen[-1], losses.seen[-2])


def test_a_dict_has_its_images_moved_and_nothing_else() -> None:
    codes = Box((7, 7, 3), "uint8", 0.0, 255.0, "last", "codes")
    space = Dict(
        (("camera", IMAGE), ("codes", codes), ("speed", Box((2,), "float32")), (MASK, MultiBinary(2)))
    )
    shift = Shift(space, 2, False)
    shift.begin(0)
    obs = {
        "camera": bytes_(6, 12, 10, 3),
        "codes": bytes_(6, 7, 7, 3),
        "speed": torch.randn(6, 2),
        MASK: bytes_(6, 2),
    }
    new = shift(obs, 1, 6)
    assert isinstance(new, dict) and new.keys() == obs.keys()
    assert {name for name in obs if new[name] is not obs[name]} == {"camera"}
    assert not torch.equal(new["camera"], obs["camera"])


@pytest.mark.parametrize(
    "space",
    [Box((3,), "float32"), Box((12, 10), "float32"), Box((7, 7, 3), "uint8", meaning="codes"), Discrete(3)],
)
def test_where_there_is_no_image_it_is_refused(space: Box | Discrete) -> None:
    config = NetworkConfig(augment="shift")
    with pytest.raises(
        ValueError, match=r"^network.augment=shift .* there is none .* type network.augment=none$"
    ):
        Network(EnvSpec("test", space, Discrete(2)), config, {"q": (2, 1.0)})


def test_tasks_refuse_it_for_their_labels_sake() -> None:
    """A task's pictures are moved together with masks and boxes: augment.shift."""
    run = compose(["task=classify", "data=digits", "network.augment=shift"]).config
    with pytest.raises(ConfigError, match=r"^network.augment=shift: is for agents; .* augment.shift=4$"):
        check(run)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ppo", "reinforce", "dqn", "ddpg"])
def test_every_agent_finds_the_shifts_of_the_networks_that_learn(name: str) -> None:
    """Whatever an optimiser steps and whatever is read beside it; an agent without them would learn unshifted."""
    algorithm = registry.algorithm(name)
    action = Box((2,), "float32", -1.0, 1.0) if name == "ddpg" else Discrete(2)
    policy = algorithm.Policy(EnvSpec("test", IMAGE, action), CONFIG, algorithm.Config())
    agent = algorithm.Agent(policy, algorithm.Config(), OptimConfig())
    optimisers = [each for each in vars(agent).values() if isinstance(each, Optimiser)]
    networks = [each for each in vars(agent).values() if isinstance(each, nn.Module)]
    expected = {id(part) for each in networks for part in each.modules() if isinstance(part, Shift)}
    assert expected and all({id(shift) for shift in each.shifts} == expected for each in optimisers)
