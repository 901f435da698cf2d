"""Tables: what goes in comes out, wherever a process is killed; damaged and hostile folders are told in one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlkit.perception import table as tables
from rlkit.perception.sets import open_data
from rlkit.perception.table import Column, Table, TableError, Writer, from_arrays, hashed, open_table
from rlkit.spaces import Box, Discrete
from tests.helpers.killed import Killed, killed_at

IMAGE = Box((4, 4), "uint8", 0.0, 255.0)
COLUMNS = {
    "image": Column.of(IMAGE),
    "label.kind": Column.of(Discrete(3)),
    "label.pose": Column.of(Box((2,), "float32")),
    "first": Column("bool", ()),
    "group": Column("uint64", ()),
}


def episode(number: int, length: int = 3) -> dict[str, np.ndarray]:
    """Rows that say which episode they are of."""
    t = np.arange(length)
    return {
        "image": (np.zeros((length, 4, 4)) + 10 * number + t[:, None, None]).astype(np.uint8),
        "label.kind": (t + number) % 3,
        "label.pose": np.stack([t + 0.5, t * 0.0 + number], 1).astype(np.float32),
        "first": t == 0,
        "group": np.full(length, 2**63 + number, np.uint64),
    }


def write(path: Path, *numbers: int) -> Table:
    writer = Writer(path, COLUMNS, {"seed": 3})
    for number in numbers:
        writer.append(episode(number))
    writer.close()
    return open_table(path)


def same(found: Table, *numbers: int) -> bool:
    wanted = [episode(number) for number in numbers]
    return all(
        np.array_equal(found[name], np.concatenate([each[name] for each in wanted] or [found[name][:0]]))
        for name in COLUMNS
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    found = write(tmp_path / "t", 0, 1)
    assert same(found, 0, 1) and found.rows == found.whole == 6 and found.made == {"seed": 3}
    assert found.labels == ["kind", "pose"] and found.inputs == ["image"]
    assert {n: c.to_json() for n, c in found.columns.items()} == {n: c.to_json() for n, c in COLUMNS.items()}
    assert found.groups.dtype == np.uint64 and found.groups[0] == 2**63
    for name in COLUMNS:  # NumPy reads the files too
        np.testing.assert_array_equal(np.load(tmp_path / "t" / f"{name}.npy"), found[name])


def test_columns_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    """What is read is the file itself: nothing is copied when a table is opened."""
    found = write(tmp_path / "t", 0)
    with pytest.raises(ValueError, match="read-only"):
        found["image"][0] = 1
    with (tmp_path / "t" / "image.npy").open("r+b") as file:
        file.seek(128)
        file.write(b"\x07")
    assert found["image"][0, 0, 0] == 7


def test_a_table_grows_and_what_is_open_stays(tmp_path: Path) -> None:
    before = write(tmp_path / "t", 0)
    after = write(tmp_path / "t", 1, 2)
    assert same(after, 0, 1, 2) and same(before, 0) and before.rows == 3


def test_the_beginning_of_a_group_is_dropped_where_a_table_goes_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "t", COLUMNS, {})
    writer.append(episode(0))
    writer.append({name: array[:2] for name, array in episode(1).items()}, whole=False)
    writer.close()
    cut = open_table(tmp_path / "t")
    assert (cut.rows, cut.whole) == (5, 3)
    assert same(write(tmp_path / "t", 1), 0, 1)
    fresh = write(tmp_path / "u", 0, 1)
    for name in COLUMNS:
        assert (tmp_path / "t" / f"{name}.npy").read_bytes() == (tmp_path / "u" / f"{name}.npy").read_bytes()
    assert fresh.rows == 6


class Unbuffered:
    """A file whose writes and seeks count as changes."""

    def __init__(self, file: Any, change: Callable[[], None]) -> None:
        self.file, self.change = file, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.change()
        return int(self.file.write(data))

    def truncate(self, size: int) -> int:
        self.change()
        return int(self.file.truncate(size))


def dying_at(count: int, patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The `count`-th change of a file from now on does not happen, nor any after it."""
    killed_at(count, patch)  # of names in folders, and fsync
    real = tables.Place.open
    left = [count]

    def change() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    def opened(self: Any, mode: str, buffering: int = -1) -> Any:
        file = real(self, mode, buffering)
        return Unbuffered(file, change) if mode == "r+b" else file

    patch.setattr(tables.Place, "open", opened)


@pytest.mark.parametrize("partial", [False, True])
def test_wherever_a_process_is_killed_old_rows_are_whole_and_the_table_goes_on(
    tmp_path: Path, partial: bool
) -> None:
    """Killed while a table is begun, continued and grown, of whole episodes and with a part of one at its end."""

    def work() -> None:
        writer = Writer(tmp_path / "t", COLUMNS, {})
        writer.append(episode(1))
        writer.append(episode(2))
        writer.close()

    for begun in (False, True):
        for count in range(200):
            shutil.rmtree(tmp_path / "t", ignore_errors=True)
            if begun:
                before = Writer(tmp_path / "t", COLUMNS, {})
                before.append(episode(0))
                if partial:
                    before.append({name: array[:2] for name, array in episode(1).items()}, whole=False)
                before.close()
            with pytest.MonkeyPatch.context() as patch:
                dying_at(count, patch, Killed())
                try:
                    work()
                    break
                except Killed:
                    pass
            old = [0] if begun else []
            if (tmp_path / "t" / "table.json").exists():
                found = open_table(tmp_path / "t")
                whole = Table("", found.columns, {n: x[: found.whole] for n, x in found.data.items()})
                assert any(same(whole, *old, *new) for new in ([], [1], [1, 2])), (count, found.rows)
            after = write(tmp_path / "t", 7)
            assert int(after["group"][-1] - np.uint64(2**63)) == 7 and after.rows % 3 == 0
        assert count > 20
        if not begun and partial:
            break


def test_a_full_disk_is_one_line_and_leaves_whole_rows(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        writer = Writer(tmp_path / "t", COLUMNS, {})
        writer.append(episode(0))
        writer.close()
        dying = Writer(tmp_path / "t", COLUMNS, {})
        full = OSError(errno.ENOSPC, "No space left on device")

        def change() -> None:
            raise full

        dying._files["first"] = Unbuffered(dying._files["first"], change)  # type: ignore[assignment]
        with pytest.raises(
            TableError, match=r"cannot write .*: No space left on device; the 3 rows before are whole"
        ):
            dying.append(episode(1))
        patch.undo()
    assert same(open_table(tmp_path / "t"), 0)
    assert same(write(tmp_path / "t", 1), 0, 1)


def test_parts_never_change_and_share_no_group(tmp_path: Path) -> None:
    """8:1:1 of the groups within three standard deviations; a longer table has the same parts, and more."""
    groups = np.repeat(np.arange(2_000, dtype=np.uint64) * np.uint64(7919), 3)
    big = from_arrays("t", {"x": (np.zeros((6_000, 1), np.float32), None), "group": (groups, None)})
    small = from_arrays("t", {name: (array[:2_999], None) for name, array in big.data.items()})
    parts = {name: set(groups[big.part(name)].tolist()) for name in tables.PARTS}
    assert sum(map(len, parts.values())) == 2_000 == len(set().union(*parts.values()))
    assert abs(len(parts["training"]) - 1600) < 54 and abs(len(parts["test"]) - 200) < 41
    for name in tables.PARTS:
        np.testing.assert_array_equal(small.part(name), big.part(name)[: len(small.part(name))])
        rows = big.part(name)
        assert all(
            np.isin(rows, big.part(other)).sum() == (len(rows) if other == name else 0) for other in parts
        )
    # the published numbers of splitmix64 from the state 1234567: the first three outputs
    states = np.array([1234567], np.uint64) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert hashed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_stacks_and_pairs_by_hand() -> None:
    frames = np.arange(7, dtype=np.float32)[:, None]
    first = np.array([1, 0, 0, 1, 0, 0, 0], bool)
    found = from_arrays("t", {"x": (frames, None), "first": (first, None)})
    starts = found.starts()
    assert starts.tolist() == [0, 0, 0, 3, 3, 3, 3]
    stacks = found.stacked("x", np.array([0, 1, 2, 3, 4, 6]), 3, starts)[..., 0]
    assert stacks.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4], [4, 5, 6]]
    assert found.pairs(np.arange(7), 2, starts).tolist() == [0, 3, 4]
    assert found.pairs(np.arange(7), 9, starts).tolist() == []
    alone = from_arrays("t", {"x": (frames, None)})
    assert alone.starts().tolist() == [*range(7)]
    assert alone.pairs(np.arange(7), 1, alone.starts()).tolist() == []


def edit(path: Path, **changes: object) -> None:
    """Change values of table.json."""
    content = json.loads((path / "table.json").read_text())
    (path / "table.json").write_text(json.dumps(content | changes))


def column(path: Path, **changes: object) -> None:
    """Change what table.json says of the column image."""
    columns = json.loads((path / "table.json").read_text())["columns"]
    edit(path, columns=columns | {"image": columns["image"] | changes})


def header(path: Path, old: bytes, new: bytes, name: str = "image") -> None:
    """Change NumPy's header of a column."""
    data = (path / f"{name}.npy").read_bytes()
    assert old in data[:128]
    (path / f"{name}.npy").write_bytes(data[:128].replace(old, new)[:128].ljust(128) + data[128:])


def link(path: Path) -> None:
    (path / "image.npy").rename(path / "elsewhere")
    (path / "image.npy").symlink_to(path / "elsewhere")


class Bait:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path / "swallowed"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> None:
    np.save(path / "image.npy", np.array([Bait(path)] * 6, object), allow_pickle=True)


def garbage(path: Path) -> None:
    data = (path / "image.npy").read_bytes()
    (path / "image.npy").write_bytes(data[:10] + b"(" * 118 + data[128:])


DEEP: Any = {"kind": "Discrete", "n": 2, "start": 0}
for _ in range(150):
    DEEP = {"kind": "Dict", "entries": [["x", DEEP]]}
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "format": (lambda p: edit(p, format=99), "format 99, newer than format 1 .* upgrade it: pip install -U rlkit"),
    "rows": (lambda p: edit(p, rows=7), "image.npy is damaged: it ends after 6 of 7 rows"),
    "many": (lambda p: edit(p, rows=2**60, whole=0), "it ends after 6 of"),
    "negative": (lambda p: edit(p, rows=-1), "table.json is damaged"),
    "whole": (lambda p: edit(p, whole=7), "table.json is damaged: .*whole 7"),
    "boolean": (lambda p: edit(p, rows=True), "table.json is damaged"),
    "nan": (lambda p: edit(p, rows=float("nan")), "table.json is damaged: .*nan"),
    "none": (lambda p: edit(p, columns={}), "table.json is damaged"),
    "columns": (lambda p: edit(p, columns=[1]), "table.json is damaged"),
    "made": (lambda p: edit(p, made=3), "table.json is damaged"),
    "name": (lambda p: edit(p, columns={"../x": COLUMNS["first"].to_json()}), r"damaged: .*\.\./x"),
    "list": (lambda p: (p / "table.json").write_text("[1]"), "table.json is damaged"),
    "cut": (lambda p: (p / "table.json").write_text('{"format": 1, "ro'), "table.json is damaged"),
    "bytes": (lambda p: (p / "table.json").write_bytes(b"\xff\xfe\x00"), "table.json is damaged"),
    "nesting": (lambda p: (p / "table.json").write_text("[" * 500_000), "table.json is damaged"),
    "long": (lambda p: (p / "table.json").write_text(" " * 2_000_000), "at most 1,048,576 are read"),
    "missing": (lambda p: (p / "table.json").unlink(), "is no table .*rlkit collect makes one"),
    "dtype": (lambda p: column(p, dtype="object"), "table.json is damaged: .*object"),
    "dtypes": (lambda p: column(p, dtype=["uint8"]), "table.json is damaged"),
    "shape": (lambda p: column(p, shape=[2**20, 2**20]), "table.json is damaged"),
    "empty": (lambda p: column(p, shape=[0, 4]), "table.json is damaged"),
    "space": (lambda p: column(p, space=COLUMNS["label.kind"].to_json()["space"]), "damaged: .*for a Discrete"),
    "deep": (lambda p: column(p, space=DEEP), "table.json is damaged"),
    "kind": (lambda p: column(p, space={"kind": "x"}), "table.json is damaged"),
    "other dtype": (lambda p: header(p, b"|u1", b"|i1"), r"holds int8 \(4, 4\), and table.json says uint8"),
    "other shape": (lambda p: header(p, b"4, 4", b"2, 8"), r"holds uint8 \(2, 8\), and table.json says uint8 \(4, 4\)"),
    "order": (lambda p: header(p, b"'fortran_order': False", b"'fortran_order': True"), "image.npy is damaged"),
    "big-endian": (lambda p: header(p, b"<f4", b">f4", "label.pose"), "label.pose.npy is damaged"),
    "header": (garbage, "image.npy is damaged: .*no header of NumPy's"),
    "short": (lambda p: (p / "image.npy").write_bytes(b"\x93NUMPY"), "image.npy is damaged"),
    "truncated": (lambda p: os.truncate(p / "image.npy", 128 + 40), "image.npy is damaged: it ends after 2 of 6 rows"),
    "gone": (lambda p: (p / "image.npy").unlink(), "image.npy.*: No such file"),
    "link": (link, "image.npy.*is a link"),
    "pickle": (pickled, "image.npy is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_hostile_is_one_line(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "t", 0, 1)
    apply, says = DAMAGES[damage]
    apply(tmp_path / "t")
    with pytest.raises(TableError, match=says) as found:
        open_data(str(tmp_path / "t"))
    assert "\n" not in str(found.value) and len(str(found.value)) < 600
    assert not (tmp_path / "t" / "swallowed").exists()


def test_the_bait_would_be_swallowed(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bait(tmp_path)))
    assert (tmp_path / "swallowed").exists()


def test_folders_that_are_no_tables_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "thesis.tex").write_text("x")
    with pytest.raises(TableError, match="is no table and not empty: choose another folder"):
        Writer(tmp_path / "t", COLUMNS, {})
    assert os.listdir(tmp_path / "t") == ["thesis.tex"]
    write(tmp_path / "u", 0)
    with pytest.raises(
        TableError, match=r"has columns .*label.kind: .*; these rows have image: .*: choose another"
    ):
        Writer(tmp_path / "u", {"image": COLUMNS["image"]}, {})
    assert same(open_table(tmp_path / "u"), 0)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": np.zeros((2, 1)), "label.y": np.zeros(3, np.int64)}, "have .*'label.y': 3.* rows; all need"),
        ({"x": np.array([object(), 1])}, "column x is of object; allowed: bool, float32"),
        ({"x": np.array(["a", "b"])}, "column x is of <U1; allowed: bool"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_table(columns: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(TableError, match=says):
        from_arrays("t", {name: (array, None) for name, array in columns.items()})


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no column imge; did you mean image"):
        write(tmp_path / "t", 0)["imge"]
