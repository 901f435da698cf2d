"""The server as an ASGI application (asgi.readthedocs.io, version 3): paths, sessions, refusals.

    POST /v1/{model}/act        an observation of the environment -> an action; memory by the name of a session
    POST /v1/{model}/step       inputs of policy.onnx [lanes, ...] -> its outputs; memory is a value of the client
    websocket /v1/{model}/session    as act; memory lives with the connection
    GET /v1/models, /live, /ready, /metrics, /openapi.json

Whoever cannot be served gets a status and {"error": one line}; what failed in here is said on stderr alone.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rlkit.serve import metrics, openapi
from rlkit.serve.models import Model, Turns, Version
from rlkit.serve.sessions import Session, Sessions
from rlkit.serve.wire import JSON, LARGEST, MSGPACK, Message, Refused, decode, encode, kind_of, numbers
from rlkit.spaces import Array, Dict, native_action
from rlkit.text import clean

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[str, bytes]  # content type, body

PAGES = ("/live", "/ready", "/metrics", "/openapi.json", "/v1/models")
OPEN = ("/live", "/ready")  # without a token
ROUTES = ("act", "step", "session")  # below /v1/{model}/
QUEUE = 16  # times max_batch: decisions that may wait
LONGEST = 64  # characters of a session's name
FAULTS = (ValueError, TypeError, OverflowError)  # what NumPy raises for values that are no arrays


class _Gone(Exception):
    """Nobody waits for the answer."""


class Application:
    """models: by name. token: what clients must send, "" for none. hosts: names under which it may be asked for
    ("*" is any), so that a page of another site cannot reach it under a name of its own. named: whether sessions are
    kept by name, which needs a client to come back to this very process.
    """

    def __init__(
        self,
        models: dict[str, Model],
        *,
        sessions: int = 1024,
        batch: int = 64,
        token: str = "",
        hosts: frozenset[str] = frozenset({"*"}),
        named: bool = True,
    ) -> None:
        self.models, self.batch, self.token, self.hosts = models, batch, token, hosts
        self.named = named
        self.sessions, self.turns = Sessions(sessions), Turns(batch, QUEUE * batch)
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.stopping = False  # no longer ready; every answer is the last one of its connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:  # lifespan: there is nothing to begin or end
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})

    # -------------------------------------------------------------- HTTP

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, name, route = _parts(scope["path"])
        status, headers = 200, {}
        try:
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            self._admit(headers, path)
            kind, body = await self._answered(scope["method"], path, name, route, headers, receive)
            headers = {}
        except _Gone:
            return
        except Refused as refused:
            status, headers = refused.status, refused.headers
            kind, body = JSON, encode(JSON, {"error": refused.words})
        except Exception as error:
            status, headers, kind, body = 500, {}, JSON, _failed(JSON, error)
        self.requests[name if name in self.models else "", route or path, status] += 1
        headers |= {"content-type": kind, "content-length": str(len(body))}
        if self.stopping:
            headers["connection"] = "close"
        sent = [(key.encode(), value.encode("latin-1", "replace")) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def _answered(
        self, method: str, path: str, name: str, route: str, headers: dict[str, str], receive: Receive
    ) -> Answer:
        """Raises Refused."""
        if path in PAGES:
            if method not in ("GET", "HEAD"):
                raise Refused(405, f"{method} {path}; allowed: GET", allow="GET, HEAD")
            return self._page(path)
        if not route:
            raise Refused(404, f"nothing is here; {', '.join(PAGES)} and /v1/MODEL/{'|'.join(ROUTES)} are")
        model = self._model(name)
        if route == "session":
            raise Refused(426, "a session is a websocket: connect with one", upgrade="websocket")
        if method != "POST":
            raise Refused(405, f"{method} {path}; allowed: POST", allow="POST")
        kind = kind_of(headers.get("content-type", ""))
        body = await _body(headers, receive)
        start = time.perf_counter()
        asked = decode(kind, body)
        answer = await (self._act(model, asked) if route == "act" else self._step(model, asked))
        encoded = encode(kind, answer)
        model.counts.took(time.perf_counter() - start)
        return kind, encoded

    def _page(self, path: str) -> Answer:
        if path == "/metrics":
            counts = {name: model.counts for name, model in self.models.items()}
            open_ = self.sessions.count()
            return metrics.TYPE, metrics.text(self.requests, [(name, open_[name]) for name in counts], counts)
        if path == "/openapi.json":
            return JSON, encode(JSON, openapi.document(self.models, self.batch, bool(self.token)))
        if path == "/v1/models":
            return JSON, encode(JSON, {"models": [_described(model) for model in self.models.values()]})
        if path == "/ready" and self.stopping:
            raise Refused(503, "the server is stopping", retry_after="1")
        return JSON, encode(JSON, {"status": path[1:]})

    def _model(self, name: str) -> Model:
        if name not in self.models:
            raise Refused(404, f"no model {name[:60]!r}; there is {', '.join(self.models)}")
        return self.models[name]

    def _admit(self, headers: dict[str, str], path: str) -> None:
        """Whether a client may ask. Raises Refused."""
        host = headers.get("host", "")
        try:
            named = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            named = ""
        if "*" not in self.hosts and named not in self.hosts:
            raise Refused(421, f"host {host[:60]!r}; allowed: {', '.join(sorted(self.hosts))}")
        if self.token and path not in OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                words = 'a token is needed: the header "authorization: Bearer TOKEN"'
                raise Refused(401, words, www_authenticate="Bearer")

    # -------------------------------------------------------------- decisions

    async def _act(self, model: Model, asked: Message) -> Message:
        """One decision on an observation as the environment gives it."""
        if "session" not in asked:
            return await self._decide(model, Session(model.version), asked)
        key = asked.pop("session")
        if not self.named:
            raise Refused(
                422, "session: several processes serve; use a websocket, or /step, whose memory travels"
            )
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST:
            raise Refused(422, f"session is a text of 1 to {LONGEST} characters")
        session = self.sessions.get(model, key)
        if session is None and not _flag(asked, "first"):
            words = f"no session {key!r} is open here (idle ones are closed): open an episode (first: true)"
            raise Refused(404, words)
        session = session or self.sessions.open(model, key)
        try:
            return await self._decide(model, session, asked) | {"session": key}
        except Refused:
            if session.memory is None:  # it has not begun
                self.sessions.close(model, key)
            raise

    async def _decide(self, model: Model, session: Session, asked: Message) -> Message:
        """The action of a session; an observation that is refused leaves its memory as it was."""
        _known(asked, ("obs", "first", "stochastic"))
        if "obs" not in asked:
            raise Refused(422, 'obs is missing: {"obs": ...} is read')
        opens, greedy = _flag(asked, "first") or session.memory is None, not _flag(asked, "stochastic")
        with self.sessions.using(session):
            version = model.version if opens else session.version
            policy = version.policy
            obs = asked["obs"]
            if isinstance(obs, list) and isinstance(policy.reader.space, Dict):  # of a Tuple space
                obs = {str(place): part for place, part in enumerate(obs)}
            try:
                rows = policy.reader.row(numbers(obs, "the observation", policy.reader.gaps))
            except FAULTS as error:
                raise Refused(422, str(error)) from error
            memory = policy.opening(1) if session.memory is None or opens else session.memory
            action, after = await self.turns.step(model, version, rows, np.array([opens]), memory, greedy)
            session.version, session.memory = version, after
        return {"action": native_action(policy.reader.action, action[0]), "version": version.name}

    async def _step(self, model: Model, asked: Message) -> Message:
        """One step of the graph, for lanes whose memory the client holds."""
        _known(asked, ("inputs", "stochastic", "version"))
        inputs, name = asked.get("inputs"), asked.get("version", "")
        if not isinstance(inputs, dict) or not isinstance(name, str):
            raise Refused(422, 'inputs is an object: {"inputs": {"obs": ..., "first": ...}} is read')
        try:
            first = np.asarray(numbers(inputs.pop("first", None), "first"))
            if first.dtype != bool or first.ndim != 1 or not 0 < len(first) <= self.batch:
                raise Refused(
                    422, f"first has one true or false for each of 1 to {self.batch} lanes (--max-batch)"
                )
            version = model.find(name) if name and not first.all() else model.version
            rows, memory = _inputs(version, inputs, first)
        except FAULTS as error:
            raise Refused(422, str(error)) from error
        action, after = await self.turns.step(
            model, version, rows, first, memory, not _flag(asked, "stochastic")
        )
        outputs = {"action": action}
        for (each, _, _), part in zip(version.policy.memory, after, strict=True):
            outputs[each.replace("memory", "memory_out", 1)] = part
        return {"outputs": outputs, "version": version.name}

    # -------------------------------------------------------------- websockets

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A session: messages as the bodies of act, one after the other; text is JSON, bytes are msgpack."""
        key = object()
        await receive()  # that it connects
        path, name, route = _parts(scope["path"])
        try:
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            self._admit(headers, path)
            _same_origin(headers)
            if route != "session":
                raise Refused(404, "websockets connect to /v1/MODEL/session")
            model = self._model(name)
            session = self.sessions.open(model, key)
        except Refused as refused:
            self.requests[name if name in self.models else "", "session", refused.status] += 1
            await _reject(scope, send, refused)
            return
        try:
            await send({"type": "websocket.accept"})
            code, reason = await self._talk(model, session, receive, send)
            if code:
                await send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:  # it is gone
            pass
        finally:
            self.sessions.close(model, key)

    async def _talk(self, model: Model, session: Session, receive: Receive, send: Send) -> tuple[int, str]:
        """Answer until one side ends; returns the code and reason with which to close, (0, "") where it is closed."""
        while True:
            try:
                async with asyncio.timeout(self.sessions.idle):
                    message = await receive()
            except TimeoutError:
                return 1001, "idle"
            if message["type"] != "websocket.receive":
                return 0, ""
            text = message.get("text")
            kind = MSGPACK if text is None else JSON
            start, status = time.perf_counter(), 200
            try:
                asked = decode(kind, message["bytes"] if text is None else text)
                answer = encode(kind, await self._decide(model, session, asked))
                model.counts.took(time.perf_counter() - start)
            except Refused as refused:
                status = refused.status
                answer = encode(kind, {"error": refused.words, "status": status})
            except Exception as error:
                status, answer = 500, _failed(kind, error)
            self.requests[model.name, "session", status] += 1
            body = {"bytes": answer} if kind == MSGPACK else {"text": answer.decode()}
            await send({"type": "websocket.send", **body})
            if self.stopping:
                return 1012, "the server is stopping"


def _parts(path: str) -> tuple[str, str, str]:
    """(path as it is counted, name of a model, route); the last two "" where it is none of a model's."""
    if path in PAGES:
        return path, "", ""
    parts = path.split("/")
    if len(parts) == 4 and parts[:2] == ["", "v1"] and parts[3] in ROUTES:
        return f"/v1/MODEL/{parts[3]}", parts[2], parts[3]
    return "other", "", ""


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """Raises Refused(413)."""
    length, parts = headers.get("content-length", "0"), list[bytes]()
    size = 0
    announced = int(length) if length.isdecimal() and len(length) < 20 else 0
    while True:
        if max(size, announced) > LARGEST:
            raise Refused(413, f"the body is longer than {LARGEST:,} bytes")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else parts[0]


def _known(asked: Message, names: tuple[str, ...]) -> None:
    strange = [name for name in asked if name not in names]
    if strange:
        raise Refused(422, f"{str(strange[0])[:60]!r} is not read; allowed: {', '.join(names)}")


def _flag(asked: Message, name: str) -> bool:
    value = asked.get(name, False)
    if not isinstance(value, bool):
        raise Refused(422, f"{name} is true or false")
    return value


def _inputs(version: Version, inputs: Message, first: Array) -> tuple[dict[str, Array], tuple[Array, ...]]:
    """Rows and memory of the inputs of a graph. Raises ValueError."""
    memory = []
    for name, shape, dtype in version.policy.memory:
        if name not in inputs and first.all():
            memory.append(np.zeros((len(first), *shape), dtype))
            continue
        given = np.asarray(numbers(inputs.pop(name, None), name))
        if given.shape != (len(first), *shape) or given.dtype.kind not in "fiub":
            raise ValueError(f"{name} has shape {given.shape}; this policy remembers {(len(first), *shape)}")
        made = given.astype(dtype)
        if made.dtype.kind != "f" and (made != given).any():
            raise ValueError(f"{name} holds something else than {dtype}")
        memory.append(made)
    gaps = version.policy.reader.gaps
    rows = version.reader.rows({name: numbers(x, str(name)[:60], gaps) for name, x in inputs.items()})
    lanes = len(next(iter(rows.values())))
    if lanes != len(first):
        raise ValueError(f"the observations have {lanes} lanes, and first has {len(first)}")
    return rows, tuple(memory)


def _same_origin(headers: dict[str, str]) -> None:
    """Raises Refused where a page of another site opens a websocket: browsers let them."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
        raise Refused(403, f"origin {origin[:60]!r}: pages of other sites open no sessions")


async def _reject(scope: Scope, send: Send, refused: Refused) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refused.words[:100]})
        return
    headers = [(name.encode(), value.encode()) for name, value in refused.headers.items()]
    headers.append((b"content-type", JSON.encode()))
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": encode(JSON, {"error": refused.words})})


def _failed(kind: str, error: Exception) -> bytes:
    """The answer where something failed in here, which is said."""
    print(f"rlkit: {type(error).__name__}: {clean(error, 500)}", file=sys.stderr)
    return encode(kind, {"error": "the server failed: its log says why", "status": 500})


def _described(model: Model) -> Message:
    policy = model.version.policy
    return {
        "name": model.name,
        "version": model.version.name,
        "backend": policy.backend,
        "policy": policy.info,
    }
