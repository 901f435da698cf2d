"""Statistics of episode returns: mean, median, deviation, inter-quartile mean, and how sure they are.

The inter-quartile mean drops the lowest and the highest quarter and averages the rest: it resists outliers
like the median and wastes less. With the n sorted returns x_0 <= ... <= x_{n-1}, each of mass 1,

    IQM = sum_i w_i x_i / (n / 2),    w_i = | [i, i+1] ∩ [n/4, 3n/4] |

so that it is exact where n is no multiple of four (Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021). Intervals are meant to cover the true value in 95% of cases. With a statistic m
of standard error s:

    mean, IQM    below 10 returns   m +- t s           t: quantile of Student's distribution
                 from 10 on         m - q s            q: quantiles of (m* - m) / s* over resamples
                                                       (studentised bootstrap)
    median       from 6 on          the order statistics between which it lies, by the binomial distribution

where s of the IQM is that of a trimmed mean, from the deviation of the returns after the lowest and the highest quarter
were moved to the next ones (Tukey and McLaughlin, 1963). A plain bootstrap of percentiles covers too little: 84%
instead of 95% for the mean of 5 normal returns. The deviation has no interval: none covers for returns that are not
normal.

The intervals of `summarise` speak of the policy that was run. How an algorithm varies between seeds only shows in
returns of several: `over_seeds`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Estimate: TypeAlias = tuple[Floats, Floats]  # [B] statistic, [B] its standard error

TAIL = 0.025  # of an interval of 95%, on either side
RESAMPLES = 10_000
FEW = 10  # below it, resamples of so few values say too little
UNKNOWN = (math.nan, math.nan)
# t_{0.975} of 1 to 9 degrees of freedom
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
_CHUNK = 1_000_000  # resampled values held at once: 8 MB


@dataclass(frozen=True)
class Summary:
    """Statistics of n returns; `*_ci` are 95% intervals, (nan, nan) where there are too few returns for one."""

    n: int
    mean: float
    median: float
    std: float  # population: divided by n
    iqm: float
    min: float
    max: float
    mean_ci: Interval
    median_ci: Interval
    iqm_ci: Interval


def summarise(returns: npt.ArrayLike, seed: int = 0) -> Summary:
    """The statistics of returns [n]. The same seed gives the same intervals.

    Raises ValueError where there are none, or one is not finite.
    """
    values: Floats = np.asarray(returns, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"returns of shape {values.shape}; allowed: [n] with n of at least 1")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} returns are not finite")
    values = np.sort(values)
    n = len(values)
    mean, iqm = _mean(values[None]), _iqm(values[None])
    mean_ci, iqm_ci = UNKNOWN, UNKNOWN
    if n > 1:
        resampled = _resampled(values, np.random.default_rng(seed)) if n >= FEW else (None, None)
        mean_ci = _interval(mean, n - 1, resampled[0])
        iqm_ci = _interval(iqm, n - 2 * (n // 4) - 1, resampled[1])
    return Summary(
        n=n,
        mean=float(mean[0][0]),
        median=0.5 * float(values[(n - 1) // 2] + values[n // 2]),
        std=float(values.std()),
        iqm=float(iqm[0][0]),
        min=float(values[0]),
        max=float(values[-1]),
        mean_ci=mean_ci,
        median_ci=_median_interval(values),
        iqm_ci=iqm_ci,
    )


def over_seeds(returns: npt.ArrayLike, seed: int = 0) -> tuple[float, Interval]:
    """The mean of returns [seeds, episodes] and its 95% interval, which tells how an algorithm varies between seeds.

    The means of the seeds are its values; a resample draws seeds first, then episodes of each. Raises ValueError.
    """
    values: Floats = np.asarray(returns, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"returns of shape {values.shape}; allowed: finite ones, [seeds, episodes]")
    seeds, episodes = values.shape
    point = _mean(values.mean(1)[None])
    mean = float(point[0][0])
    if seeds == 1:
        return mean, UNKNOWN
    resampled = None
    if seeds >= FEW:
        generator, parts = np.random.default_rng(seed), []
        for count in _chunks(seeds * episodes):
            drawn = generator.integers(0, seeds, (count, seeds, 1))
            rows = values[drawn, generator.integers(0, episodes, (count, seeds, episodes))]
            parts.append(_mean(rows.mean(2)))
        resampled = _joined(parts)
    return mean, _interval(point, seeds - 1, resampled)


def iqm_weights(n: int) -> Floats:
    """[n] how much of each sorted value lies between the quartiles, over n/2: they sum to 1."""
    left = np.arange(n)
    inside: Floats = np.minimum(left + 1, 0.75 * n) - np.maximum(left, 0.25 * n)
    return inside.clip(min=0.0) / (0.5 * n)


def t_quantile(degrees: int) -> float:
    """The 97.5% quantile of Student's distribution; from 10 degrees on by its expansion (Hill, 1970), to 4 digits."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z, v = NormalDist().inv_cdf(1 - TAIL), degrees
    first = (z**3 + z) / (4 * v)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return z + first + second + third


def table(summary: Summary, what: str = "return", each: str = "episode") -> str:
    """The summary as plain text, one statistic per line; returns of order 1 with four decimals, others with two.

    what: the name of a value; each: of what it is one.
    """
    digits = 2 if max(abs(summary.min), abs(summary.max)) >= 10 else 4
    same = f"no spread in {summary.n} {each}s" if summary.min == summary.max else "no spread in the middle"
    lines = [f"{what:<20} {'value':>10}   95% interval"]
    for name, value, (low, high) in (
        ("mean", summary.mean, summary.mean_ci),
        ("median", summary.median, summary.median_ci),
        ("inter-quartile mean", summary.iqm, summary.iqm_ci),
        ("standard deviation", summary.std, UNKNOWN),
        ("lowest", summary.min, UNKNOWN),
        ("highest", summary.max, UNKNOWN),
    ):
        interval = (
            "" if math.isnan(low) else same if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
        )
        lines.append(f"{name:<20} {value:>10.{digits}f}   {interval}".rstrip())
    episodes = f"1 {each}: no intervals" if summary.n == 1 else f"{summary.n} {each}s"
    return "\n".join([*lines, episodes])


def _mean(rows: Floats) -> Estimate:
    """Means of rows [B, n], and their standard errors (0 where n is 1)."""
    n = rows.shape[1]
    return rows.mean(1), rows.std(1, ddof=min(n - 1, 1)) / math.sqrt(n)


def _iqm(rows: Floats) -> Estimate:
    """Inter-quartile means of sorted rows [B, n], and their standard errors (0 where n is 1)."""
    n = rows.shape[1]
    cut = n // 4
    moved = rows.clip(rows[:, cut : cut + 1], rows[:, n - cut - 1 : n - cut])
    return rows @ iqm_weights(n), moved.std(1, ddof=min(n - 1, 1)) / (0.5 * math.sqrt(n))


def _interval(estimate: Estimate, degrees: int, resampled: Estimate | None) -> Interval:
    """The interval of one estimate: by Student's t, or of `resampled` estimates.

    Those without spread have no t and are left out; where they are many (most returns are the same): t again.
    """
    point, error = (float(each[0]) for each in estimate)
    if error <= 1e-12 * abs(point):
        return point, point
    spread = None if resampled is None else resampled[1] > 1e-9 * error
    if resampled is None or spread is None or spread.mean() < 1 - TAIL / 5:
        half = t_quantile(degrees) * error
        return point - half, point + half
    low, high = np.quantile((resampled[0] - point)[spread] / resampled[1][spread], [TAIL, 1 - TAIL])
    return point - float(high) * error, point - float(low) * error


def _median_interval(values: Floats) -> Interval:
    """The k-th lowest and the k-th highest of sorted values [n], with the largest k whose interval still covers.

    A value is below the median with probability 1/2, so the median lies below the k-th lowest where fewer than k are.
    """
    n, k, log_half = len(values), 0, -len(values) * math.log(2)
    total = math.exp(log_half)  # P(fewer than 1)
    while total <= TAIL:
        k += 1
        total += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
    return (float(values[k - 1]), float(values[n - k])) if k else UNKNOWN


def _resampled(values: Floats, generator: np.random.Generator) -> tuple[Estimate, Estimate]:
    """Mean and IQM of RESAMPLES resamples of sorted values [n]."""
    n = len(values)
    means, iqms = [], []
    for count in _chunks(n):
        rows = values[np.sort(generator.integers(0, n, (count, n)), axis=1)]  # sorted, because `values` are
        means.append(_mean(rows))
        iqms.append(_iqm(rows))
    return _joined(means), _joined(iqms)


def _chunks(width: int) -> list[int]:
    """How many of RESAMPLES rows of this width are held at a time."""
    step = max(1, _CHUNK // width)
    return [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]


def _joined(parts: list[Estimate]) -> Estimate:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
