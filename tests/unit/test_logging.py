"""metrics.csv, event files and the console: nothing lost, nothing torn, nothing doubled."""

import errno
import io
import math
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlkit.files import at
from rlkit.metrics import MetricsWriter, explained, last_rows, read_metrics
from rlkit.play.video import VideoWriter, as_gif
from rlkit.run import console as console_module
from rlkit.run.console import Console, clock, number


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads from the folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_every_float_comes_back_exactly(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e-308, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2, math.pi]
    writer = MetricsWriter(tmp_path, tensorboard=False)
    for step, value in enumerate(values):
        writer.write(step, {"x": value, "np": np.float32(0.1), "count": 7})
    writer.close()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["x"] for row in rows] == values
    assert math.copysign(1, rows[5]["x"]) == -1
    assert rows[0]["np"] == float(np.float32(0.1))
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,x,np,count"
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].endswith(",7")


def test_a_histogram_counts_whole_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path)
    writer.histogram(5, "source/lag", [1, 3, 1, 1])
    writer.histogram(6, "source/lag", [])
    writer.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (event,) = accumulator.Histograms("source/lag")
    found = event.histogram_value
    assert (event.step, found.min, found.max, found.num, found.sum, found.sum_squares) == (5, 1, 3, 4, 6, 12)
    assert dict(zip(found.bucket_limit, found.bucket, strict=True)) == {0.5: 0, 1.5: 3, 2.5: 0, 3.5: 1}


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": math.nan, "up": math.inf})
    writer.close()
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert math.isnan(row["loss"])
    assert row["up"] == math.inf


def test_a_row_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(10, {"a": 1.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,a\n10,1.0\n"
    writer.close()
    writer.close()


def test_new_keys_become_columns_and_old_rows_stay(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(1, {"a": 1.0})
    writer.write(2, {"b, c": 2.0})
    writer.write(3, {"a": 3.0})
    writer.close()
    assert (tmp_path / "metrics.csv").read_text() == 'step,a,"b, c"\n1,1.0,\n2,,2.0\n3,3.0,\n'
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "a": 1.0},
        {"step": 2, "b, c": 2.0},
        {"step": 3, "a": 3.0},
    ]
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_torn_last_line_is_dropped_and_the_file_continued(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a\n1,1.0\n2,2.")
    assert read_metrics(path) == [{"step": 1, "a": 1.0}]
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(3, {"a": 3.0, "b": 4.0})
    writer.close()
    assert path.read_text() == "step,a,b\n1,1.0,\n3,3.0,4.0\n"


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    """Nor does it keep the run from going on."""
    (tmp_path / "metrics.csv").write_text("name,age\nx,3\n")
    with pytest.raises(ValueError, match="first column is 'name'"):
        read_metrics(tmp_path / "metrics.csv")
    heard: list[str] = []
    writer = MetricsWriter(tmp_path, tensorboard=False, say=heard.append)
    writer.write(1, {"a": 2.0})
    writer.close()
    assert (tmp_path / "damaged-metrics.csv").read_text() == "name,age\nx,3\n"
    assert (tmp_path / "metrics.csv").read_text() == "step,a\n1,2.0\n"
    assert len(heard) == 1 and "metrics.csv: not a metrics file" in heard[0]
    os.truncate(tmp_path / "metrics.csv", 2**31)
    MetricsWriter(tmp_path, tensorboard=False, say=heard.append).close()
    assert "metrics.csv is 2,147,483,648 bytes long, and at most 268,435,456 are continued" in heard.pop()
    assert heard[0].endswith(f"it is kept as {tmp_path}/damaged-metrics.csv, and a new one begins")


@pytest.mark.parametrize(
    "line", ["2,x", "2", "2,1,1", ",1", "nan,1", "inf,1", '2,"1', "2,1\x00", f"2,{'1' * 200_000}", "\xff,1", '"2,\r1'],
)  # fmt: skip
def test_a_damaged_line_is_named_and_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,a\n1,1.0\n{line}\n3,3.0\n", encoding="latin-1")
    assert read_metrics(path) == [{"step": 1, "a": 1.0}, {"step": 3, "a": 3.0}]
    heard: list[str] = []
    writer = MetricsWriter(tmp_path, tensorboard=False, say=heard.append)
    writer.truncate(3)
    writer.write(4, {"b": 4.0})
    writer.close()
    assert path.read_text() == "step,a,b\n1,1.0,\n3,3.0,\n4,,4.0\n"
    assert heard == [f"warning: {path} is damaged in line 3: left out"]


def test_the_last_rows_of_a_long_file(tmp_path: Path) -> None:
    path = at(tmp_path / "metrics.csv")
    writer = MetricsWriter(tmp_path, tensorboard=False)
    for step in range(100):
        writer.write(step, {"a": step / 7})
    writer.close()
    rows = read_metrics(path)
    for size in (10, 50, 500, 5000):
        found = last_rows(path, size)
        assert found == rows[len(rows) - len(found) :] and len(found) <= size // 8 + 1
    assert len(found) == 100


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in (10, 20, 30):
        writer.write(step, {"return/mean": step * 0.5, "loss/value": 0.25})
    writer.close()
    # it sorts by letters, capitals first, so that it opens with the return
    assert scalars(tmp_path, "Return/mean") == [(10, 5.0), (20, 10.0), (30, 15.0)]
    assert scalars(tmp_path, "loss/value") == [(10, 0.25), (20, 0.25), (30, 0.25)]


def test_tensorboard_has_the_configuration_once_and_the_films(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    film = VideoWriter(tmp_path / "film.mp4", fps=10.0)
    for gray in range(0, 250, 50):
        film.add(np.full((60, 80, 3), gray, np.uint8))
    film.close()
    for _ in range(2):  # a resumed run
        writer = MetricsWriter(tmp_path)
        writer.text("config", "seed: 0")
        writer.animation(7, "film", *as_gif(tmp_path / "film.mp4", width=40))
        writer.close()
    quiet = MetricsWriter(tmp_path / "quiet", tensorboard=False)
    quiet.text("config", "seed: 0")
    assert writer.draws and not quiet.draws
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (config,) = accumulator.Tensors("config")
    assert config.tensor_proto.string_val == [b"seed: 0"]
    assert accumulator.SummaryMetadata("config").plugin_data.plugin_name == "text"
    images = accumulator.Images("film")
    assert [(image.step, image.width, image.height) for image in images] == [(7, 40, 30)] * 2
    assert images[0].encoded_image_string.startswith(b"GIF89a")


def test_resume_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in (10, 20, 30, 40):
        writer.write(step, {"x": float(step)})
    writer.close()
    resumed = MetricsWriter(tmp_path)
    resumed.truncate(20)
    resumed.write(30, {"x": -30.0})
    resumed.close()
    assert [(row["step"], row["x"]) for row in read_metrics(tmp_path / "metrics.csv")] == [
        (10, 10.0),
        (20, 20.0),
        (30, -30.0),
    ]
    assert scalars(tmp_path, "x") == [(10, 10.0), (20, 20.0), (30, -30.0)]


def test_truncating_an_empty_run_is_fine(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.truncate(0)
    writer.write(5, {"x": 1.0})
    writer.close()
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 5, "x": 1.0}]


FULL_DISK = """
import resource, sys
from rlkit.metrics import MetricsWriter
writer = MetricsWriter(sys.argv[1], tensorboard=False)
writer.write(1, {"a": 1.0})
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))  # a file may not grow beyond 40 bytes
try:
    for step in range(2, 100):
        writer.write(step, {"a": 0.123456})
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_is_said_plainly_and_tears_no_line(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert re.search(r"disk full while writing .*metrics\.csv", done.stdout)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.endswith("\n")
    assert read_metrics(tmp_path / "metrics.csv")[-1]["a"] == 0.123456


def test_other_errors_stay_what_they_are() -> None:
    denied = OSError(errno.EACCES, "Permission denied")
    assert explained(denied, "x") is denied
    assert "disk full" in str(explained(OSError(errno.ENOSPC, "No space left on device"), "x"))


class Clock:
    """A clock that tests set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(console_module, "time", fake)
    return fake


def test_plain_lines_first_last_and_one_in_ten_seconds(
    ticking: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(1000, "title", plain=True)
    for step in range(1, 31):
        ticking.now = float(step)
        console.update(step * 10, {"return/mean": float(step), "return/std": 1.0})
    console.close()
    console.close()
    lines = capsys.readouterr().out.splitlines()
    steps = [int(match[1]) for line in lines if (match := re.match(r"step (\d+)/1,000", line))]
    assert lines[0] == "title"
    assert steps == [10, 110, 210, 300]
    assert "return 30 +- 1" in lines[-1]


def test_time_left_counts_from_where_a_resumed_run_began(
    ticking: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(1000, "t", plain=True)
    console.update(500, {})
    ticking.now = 10.0
    console.update(600, {})  # 100 steps in 10 s: 400 more take 40 s
    console.close()
    assert "left 0:40" in capsys.readouterr().out.splitlines()[-1]


def test_keys_that_a_row_lacks_keep_their_last_value(
    ticking: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(100, "t", plain=True)
    console.update(10, {"return/mean": 7.0})
    ticking.now = 60.0
    console.update(20, {"loss/policy": 0.5})
    console.close()
    last = capsys.readouterr().out.splitlines()[-1]
    assert "return 7" in last
    assert "loss policy 0.5" in last


def test_the_panel_is_drawn_at_most_four_times_a_second(
    ticking: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console as RichConsole

    stream = io.StringIO()
    console = Console(1000, "my run", plain=False)
    console._console = RichConsole(file=stream, force_terminal=True, width=100, highlight=False, markup=False)
    drawn: list[int] = []
    original = console._panel
    monkeypatch.setattr(console, "_panel", lambda step, row: drawn.append(step) or original(step, row))
    row = {"return/mean": 475.25, "return/std": 10.0, "time/policy": 0.25, "loss/value": 0.5, "episodes": 12}
    for step in range(100):
        ticking.now = step * 0.0625  # sixteen updates a second
        console.update(step, row)
    console.say("[bold] a message")
    console.close()
    assert drawn == [*range(0, 100, 4), 99]
    text = stream.getvalue()
    assert "my run" in text
    assert "[bold] a message" in text
    assert "475.2 +- 10" in text
    assert "policy 25%" in text


def test_numbers_and_clocks() -> None:
    assert [number(x) for x in (475.25, 0.0123456, 3.0, 1.5e-7, -123.46)] == [
        "475.2",
        "0.01235",
        "3",
        "1.5e-07",
        "-123.5",
    ]
    assert [clock(x) for x in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
