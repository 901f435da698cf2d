"""Tables: rows of named columns, in memory or on disk. Every data set is one.

    data/cr/
      table.json      format, the columns (dtype, shape, space), how many rows are whole, where they came from
      image.npy       one file per column, in NumPy's format, read through a memory map
      label.mask.npy

A table on disk only grows. Rows are written and made durable first, and table.json, which counts them, is replaced last
and in one piece: wherever a process is killed, the rows that are counted are whole. Nothing in a table is unpickled.

Some columns mean the same in every table that has them. `group`, uint64: rows of equal numbers belong together (an
episode, named by its seed). `first`, bool: the row opens an episode; the rows of one follow each other. `label.NAME`
are answers, which no model reads; `action` is what was done in the row.

A row is in the part that a hash of its group says: 8 of 10 groups are for training, 1 for validation, 1 for the test.
So a group is never in two parts, and stays in its part when the table grows.
"""

from __future__ import annotations

import ast
import json
import math
import mmap
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.files import Place, at, named
from rlkit.options import ConfigError, nearest
from rlkit.space_json import from_json, to_json
from rlkit.spaces import Dict, Space, describe, row_dtype
from rlkit.tensorfile import MALFORMED

Array: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.int64]

FORMAT = 1
GROUP, FIRST, ACTION, LABEL = "group", "first", "action", "label."
PARTS = ("training", "validation", "test")
_JSON = 1 << 20  # bytes of table.json beyond which it is not read
_NAME = re.compile(r"[A-Za-z_][\w\-]*(\.[\w\-]+)*")
_DTYPES = frozenset(["bool", "uint8", "int8", "int16", "int32", "int64", "uint64", "float32", "float64"])
_HEADER = (
    128  # bytes before the numbers in a column's file: NumPy's header, padded so that it can be rewritten
)


class TableError(ConfigError):
    """A table that cannot be read or written, in one line."""

    complete = True


@dataclass(frozen=True)
class Column:
    """What a column holds. space: of what an agent would see or do; None for plain numbers."""

    dtype: str
    shape: tuple[int, ...]  # of one row
    space: Space | None = None

    @property
    def bytes(self) -> int:
        """Of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @staticmethod
    def of(space: Space) -> Column:
        """The column of rows of a leaf space."""
        return Column(row_dtype(space), space.shape, space)  # type: ignore[union-attr]

    def to_json(self) -> dict[str, object]:
        """Plain values for table.json."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "space": None if self.space is None else to_json(self.space),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Column:
        """Inverse of `to_json`. Raises ValueError and what malformed values raise."""
        shape = tuple(int(n) for n in data["shape"])
        if data["dtype"] not in _DTYPES or any(n < 1 for n in shape) or math.prod(shape) > 2**31:
            raise ValueError(f"a column of {data['dtype']!r} {shape}")
        column = Column(
            str(data["dtype"]), shape, None if data["space"] is None else from_json(data["space"])
        )
        if column.space is not None and (isinstance(column.space, Dict) or Column.of(column.space) != column):
            raise ValueError(f"a column of {column.dtype} {shape} for a {type(column.space).__name__}")
        return column


class Table:
    """Rows of named columns. columns: what they hold; data: each column's array, [rows, ...].

    made: where it came from, as plain values; whole: how many of the rows are of groups that are complete.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Column],
        data: Mapping[str, Array],
        made: Mapping[str, object] | None = None,
        whole: int | None = None,
    ) -> None:
        self.name, self.columns, self.data, self.made = name, dict(columns), dict(data), dict(made or {})
        self.rows = min((len(each) for each in data.values()), default=0)
        self.whole = self.rows if whole is None else whole

    def __getitem__(self, name: str) -> Array:
        """A column, [rows, ...]. Raises TableError, which names those that there are."""
        if name not in self.data:
            raise TableError(f"{self.name} has no column {name}; {nearest(name, self.data)}")
        return self.data[name]

    @property
    def labels(self) -> list[str]:
        """The names of its labels, without the prefix."""
        return [name.removeprefix(LABEL) for name in self.columns if name.startswith(LABEL)]

    @property
    def inputs(self) -> list[str]:
        """The columns that models may read: all but labels, actions, groups and openings."""
        return [
            name for name in self.columns if name not in (GROUP, FIRST, ACTION) and not name.startswith(LABEL)
        ]

    @property
    def groups(self) -> npt.NDArray[np.uint64]:
        """[rows] the group of each; where there is no such column every row is one of its own."""
        return self.data[GROUP] if GROUP in self.data else np.arange(self.rows, dtype=np.uint64)

    def part(self, name: str) -> Index:
        """The rows of "training", "validation" or "test", in their order."""
        shares = hashed(self.groups) % np.uint64(10)
        low, high = {"training": (0, 7), "validation": (8, 8), "test": (9, 9)}[name]
        return np.flatnonzero((shares >= low) & (shares <= high))

    def starts(self) -> Index:
        """[rows] the row that opens the episode of each; without a column `first` every row is one of its own."""
        rows = np.arange(self.rows)
        if FIRST not in self.data:
            return rows
        return np.maximum.accumulate(np.where(self.data[FIRST], rows, 0))

    def stacked(self, name: str, index: Index, k: int, starts: Index) -> Array:
        """The k frames that end with each of the rows `index` [B], oldest first: [B, k, ...].

        Before an episode's start they repeat its first frame, as `rlkit.nn.stack` does. starts: of `starts()`.
        """
        back = np.maximum(index[:, None] + np.arange(-(k - 1), 1), starts[index][:, None])  # [B, k]
        frames: Array = self.data[name][back]
        return frames

    def pairs(self, index: Index, distance: int, starts: Index) -> Index:
        """Those of the rows `index` whose episode goes on for `distance` rows more."""
        later = index + distance
        inside = later < self.rows
        found: Index = index[inside][starts[later[inside]] == starts[index[inside]]]
        return found


def hashed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's mix of each (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def open_table(path: str | Path | Place) -> Table:
    """The table in a folder, its columns as read-only memory maps. Raises TableError."""
    try:
        place = named(path)
        text = (place / "table.json").read(_JSON)
    except OSError as error:
        raise TableError(
            f"{path} is no table ({error.strerror or error}); rlkit collect makes one, rlkit list data shows those "
            "with a name"
        ) from error
    try:
        found = json.loads(text)
        version, rows, whole = found["format"], found["rows"], found["whole"]
        if isinstance(version, int) and version > FORMAT:
            raise TableError(
                f"{path} has format {version}, newer than format {FORMAT} that this rlkit reads; upgrade it: "
                "pip install -U rlkit"
            )
        if type(rows) is not int or type(whole) is not int or not 0 <= whole <= rows:
            raise ValueError(f"rows {rows!r}, of them whole {whole!r}")
        columns = {str(name): Column.from_json(each) for name, each in found["columns"].items()}
        wrong = [name for name in columns if not _NAME.fullmatch(name)]
        if wrong or not columns:
            raise ValueError(f"columns {wrong[:3]}")
        made = dict(found["made"])
    except TableError:
        raise
    except MALFORMED as error:
        raise TableError(f"{place / 'table.json'} is damaged: {error!r}") from error
    data = {name: _column(place, name, column, rows) for name, column in columns.items()}
    return Table(str(place), columns, data, made, whole)


def _column(place: Place, name: str, column: Column, rows: int) -> Array:
    """The first `rows` rows of a column's file as a read-only map. Raises TableError."""
    if not rows:  # a table that was just begun may lack the file
        return np.zeros((0, *column.shape), column.dtype)
    path = place / f"{name}.npy"
    try:
        with path.open("rb") as file:
            dtype, shape = _read_header(file)
            size = os.fstat(file.fileno()).st_size
            if (dtype, shape[1:]) != (column.dtype, column.shape):
                raise TableError(
                    f"{path} holds {dtype} {shape[1:]}, and table.json says {column.dtype} {column.shape}"
                )
            if size < _HEADER + rows * column.bytes:
                there = (size - _HEADER) // max(column.bytes, 1)
                raise TableError(f"{path} is damaged: it ends after {there:,} of {rows:,} rows")
            memory = mmap.mmap(file.fileno(), _HEADER + rows * column.bytes, access=mmap.ACCESS_READ)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
    except MALFORMED as error:
        raise TableError(f"{path} is damaged: {error!r}") from error
    count = rows * math.prod(column.shape)
    return np.frombuffer(memory, column.dtype, count, _HEADER).reshape(rows, *column.shape)


def _read_header(file: BinaryIO) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape) of a file that `_header` began. Raises ValueError."""
    head = file.read(_HEADER)
    if head[:8] != b"\x93NUMPY\x01\x00" or len(head) < _HEADER or struct.unpack("<H", head[8:10]) != (118,):
        raise ValueError("no column of a table")
    try:
        fields = ast.literal_eval(head[10:].decode("latin1").strip())
    except SyntaxError as error:
        raise ValueError("no header of NumPy's") from error
    dtype = np.dtype(str(fields["descr"]))
    if fields["fortran_order"] or dtype.name not in _DTYPES or dtype != dtype.newbyteorder("<"):
        raise ValueError(f"a column of {dtype}")
    return dtype.name, tuple(int(n) for n in fields["shape"])


def _header(column: Column, rows: int) -> bytes:
    """NumPy's header of an array [rows, ...], always `_HEADER` bytes long."""
    descr = np.dtype(column.dtype).newbyteorder("<").str
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {(rows, *column.shape)}, }}"
    return (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER - 10) + f"{text:<{_HEADER - 11}}\n".encode("latin1")
    )


class Writer:
    """Appends rows to a table in a folder, which is made or continued.

    made: where the rows come from; a table that is there must have the same columns. Raises TableError. Rows that are
    not whole (the beginning of a group) are dropped where a table is continued: who appends writes that group anew.
    """

    def __init__(
        self, path: str | Path | Place, columns: Mapping[str, Column], made: Mapping[str, object]
    ) -> None:
        self.place, self.columns, self.made = at(path), dict(columns), dict(made)
        self.rows = 0
        if (self.place / "table.json").exists():
            before = open_table(self.place)
            if {n: c.to_json() for n, c in before.columns.items()} != {
                n: c.to_json() for n, c in columns.items()
            }:
                words = [_words(each) for each in (before.columns, columns)]
                raise TableError(
                    f"{path} has columns {words[0]}; these rows have {words[1]}: choose another folder"
                )
            self.rows = before.whole
        elif self.place.exists() and set(self.place.list()) - {".table.json.tmp"}:
            raise TableError(f"{path} is no table and not empty: choose another folder")
        self._files: dict[str, BinaryIO] = {}
        try:
            self.place.mkdir()
            self._count(self.rows, self.rows)  # before rows that it counted are cut off
            for name, column in columns.items():
                file = (self.place / f"{name}.npy").open("r+b", buffering=0)
                self._files[name] = file
                file.seek(0)
                file.write(_header(column, self.rows))
                file.truncate(_HEADER + self.rows * column.bytes)
                file.seek(0, os.SEEK_END)
        except OSError as error:
            self.close()
            raise TableError(f"cannot write {self.place}: {error.strerror or error}") from error

    def append(self, rows: Mapping[str, Array], whole: bool = True) -> None:
        """Add rows [n, ...] of every column. whole: they end with the end of a group.

        Raises TableError where the disk is full; rows that were counted before stay.
        """
        assert rows.keys() == self._files.keys(), f"{sorted(rows)} are not {sorted(self._files)}"
        total = self.rows + len(next(iter(rows.values())))
        try:
            for name, file in self._files.items():
                column = self.columns[name]
                array = np.ascontiguousarray(rows[name], column.dtype)
                assert array.shape == (total - self.rows, *column.shape), f"{name}: {array.shape}"
                data = array.reshape(-1).view(np.uint8).data
                while data:  # an unbuffered file may take a part
                    data = data[file.write(data) :]
                file.seek(0)
                file.write(_header(column, total))
                file.seek(0, os.SEEK_END)
                os.fsync(file.fileno())
            self._count(total, total if whole else self.rows)
            self.rows = total
        except OSError as error:
            raise TableError(
                f"cannot write {self.place}: {error.strerror or error}; the {self.rows:,} rows before are whole"
            ) from error

    def _count(self, rows: int, whole: int) -> None:
        """Write table.json."""
        content = {
            "format": FORMAT,
            "rows": rows,
            "whole": whole,
            "columns": {name: column.to_json() for name, column in self.columns.items()},
            "made": self.made,
        }
        (self.place / "table.json").write(json.dumps(content, indent=1).encode())

    def close(self) -> None:
        """Close the files; idempotent."""
        for file in self._files.values():
            file.close()
        self._files = {}


def _words(columns: Mapping[str, Column]) -> str:
    """Columns in words."""
    return ", ".join(
        f"{name}: {describe(c.space) if c.space is not None else f'{c.dtype} {c.shape}'}"
        for name, c in columns.items()
    )


def from_arrays(
    name: str, columns: Mapping[str, tuple[Array, Space | None]], made: Sequence[str] = ()
) -> Table:
    """A table in memory, of arrays [rows, ...] and their spaces. Raises TableError."""
    lengths = {key: len(array) for key, (array, _) in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"data={name}: its columns have {lengths} rows; all need as many")
    wrong = [key for key, (array, _) in columns.items() if array.dtype.name not in _DTYPES]
    if wrong:
        raise TableError(
            f"data={name}: column {wrong[0]} is of {columns[wrong[0]][0].dtype}; allowed: {', '.join(sorted(_DTYPES))}"
        )
    described = {
        key: Column(array.dtype.name, array.shape[1:], space) for key, (array, space) in columns.items()
    }
    return Table(name, described, {key: array for key, (array, _) in columns.items()}, {"from": list(made)})
