"""The memory of a replay: rows of N lanes in a ring, its size stated and checked before it is taken.

Row t lies at place t mod C of every field. Each observation is stored once: frame stacks and next observations are
places, not copies. Beside the rows that can be drawn the ring holds the k-1 rows of history that a stack of k reads,
the newest row, and some slack: rows that are no longer drawn. As long as those added since a snapshot fit into the
slack, everything that the snapshot speaks of is still there, and saving it later needs no copy of the ring.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlkit.files import at
from rlkit.machine import SHARE, available, gib
from rlkit.options import ConfigError

FLAGS = ("first", "last", "terminated")


@dataclass(frozen=True)
class Field:
    """One array of a ring: [places, lanes, *shape]."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    large: bool  # goes to disk where the storage is disk

    @property
    def bytes(self) -> int:
        """Of one place of one lane."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """What a ring holds: `rows` places of each of `fields`, `starts` places of each of `states`."""

    rows: int  # C
    lanes: int  # N
    fields: tuple[Field, ...]
    starts: int  # S, places for stored memory
    states: tuple[Field, ...]
    disk: bool
    beside: int  # bytes of memory for priorities

    @property
    def item_bytes(self) -> int:
        """Of one row of one lane."""
        return sum(field.bytes for field in self.fields)

    @property
    def bytes(self) -> tuple[int, int]:
        """(in memory, on disk)."""
        parts = [(self.rows, field) for field in self.fields] + [
            (self.starts, field) for field in self.states
        ]
        sizes = [(count * self.lanes * field.bytes, self.disk and field.large) for count, field in parts]
        return (
            sum(size for size, on_disk in sizes if not on_disk) + self.beside,
            sum(size for size, on_disk in sizes if on_disk),
        )


class Ring:
    """The arrays of a layout, zero at first and taken from the system as they are filled.

    folder: where a ring on disk keeps its files, which no other process may use; they are scratch, and removed by
    `close`. Raises ConfigError where the disk cannot hold them.
    """

    def __init__(self, layout: Layout, folder: Path) -> None:
        self.layout, self.folder = layout, at(folder)
        if layout.disk:
            with suppress(OSError):
                self.folder.remove()
        self.fields = {field.name: self._array(field, layout.rows) for field in layout.fields}
        self.states = [self._array(field, layout.starts) for field in layout.states]
        self.obs = {
            name.removeprefix("obs/"): array for name, array in self.fields.items() if name.startswith("obs/")
        }
        self.start = np.zeros(layout.starts, np.int64)  # [S] rows at which the memory of `states` was stored

    def _array(self, field: Field, count: int) -> npt.NDArray[Any]:
        shape = (count, self.layout.lanes, *field.shape)
        if not (self.layout.disk and field.large):
            return np.zeros(shape, field.dtype)
        path = self.folder / f"{field.name.strip('/').replace('/', '-')}.bin"
        try:
            self.folder.mkdir()
            with path.open("x+b") as file:
                size = max(count * self.layout.lanes * field.bytes, 1)
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):  # reserved: a disk that fills up later cannot end the run
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, field.dtype, "r+", shape=shape)
        except OSError as error:
            self.close()
            raise ConfigError(f"agent.replay.storage=disk: cannot make {path} ({error.strerror})") from error

    def put(self, row: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write to each named field its values [R, N, ...], R at most all places, from `row` on."""
        place, end = row % self.layout.rows, self.layout.rows
        for name, x in values.items():
            array, fit = self.fields[name], end - place
            if len(x) <= fit:
                array[place : place + len(x)] = x
            else:
                array[place:] = x[:fit]
                array[: len(x) - fit] = x[fit:]

    def get(self, name: str, row: int, count: int) -> npt.NDArray[Any]:
        """`count` rows [count, N, ...] from `row` on; a view where they lie together."""
        array, place = self.fields[name], row % self.layout.rows
        if place + count <= len(array):
            return array[place : place + count]
        return np.concatenate([array[place:], array[: place + count - len(array)]])

    def close(self) -> None:
        """Remove files."""
        if self.layout.disk:
            with suppress(OSError):
                self.folder.remove()


def fitting(layout: Callable[[int], Layout], capacity: int, lanes: int, folder: Path) -> Layout:
    """layout(capacity). Raises ConfigError, with the largest capacity that fits, where memory or disk are too small."""
    memory, disk = (int(SHARE * count) for count in available(folder))

    def fits(capacity: int) -> bool:
        in_memory, on_disk = layout(capacity).bytes
        return in_memory <= memory and on_disk <= disk

    wanted = layout(capacity)
    if fits(capacity):
        return wanted
    low, high = 0, capacity  # low fits, high does not
    while high - low > max(lanes, capacity // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    in_memory, on_disk = wanted.bytes
    parts = [
        f"{gib(count)} {where}, and {gib(free)} may be used"
        for count, free, where in ((in_memory, memory, "of memory"), (on_disk, disk, "of disk"))
        if count > free
    ]
    remedy = f"type agent.replay.capacity={low // lanes * lanes} or less"
    if not wanted.disk:
        remedy += ", or agent.replay.storage=disk"
    raise ConfigError(f"agent.replay.capacity={capacity}: it takes {' and '.join(parts)}; {remedy}")
