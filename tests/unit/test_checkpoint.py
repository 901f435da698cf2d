"""Checkpoints: what goes in comes out, damage is found, older ones stay until the new one is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit import checkpoint
from rlkit.checkpoint import CheckpointError
from rlkit.files import at
from tests.helpers.killed import Killed, killed_at

TREE = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)},
    "state": ((torch.zeros(0),), (), [1, 2.5, None, True, "x"]),
    "bytes": np.arange(5, dtype=np.uint8),
    "number": np.float32(0.5),
}


def parts(value: float) -> dict:
    return {"policy": {"w": torch.full((100,), value)}, "state": {"value": value}}


def test_pack_and_unpack_are_inverse(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", {"part": TREE}, step=3)
    back = checkpoint.read(tmp_path / "c", "part")["part"]
    assert torch.equal(back["weights"]["a"], TREE["weights"]["a"])
    assert back["weights"]["b"].shape == () and back["weights"]["b"].dtype == torch.int64
    assert isinstance(back["state"], tuple) and back["state"][1] == ()
    assert back["state"][2] == [1, 2.5, None, True, "x"]
    assert isinstance(back["bytes"], np.ndarray) and back["bytes"].tolist() == [0, 1, 2, 3, 4]
    assert back["number"] == 0.5


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(TypeError, match="a/b: a set cannot be saved"):
        checkpoint.pack({"a": {"b": {1, 2}}})


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", {"part": TREE}, step=3)
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".safetensors", ".json"}


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save_step(tmp_path, parts(step), step, keep=2)
    assert [step for step, _ in checkpoint.steps(tmp_path)] == [30, 20]
    step, _, found = checkpoint.newest(tmp_path, "state", say=print)
    assert step == 30 and found["state"]["value"] == 30


def test_replaces_the_same_step(tmp_path: Path) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    checkpoint.save_step(tmp_path, parts(2.0), 10, keep=2)
    assert checkpoint.newest(tmp_path, "state", say=print)[2]["state"]["value"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    path = checkpoint.save_step(tmp_path, parts(2.0), 20, keep=2)
    file = path / "state.safetensors"
    if damage == "flip":
        file = path / "policy.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:-3])
    elif damage == "delete":
        file.unlink()
    else:
        (path / "manifest.json").write_text('{"format": 1, "files"')
    heard: list[str] = []
    step, _, found = checkpoint.newest(tmp_path, "policy", "state", say=heard.append)
    assert step == 10 and found["state"]["value"] == 1.0
    assert len(heard) == 1 and "step-000000020" in heard[0] and "using the checkpoint before it" in heard[0]


def test_none_whole_is_an_error(tmp_path: Path) -> None:
    path = checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        checkpoint.newest(tmp_path, "state", say=print)
    with pytest.raises(CheckpointError, match="ended before its first one"):
        checkpoint.newest(tmp_path / "empty", "state", say=print)


def test_a_newer_format_is_refused_not_skipped(tmp_path: Path) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    path = checkpoint.save_step(tmp_path, parts(2.0), 20, keep=2)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(checkpoint.sealed(manifest | {"format": 99})))
    with pytest.raises(CheckpointError, match="format 99, newer than format 2 .* upgrade"):
        checkpoint.newest(tmp_path, "state", say=print)
    (path / "manifest.json").write_text(
        json.dumps(manifest | {"format": 99})
    )  # damage, which is not the later version
    assert checkpoint.newest(tmp_path, "state", say=print)[0] == 10


def test_interrupted_write_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)

    def fail(source: object, target: object, **handles: int) -> None:
        raise OSError(errno.EIO, "device gone")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(CheckpointError, match="device gone; earlier checkpoints are untouched"):
        checkpoint.save_step(tmp_path, parts(2.0), 20, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]


def old_format(path: Path) -> None:
    """The manifest as version 0.1.0 wrote it: without the folder's name and a sum of its own."""
    manifest = json.loads((path / "manifest.json").read_text())
    kept = {"format": 1, "step": manifest["step"], "files": manifest["files"]}
    (path / "manifest.json").write_text(json.dumps(kept, indent=1))


@pytest.mark.parametrize("version", [1, 2])
def test_every_flipped_bit_of_a_manifest_is_found_or_harmless(tmp_path: Path, version: int) -> None:
    """Of two checkpoints the newer one is used if what it says is what was written, and the older one else."""
    for step in (10, 20):
        path = checkpoint.save_step(tmp_path, {"state": {"value": step}}, step, keep=2)
        if version == 1:
            old_format(path)
    place, whole = at(path), (path / "manifest.json").read_bytes()
    said = checkpoint._understood(whole, place)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = checkpoint._understood(flipped, place)
        except checkpoint.NewerFormat:
            raise
        except CheckpointError:
            continue
        assert (
            found == said or version == 1
        )  # that finds it when it reads a file of which another sum is said
    (path / "manifest.json").write_bytes(whole.replace(b'"sha256": "', b'"sha256": "0', 1))
    assert checkpoint.newest(tmp_path, "state", say=lambda text: None)[0] == 10


@pytest.mark.parametrize("version", [1, 2])
def test_folders_that_were_swapped_or_renamed_are_not_believed(tmp_path: Path, version: int) -> None:
    for step in (10, 20, 30):
        path = checkpoint.save_step(tmp_path, {"state": {"value": step}}, step, keep=3)
        if version == 1:
            old_format(path)
    (tmp_path / "step-000000030").rename(tmp_path / "x")
    (tmp_path / "step-000000020").rename(tmp_path / "step-000000030")
    (tmp_path / "x").rename(tmp_path / "step-000000020")
    heard: list[str] = []
    step, _, found = checkpoint.newest(tmp_path, "state", say=heard.append)
    assert (step, found["state"]["value"]) == (10, 10)
    assert "step-000000030 is another checkpoint than its name says" in heard[0] and len(heard) == 2
    shutil.copytree(tmp_path / "step-000000010", tmp_path / "my-robot")  # taken away to be used
    assert checkpoint.read(tmp_path / "my-robot", "state")["state"]["value"] == 10
    shutil.copytree(tmp_path / "step-000000010", tmp_path / "best")
    if version == 2:
        with pytest.raises(
            CheckpointError, match="best is another checkpoint than its name says: step-000000010"
        ):
            checkpoint.read(tmp_path / "best", "state")


def test_wherever_a_process_is_killed_the_old_or_the_new_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For best/, which is replaced, and for a step, after which an older one is removed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow
    for value in range(100):
        checkpoint.write(tmp_path / "best", parts(1.0), 1)
        checkpoint.save_step(tmp_path, parts(1.0), 1, keep=1)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(value, patch)
            try:
                checkpoint.write(tmp_path / "best", parts(2.0), 2)
                checkpoint.save_step(tmp_path, parts(2.0), 2, keep=1)
                break
            except Killed:
                pass
        places = checkpoint.standing(at(tmp_path / "best"))
        best = checkpoint.first_whole(places, "policy", "state", say=pytest.fail)[1]["state"]["value"]
        step, _, found = checkpoint.newest(tmp_path, "policy", "state", say=pytest.fail)
        assert found["state"]["value"] == step in (1, 2) and best in (1, 2)
        checkpoint.tidy(at(tmp_path))  # as the next session does
        assert checkpoint.read(tmp_path / "best", "state")["state"]["value"] == best
        assert checkpoint.newest(tmp_path, "state", say=pytest.fail)[0] == step
        assert all(name.startswith(("best", "step-")) for name in os.listdir(tmp_path))
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    assert value > 30 and sorted(os.listdir(tmp_path)) == ["best", "step-000000002"]


def test_what_earlier_versions_left_is_cleaned(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "best", parts(1.0), 1)
    (tmp_path / "best").rename(tmp_path / ".best.4711.old")
    for name in (".best.4711.tmp", ".step-000000009.12.tmp", ".mine.tmp"):
        (tmp_path / name).mkdir()
    checkpoint.tidy(at(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "best"]


def reseal(path: Path) -> None:
    """Make the manifest fit what the files are: somebody who means harm can do that."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name, said in manifest["files"].items():
        data = (path / name).read_bytes()
        said.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (path / "manifest.json").write_text(json.dumps(checkpoint.sealed(manifest)))


def header(entries: dict[str, object]) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


def many_tensors() -> bytes:
    """One more than are read."""
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    return header(dict.fromkeys(map(str, range(131_073)), empty))


HOSTILE: dict[
    str, tuple[str, bytes | Callable[[], bytes], str]
] = {  # a file, what it holds, and what is said
    "nested values": ("state.json", b"[" * 100_000 + b"]" * 100_000, "RecursionError"),
    "values without their tensors": ("state.json", b'{"x": {"$tensor": "y"}}', "KeyError"),
    "a list of names": ("state.json", b'{"$tensor": []}', "TypeError"),
    "many tensors": (
        "state.safetensors",
        many_tensors,
        "a header of|131,073 tensors, and at most 131,072 are read",
    ),
    "a header beyond the file": (
        "state.safetensors",
        (1 << 60).to_bytes(8, "little") + b"{}",
        "a header of 1,15",
    ),
    "no header": ("state.safetensors", b"", "a header of 0 bytes"),
    "a tensor beyond the file": (
        "state.safetensors",
        header({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        "x does not lie where",
    ),
    "a tensor before the file": (
        "state.safetensors",
        header({"x": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}}),
        "x does not lie where",
    ),
    "a shape of another size": (
        "state.safetensors",
        header({"x": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}),
        "x does not lie where",
    ),
    "no such type": ("state.safetensors", header({"x": {"dtype": "F31"}}), "KeyError"),
    "an endless shape": (
        "state.safetensors",
        header({"x": {"dtype": "F32", "shape": [1e999]}}),
        "OverflowError",
    ),
    "no mapping": ("state.safetensors", header([1]), "TypeError"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_together_is_refused_before_memory_is_taken(tmp_path: Path, what: str) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    path = checkpoint.save_step(tmp_path, parts(2.0), 20, keep=2)
    name, data, words = HOSTILE[what]
    (path / name).write_bytes(data if isinstance(data, bytes) else data())
    reseal(path)
    heard: list[str] = []
    assert checkpoint.newest(tmp_path, "state", say=heard.append)[0] == 10
    assert len(heard) == 1 and re.search(words, heard[0])


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors"])
def test_sizes_are_compared_before_anything_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
    path = checkpoint.save_step(tmp_path, parts(2.0), 20, keep=2)
    os.truncate(path / name, 2**31)
    heard: list[str] = []
    assert checkpoint.newest(tmp_path, "state", say=heard.append)[0] == 10
    assert "2,147,483,648 bytes long, " in heard[0]
    if name == "state.json":  # the manifest says so too
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][name]["bytes"] = 2**31
        (path / "manifest.json").write_text(json.dumps(checkpoint.sealed(manifest)))
        assert checkpoint.newest(tmp_path, "state", say=heard.append)[0] == 10
        assert "at most 33,554,432 are read" in heard[1]


def test_tensors_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    """Every type and shape, in both directions; what is read can be written to and the file stays."""
    from safetensors.torch import load_file, save_file

    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool]  # fmt: skip
    tree = {f"{kind}/{shape}": torch.arange(math.prod(shape)).view(shape).to(kind)
            for kind in kinds for shape in ((), (0, 3), (2, 3), (1,))}  # fmt: skip
    path = checkpoint.write(tmp_path / "c", {"part": tree}, step=1)
    theirs = load_file(path / "part.safetensors")
    save_file(tree, path / "part.safetensors", metadata={"format": "pt"})
    reseal(path)
    for found in (theirs, checkpoint.read(path, "part")["part"]):
        assert found.keys() == tree.keys()
        for name, x in tree.items():
            assert (
                found[name].dtype == x.dtype and found[name].shape == x.shape and torch.equal(found[name], x)
            )
    found["torch.float32/(2, 3)"] += 1
    assert torch.equal(
        checkpoint.read(path, "part")["part"]["torch.float32/(2, 3)"], tree["torch.float32/(2, 3)"]
    )


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)
        large = {"policy": {"w": torch.zeros(1_000_000)}, "state": {}}
        with pytest.raises(CheckpointError, match="the disk is full; earlier checkpoints are untouched"):
            checkpoint.save_step(tmp_path, large, 20, keep=1)
        assert checkpoint.newest(tmp_path, "state", say=print)[0] == 10
        assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
