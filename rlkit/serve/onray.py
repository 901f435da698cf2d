"""The same application under Ray Serve (docs.ray.io/en/latest/serve): its proxy, its replicas, its autoscaling.

Every replica loads the folders, and watches them, on its own. Requests go to any of them, so memories by name are
refused: a websocket stays with its replica, and the memory of `step` travels.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlkit.options import ConfigError
from rlkit.serve.app import Application, Receive, Scope, Send
from rlkit.serve.models import Model, Version
from rlkit.serve.server import Watch


class Replica:
    """The application, made where it serves. folders: by the names of their models."""

    def __init__(self, folders: dict[str, str], options: dict[str, Any]) -> None:
        self.folders, self.options = folders, options
        self.inner: Application | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.inner is None:
            models = {
                name: Model(name, Path(path), Version(Path(path))) for name, path in self.folders.items()
            }
            self.inner = Application(models, **self.options, named=False)
            watch = Watch(list(models.values()))
            self.task = asyncio.create_task(watch.run(self.inner.sessions.idle))
        await self.inner(scope, receive, send)


def options_of(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE, of serve.deployment, as a dict; values are JSON or plain text. Raises ConfigError."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--ray-option {word}: KEY=VALUE of Ray Serve's deployments, as num_replicas=2")
        found[key] = value
        with suppress(ValueError):
            found[key] = json.loads(value)
    return found


def serve(
    folders: dict[str, Path], host: str, port: int, deployment: dict[str, Any], options: dict[str, Any]
) -> None:
    """Serve until SIGTERM (returns) or Ctrl-C (raises KeyboardInterrupt). Raises ConfigError."""
    import ray
    from ray import serve as library

    replica = Replica({name: str(folder.absolute()) for name, folder in folders.items()}, options)
    try:
        made: Any = library.deployment(
            library.ingress(replica)(type("Policies", (), {})), name="rlkit", **deployment
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--ray-option: Ray Serve refuses it: {' '.join(str(error).split())}") from error
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        library.start(http_options={"host": host, "port": port}, logging_config={"log_level": "ERROR"})
        library.run(made.bind(), name="rlkit", route_prefix="/")
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())  # now: Ray has put its own handler there
        print(f"serving:     http://{host}:{port}/v1/{{{','.join(folders)}}} on Ray", flush=True)
        while not ended.wait(1):
            pass
    finally:
        library.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
