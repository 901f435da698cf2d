"""Statistics of episode returns: mean, median, deviation, inter-quartile mean, and how sure they are.

The inter-quartile mean drops the lowest and the highest quarter and averages the rest: it resists outliers
like the median and wastes less. With the n sorted returns x_0 <= ... <= x_{n-1}, each of mass 1,

    IQM = sum_i w_i x_i / (n / 2),    w_i = | [i, i+1] ∩ [n/4, 3n/4] |

so that it is exact where n is no multiple of four. Intervals are percentile bootstrap: resample n returns
with replacement, many times, and take the central 95% of the statistic. Source: Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021 (with one task, their
stratified bootstrap is this one).

The intervals speak of the policy that was run. How an algorithm varies between seeds only shows in returns of
several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CHUNK = 1_000_000  # resampled values held at once: 8 MB


@dataclass(frozen=True)
class Summary:
    """Statistics of n returns; `*_ci` are 95% intervals, (nan, nan) for a single return, which bounds nothing."""

    n: int
    mean: float
    median: float
    std: float  # population: divided by n
    iqm: float
    min: float
    max: float
    mean_ci: Interval
    median_ci: Interval
    std_ci: Interval
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
    point = _statistics(values[None])[:, 0]  # [4]
    low, high = _bootstrap(values, np.random.default_rng(seed))  # [4] each
    return Summary(
        n=len(values),
        mean=float(point[0]),
        median=float(point[1]),
        std=float(point[2]),
        iqm=float(point[3]),
        min=float(values[0]),
        max=float(values[-1]),
        mean_ci=(float(low[0]), float(high[0])),
        median_ci=(float(low[1]), float(high[1])),
        std_ci=(float(low[2]), float(high[2])),
        iqm_ci=(float(low[3]), float(high[3])),
    )


def iqm_weights(n: int) -> Floats:
    """[n] how much of each sorted value lies between the quartiles, over n/2: they sum to 1."""
    left = np.arange(n)
    inside: Floats = np.minimum(left + 1, 0.75 * n) - np.maximum(left, 0.25 * n)
    return inside.clip(min=0.0) / (0.5 * n)


def table(summary: Summary) -> str:
    """The summary as plain text, one statistic per line."""
    rows = [
        ("mean", summary.mean, summary.mean_ci),
        ("median", summary.median, summary.median_ci),
        ("inter-quartile mean", summary.iqm, summary.iqm_ci),
        ("standard deviation", summary.std, summary.std_ci),
        ("lowest", summary.min, None),
        ("highest", summary.max, None),
    ]
    lines = [f"{'return':<20} {'value':>10}   95% interval"]
    for name, value, interval in rows:
        known = interval is not None and not math.isnan(interval[0])
        text = f"   {interval[0]:.2f} to {interval[1]:.2f}" if known and interval else ""
        lines.append(f"{name:<20} {value:>10.2f}{text}")
    episodes = "1 episode: no intervals" if summary.n == 1 else f"{summary.n} episodes"
    return "\n".join([*lines, episodes])


def _statistics(rows: Floats) -> Floats:
    """[4, B] mean, median, deviation, inter-quartile mean of sorted rows [B, n]."""
    n = rows.shape[1]
    median = 0.5 * (rows[:, (n - 1) // 2] + rows[:, n // 2])
    return np.stack([rows.mean(1), median, rows.std(1), rows @ iqm_weights(n)])


def _bootstrap(values: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Both ends [4] of the intervals of the four statistics of values [n]."""
    n = len(values)
    if n == 1:
        return np.full(4, np.nan), np.full(4, np.nan)
    found = []
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        index = generator.integers(0, n, (min(step, RESAMPLES - start), n))  # [B, n]
        rows = values[np.sort(index, axis=1)]  # sorted, because `values` are
        found.append(_statistics(rows))
    tail = 0.5 * (1.0 - CONFIDENCE)
    ends = np.quantile(np.concatenate(found, axis=1), [tail, 1.0 - tail], axis=1)  # [2, 4]
    return ends[0], ends[1]
