"""What the server offers, as an OpenAPI document (spec.openapis.org/oas/v3.1.0), from the spaces of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit import __version__
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, row_dtype

if TYPE_CHECKING:
    from rlkit.serve.models import Model

Schema = dict[str, Any]
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
NUMBER = {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38}  # of float32
REFUSALS = {  # status -> what it means
    "401": "the token is missing or another one",
    "404": "no such session is open",
    "405": "another method",
    "408": "the request did not come in time",
    "409": "the session is busy, or its version is not served any more",
    "413": "the body is longer than 2 MiB",
    "415": "another content type than application/json and application/msgpack",
    "421": "another host",
    "422": "what was sent is refused: the error says why",
    "429": "too many sessions, or too many requests wait: Retry-After says when to try again",
}


def document(models: dict[str, Model], lanes: int, token: bool) -> Schema:
    """The document. lanes: of a step, at most."""
    paths: Schema = {
        f"/v1/{name}/act": {
            "post": _act(name, model.version.policy.reader.space, model.version.policy.reader.action)
        }
        for name, model in models.items()
    } | {f"/v1/{name}/step": {"post": _step(model, lanes)} for name, model in models.items()}
    for path, said, kind in (
        ("/live", "whether the process runs", "application/json"),
        ("/ready", "whether it takes requests", "application/json"),
        ("/metrics", "counters", "application/openmetrics-text"),
        ("/openapi.json", "this document", "application/json"),
        ("/v1/models", "the models: names, versions, and what policy.json says", "application/json"),
    ):
        paths[path] = {
            "get": {
                "summary": said,
                "responses": {"200": _content(kind, {}), **_refused("401", "405", "421")},
            }
        }
        if path == "/ready":
            paths[path]["get"]["responses"] |= {
                "503": _content("application/json", ERROR, "the server is stopping")
            }
    found: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "rlkit serve", "version": __version__},
        "paths": paths,
    }
    if token:
        found["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"token": []}]
    return found


def _act(name: str, observation: Space, action: Space) -> Schema:
    body = {
        "type": "object",
        "properties": {
            "obs": schema(observation),
            "session": {"type": "string", "minLength": 1, "maxLength": 64},
            "first": {"type": "boolean", "default": False},
            "stochastic": {"type": "boolean", "default": False},
        },
        "required": ["obs"],
        "additionalProperties": False,
    }
    said = {"action": schema(action), "version": {"type": "string"}, "session": {"type": "string"}}
    return _post(
        f"an action of {name}; without a session every observation opens an episode", body, said, "action"
    )


def _step(model: Model, lanes: int) -> Schema:
    policy = model.version.policy
    inputs: Schema = {"first": {"items": {"type": "boolean"}}}
    for entry in policy.reader.entries:
        items: Schema = dict(NUMBER) if entry.floats else {"type": "integer"}
        if entry.limits is not None and not entry.floats:
            items |= {"minimum": int(entry.limits[0].min()), "maximum": int(entry.limits[1].max())}
        inputs[f"obs.{entry.name}" if entry.name else "obs"] = {"items": _nested(entry.shape, items)}
    needed = list(inputs)
    for name, shape, _ in policy.memory:
        inputs[name] = {"items": _nested(shape, NUMBER)}
    for each in inputs.values():
        each |= {"type": "array", "minItems": 1, "maxItems": lanes}
    body = {
        "type": "object",
        "properties": {
            "inputs": {
                "type": "object",
                "properties": inputs,
                "required": needed,
                "additionalProperties": False,
            },
            "stochastic": {"type": "boolean", "default": False},
            "version": {"type": "string"},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }
    said = {"outputs": {"type": "object"}, "version": {"type": "string"}}
    summary = f"one step of the graph of {model.name} (README.md in its folder), for many lanes"
    return _post(summary, body, said, "outputs")


def _post(summary: str, body: Schema, said: Schema, needed: str) -> Schema:
    answer = {"type": "object", "properties": said, "required": [needed, "version"]}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _content("application/json", answer), **_refused(*REFUSALS)},
    }


def _content(kind: str, of: Schema, said: str = "done") -> Schema:
    return {"description": said, "content": {kind: {"schema": of}}}


def _refused(*statuses: str) -> Schema:
    return {status: _content("application/json", ERROR, REFUSALS[status]) for status in statuses}


def schema(space: Space) -> Schema:
    """JSON Schema of an observation or an action as the environment has it."""
    if isinstance(space, Dict):
        parts = {name: schema(sub) for name, sub in space}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    if isinstance(space, Discrete):
        return {"type": "integer", "minimum": space.start, "maximum": space.start + space.n - 1}
    if isinstance(space, MultiBinary):
        return _nested(space.dims or space.shape, {"type": "integer", "minimum": 0, "maximum": 1})
    if isinstance(space, MultiDiscrete):
        most = max(n + start - 1 for n, start in zip(space.nvec, space.start, strict=True))
        return _nested(
            space.dims or space.shape, {"type": "integer", "minimum": min(space.start), "maximum": most}
        )
    assert isinstance(space, Box), "leaves are Box, Discrete, MultiDiscrete or MultiBinary"
    if space.meaning == "text":
        return {"type": "string"}
    if row_dtype(space) == "float32":
        return _nested(space.shape, NUMBER)
    whole = {"type": "integer", "minimum": int(np.min(space.low)), "maximum": int(np.max(space.high))}
    return _nested(space.shape, whole)


def _nested(shape: tuple[int, ...], items: Schema) -> Schema:
    for size in reversed(shape):
        items = {"type": "array", "items": items, "minItems": size, "maxItems": size}
    return items
