"""Statistics of returns: numbers by hand, a slow version, and the coverage that an interval promises."""

import math

import numpy as np
import pytest

from rlkit.play.statistics import iqm_weights, summarise, table


def slow_iqm(values: list[float], copies: int = 4) -> float:
    """Each value four times: then a quarter of them is a whole number to drop."""
    many = sorted(value for value in values for _ in range(copies))
    quarter = len(many) // 4
    kept = many[quarter : len(many) - quarter]
    return sum(kept) / len(kept)


def test_hand_worked_five_returns() -> None:
    summary = summarise([5.0, 1.0, 3.0, 2.0, 100.0])
    assert (summary.n, summary.min, summary.max) == (5, 1.0, 100.0)
    assert summary.mean == pytest.approx(111 / 5)
    assert summary.median == 3.0
    # sorted 1 2 3 5 100; quartiles at 1.25 and 3.75: weights 0, 0.75, 1, 0.75, 0 over 2.5
    assert summary.iqm == pytest.approx((0.75 * 2 + 3 + 0.75 * 5) / 2.5)
    squares = sum((x - 22.2) ** 2 for x in (5, 1, 3, 2, 100))
    assert summary.std == pytest.approx(math.sqrt(squares / 5))


def test_median_of_an_even_number_is_the_middle_of_two() -> None:
    assert summarise([4.0, 1.0, 2.0, 30.0]).median == 3.0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 50, 101])
def test_inter_quartile_mean_matches_a_slow_version(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).tolist()
    assert summarise(values).iqm == pytest.approx(slow_iqm(values), abs=1e-12)
    assert iqm_weights(n).sum() == pytest.approx(1.0)


def test_intervals_match_a_bootstrap_written_out() -> None:
    values = np.random.default_rng(3).normal(size=12)
    generator = np.random.default_rng(11)
    means, iqms = [], []
    for _ in range(10_000):
        row = generator.choice(values, 12)
        means.append(row.mean())
        iqms.append(slow_iqm(row.tolist()))
    summary = summarise(values)
    assert summary.mean_ci == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.06)
    assert summary.iqm_ci == pytest.approx(tuple(np.quantile(iqms, [0.025, 0.975])), abs=0.06)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        low, high = summarise(generator.normal(7.0, 2.0, 60), seed=trial).mean_ci
        hits += low <= 7.0 <= high
    assert 86 <= hits <= 100  # binomial(100, 0.93): four deviations


def test_chunks_do_not_change_an_interval_beyond_its_noise() -> None:
    values = np.random.default_rng(1).normal(size=3000)  # a third of a thousand resamples at a time
    low, high = summarise(values).mean_ci
    half = 1.96 * values.std() / math.sqrt(3000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_same_seed_same_intervals_and_order_does_not_matter() -> None:
    values = np.random.default_rng(5).normal(size=20)
    assert summarise(values, seed=4) == summarise(values[::-1], seed=4)
    assert summarise(values, seed=4).mean_ci != summarise(values, seed=5).mean_ci


def test_equal_returns_have_intervals_of_no_width() -> None:
    summary = summarise([500.0] * 10)
    assert summary.mean_ci == summary.iqm_ci == summary.median_ci == (500.0, 500.0)
    assert summary.std == 0.0
    assert summary.std_ci == (0.0, 0.0)


def test_one_return_bounds_nothing() -> None:
    summary = summarise([3.0])
    assert (summary.mean, summary.median, summary.iqm, summary.std) == (3.0, 3.0, 3.0, 0.0)
    assert all(math.isnan(end) for end in (*summary.mean_ci, *summary.iqm_ci, *summary.std_ci))
    assert "no intervals" in table(summary)
    assert "nan" not in table(summary)


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], 3.0, [1.0, math.nan], [math.inf]])
def test_what_is_no_list_of_returns_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"returns"):
        summarise(bad)  # type: ignore[arg-type]


def test_table_shows_every_statistic_with_its_interval() -> None:
    text = table(summarise([1.0, 2.0, 3.0, 4.0]))
    lines = {line.rsplit("  ", 2)[0].strip().split("  ")[0]: line for line in text.splitlines()}
    assert "2.50" in lines["mean"]
    assert " to " in lines["inter-quartile mean"]
    assert "1.12" in lines["standard deviation"]  # sqrt(5)/2
    assert "4 episodes" in text
