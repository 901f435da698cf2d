"""Where a run's numbers go: metrics.csv, TensorBoard's event files (the same numbers), and the console.

metrics.csv is the record: one line per row, written whole or not at all, floats with every digit, columns
added as they first appear. It survives a crash in the middle of a line and a full disk, and a resumed run
cuts it back to its checkpoint.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Row = Mapping[str, float]


class MetricsWriter:
    """Appends rows to `folder`/metrics.csv and, unless `tensorboard` is false, to an event file beside it.

    An existing file is continued; a torn last line is dropped. Raises OSError, with plain words for a full
    disk.
    """

    def __init__(self, folder: str | Path, tensorboard: bool = True) -> None:
        self.path = Path(folder) / "metrics.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] = []
        if self.path.exists():
            self._columns, rows = _read(self.path)
            self._rewrite(rows)
        self._file = self._open()
        self._events = _Events(self.path.parent) if tensorboard else None

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

    def truncate(self, step: int) -> None:
        """Forget every row beyond `step`, here and in TensorBoard: a resumed run writes them again."""
        self._file.close()
        if self._columns:
            self._rewrite([row for row in _read(self.path)[1] if float(row["step"]) <= step])
        self._file = self._open()
        if self._events is not None:
            self._events.purge(step + 1)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def _open(self) -> BinaryIO:
        return self.path.open("ab", buffering=0)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """The whole file anew, under a temporary name until it is complete."""
        if not self._columns:
            self.path.write_bytes(b"")
            return
        lines = [_line(self._columns)] + [
            _line([row.get(key) or "" for key in self._columns]) for row in rows
        ]
        temporary = self.path.with_suffix(".csv.tmp")
        temporary.unlink(missing_ok=True)
        with temporary.open("xb", buffering=0) as file:
            _append(file, b"".join(lines), self.path)
            os.fsync(file.fileno())
        os.replace(temporary, self.path)


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, without their empty cells."""
    _, rows = _read(Path(path))
    return [{key: float(cell) for key, cell in row.items() if cell} for row in rows]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a metrics.csv, up to the last whole line."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    reader = csv.DictReader(io.StringIO(whole), restval="")
    columns = list(reader.fieldnames or [])
    if columns and columns[0] != "step":
        raise ValueError(f"{path}: not a metrics file: its first column is {columns[0]!r}, not 'step'")
    return columns, [{key: cell for key, cell in row.items() if key is not None} for row in reader]


def _cell(value: float | None) -> str:
    """repr: float(repr(x)) == x for every float."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _append(file: BinaryIO, data: bytes, path: Path) -> None:
    """Write all of `data` at the end of an unbuffered file, or nothing."""
    start = os.fstat(file.fileno()).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        os.ftruncate(file.fileno(), start)
        raise explained(error, path) from error


def explained(error: OSError, path: str | Path) -> OSError:
    """The same error, in plain words where the disk is full."""
    if error.errno in FULL:
        return OSError(error.errno, f"disk full while writing {path}: free space, then resume the run")
    return error


class _Events:
    """One TensorBoard event file, framed here so that neither TensorFlow nor a thread is needed."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
        from tensorboard.compat.tensorflow_stub import pywrap_tensorflow  # type: ignore[import-untyped]

        self._event: Any = event_pb2.Event
        self._session: Any = event_pb2.SessionLog
        self._crc: Any = pywrap_tensorflow.masked_crc32c
        # TensorBoard reads the files of a folder in the order of their names
        index = sum(1 for _ in folder.glob("events.out.tfevents.*"))
        self._path = folder / f"events.out.tfevents.{index:06d}.{socket.gethostname()}"
        self._file = self._path.open("ab", buffering=0)
        self._add(file_version="brain.Event:2")

    def write(self, step: int, row: Row) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for key, value in row.items():
            if key != "step":
                event.summary.value.add(tag=key, simple_value=value)
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

    def _add(self, **fields: Any) -> None:
        self._append(self._event(wall_time=time.time(), **fields))

    def _append(self, event: Any) -> None:
        """A TFRecord: length (u64), its masked CRC-32C (u32), the bytes, their masked CRC-32C."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        crcs = [struct.pack("<I", self._crc(part)) for part in (length, data)]
        _append(self._file, length + crcs[0] + data + crcs[1], self._path)


class Console:
    """What a person sees of a run: a live panel in a terminal, plain lines anywhere else.

    Plain: at most one line in ten seconds, the first row at once and the last one at `close`. plain=None
    decides by whether standard output is a terminal. Cheap enough to be called after every update.
    """

    def __init__(self, total_steps: int, title: str, plain: bool | None = None) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole(highlight=False, markup=False, emoji=False)
        self._plain = (
            plain if plain is not None else not self._console.is_terminal or self._console.is_dumb_terminal
        )
        self._total = total_steps
        self._title = title
        self._started = time.monotonic()
        self._first_step: int | None = None  # a resumed run does not start at 0
        self._last: tuple[int, dict[str, float]] | None = None
        self._shown: tuple[float, int] = (-math.inf, -1)  # when, which step
        self._live: Live | None = None
        self._closed = False
        if self._plain:
            self.say(title)

    def say(self, text: str) -> None:
        """A message of its own; the panel stays below it."""
        if self._plain:
            print(text, flush=True)
        else:
            self._console.print(text, soft_wrap=True)

    def update(self, step: int, row: Row) -> None:
        """The newest numbers. Keys that the row lacks keep their last value."""
        if self._first_step is None:
            self._first_step = step
        self._last = step, {**(self._last[1] if self._last else {}), **row}
        if time.monotonic() - self._shown[0] >= (10.0 if self._plain else 0.25):
            self._show()

    def close(self) -> None:
        """Show the last row if it was not, and free the terminal. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # whoever read this has gone (`rlkit train | head`)
            if self._last is not None and self._shown[1] != self._last[0]:
                self._show()
            if self._live is not None:
                self._live.stop()

    def _show(self) -> None:
        if self._last is None:
            return
        step, row = self._last
        self._shown = time.monotonic(), step
        if self._plain:
            print(plain_line(step, self._total, row, self._left(step, row)), flush=True)
            return
        panel = self._panel(step, row)
        if self._live is None:
            from rich.live import Live

            self._live = Live(panel, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(panel, refresh=True)

    def _left(self, step: int, row: Row) -> float | None:
        """Seconds to go, by the rate since this console opened; None until that is known."""
        seconds = time.monotonic() - self._started
        done = step - (self._first_step or 0)
        speed = done / seconds if done > 0 and seconds > 0 else row.get("time/steps_per_second", 0.0)
        return max(self._total - step, 0) / speed if speed > 0 else None

    def _panel(self, step: int, row: Row) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        left = self._left(step, row)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total=self._total, completed=min(step, self._total), width=30),
            f"{step:,} of {self._total:,} steps",
            f"{clock(left)} left" if left is not None else "",
        )
        body = Table.grid(padding=(0, 2))
        for name, text in summary_lines(row):
            body.add_row(name, text)
        return Panel(Group(head, body), title=self._title, title_align="left", expand=False)


def summary_lines(row: Row) -> list[tuple[str, str]]:
    """(label, text) of what matters in a row, in reading order."""
    lines = []
    if "return/mean" in row:
        spread = f" +- {number(row['return/std'])}" if "return/std" in row else ""
        lines.append(("return", f"{number(row['return/mean'])}{spread} (last 100 episodes)"))
    if "evaluate/mean" in row:
        best = f" (best {number(row['evaluate/best'])})" if "evaluate/best" in row else ""
        lines.append(("evaluated", f"{number(row['evaluate/mean'])}{best}"))
    if "length/mean" in row:
        lines.append(("length", f"{number(row['length/mean'])} steps"))
    if "episodes" in row:
        lines.append(("episodes", f"{row['episodes']:,.0f}"))
    if "time/steps_per_second" in row:
        lines.append(("speed", f"{row['time/steps_per_second']:,.0f} steps/s"))
    shares = [
        (name, row[f"time/{name}"])
        for name in ("environment", "policy", "learning", "other")
        if f"time/{name}" in row
    ]
    if shares:
        lines.append(("time", ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares)))
    if "source/workers" in row:
        lag = f"lag {row['source/lag_mean']:.1f} (at most {row['source/lag_max']:.0f})"
        trouble = [
            f"{row[key]:,.0f} {words}"
            for key, words in (
                ("source/restarts", "restarted"),
                ("source/failures", "environments failed"),
                ("source/lost_rows", "rows lost"),
            )
            if row[key]
        ]
        waiting = [f"waiting {100 * row['time/waiting']:.0f}%"] if "time/waiting" in row else []
        size = f"{row['source/megabytes']:.1f} MB"
        lines.append(
            ("workers", ", ".join([f"{row['source/workers']:.0f} up", *trouble, lag, size, *waiting]))
        )
    for group in ("loss", "policy"):
        found = [(key.partition("/")[2], value) for key, value in row.items() if key.startswith(f"{group}/")]
        if found:
            lines.append((group, ", ".join(f"{name} {number(value)}" for name, value in found)))
    return lines


def plain_line(step: int, total: int, row: Row, left: float | None) -> str:
    """One line without a terminal's means; `left` in seconds."""
    parts = [f"step {step:,}/{total:,} ({min(100 * step // max(total, 1), 100)}%)"]
    parts += [
        f"{name} {text}"
        for name, text in summary_lines(row)
        if name in ("return", "speed", "workers", "loss")
    ]
    if left is not None:
        parts.append(f"left {clock(left)}")
    return "  ".join(parts).replace(" (last 100 episodes)", "")


def number(value: float) -> str:
    """Four digits, as a person writes them: 475.2, 0.01234, 1.2e-07."""
    return f"{value:.1f}" if 100 <= abs(value) < 1e7 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
