"""Files in a folder that somebody else may have made: nothing in it leads to another place.

    run = named("runs/somebodys")            the folder itself is what the user named, links on the way included
    (run / "best" / "policy.json").read()    but below it no link is followed, and only regular files are opened

A folder that is named is held open, so that it stays the same one when the program changes its directory or somebody
renames it. Where the system cannot open files below a folder that is held (Windows), absolute paths are looked at,
part by part, before they are used.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HELD = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
RUNS = Path("runs")  # where `rlkit train` makes run folders
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FLAGS = {
    "rb": os.O_RDONLY,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+b": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "r+b": os.O_RDWR | os.O_CREAT,
}


class Root:
    """A folder that is held open. shown: as the user named it."""

    def __init__(self, path: str | Path) -> None:
        self.shown, self.path = Path(path), Path(path).absolute()
        try:
            self.handle = os.open(self.path, _FOLDER) if HELD else None
            if self.handle is None and not stat.S_ISDIR(os.stat(self.path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if self.handle is not None:
            weakref.finalize(self, os.close, self.handle)


@dataclass(frozen=True)
class Place:
    """A file or folder, or where one can be made: the names that lead to it from a root."""

    root: Root
    names: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> Place:
        if name in ("", ".", "..") or "/" in name or "\0" in name or (os.altsep or os.sep) in name:
            raise ValueError(f"{name!r}: not the name of a file")
        return Place(self.root, (*self.names, name))

    def __str__(self) -> str:
        return str(self.shown)

    @property
    def shown(self) -> Path:
        """The path as the user would type it."""
        return self.root.shown.joinpath(*self.names)

    @property
    def path(self) -> Path:
        """The absolute path."""
        return self.root.path.joinpath(*self.names)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> Place:
        return Place(self.root, self.names[:-1])

    def beside(self, name: str) -> Place:
        """Another place in the same folder."""
        return self.parent / name

    def is_file(self) -> bool:
        """Whether a regular file lies here."""
        return stat.S_ISREG(self._mode())

    def is_folder(self) -> bool:
        return stat.S_ISDIR(self._mode())

    def exists(self) -> bool:
        """Whether anything lies here, a link that leads nowhere included."""
        return bool(self._mode())

    def list(self) -> list[str]:
        """The names in this folder, in no order; none where there is no such folder. Raises OSError for a link."""
        try:
            with self._held(self.names) as handle:
                return os.listdir(self.path if handle is None else handle)
        except FileNotFoundError:
            return []

    def open(self, mode: str, buffering: int = -1) -> BinaryIO:
        """The regular file here, with Python's modes "rb", "ab", "xb", "x+b", and "r+b", which makes one.

        Raises OSError: FileNotFoundError, and with words of its own where this is a link, a pipe or a device.
        """
        with self._held(self.names[:-1]) as handle:
            try:
                descriptor = os.open(self._at(handle), _FLAGS[mode] | _SAFE, 0o644, dir_fd=handle)
            except OSError as error:
                raise self._explained(error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._refused("is no regular file")
        return cast(BinaryIO, os.fdopen(descriptor, mode.replace("x", "w"), buffering))

    def read(self, limit: int) -> bytes:
        """What the file holds. Raises OSError as `open`, and where it is longer than `limit` bytes."""
        with self.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise self._refused(f"is {size:,} bytes long, and at most {limit:,} are read")
            return file.read(limit)

    def write(self, data: bytes) -> None:
        """Put a file with this content here: whatever happens, the old one or the new one is whole.

        Raises OSError, which names this file also where the disk is full.
        """
        part = self.beside(f".{self.name}.tmp")
        part.remove()
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.filename is None:
                raise OSError(error.errno, error.strerror, str(self)) from error
            raise
        part.rename(self)

    def mkdir(self) -> Place:
        """Make this folder, and those on the way to it, where they are not there. Raises OSError for links."""
        for count in range(1, len(self.names) + 1):
            step = Place(self.root, self.names[:count])
            with self._held(step.names[:-1]) as handle, suppress(FileExistsError):
                os.mkdir(step._at(handle), dir_fd=handle)
        with self._held(self.names):
            return self

    def rename(self, to: Place) -> None:
        """Move what lies here to another place, over a file that is there; a link itself is moved."""
        with self._held(self.names[:-1]) as mine, to._held(to.names[:-1]) as theirs:
            if mine is None:
                os.replace(self.path, to.path)
            else:
                os.rename(self.name, to.name, src_dir_fd=mine, dst_dir_fd=theirs)

    def remove(self) -> None:
        """Remove a file, a link (not what it leads to), or a folder with what is in it, if something is here."""
        with suppress(FileNotFoundError), self._held(self.names[:-1]) as handle:
            if self.is_folder():
                shutil.rmtree(self._at(handle), dir_fd=handle)
            else:
                os.unlink(self._at(handle), dir_fd=handle)

    def sync(self) -> None:
        """Make the names in this folder durable (systems that cannot are left alone)."""
        with suppress(OSError), self._held(self.names) as handle:
            if handle is not None:
                os.fsync(handle)

    def lock(self, *, shared: bool = False) -> BinaryIO | None:
        """The file here, made if need be, with a lock that lasts until it is closed; None where another process has it.

        shared: nothing is made, and several may have it. Without fcntl (Windows) nobody is kept out.
        """
        file = self.open("rb" if shared else "r+b")
        if fcntl is not None:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return None
        return file

    def modified(self) -> float:
        """When what lies here was changed last, in seconds since 1970; 0 where nothing does."""
        found = self._stat()
        return found.st_mtime if found else 0.0

    def _mode(self) -> int:
        """What lies here, 0 where nothing does."""
        found = self._stat()
        return found.st_mode if found else 0

    def _stat(self) -> os.stat_result | None:
        """What the system knows of this place; links are not followed."""
        try:
            if not self.names:
                return os.stat(self.root.path if self.root.handle is None else self.root.handle)
            with self._held(self.names[:-1]) as handle:
                return os.stat(self._at(handle), dir_fd=handle, follow_symlinks=False)
        except OSError:
            return None

    def _at(self, handle: int | None) -> str:
        """How the system is told this place: its name below a handle, or its path."""
        return str(self.path) if handle is None else self.names[-1]

    @contextmanager
    def _held(self, names: tuple[str, ...]) -> Iterator[int | None]:
        """A handle of the folder to which these names lead; None where the system has no such handles."""
        if self.root.handle is None:
            for count in range(1, len(names) + 1):
                step = Place(self.root, names[:count])
                if not stat.S_ISDIR(os.lstat(step.path).st_mode):
                    raise step._refused("is a link or no folder")
            yield None
            return
        handle = os.dup(self.root.handle)
        try:
            for count, name in enumerate(names, 1):
                try:
                    inner = os.open(name, _FOLDER | _SAFE, dir_fd=handle)
                except OSError as error:
                    raise Place(self.root, names[:count])._explained(error) from error
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _explained(self, error: OSError) -> OSError:
        """The same error with the path as the user knows it; what is no file or folder is said in plain words."""
        mode = self._mode()
        if stat.S_ISLNK(mode):
            return self._refused("is a link")
        if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return self._refused("is no regular file")
        return OSError(error.errno, error.strerror, str(self))

    def _refused(self, what: str) -> OSError:
        return NotRegular(
            None, f"{what}; a run folder holds files and folders of its own: remove it", str(self)
        )


class NotRegular(OSError):
    """Something in a folder that is not opened: a link, a pipe, a device, a file that is too long."""


def run_named(name: str | Path) -> Path:
    """What the path of a run means: a bare name that is no folder here is looked for in runs/."""
    path = Path(name)
    inside = RUNS / path
    return inside if len(path.parts) == 1 and not path.exists() and inside.is_dir() else path


def named(path: str | Path | Place) -> Place:
    """A folder that the user named; links on the way to it are followed. Raises OSError where there is none."""
    return path if isinstance(path, Place) else Place(Root(path))


def at(path: str | Path | Place) -> Place:
    """A file or folder that the user named, which may be missing, with the folders around it; it must be no link."""
    if isinstance(path, Place):
        return path
    shown, missing = Path(path), list[str]()
    if shown.name in ("", ".."):
        return named(path)
    while True:
        missing.insert(0, shown.name)
        shown = shown.parent
        if shown.is_dir():
            return Place(Root(shown), tuple(missing))
