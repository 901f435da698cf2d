"""Priorities: by hand, against the slow obvious version, and in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlkit.config.schema import ReplayConfig
from rlkit.replay import priorities
from rlkit.replay.memory import Replay
from rlkit.replay.priorities import EPSILON, SumTree, uniform
from tests.helpers.experience import Policy, Stream

KEY = np.uint64(7)


def splitmix(seed: int) -> int:
    """SplitMix64's first output from a seed, in Python's integers."""
    mask = 2**64 - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_uniforms_are_splitmix() -> None:
    """Published: seed 0 gives 0xE220A8397B1DCDAF first, then 0x6E789E6AA1B965F4."""
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert uniform(np.uint64(0), np.uint64(1)) == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
    assert uniform(np.uint64(0), np.uint64(2)) == (0x6E789E6AA1B965F4 >> 11) * 2.0**-53
    values = np.array([uniform(KEY, np.uint64(i)) for i in range(20_000)])
    assert values.min() >= 0 and values.max() < 1
    # deviations of the mean and of neighbours' correlation are 1 / sqrt(12 n) and 1 / sqrt(n)
    assert abs(values.mean() - 0.5) < 4 / np.sqrt(12 * 20_000)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / np.sqrt(20_000)


def test_by_hand() -> None:
    """Five items, priorities 1, 2, 0, 4, 1 (total 8); strata of 4 draws begin at 0, 2, 4, 6.

    [0, 1) is item 0, [1, 3) item 1, [3, 7) item 3, [7, 8) item 4: the draws are from {0, 1}, {1, 3}, {3}, {3, 4}.
    With beta 1/2, w = (5 P)^-1/2 = (5/8, 10/8, 20/8, 5/8)^-1/2, over the largest: 1, 1/sqrt 2, 1/2, 1.
    """
    tree = SumTree(5, alpha=1.0)
    tree.put(0, np.array([1.0, 2, 0, 4, 1]))
    assert tree.total == 8
    seen: list[set[int]] = [set(), set(), set(), set()]
    index = np.zeros(4, np.int64)
    for counter in range(0, 400, 4):
        tree.draw(KEY, counter, index)
        for stratum, i in zip(seen, index, strict=True):
            stratum.add(int(i))
    assert seen == [{0, 1}, {1, 3}, {3}, {3, 4}]
    weights = tree.weights(np.array([0, 1, 3, 4]), 5, 0.5)
    assert weights == pytest.approx([1, 2**-0.5, 0.5, 1])
    assert tree.weights(np.array([0, 1, 3, 4]), 5, 0.0).tolist() == [1, 1, 1, 1]


def test_updates_by_hand() -> None:
    """p = (|td| + 1e-6)^1/2: of 4 and -9 it is 2 and 3; the largest so far stays when errors shrink."""
    tree = SumTree(3, alpha=0.5)
    assert tree.largest == 1
    tree.update(np.array([0, 2]), np.array([4.0, -9.0]))
    assert tree.leaves == pytest.approx([2, 0, 3], rel=1e-6)
    tree.update(np.array([2, 2]), np.array([0.0, 0.25]))  # the later of two counts
    assert tree.leaves == pytest.approx([2, 0, 0.5], rel=1e-5)
    assert tree.largest == pytest.approx(3, rel=1e-6)
    assert tree.total == pytest.approx(2.5, rel=1e-6)
    tree.update(np.array([1]), np.array([0.0]))
    assert tree.leaves[1] == pytest.approx(EPSILON**0.5)  # it can still be drawn
    tree.update(np.array([1, 0]), np.array([np.nan, np.inf]))
    assert tree.leaves[:2] == pytest.approx([3, 3], rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1025])
def test_draws_are_those_of_the_cumulative_sum(size: int) -> None:
    """Slow version: the first item whose cumulative priority exceeds the mass (b + u) total / B."""
    rng = np.random.default_rng(size)
    tree, plain = SumTree(size, alpha=1.0), np.zeros(size)
    for counter in range(0, 6400, 64):
        begin = int(rng.integers(0, size))
        # whole numbers: sums are exact in any order
        values = rng.integers(0, 5, min(int(rng.integers(1, 40)), size - begin)).astype(float)
        tree.put(begin, values)
        plain[begin : begin + len(values)] = values
        assert tree.leaves.tolist() == plain.tolist()
        assert tree.total == plain.sum()
        if tree.total == 0:
            continue
        index = np.zeros(64, np.int64)
        tree.draw(KEY, counter, index)
        mass = [(b + uniform(KEY, np.uint64(counter + b))) / 64 * tree.total for b in range(64)]
        slow = [int(np.flatnonzero(np.cumsum(plain) > m)[0]) for m in mass]
        assert index.tolist() == slow


def test_rounding_never_draws_what_has_no_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """(1 + u) / 2 rounds to 1, and the mass to the total, beyond the last item; the draw stays at that item."""
    monkeypatch.setattr(priorities, "uniform", lambda key, counter: 1 - 2.0**-53)
    rng = np.random.default_rng(3)
    index = np.zeros(2, np.int64)
    for _ in range(300):
        tree = SumTree(13, alpha=1.0)
        tree.put(2, rng.exponential(size=7))
        priorities._draw.py_func(tree._tree, tree._leaves, KEY, np.uint64(0), index)  # type: ignore[attr-defined]
        assert index[1] == 8


def test_frequencies_are_the_probabilities() -> None:
    """Closed form: item i is drawn with p_i^alpha / sum. 64,000 draws by strata vary less than independent ones."""
    rng = np.random.default_rng(0)
    td = rng.exponential(size=50)
    tree = SumTree(50, alpha=0.6)
    tree.update(np.arange(50), td)
    counts = np.zeros(50)
    index = np.zeros(64, np.int64)
    for counter in range(0, 64_000, 64):
        tree.draw(KEY, counter, index)
        counts += np.bincount(index, minlength=50)
    probability = (td + EPSILON) ** 0.6 / ((td + EPSILON) ** 0.6).sum()
    assert tree.leaves / tree.total == pytest.approx(probability)
    deviation = np.sqrt(64_000 * probability * (1 - probability))
    assert np.all(np.abs(counts - 64_000 * probability) < 4.5 * deviation)


def test_weights_undo_the_priorities() -> None:
    """Closed form: with beta = 1, sum_i P(i) w_i f(i) is proportional to the plain mean of f."""
    rng = np.random.default_rng(1)
    tree = SumTree(200, alpha=0.8)
    tree.update(np.arange(200), rng.exponential(size=200))
    index, f = np.arange(200), rng.standard_normal(200)
    weights, probability = tree.weights(index, 200, 1.0), tree.leaves / tree.total
    assert weights.max() == 1
    estimate = (probability * weights * f).sum() / (probability * weights).sum()
    assert estimate == pytest.approx(f.mean())


def test_a_tree_is_a_function_of_its_leaves() -> None:
    """Sums after 10,000 changes are bit for bit those of a tree made from the leaves at once: nothing drifts."""
    rng = np.random.default_rng(2)
    tree = SumTree(777, alpha=0.5)
    for _ in range(100):
        tree.update(rng.integers(0, 777, 100), rng.exponential(size=100) * 10.0 ** rng.integers(-8, 8, 100))
    other = SumTree(777, alpha=0.5)
    other.load(tree.leaves.copy(), tree.largest)
    assert np.array_equal(tree._tree, other._tree)


def make(alpha: float, memory: bool = False, **options: float) -> tuple[Replay, Policy, Stream]:
    policy = Policy(memory=memory)
    config = ReplayConfig(capacity=80, warmup=0, batch=16, alpha=alpha, sequence=4, burn_in=2, **options)  # type: ignore[arg-type]
    replay = Replay(config, policy, lanes=2, steps=4, gamma=0.9)
    return replay, policy, Stream.make(400, 2, seed=3)


def test_priorities_of_a_memory_are_those_of_what_can_be_drawn() -> None:
    """New transitions get the largest so far; resets and what fell out get none, after every rollout."""
    replay, policy, stream = make(1.0)
    assert replay.tree is not None
    rng = np.random.default_rng(0)
    slow: dict[tuple[int, int], float] = {}
    largest = 1.0
    for start in range(0, 400, 4):
        replay.add(stream.rollout(policy, start, 4))
        for t in range(start, start + 4):
            slow |= {(t, n): largest for n in range(2) if not stream.last[t, n]}
        slow = {(t, n): p for (t, n), p in slow.items() if t >= start + 4 - 40}
        places = replay.ring.layout.rows
        expected = np.zeros(places * 2)
        for (t, n), p in slow.items():
            expected[t % places * 2 + n] = p
        assert replay.tree.leaves == pytest.approx(expected)
        assert replay.items == len(slow)
        replay.due = 1
        for batch in replay.batches(0.5):
            td = torch.from_numpy(rng.exponential(size=16).astype(np.float32))
            rows = [(int(t), int(n)) for t, n in batch.now.obs[0]]  # type: ignore[index]
            probability = np.array([slow[row] for row in rows]) / sum(slow.values())
            weight = (len(slow) * probability) ** -0.7  # beta half way from 0.4 to 1
            assert batch.weight.numpy() == pytest.approx(weight / weight.max(), rel=1e-5)
            replay.prioritise(batch.index, td)
            slow |= {row: float(error) + EPSILON for row, error in zip(rows, td, strict=True)}
            largest = max(largest, float(td.max()) + EPSILON)


def test_priorities_of_sequences() -> None:
    """0.9 max + 0.1 mean of the rows' errors; complete sequences alone can be drawn."""
    replay, policy, stream = make(1.0, memory=True)
    assert replay.tree is not None
    for start in range(0, 12, 4):
        replay.add(stream.rollout(policy, start, 4))
    # rows 0..12: sequences of 6 rows begin at 0 and 4, the start at 8 is not complete
    assert replay.items == 4
    assert replay.tree.leaves[:6].tolist() == [1, 1, 1, 1, 0, 0]
    replay.prioritise(torch.tensor([0, 3]), torch.tensor([[1.0, -4.0], [-3.0, 2.0]]))
    # max and mean of (1, 3) and (4, 2) are 3, 2 and 4, 3
    assert replay.tree.leaves[[0, 3]] == pytest.approx([0.9 * 3 + 0.1 * 2, 0.9 * 4 + 0.1 * 3], rel=1e-5)
    for start in range(12, 400, 4):
        replay.add(stream.rollout(policy, start, 4))
    assert np.count_nonzero(replay.tree.leaves) == replay.items
    low, high = replay.oldest, replay.written
    complete = [t for t in range(0, 400, 4) if low <= t and t + 6 <= high]
    assert replay.items == 2 * len(complete)


def test_without_alpha_priorities_cost_nothing() -> None:
    replay, policy, stream = make(0.0)
    replay.add(stream.rollout(policy, 0, 4))
    assert replay.tree is None
    replay.prioritise(torch.zeros(3, dtype=torch.int64), torch.full((3,), torch.nan))
    replay.due = 2
    assert all(torch.equal(batch.weight, torch.ones(16)) for batch in replay.batches(0.3))
