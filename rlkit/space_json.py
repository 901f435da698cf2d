"""Spaces as JSON, as a policy folder stores them: an agent is rebuilt without its environment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlkit.images import early_channels
from rlkit.spaces import Bound, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, uniform


def to_json(space: Space) -> dict[str, Any]:
    """A JSON object from which `from_json` rebuilds the space (infinities as strings: JSON has none).

    Equal for equal spaces: bounds that are all the same number are written as one.
    """
    if isinstance(space, Box):
        box: dict[str, Any] = {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": space.dtype,
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
        }
        box |= {"channels": space.channel_axis} if len(space.shape) == 3 else {}
        return box | ({"meaning": space.meaning} if space.meaning else {})
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": space.n, "start": space.start}
    if isinstance(space, MultiDiscrete):
        found = {"kind": "MultiDiscrete", "nvec": list(space.nvec), "start": list(space.start)}
        found |= {"dtype": space.dtype} if space.dtype != "int64" else {}
        return found | ({"dims": list(space.dims)} if space.dims else {})
    if isinstance(space, MultiBinary):
        return {"kind": "MultiBinary", "n": space.n} | ({"dims": list(space.dims)} if space.dims else {})
    entries = [[name, to_json(sub)] for name, sub in space]
    return {"kind": "Dict", "entries": entries} | ({"tuple": True} if space.is_tuple else {})


def from_json(data: dict[str, Any]) -> Space:
    """Inverse of `to_json`. Raises ValueError on an unknown kind."""
    kind = data.get("kind")
    if kind == "Box":
        shape = tuple(data["shape"])
        low, high = (_bound_from_json(data[name], shape) for name in ("low", "high"))
        early = early_channels(shape) if len(shape) == 3 else ""
        return Box(shape, data["dtype"], low, high, data.get("channels", early), data.get("meaning", ""))
    if kind == "Discrete":
        return Discrete(data["n"], data["start"])
    if kind == "MultiDiscrete":
        dims, dtype = tuple(data.get("dims", ())), data.get("dtype", "int64")
        return MultiDiscrete(tuple(data["nvec"]), tuple(data["start"]), dims, dtype)
    if kind == "MultiBinary":
        return MultiBinary(data["n"], tuple(data.get("dims", ())))
    if kind == "Dict":
        return Dict(tuple((name, from_json(sub)) for name, sub in data["entries"]), data.get("tuple", False))
    raise ValueError(f"unknown space kind {kind!r}; allowed: Box, Discrete, MultiDiscrete, MultiBinary, Dict")


def _bound_to_json(bound: Bound) -> Any:
    def scalar(x: float) -> float | str:
        return x if math.isfinite(x) else ("inf" if x > 0 else "-inf")

    one = bound if isinstance(bound, float) else uniform(bound)
    return scalar(one) if isinstance(one, float) else [scalar(float(x)) for x in one.ravel()]


def _bound_from_json(data: Any, shape: tuple[int, ...]) -> Bound:
    return np.array([float(x) for x in data]).reshape(shape) if isinstance(data, list) else float(data)
