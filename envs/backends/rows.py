"""The rows of N lanes in one buffer, and the checks that read them all at once.

A row is what one lane shows after one step: observation, reward, terminated, first, last. All rows lie one
after the other in one buffer, private or shared between processes, so a lane writes where the learner
reads. NumPy only.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlkit.spaces import (
    MASK,
    Array,
    Dict,
    Space,
    action_row,
    component_starts,
    leaves,
    limits_of,
    open_components,
    row_dtype,
)


class Rows:
    """Arrays [N, ...] over one buffer.

    `obs` maps the dotted names of `rlkit.spaces.leaves` to arrays (a space that is no Dict has the one name
    ""). `episode` and `steps` say where each lane is, `cursor[start]` which lane the block that begins at
    `start` is at: they name the lane of a process that can no longer say it itself. `failures` counts the episodes of
    each lane that were cut because the environment failed.
    """

    def __init__(
        self, observation: Space, action: Space, lanes: int, buffer: mmap.mmap | None = None
    ) -> None:
        self.lanes = lanes
        # A bytearray's zeros: rows are defined before they are first written.
        memory: bytearray | mmap.mmap = (
            bytearray(self.size(observation, action, lanes)) if buffer is None else buffer
        )
        self.obs: dict[str, Array] = {}
        fields: dict[str, Array] = {}
        offset = 0
        for name, shape, dtype in _fields(observation, action):
            count = lanes * int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(memory, dtype, count, offset).reshape(lanes, *shape)
            if name.startswith("obs."):
                self.obs[name[4:]] = array
            else:
                fields[name] = array
            offset += _aligned(array.nbytes)
        self.reward: npt.NDArray[np.float32] = fields["reward"]
        self.terminated: npt.NDArray[np.bool_] = fields["terminated"]
        self.first: npt.NDArray[np.bool_] = fields["first"]
        self.last: npt.NDArray[np.bool_] = fields["last"]
        self.action: Array = fields["action"]
        self.episode: npt.NDArray[np.int64] = fields["episode"]
        self.steps: npt.NDArray[np.int64] = fields["steps"]
        self.cursor: npt.NDArray[np.int64] = fields["cursor"]
        self.failures: npt.NDArray[np.int64] = fields["failures"]

    @staticmethod
    def size(observation: Space, action: Space, lanes: int) -> int:
        """Bytes of the buffer."""
        return sum(
            _aligned(lanes * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
            for _, shape, dtype in _fields(observation, action)
        )


def _fields(observation: Space, action: Space) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape of one row, dtype) of every array, in the order of the buffer."""
    for name, leaf in leaves(observation):
        yield f"obs.{name}", leaf.shape, row_dtype(leaf)
    yield "action", *action_row(action)
    yield from (
        ("reward", (), "float32"),
        ("terminated", (), "bool"),
        ("first", (), "bool"),
        ("last", (), "bool"),
    )
    yield from ((name, (), "int64") for name in ("episode", "steps", "cursor", "failures"))


def _aligned(count: int) -> int:
    """Cache lines of their own: two processes never write to the same one for two arrays."""
    return -(-count // 64) * 64


class Finding(NamedTuple):
    """What a check found: the fault's kind, the field, the row (of the rows given) and what was there."""

    kind: str
    field: str
    row: int
    detail: str


class Check:
    """Looks at the rows of a block once per vector step: all finite, all within the observation space.

    mode "space" looks for both, "finite" for the first, "none" for nothing; "warn" lets finite floats leave
    their bounds (whoever learns from the rows counts them) and looks for all else. Shapes and dtypes are the
    lanes' to check: they are gone once a value is in its row. A mask that allows nothing is found in all modes but
    "none", unless the row is `last` and no action follows; where agents are in groups (as EnvSpec.groups, in rows of
    whole games), the mask of a group is looked at in its own lanes.
    """

    def __init__(
        self,
        observation: Space,
        action: Space,
        obs: dict[str, Array],
        reward: Array,
        last: Array,
        mode: str,
        groups: tuple[tuple[str, tuple[int, ...]], ...] = (),
    ) -> None:
        self.mode = mode
        self.reward, self.last = reward, last
        # masks: name, rows, where the choices of each component begin, and whose mask it is [n]
        self.masks: list[tuple[str, Array, Array, Array]] = []
        if MASK in obs:
            self.masks.append((MASK, obs[MASK], component_starts(action), np.ones(len(last), bool)))
        number = np.arange(len(last)) % max(sum(len(agents) for _, agents in groups), 1)  # in its game
        for group, agents in groups:
            if (name := f"{group}.{MASK}") in obs:
                assert isinstance(action, Dict), "each group has an entry"
                self.masks.append((name, obs[name], component_starts(action[group]), np.isin(number, agents)))
        self.finite: list[tuple[str, Array]] = []
        self.bounded: list[tuple[str, Array, Array, Array]] = []  # name, rows, low, high
        for name, leaf in leaves(observation):
            floats = obs[name].dtype == np.float32
            limits = limits_of(leaf) if mode == "space" or (mode == "warn" and not floats) else None
            if limits is not None:
                self.bounded.append((name, obs[name], *limits))
            elif mode in ("finite", "warn") and floats:
                self.finite.append((name, obs[name]))

    def find(self) -> Finding | None:
        """The first row that breaks a rule."""
        if self.mode == "none":
            return None
        if not np.isfinite(self.reward).all():
            row = int(np.flatnonzero(~np.isfinite(self.reward))[0])
            return Finding("nan", "reward", row, f"{self.reward[row]}")
        for name, rows in self.finite:
            if not np.isfinite(rows).all():
                return _broken(name, rows, np.isfinite(rows))
        for name, rows, low, high in self.bounded:
            # NaN compares false and infinite bounds became the largest float: two comparisons find all.
            if not ((rows >= low).all() and (rows <= high).all()):
                return _broken(name, rows, (rows >= low) & (rows <= high), low, high)
        found = (self._closed(*each) for each in self.masks)
        return next((each for each in found if each is not None), None)

    def mend(self, row: int) -> None:
        """Make a row valid that was cut: what is no number becomes 0, what is out of bounds the bound."""
        for _, rows in self.finite:
            rows[row] = np.nan_to_num(rows[row], nan=0.0, posinf=0.0, neginf=0.0)
        for _, rows, low, high in self.bounded:
            clean = np.nan_to_num(rows[row]) if rows.dtype.kind == "f" else rows[row]
            rows[row] = np.clip(clean, low, high)

    def _closed(self, name: str, mask: Array, starts: Array, own: Array) -> Finding | None:
        """The first row whose mask allows nothing where an action follows."""
        closed = ~open_components(mask, starts) & (own & ~self.last)[:, None]  # [n, components]
        if not closed.any():
            return None
        row, component = (int(i) for i in np.argwhere(closed)[0])
        return Finding("mask", name, row, f"allows nothing in component {component}")


def _broken(
    name: str, rows: Array, good: Array, low: Array | None = None, high: Array | None = None
) -> Finding:
    """Describe the first entry of `rows` [n, ...] where `good` is False."""
    where = np.argwhere(~good)[0]
    row, inner = int(where[0]), tuple(int(i) for i in where[1:])
    value = rows[tuple(where)]
    entry = f"entry {list(inner)}" if inner else "value"
    if rows.dtype.kind == "f" and not np.isfinite(value):
        return Finding("nan", name or "obs", row, f"{entry} is {value}")
    assert low is not None and high is not None, "a finite value breaks a rule by leaving its bounds"
    shape = rows.shape[1:]
    bounds = f"[{np.broadcast_to(low, shape)[inner]}, {np.broadcast_to(high, shape)[inner]}]"
    return Finding("space", name or "obs", row, f"{entry} is {value}, its space allows {bounds}")
