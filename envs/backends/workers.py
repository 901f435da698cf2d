"""Lanes in worker processes: every worker steps a block of them, rows and actions lie in shared memory.

One byte per worker and step goes out, one comes back; nothing is pickled. Workers are plain child processes
(no fork of a process with threads), import NumPy and the environment only, and end with this process
however it ends.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
import warnings
import weakref
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.backends import watchdog
from rlkit.envs.backends.faults import EnvFault, spent
from rlkit.envs.backends.games import agents_in
from rlkit.envs.backends.grouping import numbers
from rlkit.envs.backends.inprocess import reward_scale, rows_step
from rlkit.envs.backends.lane import lane_fault
from rlkit.envs.backends.rows import Rows
from rlkit.envs.backends.worker import Head, receive, send
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels import label_leaves
from rlkit.envs.lookup import plays_games
from rlkit.processes import command
from rlkit.seeding import Seeds
from rlkit.space_json import from_json
from rlkit.spaces import Array
from rlkit.types import EnvSpec, EnvStep

START = 120.0  # seconds that a worker may take to import and make its environments
GRACE = 0.5  # seconds that all of them together may take to close their environments


class Worker:
    """One child process and the lanes [start, stop) that it steps."""

    def __init__(self, start: int, stop: int, shared: int) -> None:
        self.start, self.stop = start, stop
        self.sock, theirs = socket.socketpair()
        life, self.life = os.pipe()  # closing our end ends the child
        self.stack = _anonymous_file("rlkit-stack")  # where a hung child writes its stack
        descriptors = (theirs.fileno(), shared, life, self.stack)
        self.process = subprocess.Popen(
            command("rlkit.envs.backends.worker", *descriptors, os.getpid()),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
            # Ctrl-C in the terminal is the parent's to handle, and what environments start is in the group
            process_group=0,
        )
        theirs.close()
        os.close(life)

    def where(self) -> str:
        """The Python stack of a hung child, as text."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGUSR1)
        text = b""
        for _ in range(20):
            time.sleep(0.05)
            before, text = text, os.pread(self.stack, 1 << 20, 0)
            if text and text == before:
                break
        return text.decode(errors="replace")

    def ending(self) -> str:
        """How the child ended, in words."""
        if not self._ends_within(2.0):
            return "closed its socket"
        self._end_group()
        code = self.process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"

    def ask(self) -> None:
        """Ask the child to close its environments and end."""
        with suppress(OSError):
            self.sock.send(b"q")

    def close(self, grace: float) -> None:
        """End the child, which may take `grace` seconds to do so by itself; idempotent."""
        if self.life >= 0:
            self._ends_within(grace)
            self._end_group()
            os.close(self.life)
            os.close(self.stack)
            self.life = -1
        self.process.wait()
        self.sock.close()

    def _ends_within(self, seconds: float) -> bool:
        """Whether the child ends in time. Its exit status is left for later: until then its number is its own."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        end = time.monotonic() + seconds
        while self.process.returncode is None and os.waitid(os.P_PID, self.process.pid, flags) is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def _end_group(self) -> None:
        """Kill the child and whatever its environments have started."""
        if self.process.returncode is None:  # else it was done before
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Workers(VecEnv):
    """VecEnv: `config.lanes` environments in child processes. `step` returns the same EnvStep every time."""

    def __init__(self, config: EnvConfig, seeds: Seeds, render: bool = False) -> None:
        self.config, self.seeds = config, seeds
        self.lanes, self.device = config.lanes, torch.device("cpu")
        self.scale = reward_scale(config, seeds)
        # a worker that may cut an episode which hangs is given the time to
        self.deadline = config.deadline + (watchdog.GRACE if config.max_failures else 0.0)
        self.rows: Rows | None = None
        self.workers: list[Worker] = []
        self.shared = _anonymous_file("rlkit-rows")
        # also where nobody closes this: before the interpreter takes its time to end
        self._ending = weakref.finalize(self, _end, self.workers, os.getpid(), self.shared)
        try:
            agents = self.agents = agents_in(config) if plays_games(config) else ("agent",)
            # a game is not shared by processes
            bounds = np.linspace(0, config.lanes // len(agents), config.workers + 1).astype(int) * len(agents)
            self.starts = bounds[:-1]  # where each worker writes which lane it is at
            for start, stop in pairwise(bounds):
                self.workers.append(Worker(int(start), int(stop), self.shared))
            self._connect(render)
        except BaseException:
            self.close()
            raise

    def _connect(self, render: bool) -> None:
        """Tell every child its lanes, learn the spaces, share the rows."""
        try:
            json.dumps(self.config.kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"env.kwargs={self.config.kwargs}: workers take plain values ({error}); "
                f"type env.backend=inprocess"
            ) from error
        self.order = {"config": asdict(self.config), "seeds": asdict(self.seeds), "render": render}
        heads = self._begin(self.workers)
        observation, action = from_json(heads[0]["observation"]), from_json(heads[0]["action"])
        labels = label_leaves(self.config, observation)
        groups = numbers(self.config.groups, self.agents)
        self.spec = EnvSpec(
            self.config.id, observation, action, self.config.stack, self.agents, labels, groups
        )
        self.fps = heads[0]["fps"]
        size = Rows.size(observation, action, self.lanes)
        os.ftruncate(self.shared, size)
        rows = Rows(observation, action, self.lanes, mmap.mmap(self.shared, size))
        self.row = rows_step(rows, observation)
        for worker in self.workers:
            send(worker.sock, b"m", {"lanes": self.lanes})
        self._wait(START)
        self.rows = rows

    def _begin(self, workers: list[Worker]) -> list[Head]:
        """Tell children their lanes; returns what they say of their environments."""
        for worker in workers:
            send(worker.sock, b"", {**self.order, "start": worker.start, "stop": worker.stop})
        self._wait(START + self.config.deadline, workers)
        return [receive(worker.sock)[0] for worker in workers]

    @property
    def failures(self) -> int:
        """How many episodes were cut because the environment failed in them."""
        return 0 if self.rows is None else int(self.rows.failures.sum())

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...]); raises EnvFault."""
        rows = self._open()
        rows.action[:] = action.numpy()
        rows.cursor[self.starts] = self.starts
        for worker in self.workers:
            with suppress(OSError):  # a dead worker shows in _wait, which knows more
                worker.sock.send(b"s")
        self._wait(self.deadline)
        if self.scale != 1.0:
            rows.reward *= self.scale
        return self.row

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after actions[n]; raises EnvFault."""
        rows = self._open()
        rows.cursor[self.starts] = self.starts
        for worker in self.workers:
            mine = slice(worker.start, worker.stop)
            head = {
                "episode": [int(e) for e in episode[mine]],
                "counts": [len(part) for part in actions[mine]],
            }
            body = b"".join(np.ascontiguousarray(part, rows.action.dtype).tobytes() for part in actions[mine])
            with suppress(OSError):
                send(worker.sock, b"r", head, body)
        self._wait(self.deadline, episode=episode)
        if self.scale != 1.0:
            rows.reward *= self.scale
        return self.row

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture of a lane, or None (made without render=True, or nothing to draw)."""
        self._open()
        worker = next(worker for worker in self.workers if worker.start <= lane < worker.stop)
        with suppress(OSError):
            send(worker.sock, b"p", {"lane": lane})
        self._wait(self.deadline, [worker])
        head, body = receive(worker.sock)
        return np.frombuffer(body, np.uint8).reshape(head["shape"]).copy() if head["shape"] else None

    def close(self) -> None:
        """End the workers; idempotent."""
        self._ending()

    def _open(self) -> Rows:
        if self.rows is None or not self.workers:
            raise ValueError("this vector environment is closed; make a new one with make_vec")
        return self.rows

    def _wait(
        self,
        deadline: float,
        workers: list[Worker] | None = None,
        episode: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Wait for the answer of every worker; a "+" (a replayed step) starts the clock anew. Raises EnvFault.

        A worker that hangs or dies is replaced while env.max_failures lasts. episode: of each lane, where it is to be
        restored.
        """
        waiting = {worker.sock.fileno(): worker for worker in (self.workers if workers is None else workers)}
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLIN)
        end = time.monotonic() + deadline
        while waiting:
            ready = poll.poll(max(0.0, end - time.monotonic()) * 1e3)
            if not ready:
                number, worker = next(iter(waiting.items()))
                poll.unregister(number)
                del waiting[number]
                self._lose("hung", worker, f"no answer in {deadline:g} s", episode)
                end = time.monotonic() + deadline
            for number, _ in ready:
                worker = waiting[number]
                try:
                    answer = worker.sock.recv(1)
                except ConnectionResetError:
                    answer = b""
                if answer == b"+":
                    end = time.monotonic() + deadline
                elif answer == b".":
                    poll.unregister(number)
                    del waiting[number]
                elif answer == b"!":
                    self._raise(worker)
                else:
                    poll.unregister(number)
                    del waiting[number]
                    pid = worker.process.pid
                    self._lose("exited", worker, f"its process (pid {pid}) {worker.ending()}", episode)
                    end = time.monotonic() + deadline

    def _raise(self, worker: Worker) -> None:
        """Raise what a worker reported, after ending all of them."""
        head, _ = receive(worker.sock)
        if "fault" in head:
            self.close()
            raise EnvFault(**head["fault"])
        if "error" in head:
            self.close()
            raise ValueError(head["error"])
        fault = self._fault("raised", worker, head["detail"], head["trace"])
        self.close()
        raise fault

    def _fault(self, kind: str, worker: Worker, detail: str, trace: str = "") -> EnvFault:
        """What is said of a worker that cannot report it itself."""
        if self.rows is None:  # still starting: no lane has begun
            seed = self.seeds.of(worker.start, 0)
            lane = self.seeds.first_lane + worker.start
            return EnvFault(kind, self.config.id, lane, 0, 0, seed, "start", detail, trace)
        lane = int(self.rows.cursor[worker.start])
        return lane_fault(kind, self.config.id, self.seeds, self.rows, lane, "", detail, trace)

    def _lose(self, kind: str, worker: Worker, detail: str, episode: npt.NDArray[np.int64] | None) -> None:
        """Replace a worker that hangs or is gone, whose lanes' episodes are cut, or raise its fault after ending all.

        episode: of each lane, where it was to be restored.
        """
        fault = self._fault(kind, worker, detail, worker.where() if kind == "hung" else "")
        rows, limit = self.rows, self.config.max_failures
        lost = 0 if rows is None else _cut(rows, worker.start, worker.stop, episode)
        count = self.failures
        if rows is None or worker not in self.workers or 0 <= limit < count:
            self.close()
            raise fault
        warnings.warn(
            f"{fault.text}; its process is replaced, and {lost} episodes are cut there ({spent(count, limit)})",
            RuntimeWarning,
            stacklevel=2,
        )
        worker.close(0.0)
        new = Worker(worker.start, worker.stop, self.shared)
        self.workers[self.workers.index(worker)] = new
        episodes = rows.episode[worker.start : worker.stop].tolist()
        self.rows = None  # it is starting
        self._begin([new])
        send(new.sock, b"m", {"lanes": self.lanes, "after": episodes})
        self._wait(START, [new])
        self.rows = rows


def _cut(rows: Rows, start: int, stop: int, episode: npt.NDArray[np.int64] | None) -> int:
    """End the episodes of a block whose process is gone: rows that are `last`; returns how many episodes that were.

    Lanes before the cursor have done what was asked, the one at the cursor has failed, those after it have not begun.
    episode: of each lane, where they were to be restored.
    """
    at = int(rows.cursor[start])
    here, later = slice(start, stop), slice(at + 1, stop)
    if episode is not None:
        rows.episode[later], rows.steps[later], rows.last[later] = episode[later], 0, False
    rows.last[at] = False
    lost = ~rows.last[here]  # who waits for the next episode loses nothing
    rows.failures[here] += lost
    # as Lane.cut
    rows.first[at], rows.first[later] = rows.steps[at] == 0, episode is not None
    rows.reward[at:stop], rows.terminated[at:stop] = 0.0, False
    rows.last[here] = True
    return int(lost.sum())


def _end(workers: list[Worker], owner: int, shared: int) -> None:
    """End the workers of process `owner`, which close their environments side by side; a forked child leaves them."""
    os.close(shared)
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.ask()
    end = time.monotonic() + GRACE
    for worker in workers:
        worker.close(end - time.monotonic())
    workers.clear()


def _anonymous_file(name: str) -> int:
    """A file descriptor of memory without a name: nothing is left behind, whoever dies."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor
