"""Checkpoints: folders of safetensors and JSON under a manifest of SHA-256 sums, written atomically.

    step-000123456/  policy.safetensors  policy.json     enough to act, watch, serve
                     state.safetensors   state.json      everything else that the run is
                     replay.safetensors  replay.json     the rows of a replay buffer, where the agent has one
                     manifest.json                       format, step, size and SHA-256 of each file

A checkpoint is written to a temporary name, fsynced and renamed; older ones go only after that. `newest` verifies the
sums and falls back to the one before. Nothing is unpickled or evaluated. Tensors go from where they lie to the file and
come back as views of it, so even a replay buffer that fills the machine is saved and read without a copy of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.contracts import Saved

FORMAT = 1
_PIECE = 1 << 24  # bytes written or summed at once
_DTYPES = {  # names in the safetensors format
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_NAME = re.compile(r"step-(\d{9,})")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read, in one line."""

    complete = True  # the message says everything: the command line offers no traceback


class NewerFormat(CheckpointError):
    """A checkpoint of a later rlkit."""


def pack(tree: object, *, move: bool = True) -> tuple[object, dict[str, Tensor]]:
    """A tree of dicts, lists, tuples, tensors, arrays and scalars as (JSON value, named tensors).

    move: tensors come to the host; else each stays on its device.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: object, path: str) -> object:
        if isinstance(value, Tensor):
            tensors[path] = (value.detach().cpu() if move else value.detach()).contiguous()
            return {"$tensor": path}
        if isinstance(value, np.ndarray):
            tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
            return {"$array": path}
        if isinstance(value, Mapping):
            return {
                str(key): walk(each, f"{path}/{key}" if path else str(key)) for key, each in value.items()
            }
        if isinstance(value, (list, tuple)):
            items = [walk(each, f"{path}/{i}") for i, each in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(
            f"{path}: a {type(value).__name__} cannot be saved; use tensors, arrays, numbers and text"
        )

    return walk(tree, ""), tensors


def unpack(value: object, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$array" in value:
        return tensors[value["$array"]].numpy()
    if "$tuple" in value:
        return tuple(unpack(each, tensors) for each in value["$tuple"])
    return {key: unpack(each, tensors) for key, each in value.items()}


def write(folder: Path, parts: Mapping[str, Saved], step: int) -> Path:
    """Write each part as NAME.json + NAME.safetensors into `folder`, atomically; replaces a checkpoint that is there.

    Raises CheckpointError where the disk is full or the folder cannot be written; what existed stays.
    """
    parent = folder.parent
    temporary = parent / f".{folder.name}.{os.getpid()}.tmp"
    replaced = parent / f".{folder.name}.{os.getpid()}.old"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        sums = {}
        for name, tree in parts.items():
            value, tensors = pack(tree)
            text = json.dumps(value, indent=1).encode()
            sums[f"{name}.json"] = _write_synced(temporary / f"{name}.json", [text])
            sums[f"{name}.safetensors"] = _write_synced(
                temporary / f"{name}.safetensors", _safetensors(tensors)
            )
        manifest = {"format": FORMAT, "step": step, "files": sums}
        _write_synced(temporary / "manifest.json", [json.dumps(manifest, indent=1).encode()])
        _sync(temporary)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(temporary, folder)
        _sync(parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            with suppress(OSError):
                os.rename(replaced, folder)
        raise CheckpointError(
            f"cannot save {folder}: {_reason(error)}; earlier checkpoints are untouched"
        ) from error
    return folder


def read(folder: Path, *names: str) -> dict[str, Saved]:
    """The parts `names` of a checkpoint, verified. Raises CheckpointError naming what is wrong."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    sums = _sums(folder)
    parts = {}
    for name in names:
        paths = [folder / f"{name}.json", folder / f"{name}.safetensors"]
        for path in paths:
            expected = sums.get(path.name)
            if expected is None:
                raise CheckpointError(f"{folder} holds no {path.name}")
            try:
                with open(path, "rb") as opened:
                    found = hashlib.file_digest(opened, "sha256").hexdigest()
            except OSError as error:
                raise CheckpointError(f"{path}: {_reason(error)}") from error
            if found != expected["sha256"]:
                raise CheckpointError(f"{path} is damaged: its SHA-256 is not the manifest's")
        try:
            parts[name] = unpack(json.loads(paths[0].read_bytes()), load_file(paths[1]))
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: {name} cannot be read: {error}") from error
    return parts


def _sums(folder: Path) -> dict[str, dict[str, str | int]]:
    """Size and SHA-256 of each file of a checkpoint, as its manifest says. Raises CheckpointError."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        version, files = manifest["format"], manifest["files"]
    except OSError as error:
        raise CheckpointError(f"{folder} is no checkpoint: {_reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'manifest.json'} is damaged: {error}") from error
    if not isinstance(version, int) or version > FORMAT:
        raise NewerFormat(
            f"{folder} has format {version}, newer than format {FORMAT} that this rlkit reads; "
            "upgrade it: pip install -U rlkit"
        )
    if not isinstance(files, dict):
        raise CheckpointError(f"{folder / 'manifest.json'} is damaged: no list of files")
    return files


def steps(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints in a folder, newest first."""
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def save_step(folder: Path, parts: Mapping[str, Saved], step: int, keep: int) -> Path:
    """Write checkpoints/step-... and remove all but the newest `keep`, and what a killed process left half-written."""
    path = write(folder / f"step-{step:09d}", parts, step)
    for old in [*(path for _, path in steps(folder)[keep:]), *folder.glob(".step-*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def newest(folder: Path, *names: str, say: Callable[[str], None]) -> tuple[int, Path, dict[str, Saved]]:
    """(step, path, parts) of the newest checkpoint that is whole; `say` hears of damaged ones.

    Raises CheckpointError where there is none, or where the newest is of a later format.
    """
    found = {path: step for step, path in steps(folder)}
    if not found:
        raise CheckpointError(f"no checkpoint in {folder}: the run ended before its first one")
    path, parts = first_whole(list(found), *names, say=say)
    return found[path], path, parts


def first_whole(
    paths: Sequence[Path], *names: str, say: Callable[[str], None]
) -> tuple[Path, dict[str, Saved]]:
    """(path, parts) of the first of these checkpoints that is whole; `say` hears of damaged ones before it.

    Raises CheckpointError where none is, or where one is of a later format.
    """
    for number, path in enumerate(paths, 1):
        try:
            return path, read(path, *names)
        except NewerFormat:
            raise
        except CheckpointError as error:
            if number == len(paths):
                folder = os.path.commonpath([each.parent for each in paths])
                raise CheckpointError(
                    f"no checkpoint in {folder} is whole ({number} tried): {error}"
                ) from error
            say(f"{error}; using the checkpoint before it, {paths[number].name}")
    raise CheckpointError("no checkpoint to read")


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The safetensors file of `tensors` (huggingface.co/docs/safetensors) in pieces: the length and text of a header,
    then the tensors as they lie in memory, those of wide numbers first so that each begins at a multiple of its width.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in order:
        x = tensors[name]
        begin, end = end, end + x.numel() * x.element_size()
        header[name] = {"dtype": _DTYPES[x.dtype], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if tensors[name].numel():
            yield tensors[name].flatten().view(torch.uint8).numpy().data


def _write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> dict[str, str | int]:
    """Write the pieces one after the other; returns size and SHA-256 of the file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                part = piece[start : start + _PIECE]
                digest.update(part)
                size += file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def _sync(folder: Path) -> None:
    """Make the names in a folder durable (file systems that cannot are left alone)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    """What went wrong with a file, in plain words."""
    words = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission",
        errno.EROFS: "the file system is read-only",
        errno.ENOENT: "no such file",
    }
    return words.get(error.errno or 0, str(error))
