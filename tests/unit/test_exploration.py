"""Rewards for what is new: counts against a slow reading of episodes, errors that fall where one has been."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rlkit.config.compose import compose
from rlkit.config.schema import ExplorationConfig
from rlkit.learn.exploration import RND, Count, make_exploration, row_hashes
from rlkit.options import ConfigError
from rlkit.spaces import Box, Dict, Discrete, MultiBinary
from rlkit.types import EnvSpec, Rollout

COUNT = ExplorationConfig(name="count", scale=0.5)
SPEC = EnvSpec("E", Box((2,), "float32"), Discrete(2))
CONFIG = compose(["exploration=rnd"]).config
CPU = torch.device("cpu")


def stream(rows: int = 40, lanes: int = 3, seed: int = 0) -> Rollout:
    """Few different observations, episodes of several lengths, one right after the other."""
    g = torch.Generator().manual_seed(seed)
    first = torch.zeros(rows + 1, lanes, dtype=torch.bool)
    last = torch.zeros_like(first)
    first[0] = True
    for t in range(1, rows + 1):
        first[t] = last[t - 1]
        last[t] = (torch.rand(lanes, generator=g) < 0.15) & ~first[t]
    return Rollout(
        obs=torch.randint(0, 3, (rows + 1, lanes, 2), generator=g).float(),
        first=first,
        last=last,
        action=torch.zeros(rows, lanes, dtype=torch.long),
        reward=torch.randn(rows, lanes, generator=g),
        terminated=last[1:].clone(),
    )


def part(whole: Rollout, begin: int, end: int) -> Rollout:
    rows, steps = slice(begin, end + 1), slice(begin, end)
    assert isinstance(whole.obs, Tensor)
    return Rollout(
        whole.obs[rows], whole.first[rows], whole.last[rows],
        whole.action[steps], whole.reward[steps], whole.terminated[steps],
    )  # fmt: skip


def slow_counts(whole: Rollout) -> Tensor:
    assert isinstance(whole.obs, Tensor)
    out = torch.zeros_like(whole.reward)
    for n in range(out.shape[1]):
        seen: Counter[tuple[float, ...]] = Counter()
        for t in range(len(out) + 1):
            if whole.first[t, n]:
                seen = Counter()
            key = tuple(whole.obs[t, n].tolist())
            seen[key] += 1
            if t:
                out[t - 1, n] = seen[key] ** -0.5
    return out


@pytest.mark.parametrize("cuts", [[40], [1, 39], [7, 8, 9, 16], [40 // 5] * 5])
def test_counts_are_those_of_the_episode_however_rollouts_are_cut(cuts: list[int]) -> None:
    whole = stream()
    count, begin, found = Count(COUNT), 0, []
    for length in cuts:
        rollout = part(whole, begin, begin + length)
        again = Count(COUNT)
        again.load_state_dict(count.state_dict())  # as a resumed run has it
        found.append(count(rollout))
        assert torch.equal(again(rollout).reward, found[-1].reward)
        begin += length
    expected = whole.reward + 0.5 * slow_counts(whole) * whole.valid
    torch.testing.assert_close(torch.cat([each.reward for each in found]), expected)


def test_an_environment_that_was_opened_anew_begins_to_count_anew() -> None:
    count = Count(COUNT)
    count(part(stream(seed=0), 0, 20))
    other = part(stream(seed=1), 0, 20)
    other.obs = other.obs + 5.0  # type: ignore[operator]
    torch.testing.assert_close(count(other).reward, other.reward + 0.5 * slow_counts(other) * other.valid)


def test_hashes_tell_rows_apart_in_every_entry() -> None:
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (1, 500, 7, 7, 3), generator=g, dtype=torch.uint8)
    words = torch.randint(0, 3, (1, 500), generator=g)
    hashes = row_hashes({"image": codes, "direction": words})
    assert len(np.unique(hashes)) == 500
    one = codes.clone()
    one[0, 7, 3, 3, 1] += 1
    changed = row_hashes({"image": one, "direction": words}) != hashes
    assert changed.sum() == 1 and changed[0, 7]
    near = torch.tensor([[[0.50, 1.0]], [[0.52, 1.0]], [[0.70, 1.0]]])
    hashed = row_hashes(near)[:, 0]
    assert hashed[0] == hashed[1] != hashed[2]


def visits(x: float, rows: int = 16) -> Rollout:
    """One lane that stays near (x, x)."""
    g = torch.Generator().manual_seed(int(10 * x))
    flags = torch.zeros(rows + 1, 4, dtype=torch.bool)
    return Rollout(
        obs=x + 0.05 * torch.randn(rows + 1, 4, 2, generator=g),
        first=flags,
        last=flags,
        action=torch.zeros(rows, 4, dtype=torch.long),
        reward=torch.zeros(rows, 4),
        terminated=flags[1:],
    )


def test_what_was_seen_often_is_predicted_and_what_is_new_is_not() -> None:
    rnd = RND(replace(CONFIG.exploration, rnd_lr=3e-3), SPEC, CONFIG, CPU)
    means = []
    for _ in range(20):
        rnd(visits(0.0))
        means.append(rnd.report()["exploration/bonus"])
    rnd(visits(2.0))
    new = rnd.report()["exploration/bonus"]
    assert means[-1] < 0.3 * means[1] and new > 3 * means[-1]


def test_rnd_goes_on_from_its_state_and_the_target_never_changes() -> None:
    one, two = (RND(CONFIG.exploration, SPEC, CONFIG, CPU) for _ in range(2))
    fixed = [p.clone() for p in one.target.parameters()]
    for x in (0.0, 1.0):
        one(visits(x))
    two.load_state_dict(one.state_dict())
    for x in (0.5, 1.0):
        assert torch.equal(one(visits(x)).reward, two(visits(x)).reward)
    assert all(torch.equal(a, b) for a, b in zip(fixed, one.target.parameters(), strict=True))


def test_the_network_of_the_agent_is_that_of_a_run_without() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make_exploration(SPEC, CONFIG, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_that_are_no_transitions_are_paid_and_learned_from_by_none() -> None:
    whole = stream()
    for module in (Count(COUNT), RND(CONFIG.exploration, SPEC, CONFIG, CPU)):
        paid = module(whole)
        assert torch.equal(paid.reward[~whole.valid], whole.reward[~whole.valid])
        assert (paid.reward >= whole.reward).all() and (paid.reward > whole.reward).any()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["exploration=curiosity"], "exploration=curiosity: no such exploration; allowed: count, none, rnd"),
        (
            ["exploration=count", "exploration.scale=0"],
            "exploration.scale=0: too small; allowed: a number above 0",
        ),
    ],
)
def test_bad_options(typed: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(typed)
    assert message in str(caught.value)


def test_what_cannot_be_is_refused_in_a_line() -> None:
    masks = EnvSpec("E", Dict((("action_mask", MultiBinary(2)),)), Discrete(2))
    with pytest.raises(
        ConfigError, match="exploration=rnd: the observation holds nothing but masks and labels"
    ):
        make_exploration(masks, CONFIG, CPU)
    mixed = compose(["exploration=count", "source=ray", "source.mode=async"]).config
    with pytest.raises(ConfigError, match="type exploration=rnd, or source.mode=sync"):
        make_exploration(SPEC, mixed, CPU)
