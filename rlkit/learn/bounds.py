"""Counts the float values of observations that lie outside the bounds of their space.

Many environments declare bounds that they leave now and then, by a rounding error or by more. Nothing is lost by that,
so a run goes on; but whoever wrote the bounds wants to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlkit.device import Say
from rlkit.spaces import Box, leaves, limits_of, row_dtype
from rlkit.types import EnvSpec, Rollout


@dataclass
class Entry:
    """One leaf of the observation with finite bounds, and what was found outside of them."""

    name: str
    low: Tensor  # as far as it can be broadcast to a row, on the device of the rows
    high: Tensor
    count: int = 0  # values outside
    excess: float = 0.0  # the largest distance to the bound


class Bounds:
    """Looks at every rollout: `say` hears of the first value outside its bounds, and of all of them at `close`."""

    def __init__(self, spec: EnvSpec, device: torch.device, say: Say) -> None:
        self.say = say
        self.begun = False
        self.looked = 0  # rows
        self.entries = []
        for name, leaf in leaves(spec.observation):
            if not isinstance(leaf, Box) or row_dtype(leaf) != "float32":
                continue
            limits = limits_of(leaf)
            if limits is None or not (np.isfinite(leaf.low).any() or np.isfinite(leaf.high).any()):
                continue
            low, high = (torch.tensor(limit, device=device) for limit in limits)
            self.entries.append(Entry(name, low, high))

    def look(self, rollout: Rollout) -> None:
        """Count in the rows of a rollout that earlier ones did not hold."""
        start = int(self.begun)  # the first row is the last one of the rollout before
        self.begun = True
        self.looked += (len(rollout.first) - start) * rollout.first.shape[1]
        for entry in self.entries:
            rows = rollout.obs[entry.name] if isinstance(rollout.obs, dict) else rollout.obs
            self._count(entry, rows[start:])

    def _count(self, entry: Entry, rows: Tensor) -> None:
        outside = (rows < entry.low) | (rows > entry.high)  # [T, N, ...]
        if not bool(outside.any()):
            return
        beyond = torch.maximum(entry.low - rows, rows - entry.high)
        if not entry.count:
            place = tuple(int(i) for i in outside.nonzero()[0])
            low, high = (
                float(limit.broadcast_to(rows.shape[2:])[place[2:]]) for limit in (entry.low, entry.high)
            )
            self.say(
                f"warning: {_name(entry, place[2:])} is {float(rows[place]):.9g} in lane {place[1]}; its space allows "
                f"[{low:g}, {high:g}]. The run goes on and counts such values; env.check=space stops at the first"
            )
        entry.count += int(outside.sum())
        entry.excess = max(entry.excess, float(beyond.max()))

    def close(self) -> None:
        """Say how many values were outside, and by how much; once."""
        for entry in self.entries:
            if entry.count:
                self.say(
                    f"{_name(entry)}: {entry.count:,} values in {self.looked:,} rows outside the bounds of their "
                    f"space, at most by {entry.excess:.3g}"
                )
        self.entries = []


def _name(entry: Entry, place: tuple[int, ...] = ()) -> str:
    what = f"observation entry {entry.name}" if entry.name else "observation"
    return f"{what}[{','.join(map(str, place))}]" if place else what
