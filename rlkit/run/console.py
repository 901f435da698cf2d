"""Shows a run to a person: a live panel in a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

from rlkit.metrics import Row
from rlkit.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live


# what a panel says that has no numbers yet
BEFORE_THE_FIRST = "gathering a batch; steps count, and numbers come, with the next update"


class Console:
    """Shows a run's messages and newest numbers, as a live panel in a terminal and as plain lines anywhere else.

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
        self._title = clean(title)
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
        text = clean(text)
        if self._plain:
            print(text, flush=True)
        else:
            self._console.print(text, soft_wrap=True)

    def update(self, step: int, row: Row) -> None:
        """Show the newest numbers. Keys that the row lacks keep their last value."""
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
        for name, text in summary_lines(row) or [("", BEFORE_THE_FIRST)]:
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
    if "time/seconds" in row:
        beside = row.get("time/evaluation_seconds", 0.0)
        evaluating = f", of it {clock(beside)} in evaluations and films" if beside else ""
        lines.append(("total time", f"{clock(row['time/seconds'])}{evaluating}"))
    if shares:
        lines.append(("training", ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares)))
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
    """The row as one line of plain text; left: seconds that the run still takes."""
    parts = [f"step {step:,}/{total:,} ({min(100 * step // max(total, 1), 100)}%)"]
    parts += [
        f"{name} {text}"
        for name, text in summary_lines(row)
        if name in ("return", "speed", "workers", "loss")
    ]
    if not row:
        parts.append(BEFORE_THE_FIRST)
    if left is not None:
        parts.append(f"left {clock(left)}")
    return "  ".join(parts).replace(" (last 100 episodes)", "")


def number(value: float) -> str:
    """Four digits, as a person writes them: 475.2, 0.01234, 1.2e-07."""
    return f"{value:.1f}" if 100 <= abs(value) < 1e7 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
