"""Checkpoints: folders of safetensors and JSON under a manifest of SHA-256 sums, written atomically.

    step-000123456/  policy.safetensors  policy.json     enough to act, watch, serve
                     state.safetensors   state.json      everything else that the run is
                     replay.safetensors  replay.json     the rows of a replay buffer, where the agent has one
                     manifest.json                       format, folder, step, size and SHA-256 of each file, and the
                                                         SHA-256 of all that

A checkpoint is written under a temporary name, fsynced and renamed; older ones go only after that. So whenever a
process is killed, the old one or the new one is whole (`steps` and `standing` know where). `newest` verifies the sums
and falls back to the one before. Nothing is unpickled or evaluated, and sizes are looked at before anything is read.
Tensors go from where they lie to the file and come back as views of it, so even a replay buffer that fills the machine
is saved and read without a copy of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from rlkit import tensorfile
from rlkit.contracts import Saved
from rlkit.files import Place, at
from rlkit.tensorfile import MALFORMED
from rlkit.text import clean

FORMAT = 2
BEST = "best"  # the folder of the policy that evaluated best
_MANIFEST, _JSON = 1 << 20, 1 << 25  # bytes beyond which nothing is read
_PIECE = 1 << 24  # bytes written or summed at once
_NAME = re.compile(r"step-(\d{9,})")
_LEFT = re.compile(rf"\.({_NAME.pattern}|{BEST})(?:\.\d+)?\.(tmp|old)")


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


def write(folder: Path | Place, parts: Mapping[str, Saved], step: int) -> Path:
    """Write each part as NAME.json + NAME.safetensors into `folder`, atomically; replaces a checkpoint that is there.

    Raises CheckpointError where the disk is full or the folder cannot be written; what existed stays.
    """
    place = at(folder)
    temporary, replaced = place.beside(f".{place.name}.tmp"), place.beside(f".{place.name}.old")
    try:
        place.parent.mkdir()
        _restore(place)
        temporary.remove()
        temporary.mkdir()
        sums = {}
        for name, tree in parts.items():
            value, tensors = pack(tree)
            text = json.dumps(value, indent=1).encode()
            sums[f"{name}.json"] = _write_synced(temporary / f"{name}.json", [text])
            sums[f"{name}.safetensors"] = _write_synced(
                temporary / f"{name}.safetensors", tensorfile.pieces(tensors)
            )
        manifest = sealed({"format": FORMAT, "name": place.name, "step": step, "files": sums})
        _write_synced(temporary / "manifest.json", [json.dumps(manifest, indent=1).encode()])
        temporary.sync()
        if place.exists():
            place.rename(replaced)
        temporary.rename(place)
        place.parent.sync()
        replaced.remove()
    except OSError as error:
        with suppress(OSError):
            temporary.remove()
            _restore(place)
        raise CheckpointError(
            f"cannot save {place}: {_reason(error)}; earlier checkpoints are untouched"
        ) from error
    return place.shown


def sealed(manifest: Mapping[str, object]) -> dict[str, object]:
    """A manifest with the SHA-256 of all else that it says."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def read(folder: Path | Place, *names: str) -> dict[str, Saved]:
    """The parts `names` of a checkpoint, verified. Raises CheckpointError naming what is wrong."""
    place = at(folder)
    files = _manifest(place)
    parts = {}
    for name in names:
        value = _json(place, files, name)
        with _verified(place, files, f"{name}.safetensors") as file:
            try:
                parts[name] = unpack(value, tensorfile.views(file))
            except MALFORMED as error:
                raise CheckpointError(f"{place}: {name} cannot be read: {error!r}") from error
    return parts


def read_values(folder: Path | Place, name: str) -> Any:
    """The part `name` of a checkpoint without its tensors, verified: cheap. Raises CheckpointError."""
    place = at(folder)
    return _json(place, _manifest(place), name)


def _manifest(place: Place) -> dict[str, tuple[str, int]]:
    """(SHA-256, size) of each file of a checkpoint, as its manifest says. Raises CheckpointError."""
    try:
        data = (place / "manifest.json").read(_MANIFEST)
    except OSError as error:
        raise CheckpointError(f"{place} is no checkpoint: {_reason(error)}") from error
    return _understood(data, place)


def _understood(data: bytes, place: Place) -> dict[str, tuple[str, int]]:
    """`_manifest` of a manifest's bytes, compared with themselves and with the name of the folder."""
    path = place / "manifest.json"
    try:
        manifest = json.loads(data)
        whole = sealed(manifest) == manifest
        version, step = manifest["format"], manifest["step"]
        files = {str(name): (each["sha256"], each["bytes"]) for name, each in manifest["files"].items()}
    except MALFORMED as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if whole and isinstance(version, int) and version > FORMAT:
        raise NewerFormat(
            f"{place} has format {version}, newer than format {FORMAT} that this rlkit reads; "
            "upgrade it: pip install -U rlkit"
        )
    # format 1, of version 0.1.0, neither covers itself nor knows its folder
    if not whole and (version != 1 or "sha256" in manifest):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is another")
    own = place.name.removeprefix(".").removesuffix(".old")
    match = _NAME.fullmatch(own)
    is_other = manifest.get("name", own) != own and (
        match or own == BEST
    )  # by another name it may be used anywhere
    if is_other or (match and step != int(match[1])):
        raise CheckpointError(
            f"{place} is another checkpoint than its name says: {clean(manifest.get('name', step), 60)}"
        )
    return files


@contextmanager
def _verified(
    place: Place, files: Mapping[str, tuple[str, int]], name: str, limit: int = 0
) -> Iterator[BinaryIO]:
    """A file of a checkpoint, open, after its size and then its content were compared with the manifest's."""
    path = place / name
    if name not in files:
        raise CheckpointError(f"{place} holds no {name}")
    expected, size = files[name]
    if limit and isinstance(size, int) and size > limit:
        raise CheckpointError(f"{path} is {size:,} bytes long, and at most {limit:,} are read")
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise CheckpointError(
                    f"{path} is damaged: {found:,} bytes long, not {size} as the manifest says"
                )
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # a file has what it needs
            if digest.hexdigest() != expected:
                raise CheckpointError(f"{path} is damaged: its SHA-256 is not the manifest's")
            file.seek(0)
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: {_reason(error)}") from error


def _json(place: Place, files: Mapping[str, tuple[str, int]], name: str) -> Any:
    """The values of a part, with the names of its tensors. Raises CheckpointError."""
    with _verified(place, files, f"{name}.json", _JSON) as file:
        try:
            return json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{place}: {name} cannot be read: {error!r}") from error


def steps(folder: Path | Place) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints in a folder, newest first. Raises OSError where it is a link."""
    return [(step, place.shown) for step, place in saved_steps(at(folder))]


def saved_steps(folder: Place) -> list[tuple[int, Place]]:
    """`steps`, as places."""
    names = {
        name.removeprefix(".").removesuffix(".old") for name in folder.list() if not name.endswith(".tmp")
    }
    found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
    return [(step, place) for step, name in sorted(found, reverse=True) for place in standing(folder / name)]


def standing(place: Place) -> list[Place]:
    """Where a checkpoint is: in its place or, where a process was killed while it replaced it, under the old's name."""
    return [each for each in (place, place.beside(f".{place.name}.old")) if each.exists()][:1]


def _restore(place: Place) -> None:
    """Put a checkpoint back that a killed process had moved aside, or remove it where its successor is there."""
    replaced = place.beside(f".{place.name}.old")
    if place.exists():
        replaced.remove()
    elif replaced.exists():
        replaced.rename(place)


def tidy(folder: Place) -> None:
    """Restore or remove what killed processes left in a folder of checkpoints."""
    for name in sorted(folder.list()):
        match = _LEFT.fullmatch(name)  # version 0.1.0 had the number of the process in it
        if match and match[3] == "old" and not (folder / match[1]).exists():
            (folder / name).rename(folder / match[1])
        elif match:
            (folder / name).remove()


def save_step(folder: Path | Place, parts: Mapping[str, Saved], step: int, keep: int) -> Path:
    """Write checkpoints/step-... and remove all but the newest `keep`, and what a killed process left half-written."""
    place = at(folder)
    path = write(place / f"step-{step:09d}", parts, step)
    for _, old in saved_steps(place)[keep:]:
        with suppress(OSError):  # renamed first: half of one does not pass for a checkpoint
            old.rename(old.beside(f".{old.name}.tmp"))
    with suppress(OSError):
        tidy(place)
    return path


def newest(
    folder: Path | Place, *names: str, say: Callable[[str], None]
) -> tuple[int, Path, dict[str, Saved]]:
    """(step, path, parts) of the newest checkpoint that is whole; `say` hears of damaged ones.

    Raises CheckpointError where there is none, or where the newest is of a later format.
    """
    found = {place.shown: (step, place) for step, place in saved_steps(at(folder))}
    if not found:
        raise CheckpointError(f"no checkpoint in {folder}: the run ended before its first one")
    path, parts = first_whole([place for _, place in found.values()], *names, say=say)
    return found[path][0], path, parts


def first_whole(
    places: Sequence[Place], *names: str, say: Callable[[str], None]
) -> tuple[Path, dict[str, Saved]]:
    """(path, parts) of the first of these checkpoints that is whole; `say` hears of damaged ones before it.

    Raises CheckpointError where none is, or where one is of a later format.
    """
    for number, place in enumerate(places, 1):
        try:
            return place.shown, read(place, *names)
        except NewerFormat:
            raise
        except CheckpointError as error:
            if number == len(places):
                folder = os.path.commonpath([each.shown.parent for each in places])
                raise CheckpointError(
                    f"no checkpoint in {folder} is whole ({number} tried): {error}"
                ) from error
            say(f"{error}; using the checkpoint before it, {places[number].name}")
    raise CheckpointError("no checkpoint to read")


def _write_synced(path: Place, pieces: Iterable[bytes | memoryview]) -> dict[str, str | int]:
    """Write the pieces one after the other; returns size and SHA-256 of the file."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                part = piece[start : start + _PIECE]
                digest.update(part)
                size += file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def _reason(error: OSError) -> str:
    """What went wrong with a file, in plain words."""
    words = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission",
        errno.EROFS: "the file system is read-only",
        errno.ENOENT: "no such file",
    }
    return words.get(error.errno or 0, error.strerror or str(error))
