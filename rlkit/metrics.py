"""Where a run's numbers go: metrics.csv, TensorBoard's event files (the same numbers), and the console.

metrics.csv is the record: one line per row, written whole or not at all, floats with every digit, columns
added as they first appear. It survives a crash in the middle of a line, damaged lines and a full disk, and a
resumed run cuts it back to its checkpoint.
"""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import socket
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from rlkit.files import Place, at

LONGEST = 1 << 28  # bytes of a metrics.csv that a resumed run continues
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Row: TypeAlias = Mapping[str, float]
Proto: TypeAlias = Any  # TensorBoard's messages are made at run time and have no types


class MetricsWriter:
    """Appends rows to `folder`/metrics.csv and, unless `tensorboard` is false, to an event file beside it.

    An existing file is continued. A torn last line is dropped; `say` hears of damaged lines, which are dropped too, and
    of a file whose first line is damaged, which is set aside. Raises OSError, with plain words for a full disk.
    """

    def __init__(
        self, folder: str | Path | Place, tensorboard: bool = True, say: Callable[[str], None] = warnings.warn
    ) -> None:
        place = at(folder).mkdir()
        self.path = place / "metrics.csv"
        self._columns: list[str] = []
        if self.path.exists():
            self._continue(say)
        self._file = self._open()
        self._events = _Events(place) if tensorboard else None

    def _continue(self, say: Callable[[str], None]) -> None:
        """Keep what is whole of the file that is there."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
            if size > LONGEST:
                raise ValueError(f"{self.path} is {size:,} bytes long, and at most {LONGEST:,} are continued")
            self._columns, rows, damaged = _read(self.path)
        except ValueError as error:
            aside = self.path.beside("damaged-metrics.csv")
            self.path.rename(aside)
            say(f"warning: {error}; it is kept as {aside}, and a new one begins")
            return
        if damaged:
            lines = ", ".join(map(str, damaged[:5])) + ", ..." * (len(damaged) > 5)
            say(f"warning: {self.path} is damaged in line {lines}: left out")
        self._rewrite(rows)

    def write(self, step: int, row: Row) -> None:
        """One row at environment step `step`. A key that is new becomes a column, empty in the rows
        before."""
        new = [key for key in row if key not in self._columns and key != "step"]
        if new or not self._columns:
            rows = _read(self.path)[1] if self._columns else []
            self._columns = (self._columns or ["step"]) + new
            self._file.close()
            self._rewrite(rows)
            self._file = self._open()
        cells = {**row, "step": step}
        _append(self._file, _line([_cell(cells.get(key)) for key in self._columns]), self.path)
        if self._events is not None:
            self._events.write(step, row)

    def histogram(self, step: int, name: str, values: Sequence[int]) -> None:
        """How often each whole number occurs, for TensorBoard alone; nothing where there are no values."""
        if values and self._events is not None:
            self._events.histogram(step, name, values)

    @property
    def draws(self) -> bool:
        """Whether there is a TensorBoard to write for."""
        return self._events is not None

    def text(self, name: str, text: str) -> None:
        """A text for TensorBoard alone, in Markdown; only where its files begin: a resumed run does not repeat it."""
        if self._events is not None and self._events.index == 0:
            self._events.text(name, text)

    def animation(self, step: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        """A film for TensorBoard alone, as a GIF of this width and height."""
        if self._events is not None:
            self._events.animation(step, name, gif, size)

    def truncate(self, step: int) -> None:
        """Forget every row beyond `step`, here and in TensorBoard: a resumed run writes them again."""
        self._file.close()
        if self._columns:
            self._rewrite([row for row in _read(self.path)[1] if float(row["step"]) <= step])
        self._file = self._open()
        if self._events is not None:
            self._events.purge(step + 1)

    def close(self) -> None:
        """Close the files; idempotent."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def _open(self) -> BinaryIO:
        return self.path.open("ab", buffering=0)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """The whole file anew, under a temporary name until it is complete."""
        lines = [_line([row.get(key) or "" for key in self._columns]) for row in rows]
        try:
            self.path.write(b"".join([_line(self._columns), *lines] if self._columns else []))
        except OSError as error:
            raise explained(error, self.path) from error


def read_metrics(path: str | Path | Place) -> list[dict[str, float]]:
    """The rows of a metrics.csv that are whole, without their empty cells."""
    return [{key: float(cell) for key, cell in row.items() if cell} for row in _read(at(path))[1]]


def last_rows(path: Place, size: int = 1 << 17) -> list[dict[str, float]]:
    """`read_metrics` of about the last `size` bytes alone, however long the file is."""
    with path.open("rb") as file:
        head = file.readline(size)
        start = max(file.tell(), os.fstat(file.fileno()).st_size - size)
        if start > file.tell():
            file.seek(start)
            file.readline(size)  # the rest of a line
        data = head + file.read(size)
    return [{key: float(cell) for key, cell in row.items() if cell} for row in _parse(path, data)[1]]


def _read(path: Place) -> tuple[list[str], list[dict[str, str]], list[int]]:
    """The columns, the rows, and the numbers of the damaged lines of a metrics.csv, up to the last whole line."""
    with path.open("rb") as file:
        return _parse(path, file.read())


def _parse(path: Place, data: bytes) -> tuple[list[str], list[dict[str, str]], list[int]]:
    """`_read` of a file's bytes. Raises ValueError where its first line does not name columns."""
    lines = data.decode("utf-8", errors="replace").split("\n")[:-1]  # what follows the last line end is torn
    if not lines:
        return [], [], []
    columns = _cells(lines[0])
    if columns[:1] != ["step"]:
        raise ValueError(
            f"{path}: not a metrics file: its first column is {''.join(columns[:1])!r}, not 'step'"
        )
    rows, damaged = [], []
    for number, line in enumerate(lines[1:], 2):
        cells = _cells(line)
        if len(cells) == len(columns) and _are_numbers(cells):
            rows.append(dict(zip(columns, cells, strict=True)))
        else:
            damaged.append(number)
    return columns, rows, damaged


def _cells(line: str) -> list[str]:
    """The cells of one line; none where that is not CSV."""
    try:
        return next(csv.reader([line.rstrip("\r")], strict=True), [])
    except csv.Error:
        return []


def _are_numbers(cells: list[str]) -> bool:
    """Whether every cell is a number or empty, and the first one a step."""
    try:
        values = [float(cell or "nan") for cell in cells]
    except ValueError:
        return False
    return math.isfinite(values[0])


def _cell(value: float | None) -> str:
    """A number as text, with every digit: float(repr(x)) == x for every float."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _append(file: BinaryIO, data: bytes, path: Place) -> None:
    """Write all of `data` at the end of an unbuffered file, or nothing."""
    start = os.fstat(file.fileno()).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        os.ftruncate(file.fileno(), start)
        raise explained(error, path) from error


def explained(error: OSError, path: str | Place) -> OSError:
    """The same error, in plain words where the disk is full."""
    if error.errno in FULL:
        return OSError(error.errno, f"disk full while writing {path}: free space, then resume the run")
    return error


def _tag(key: str) -> str:
    """A column's name in TensorBoard, which sorts by letters, capitals first: the return is what it opens with."""
    return key.capitalize() if key.startswith("return/") else key


class _Events:
    """One TensorBoard event file, framed here so that neither TensorFlow nor a thread is needed."""

    def __init__(self, folder: Place) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
        from tensorboard.compat.tensorflow_stub import pywrap_tensorflow  # type: ignore[import-untyped]

        self._event: Callable[..., Proto] = event_pb2.Event
        self._session: Proto = event_pb2.SessionLog
        self._crc: Callable[[bytes], int] = pywrap_tensorflow.masked_crc32c
        # TensorBoard reads the files of a folder in the order of their names
        self.index = index = sum(name.startswith("events.out.tfevents.") for name in folder.list())
        self._path = folder / f"events.out.tfevents.{index:06d}.{socket.gethostname()}"
        while self._path.exists():
            index += 1
            self._path = folder / f"events.out.tfevents.{index:06d}.{socket.gethostname()}"
        self._file = self._path.open("ab", buffering=0)
        self._add(file_version="brain.Event:2")

    def write(self, step: int, row: Row) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for key, value in row.items():
            if key != "step":
                event.summary.value.add(tag=_tag(key), simple_value=value)
        self._append(event)

    def text(self, name: str, text: str) -> None:
        event = self._event(wall_time=time.time(), step=0)
        value = event.summary.value.add(tag=name)
        value.metadata.plugin_data.plugin_name = "text"
        value.tensor.dtype = 7  # DT_STRING
        value.tensor.string_val.append(text.encode())
        self._append(event)

    def animation(self, step: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        event = self._event(wall_time=time.time(), step=step)
        image = event.summary.value.add(tag=name).image
        image.width, image.height = size
        image.colorspace, image.encoded_image_string = 3, gif
        self._append(event)

    def histogram(self, step: int, name: str, values: Sequence[int]) -> None:
        counts = Counter(values)
        low, high = min(counts), max(counts)
        event = self._event(wall_time=time.time(), step=step)
        proto = event.summary.value.add(tag=name).histo
        proto.min, proto.max, proto.num = low, high, len(values)
        proto.sum, proto.sum_squares = sum(values), sum(value * value for value in values)
        # a bucket ends at its limit and begins at the one before it: one for each number, and an empty one below
        proto.bucket_limit.extend(number + 0.5 for number in range(low - 1, high + 1))
        proto.bucket.extend([0, *(counts[number] for number in range(low, high + 1))])
        self._append(event)

    def purge(self, step: int) -> None:
        """Tell TensorBoard to forget what earlier files hold from `step` on."""
        self._add(step=step, session_log=self._session(status=self._session.START))

    def close(self) -> None:
        self._file.close()

    def _add(self, **fields: object) -> None:
        """Append an event with these fields."""
        self._append(self._event(wall_time=time.time(), **fields))

    def _append(self, event: Proto) -> None:
        """A TFRecord: length (u64), its masked CRC-32C (u32), the bytes, their masked CRC-32C."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        crcs = [struct.pack("<I", self._crc(part)) for part in (length, data)]
        _append(self._file, length + crcs[0] + data + crcs[1], self._path)
