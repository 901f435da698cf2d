"""A policy that `rlkit serve` computes, with the calls of rlkit.runtime.Policy.

    from rlkit.client import Remote
    policy = Remote("http://127.0.0.1:8700")
    action, state = policy(obs, state)        # state None opens an episode

The memory travels with every request and stays with the caller, so a request may be repeated: one whose connection has
ended, or that the server had no time for, or failed at, is sent again. Needs NumPy, msgpack and orjson (pip install
"rlkit[serve]").
"""

from __future__ import annotations

import http.client
import threading
import time
from urllib.parse import urlsplit

from rlkit.deploy.graph import GraphError
from rlkit.deploy.runtime import Described
from rlkit.serve.wire import JSON, MSGPACK, Message, Refused, decode, encode
from rlkit.spaces import Array

AGAIN = (429, 500, 502, 503, 504)  # another try may be answered, maybe by another process


class RemoteError(OSError):
    """A server that does not answer, or answers something else than an action."""


class Memory(tuple[Array, ...]):
    """The memory of a policy, and the version that it is of: an episode keeps the version that it began with."""

    version = ""


class Remote(Described):
    """model: of which of the server's models; may be left out where it has one. timeout: seconds until a request is
    given up. Calls from any number of threads are independent. Raises RemoteError, ValueError where the server refuses.
    """

    def __init__(self, url: str, model: str = "", *, token: str = "", timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url}: no address of a server; allowed: http://HOST:PORT or https://HOST:PORT")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._at, self._secure = (parts.hostname, parts.port), parts.scheme == "https"
        self._root = parts.path.rstrip("/")
        self._headers = {"content-type": MSGPACK} | ({"authorization": f"Bearer {token}"} if token else {})
        self._local = threading.local()
        models = {each["name"]: each for each in self._asked("GET", "/v1/models", None)["models"]}
        if not model and len(models) == 1:
            model = next(iter(models))
        if model not in models:
            raise ValueError(
                f"{self.url} has no model {model!r}; it has {', '.join(models)}: Remote(url, NAME)"
            )
        self.model = model
        try:
            super().__init__(models[model]["policy"], self.url)
        except GraphError as error:
            raise RemoteError(str(error)) from error

    def __repr__(self) -> str:
        return f"Remote({self.url!r}, {self.model!r})"

    def step(
        self, rows: dict[str, Array], first: Array, state: tuple[Array, ...], greedy: bool
    ) -> tuple[Array, tuple[Array, ...]]:
        inputs: Message = {f"obs.{name}" if name else "obs": x for name, x in rows.items()}
        inputs |= {name: part for (name, _, _), part in zip(self.memory, state, strict=True)}
        body = {
            "inputs": inputs | {"first": first},
            "stochastic": not greedy,
            "version": state.version if isinstance(state, Memory) else "",
        }
        found = self._asked("POST", f"/v1/{self.model}/step", encode(MSGPACK, body))
        try:
            outputs = found["outputs"]
            after = Memory(outputs[name.replace("memory", "memory_out", 1)] for name, _, _ in self.memory)
            after.version = str(found["version"])
            action = outputs["action"]
            self.check_state(after, len(first))
            if action.shape != (len(first), *self.row[0]):
                raise ValueError(f"actions of shape {action.shape}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RemoteError(f"{self.url} answered what is no step of this policy: {error}") from error
        return action, after

    def _asked(self, method: str, path: str, body: bytes | None) -> Message:
        """What the server answers; asked again where it has no time or failed, until `timeout`."""
        end = time.monotonic() + self.timeout
        while True:
            status, headers, data = self._sent(method, self._root + path, body)
            wait = headers.get("retry-after", "1")
            pause = float(wait) if wait.isdecimal() else 1.0
            if status not in AGAIN or time.monotonic() + pause > end:
                break
            time.sleep(pause)
        try:
            kind = headers.get("content-type", "").partition(";")[0]
            found = decode(kind if kind in (JSON, MSGPACK) else JSON, data)
        except Refused as error:
            raise RemoteError(
                f"{self.url} answered status {status} and no {JSON}: is it rlkit serve?"
            ) from error
        if status == 200:
            return found
        words = f"{self.url}: {found.get('error', 'refused')} (status {status})"
        raise ValueError(words) if status in (409, 413, 422) else RemoteError(words)

    def _sent(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        """One request, on this thread's connection; on another one where that turns out to have ended."""
        kept = getattr(self._local, "connection", None)
        for connection in (kept, None) if kept else (None,):
            if connection is None:
                make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
                connection = self._local.connection = make(*self._at, timeout=self.timeout)
            try:
                connection.request(method, path, body, self._headers)
                answer = connection.getresponse()
                data = answer.read()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection, failure = None, error
                if isinstance(error, TimeoutError):
                    break
        words = str(failure) or type(failure).__name__
        raise RemoteError(
            f"{self.url} does not answer ({words}); rlkit serve RUN starts a server"
        ) from failure
