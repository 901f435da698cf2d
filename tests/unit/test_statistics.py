"""Statistics of returns: numbers by hand, a slow version, and the coverage that an interval promises."""

import math

import numpy as np
import pytest

from rlkit.play import statistics
from rlkit.play.statistics import iqm_weights, over_seeds, summarise, t_quantile, table


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


def test_intervals_match_a_studentised_bootstrap_written_out() -> None:
    values = np.random.default_rng(3).exponential(size=12)
    generator = np.random.default_rng(11)

    def iqm(sample: list[float]) -> tuple[float, float]:
        ordered = sorted(sample)
        moved = [min(max(x, ordered[3]), ordered[8]) for x in ordered]
        return slow_iqm(sample), float(np.std(moved, ddof=1)) / (0.5 * math.sqrt(12))

    def mean(sample: list[float]) -> tuple[float, float]:
        return float(np.mean(sample)), float(np.std(sample, ddof=1)) / math.sqrt(12)

    resamples = [generator.choice(values, 12).tolist() for _ in range(3000)]
    summary = summarise(values)
    for statistic, found in ((mean, summary.mean_ci), (iqm, summary.iqm_ci)):
        m, s = statistic(values.tolist())
        t = [(each - m) / error for each, error in map(statistic, resamples) if error]
        expected = [m - q * s for q in np.quantile(t, [0.975, 0.025])]
        assert found == pytest.approx(expected, abs=0.15 * s)


def test_few_returns_have_t_intervals() -> None:
    # mean 3, deviation sqrt(2.5), t of 4 degrees 2.7764; IQM: 1 2 3 4 5 moved to 2 2 3 4 4, deviation 1, t of 2 degrees
    summary = summarise([5.0, 1.0, 3.0, 2.0, 4.0])
    half = 2.7764 * math.sqrt(2.5 / 5)
    assert summary.mean_ci == pytest.approx((3 - half, 3 + half))
    half = 4.3027 / (0.5 * math.sqrt(5))
    assert summary.iqm_ci == pytest.approx((3 - half, 3 + half))
    assert all(math.isnan(end) for end in summary.median_ci)
    for degrees, quantile in (
        (1, 12.7062),
        (8, 2.3060),
        (9, 2.2622),
        (10, 2.2281),
        (30, 2.0423),
        (1000, 1.9623),
    ):
        assert t_quantile(degrees) == pytest.approx(quantile, abs=2e-4)
    # every coefficient: what the expansion leaves out is 1.6 / degrees^4
    assert t_quantile(100) == pytest.approx(1.9839715185, abs=3e-8)


def test_a_median_lies_between_order_statistics() -> None:
    """P(fewer than k of n are below) <= 0.025: k = 1 of 6 (0.016), 2 of 10 (0.011), 40 of 100 (0.018)."""
    for n, k in ((5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (100, 40)):
        low, high = summarise(np.arange(1.0, n + 1)).median_ci
        assert (low, high) == (k, n + 1 - k) if k else math.isnan(low)


@pytest.mark.parametrize(
    ("kind", "truth", "n", "covered"),
    [
        ("normal", 0.0, 5, 0.93),
        ("normal", 0.0, 10, 0.93),
        ("normal", 0.0, 30, 0.93),
        ("normal", 0.0, 100, 0.93),
        ("exponential", 1.0, 30, 0.93),
    ],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(
    kind: str, truth: float, n: int, covered: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean and median of many samples; the true IQM of a normal distribution is its mean."""
    monkeypatch.setattr(statistics, "RESAMPLES", 300)
    draw = getattr(np.random.default_rng(1), kind)
    found = [summarise(draw(size=n), seed=trial) for trial in range(2000 if n < 10 else 400)]
    hits = np.mean([each.mean_ci[0] <= truth <= each.mean_ci[1] for each in found])
    assert covered <= hits <= 0.985
    if n > 5:
        median = truth if kind == "normal" else math.log(2)
        assert np.mean([each.median_ci[0] <= median <= each.median_ci[1] for each in found]) >= 0.93
    if kind == "normal":
        assert np.mean([each.iqm_ci[0] <= truth <= each.iqm_ci[1] for each in found]) >= 0.93


def test_t_intervals_cover_skewed_returns_too() -> None:
    rows = np.random.default_rng(0).exponential(size=(200_000, 5))
    mean, error = statistics._mean(rows)
    assert summarise(rows[0]).mean_ci[1] == pytest.approx(mean[0] + t_quantile(4) * error[0])
    assert 0.88 <= np.mean(np.abs(mean - 1) <= t_quantile(4) * error) <= 0.89


@pytest.mark.parametrize("seeds", [5, 12])
def test_intervals_over_seeds_are_of_their_means(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of one seed are alike: an interval of all episodes as if they were independent covers nothing."""
    monkeypatch.setattr(statistics, "RESAMPLES", 300)
    generator = np.random.default_rng(seeds)
    hits = naive = 0
    for trial in range(300):
        returns = generator.normal(size=(seeds, 1)) + 0.3 * generator.normal(size=(seeds, 4))
        mean, (low, high) = over_seeds(returns, seed=trial)
        assert mean == pytest.approx(returns.mean())
        hits += low <= 0 <= high
        low, high = summarise(returns.ravel(), seed=trial).mean_ci
        naive += low <= 0 <= high
    assert 0.93 <= hits / 300 <= 0.99
    assert naive / 300 < 0.75


def test_over_seeds_by_hand_and_what_it_refuses() -> None:
    half = 12.7062 * 2 / math.sqrt(2) / math.sqrt(2)  # means 1 and 3: deviation sqrt(2)
    mean, interval = over_seeds([[0.0, 2.0], [3.0, 3.0]])
    assert (mean, interval) == (2.0, pytest.approx((2 - half, 2 + half)))
    assert math.isnan(over_seeds([[1.0, 2.0]])[1][0])
    assert over_seeds([[500.0, 500.0]] * 12)[1] == (500.0, 500.0)
    for bad in ([1.0], [[]], [[math.nan]]):
        with pytest.raises(ValueError, match="seeds, episodes"):
            over_seeds(bad)


def test_returns_that_are_nearly_all_the_same_have_a_t_interval() -> None:
    """A resample of them may have no spread, which says nothing about its error."""
    values = [500.0] * 9 + [498.4]
    half = 2.2622 * float(np.std(values, ddof=1)) / math.sqrt(10)
    assert summarise(values).mean_ci == pytest.approx((499.84 - half, 499.84 + half), abs=1e-4)
    assert summarise(values).iqm_ci == (500.0, 500.0)
    text = table(summarise(values))
    assert "no spread in the middle" in text and "no spread in 10 episodes" not in text


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
    assert table(summary).count("no spread in 10 episodes") == 3
    assert " to " not in table(summary)


def test_one_return_bounds_nothing() -> None:
    summary = summarise([3.0])
    assert (summary.mean, summary.median, summary.iqm, summary.std) == (3.0, 3.0, 3.0, 0.0)
    assert all(math.isnan(end) for end in (*summary.mean_ci, *summary.iqm_ci, *summary.median_ci))
    assert "no intervals" in table(summary)
    assert "nan" not in table(summary)


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], 3.0, [1.0, math.nan], [math.inf]])
def test_what_is_no_list_of_returns_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"returns"):
        summarise(bad)  # type: ignore[arg-type]


def test_table_shows_every_statistic_with_its_interval() -> None:
    text = table(summarise([1.0, 2.0, 3.0, 4.0]))
    lines = {line.rsplit("  ", 2)[0].strip().split("  ")[0]: line for line in text.splitlines()}
    assert "2.5000" in lines["mean"]
    assert " to " in lines["inter-quartile mean"]
    assert lines["standard deviation"].endswith("1.1180")  # sqrt(5)/2
    assert "standard deviation        11.18" in table(summarise([10.0, 20.0, 30.0, 40.0]))
    assert "4 episodes" in text
