"""The process that serves: opens models and the socket, runs uvicorn, reloads folders that change, ends when told.

SIGTERM and Ctrl-C: not ready any more, what was accepted is answered (within 10 s). SIGHUP, or a new manifest: the
folder is loaded beside what is served, verified, and swapped; one that is refused changes nothing.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvicorn

from rlkit.options import ConfigError
from rlkit.serve.app import Application
from rlkit.serve.models import Model, Version
from rlkit.serve.protocol import DEADLINE, Http, WebSocket
from rlkit.serve.wire import LARGEST
from rlkit.text import clean

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WATCH = 1.0  # seconds between two looks at the folders
KEPT = 75  # seconds for which a connection that asks nothing is kept
Stamp = tuple[int, ...]


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def say(text: str) -> None:
    print(clean(text), file=sys.stderr, flush=True)


@dataclass
class Watch:
    """Loads folders again whose manifest has changed."""

    models: list[Model]
    seen: dict[str, Stamp] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = {model.name: _stamp(model.folder) for model in self.models}
        self.asked = asyncio.Event()

    async def run(self, idle: float) -> None:
        """Until it is cancelled. idle: seconds for which old versions are kept."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.asked.wait(), WATCH)
            everything = self.asked.is_set()
            self.asked.clear()
            for model in self.models:
                model.forget(time.monotonic() - idle)
                stamp = _stamp(model.folder)
                if stamp and (everything or stamp != self.seen[model.name]):
                    self.seen[model.name] = stamp
                    await reload(model)


async def reload(model: Model) -> None:
    """Serve what lies in a model's folder now, if it is whole and verified."""
    before = model.version.name
    try:
        model.replace(await asyncio.to_thread(Version, model.folder))
    except Exception as error:  # whatever is wrong with it
        say(f"refused:     {model.name}: {error} (version {before} is served on)")
        return
    step = model.version.policy.info.get("step")
    changed = before != model.version.name
    say(
        f"reloaded:    {model.name}: {'step ' + str(step) if changed else 'nothing new'} (version {model.version.name})"
    )


def _stamp(folder: Path) -> Stamp:
    """What changes where a manifest does; () where there is none."""
    try:
        found = (folder / "manifest.json").stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


class _Server(uvicorn.Server):
    """It says to the application that it stops when it takes no connections any more: nobody comes back in between."""

    def __init__(self, config: uvicorn.Config, application: Application, watch: Watch) -> None:
        super().__init__(config)
        self.application, self.watch = application, watch

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.application.stopping = True
        await super().shutdown(sockets)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.watch.asked.set)
        task = asyncio.create_task(self.watch.run(self.application.sessions.idle))
        try:
            await super().serve(sockets)
        finally:
            task.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # said, or asyncio leaves Nagle's delay on
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host} --port {port}: {reason}; choose another port (0: a free one)"
        ) from error


def _many_files() -> None:
    """Let this process hold as many connections as the system allows it."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def serve(application: Application, listener: socket.socket) -> None:
    """Serve until SIGTERM (returns) or Ctrl-C (raises KeyboardInterrupt)."""
    config = uvicorn.Config(
        application,
        http=Http,
        ws=WebSocket,
        lifespan="off",
        log_config=None,
        log_level="critical",  # what fails is said by the application
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=int(DEADLINE),
        ws_max_size=LARGEST,
        ws_per_message_deflate=False,
    )
    _many_files()
    np.seterr(all="ignore")  # what is sent may be any number: it is looked at, not warned of
    gc.freeze()  # what is loaded stays: the collector need not look at it again
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has ended
    _Server(config, application, Watch(list(application.models.values()))).run(sockets=[listener])
