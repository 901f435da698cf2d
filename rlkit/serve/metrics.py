"""What a server counts, as OpenMetrics text (github.com/prometheus/OpenMetrics, version 1.0.0).

    rlkit_requests_total{model, route, status}          answers
    rlkit_latency_seconds{model} (histogram)            from a request that is read to its answer
    rlkit_sessions{model}                               memories that are kept now
    rlkit_decisions_total{model}                        observations that were decided on, and of these
    rlkit_input_outside_total{model, input}             those outside the range that was recorded of the agent
    rlkit_action_total{model, number, value}            those answered by this choice, or this tenth of the range

A share is one counter's rate divided by another's: rate(rlkit_input_outside_total) / rate(rlkit_decisions_total).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from rlkit.spaces import MASK, Array, Box, MultiDiscrete, Space, columns, leaves, limits_of, start_of

TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)  # seconds
MOST_NUMBERS = 64  # of an entry or an action that are counted one by one
MOST_CHOICES = 256
_TENTHS = 10

Rows = dict[str, Array]


@dataclass
class Ranges:
    """What was recorded of an agent: by entry, the least and the greatest of each number."""

    low: Rows
    high: Rows

    @classmethod
    def of(cls, rows: Rows) -> Ranges:
        """Of rows [T, ...] by entry."""
        known = {
            name: x for name, x in rows.items() if name != MASK and not name.endswith(f".{MASK}") and len(x)
        }
        return cls(*({name: pick(x, 0) for name, x in known.items()} for pick in (np.nanmin, np.nanmax)))


@dataclass
class Part:
    """One number of an action: which values, or ranges of values, it is counted by."""

    column: int
    edges: Array  # between the ranges
    values: list[str]
    counts: Array


@dataclass
class Counts:
    """The counters of one model. actions: those that were recorded [T, ...]."""

    space: Space
    actions: Array
    decisions: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    outside: Rows = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = list(_parts(self.space, self.actions.reshape(len(self.actions), -1)))

    def took(self, seconds: float) -> None:
        """A request was answered."""
        self.latency[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def decided(self, rows: Rows, actions: Array, ranges: Ranges) -> None:
        """rows [lanes, ...] by entry were answered with actions [lanes, ...]."""
        self.decisions += len(actions)
        for name, low in ranges.low.items():
            x = rows[name]
            beyond = (x < low) | (x > ranges.high[name])
            found = beyond.sum(0) if low.size <= MOST_NUMBERS else beyond.mean(dtype=np.float64) * len(x)
            self.outside[name] = self.outside.get(name, 0) + found
        flat = actions.reshape(len(actions), -1)
        for part in self.parts:
            np.add.at(part.counts, np.searchsorted(part.edges, flat[:, part.column], "right"), 1)


def _parts(space: Space, seen: Array) -> Iterator[Part]:
    """The numbers of an action that are counted; seen [T, columns]: recorded ones."""
    column = 0
    for _, leaf in leaves(space):
        for place in range(min(columns(leaf), MOST_NUMBERS)):
            if isinstance(leaf, Box):
                low, high = (
                    np.broadcast_to(bound, leaf.shape).ravel()[place] for bound in (leaf.low, leaf.high)
                )
                if not np.isfinite(high - low):
                    low, high = seen[:, column + place].min(), seen[:, column + place].max()
                ends = np.linspace(low, high, _TENTHS + 1)
                values = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(ends)]
                yield Part(column + place, ends[1:-1], values, np.zeros(_TENTHS, np.int64))
                continue
            limits, start = limits_of(leaf), start_of(leaf)
            assert limits is not None, "choices are bounded"
            count = int(np.broadcast_to(limits[1], leaf.shape or (1,)).ravel()[place]) + 1
            first = (
                0 if start is None else int(np.ravel(start)[place if isinstance(leaf, MultiDiscrete) else 0])
            )
            if count <= MOST_CHOICES:
                values = [str(first + choice) for choice in range(count)]
                yield Part(column + place, np.arange(1, count), values, np.zeros(count, np.int64))
        column += columns(leaf)


def text(
    requests: Counter[tuple[str, str, int]], sessions: Iterable[tuple[str, int]], models: dict[str, Counts]
) -> bytes:
    """Everything; requests: by model, route and status."""
    lines: list[str] = []

    def family(name: str, kind: str, samples: Iterable[tuple[str, dict[str, object], float]]) -> None:
        lines.append(f"# TYPE rlkit_{name} {kind}")
        for suffix, labels, value in samples:
            shown = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
            lines.append(f"rlkit_{name}{suffix}{{{shown}}} {value:.12g}")

    family("requests", "counter", (
        ("_total", {"model": model, "route": route, "status": status}, count)
        for (model, route, status), count in sorted(requests.items())
    ))  # fmt: skip
    family(
        "latency_seconds",
        "histogram",
        (s for name, counts in models.items() for s in _histogram(name, counts)),
    )
    family("sessions", "gauge", (("", {"model": name}, count) for name, count in sessions))
    family(
        "decisions", "counter", (("_total", {"model": n}, counts.decisions) for n, counts in models.items())
    )
    family("input_outside", "counter", (s for name, counts in models.items() for s in _outside(name, counts)))
    family("action", "counter", (
        ("_total", {"model": name, "number": part.column, "value": value}, count)
        for name, counts in models.items() for part in counts.parts
        for value, count in zip(part.values, part.counts.tolist(), strict=True)
    ))  # fmt: skip
    return "\n".join([*lines, "# EOF\n"]).encode()


def _histogram(name: str, counts: Counts) -> Iterator[tuple[str, dict[str, object], float]]:
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts.latency, strict=True):
        total += count
        yield "_bucket", {"model": name, "le": bound}, total
    yield "_sum", {"model": name}, counts.seconds
    yield "_count", {"model": name}, total


def _outside(name: str, counts: Counts) -> Iterator[tuple[str, dict[str, object], float]]:
    for entry, found in counts.outside.items():
        shown = f"obs.{entry}" if entry else "obs"
        if np.ndim(found) == 0:
            yield "_total", {"model": name, "input": shown}, float(found)
            continue
        for place, count in np.ndenumerate(found):
            index = ",".join(map(str, place))
            yield "_total", {"model": name, "input": f"{shown}[{index}]"}, float(count)


def _escaped(value: object) -> str:
    return str(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
