"""A worker process: a block of lanes that steps when a byte arrives and writes its rows into shared memory.

Started by rlkit.envs.backends.workers with a socket to the parent, the memory of all rows, and the reading end of a
pipe that never carries anything. When the parent dies, however it dies, that pipe closes and the kernel
sends SIGIO to the worker's process group, which ends this process even inside C code, and the simulators that
environments have started; a thread looks at the parent's number too, for systems without it.

The parent sends one byte per request; a JSON object and raw bytes follow where there is more to say (`send`):
    s  step with the action rows                  ->  .
    m  map the rows: {"lanes"}                    ->  .      {"after"}: the episode of each lane, which is over
    r  restore: {"episode", "counts"}, actions    ->  + after every step, then .
    p  picture of a lane: {"lane"}                ->  . {"shape"}, pixels
    q  close                                      ->  (ends)
any of which may answer "!" and {"fault"}, {"error"} or {"detail", "trace"} instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rlkit.envs.backends.lane import Block

Head: TypeAlias = dict[str, Any]  # a JSON object
HEAD = struct.Struct("<II")  # lengths of the JSON object and of the raw bytes


def send(sock: socket.socket, op: bytes, head: Head, body: bytes = b"") -> None:
    """Write one byte, a JSON object and raw bytes."""
    text = json.dumps(head).encode()
    sock.sendall(op + HEAD.pack(len(text), len(body)) + text + body)


def receive(sock: socket.socket) -> tuple[Head, bytes]:
    """Read what `send` wrote after its byte. Raises EOFError where the other side is gone."""
    head, body = HEAD.unpack(_exactly(sock, HEAD.size))
    return json.loads(_exactly(sock, head)), _exactly(sock, body)


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        if not part:
            raise EOFError("the other process is gone")
        parts += part
    return bytes(parts)


def _die_with_parent(life: int, parent: int) -> None:
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=look, name="rlkit-parent", daemon=True).start()
    if hasattr(os, "O_ASYNC"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        # to the whole group: what an environment has started ends with it
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def main(sock_fd: int, shared: int, life: int, stack: int, parent: int) -> None:
    """Serve process `parent` until it closes the socket, then end; the rest are file descriptors."""
    import faulthandler

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    faulthandler.enable()  # a crash in an environment's machine code shows where it was
    _die_with_parent(life, parent)
    faulthandler.register(
        signal.SIGUSR1, file=stack, all_threads=False
    )  # the parent asks a hung worker where it is
    sock = socket.socket(fileno=sock_fd)
    try:
        _serve(sock, shared)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the parent is gone
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)  # no environment's threads or exit handlers may keep the process


def _serve(sock: socket.socket, shared: int) -> None:
    from rlkit.envs.backends.faults import EnvFault

    order, _ = receive(sock)
    watching: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    try:
        block = _build(order)
        block.beat = lambda: sock.send(b"+")
        # a step that hangs, and may be cut, is interrupted here; else the parent ends this process
        if block.config.max_failures:
            watching = _watch(block)
        send(sock, b".", _spaces(block))
    except Exception as error:
        send(sock, b"!", _describe(error))
        return
    while True:
        op = sock.recv(1)
        if op in (b"", b"q"):
            block.close()
            return
        try:
            if op == b"s":
                with watching():
                    block.step()
                sock.send(b".")
            elif op == b"r":
                with watching():
                    _restore(block, *receive(sock))
                sock.send(b".")
            elif op == b"p":
                head, _ = receive(sock)
                picture = block.render(head["lane"])
                shape = [] if picture is None else list(picture.shape)
                send(sock, b".", {"shape": shape}, b"" if picture is None else picture.tobytes())
            else:
                _map(sock, block, shared)
                sock.send(b".")
        except EnvFault as fault:
            send(sock, b"!", {"fault": fault.to_json()})
        except Exception as error:
            send(sock, b"!", _describe(error))


def _build(order: Head) -> Block:
    from rlkit.envs.backends.games import make_block
    from rlkit.envs.config import EnvConfig
    from rlkit.seeding import Seeds

    if order["config"]["gray"] or order["config"]["size"]:
        import cv2

        cv2.setNumThreads(1)  # the other cores belong to the other workers
    config, seeds = EnvConfig(**order["config"]), Seeds(**order["seeds"])
    return make_block(config, seeds, order["start"], order["stop"], order["render"])


def _watch(block: Block) -> Callable[[], AbstractContextManager[None]]:
    """What steps and resets are done under, so that one that hangs is cut as one that raises is."""
    from rlkit.envs.backends.watchdog import Guard

    guard, tell = Guard(block.config.deadline, block.hung), block.beat

    def beat() -> None:
        guard.begin()
        tell()

    block.beat = beat
    return guard.watching


def _spaces(block: Block) -> Head:
    from rlkit.space_json import to_json

    return {
        "observation": to_json(block.observation),
        "action": to_json(block.action),
        "fps": block.fps,
    }


def _map(sock: socket.socket, block: Block, shared: int) -> None:
    from rlkit.envs.backends.rows import Rows

    head, _ = receive(sock)
    size = Rows.size(block.observation, block.action, head["lanes"])
    block.attach(Rows(block.observation, block.action, head["lanes"], mmap.mmap(shared, size)))
    for lane, episode in zip(block.lanes, head.get("after", ()), strict=False):
        lane.episode, lane.last = episode, True


def _restore(block: Block, head: Head, body: bytes) -> None:
    import numpy as np

    rows = block.actions
    flat = np.frombuffer(body, rows.dtype).reshape(-1, *rows.shape[1:])
    actions = np.split(flat, np.cumsum(head["counts"])[:-1])
    block.restore(np.array(head["episode"]), actions)


def _describe(error: Exception) -> Head:
    """What the parent raises: ValueErrors are for the user, anything else is the environment's own."""
    if isinstance(error, ValueError):
        return {"error": str(error)}
    return {"detail": repr(error), "trace": traceback.format_exc()}
