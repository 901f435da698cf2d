"""Checkpoints: what goes in comes out, damage is found, older ones stay until the new one is whole."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit import checkpoint
from rlkit.checkpoint import CheckpointError

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
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99, newer than format 1 .* upgrade"):
        checkpoint.newest(tmp_path, "state", say=print)


def test_interrupted_write_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save_step(tmp_path, parts(1.0), 10, keep=2)

    def fail(source: object, target: object) -> None:
        raise OSError(errno.EIO, "device gone")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(CheckpointError, match="device gone; earlier checkpoints are untouched"):
        checkpoint.save_step(tmp_path, parts(2.0), 20, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]


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
