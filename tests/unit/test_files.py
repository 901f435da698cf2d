"""Files in a folder that somebody else may have made: nothing in it leads elsewhere, nothing is half written."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rlkit import files
from rlkit.envs import EnvFault
from rlkit.files import NotRegular, Place, at, named
from rlkit.text import clean, fault_line, quoted


@pytest.fixture(params=[True, False], ids=["handles", "paths"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A run folder `run` with a file and a folder, beside a folder `outside`; also as on systems without handles."""
    monkeypatch.setattr(files, "HELD", request.param and files.HELD)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    folder = tmp_path / "run"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "file").write_text("1")
    return named(folder)


def untouched(run: Place) -> bool:
    outside = run.path.parent / "outside"
    return os.listdir(outside) == ["file"] and (outside / "file").read_text() == "precious"


def test_files_are_made_read_replaced_and_removed(run: Place) -> None:
    file = run / "a" / "b" / "c"
    assert not file.exists() and file.list() == [] and file.modified() == 0
    file.parent.mkdir()
    file.write(b"1")
    file.write(b"22")
    assert file.is_file() and file.read(2) == b"22" and file.modified() > 1e9
    with file.open("ab", buffering=0) as opened:
        opened.write(b"3")
    with pytest.raises(FileExistsError):
        file.open("xb")
    with pytest.raises(NotRegular, match="3 bytes long, and at most 2 are read"):
        file.read(2)
    file.rename(run / "moved")
    assert (run / "moved").read(9) == b"223" and file.parent.list() == []
    (run / "a").remove()
    (run / "a").remove()  # nothing is there any more
    assert sorted(run.list()) == ["in", "moved"] and run.is_folder() and not (run / "a").exists()
    with pytest.raises(FileNotFoundError):
        (run / "a" / "b").read(1)
    with pytest.raises(OSError, match="moved"):
        (run / "moved" / "below-a-file").mkdir()


LINKS: dict[str, Callable[[Place], object]] = {  # of a link to a file or a folder, or below one to a folder
    "read": lambda place: place.read(9),
    "append": lambda place: place.open("ab").close(),
    "update": lambda place: place.open("r+b").close(),
    "new": lambda place: place.open("xb").close(),
    "lock": lambda place: place.lock(),
    "list": lambda place: place.list(),
    "folder": lambda place: place.mkdir(),
}


@pytest.mark.parametrize("what", LINKS)
@pytest.mark.parametrize("target", ["outside", "outside/file", "outside/new", "run/in"])
def test_no_link_is_followed(run: Place, what: str, target: str) -> None:
    (run.path / "link").symlink_to(run.path.parent / target)
    for place in (run / "link", run / "link" / "file"):
        with pytest.raises((NotRegular, FileExistsError)) as caught:
            LINKS[what](place)
        assert str(run / "link") in str(caught.value) or what == "new"
    assert untouched(run) and (run.path / "in" / "file").read_text() == "1"


def test_a_link_itself_is_replaced_moved_and_removed(run: Place) -> None:
    outside = run.path.parent / "outside"
    for name, target in (("a", outside / "file"), ("b", outside), ("c", outside), ("d", outside / "file")):
        (run.path / name).symlink_to(target)
    (run / "a").write(b"mine")
    assert (run / "a").read(9) == b"mine"
    for operation in (lambda: (run / "b" / "file").remove(), lambda: (run / "b" / "new").write(b"")):
        with pytest.raises(NotRegular):
            operation()
    (run / "b").rename(run / "e")
    for name in ("c", "d", "e"):
        (run / name).remove()
    assert untouched(run) and sorted(run.list()) == ["a", "in"]


def test_pipes_sockets_and_devices_are_refused_at_once(run: Place) -> None:
    os.mkfifo(run.path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(run.path)  # a socket's path may not be long
    listener.bind("socket")
    os.chdir(here)
    for name in ("pipe", "socket"):
        for mode in ("rb", "ab", "r+b"):
            with pytest.raises(NotRegular, match="is no regular file; .* remove it"):
                (run / name).open(mode)
    listener.close()
    with pytest.raises(NotRegular, match="is no regular file"):
        (named("/dev") / "zero").open("rb")


def test_a_folder_stays_the_same_one(run: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the program changes its directory and, where the system can hold it, when it is renamed."""
    monkeypatch.chdir(run.path.parent)
    place = named("run")
    monkeypatch.chdir("outside")
    (place / "x").write(b"1")
    assert (run / "x").read(1) == b"1" and str(place / "x") == "run/x"
    if files.HELD:
        run.path.rename(run.path.parent / "elsewhere")
        (place / "y").write(b"2")
        assert (run.path.parent / "elsewhere" / "y").read_text() == "2"


def test_what_the_user_names_may_be_a_link(run: Place) -> None:
    link = run.path.parent / "link"
    link.symlink_to(run.path)
    assert (named(link) / "in" / "file").read(1) == b"1"
    assert at(link / "in" / "file").read(1) == b"1"
    assert at(link / "in" / "no" / "such").names == ("no", "such")
    for name, error in (("none", FileNotFoundError), ("in/file", NotADirectoryError)):
        with pytest.raises(error, match=name):
            named(run.path / name)


def test_a_full_disk_is_told_with_the_file_and_keeps_it(run: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        (run / "in" / "file").write(b"2")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(run / "in" / "file")
    assert (run / "in" / "file").read(9) == b"1"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0"])
def test_names_stay_in_their_folder(run: Place, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a file"):
        run / name


def test_a_lock_is_held_by_one_or_shared(run: Place) -> None:
    place = run / ".lock"
    with pytest.raises(FileNotFoundError):
        place.lock(shared=True)
    first = place.lock()
    assert first is not None and place.lock() is None and place.lock(shared=True) is None
    first.close()
    one, two = place.lock(shared=True), place.lock(shared=True)
    assert one is not None and two is not None and place.lock() is None
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ü 中", "plain é ü 中"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("\u2028\U000e0041", "\\u2028\\U000e0041"),
    ],
)
def test_a_terminal_sees_what_is_printable(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean(text * 30, 20) == (shown * 30)[:17] + "..."


def test_words_of_commands_are_quoted() -> None:
    assert [quoted(word) for word in ("runs/a", "runs/a;rm -rf x", "-rf", Path("a b"))] == [
        "runs/a", "'runs/a;rm -rf x'", "./-rf", "'a b'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("raised", "raised: environment E, lane 1, episode 2 (seed 7), step 3: bad (car.py:9)"),
        (
            "hung",
            "hung: environment E, lane 1, episode 2 (seed 7), step 3: bad "
            "(env.deadline=SECONDS allows slower steps; it was at car.py:9)",
        ),
    ],
)
def test_a_fault_is_one_line_with_the_line_of_code(kind: str, line: str) -> None:
    trace = 'Traceback:\n  File "lane.py", line 8, in step\n  File "car.py", line 9, in step\n'
    interrupted = trace + '  File "envs/backends/watchdog.py", line 1, in _on_alarm\n'
    fault = EnvFault(kind, "E", 1, 2, 3, 7, "", "bad", interrupted if kind == "hung" else trace)
    assert fault_line(fault) == line
    if kind == "hung":  # as told by faulthandler
        frames = '  File "car.py", line 9 in step\n  File "lane.py", line 8 in step\n'
        stack = f"Thread 1 (most recent call first):\n{frames}"
        assert fault_line(EnvFault(kind, "E", 1, 2, 3, 7, "", "bad", stack)) == line
