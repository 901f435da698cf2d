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


def document(models: dict[str, Model], token: bool) -> Schema:
    """The document."""
    paths: Schema = {
        f"/v1/{name}/act": {
            "post": _act(name, model.version.policy.reader.space, model.version.policy.reader.action)
        }
        for name, model in models.items()
    } | {f"/v1/{name}/step": {"post": _step(name)} for name in models}
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


def _step(name: str) -> Schema:
    body = {
        "type": "object",
        "properties": {
            "inputs": {
                "type": "object",
                "properties": {"first": {"type": "array", "items": {"type": "boolean"}, "minItems": 1}},
                "required": ["first"],
            },
            "stochastic": {"type": "boolean", "default": False},
            "version": {"type": "string"},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }
    said = {"outputs": {"type": "object"}, "version": {"type": "string"}}
    return _post(
        f"one step of the graph of {name} (README.md in its folder), for many lanes", body, said, "outputs"
    )


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
        return _nested(space.shape, {"type": "number"})
    whole = {"type": "integer", "minimum": int(np.min(space.low)), "maximum": int(np.max(space.high))}
    return _nested(space.shape, whole)


def _nested(shape: tuple[int, ...], items: Schema) -> Schema:
    for size in reversed(shape):
        items = {"type": "array", "items": items, "minItems": size, "maxItems": size}
    return items
