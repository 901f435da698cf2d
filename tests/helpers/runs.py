"""Helpers: real runs as processes, and what must be equal between two of them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlkit import checkpoint
from rlkit.metrics import read_metrics

ROOT = Path(__file__).parents[2]
FORK = hasattr(os, "pidfd_open")  # Linux; elsewhere every command is a new interpreter


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "SDL_VIDEODRIVER": "dummy"}


class Command:
    """A running command that was forked from a server: what the tests use of subprocess.Popen."""

    def __init__(self, pid: int, output: int, status: int) -> None:
        self.pid, self.returncode = pid, None
        self.stdout = os.fdopen(output, encoding="utf-8", errors="replace")
        self._status = os.fdopen(status, "rb", buffering=0)

    returncode: int | None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not _readable(self._status.fileno(), timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            text = self._status.read()
            assert text, "the fork server ended before the command"
            self.returncode = os.waitstatus_to_exitcode(int(text))
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """(what is left of the output, None), once the command has ended and nobody can write any more."""
        end = None if timeout is None else time.monotonic() + timeout
        parts = []
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not _readable(self.stdout.fileno(), left):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0, b"".join(parts))
            part = os.read(self.stdout.fileno(), 1 << 16)
            if not part:
                break
            parts.append(part)
        self.stdout.close()
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return b"".join(parts).decode(errors="replace").replace("\r\n", "\n"), None


Process = subprocess.Popen[str] | Command


def _readable(descriptor: int, timeout: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(timeout))


@functools.cache
def _servers() -> itertools.cycle[socket.socket]:
    """Two fork servers that take turns.

    Strings hash differently in the two, as in any two processes, so that what depends on the order of a set differs
    between two runs that are compared.
    """
    found = []
    for name in ("first", "second"):
        found.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        found[-1].connect(str(server(name)))
    return itertools.cycle(found)


@functools.cache
def server(name: str) -> Path:
    """Where the fork server of this name listens, which serves all workers of a test run and ends with it."""
    run, whole = os.environ.get("PYTEST_XDIST_TESTRUNUID"), os.getppid()
    if run is None:  # there is this process alone
        run, whole = uuid.uuid4().hex, os.getpid()
    folder = Path(tempfile.gettempdir()) / f"rlkit-forks-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            _start_server(folder / name, whole)
    return folder / name


def _start_server(address: Path, whole: int) -> None:
    """Start a fork server, which ends with process `whole`. Who connects before it is ready waits for its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forkserver", str(listener.fileno()), str(whole)],
            cwd=ROOT,
            env=environment() | {"OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": "30000"},
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def launch(folder: Path, *arguments: str, errors_only: bool = False) -> Process:
    """Start one command in a folder; its stdout has both of its streams, or its stderr only."""
    if not FORK:
        return start(folder, *arguments, errors_only=errors_only)
    return _fork(folder, arguments, "", errors_only)


def program(folder: Path, text: str) -> Process:
    """Start `python -c TEXT` in a folder, with torch and rlkit loaded; its stdout has both of its streams."""
    return _fork(folder, (), text, False) if FORK else _popen(folder, ["-c", text], False)


def _fork(folder: Path, arguments: tuple[str, ...], text: str, errors_only: bool) -> Command:
    server = next(_servers())
    output, theirs = os.pipe()
    status, report = os.pipe()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    cwd = str(folder.resolve())
    request = {"argv": arguments, "cwd": cwd, "env": environment(), "program": text}
    try:
        descriptors = [nowhere if errors_only else theirs, theirs, report]
        socket.send_fds(server, [json.dumps(request).encode()], descriptors)
        answer = server.recv(64)
    finally:
        for descriptor in (theirs, report, nowhere):
            os.close(descriptor)
    assert answer, "the fork server could not start; what it said is on stderr"
    return Command(int(answer), output, status)


def start(folder: Path, *arguments: str, errors_only: bool = False) -> subprocess.Popen[str]:
    """As `launch`, in a new interpreter: what a person gets, imports included."""
    return _popen(folder, ["-m", "rlkit", *arguments], errors_only)


def _popen(folder: Path, words: list[str], errors_only: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL if errors_only else subprocess.PIPE,
        stderr=subprocess.PIPE if errors_only else subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_plain_signals,
    )


def _plain_signals() -> None:
    """As in a terminal, also where these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def rlkit(
    folder: Path, *arguments: str, timeout: float = 120, fresh: bool = False, errors_only: bool = False
) -> tuple[int, str]:
    """Run one command; (exit code, output). fresh: in a new interpreter."""
    process = (start if fresh else launch)(folder, *arguments, errors_only=errors_only)
    output = ""
    try:
        out, errors = process.communicate(timeout=timeout)
        output = errors if isinstance(process, subprocess.Popen) and errors_only else out
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode is not None, "a command that was waited for has an exit code"
    return process.returncode, output


def wait_for(condition: Callable[[], bool], process: Process, seconds: float = 90) -> None:
    """Wait until something is so while the process runs."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended early:\n{process.communicate()[0]}")
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"nothing after {seconds} s:\n{process.communicate()[0]}")
        time.sleep(0.005)


def digest(run: Path) -> dict[str, str]:
    """Hashes of what a run is: weights, optimiser and generators, environments, clock, logged rows."""
    _, path, parts = checkpoint.newest(run / "checkpoints", "policy", "state", say=print)
    state = parts["state"]
    for seconds in ("seconds", "beside"):
        state["clock"].pop(seconds)
    state["clock"]["step_of_checkpoint"] = path.name
    rows = [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in read_metrics(run / "metrics.csv")
    ]
    return {
        "weights": hash_tree(parts["policy"]),
        "agent": hash_tree(state["agent"]),
        "average": hash_tree(state.get("average")),
        "feed": hash_tree(state["feed"]),
        "clock": hash_tree(state["clock"]),
        "rows": hash_tree(rows),
        "best": hash_tree(checkpoint.read(run / "best", "policy", "score")),
    }


def hash_tree(tree: Any) -> str:
    value, tensors = checkpoint.pack(tree)
    total = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
    for name in sorted(tensors):
        total.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].numpy().tobytes())
    return total.hexdigest()
