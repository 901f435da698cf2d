"""Bodies of requests and answers: JSON, or MessagePack (msgpack.org), whose arrays are bytes.

    JSON       {"obs": [0.1, 0.2], "first": true}
    msgpack    the same; an array may be {"dtype": "float32", "shape": [2], "data": <8 bytes, little-endian>}

Whatever is read may come from anybody: sizes are bounded, and every refusal is a status of HTTP with one line.
"""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, TypeAlias

import numpy as np

try:
    import msgpack  # type: ignore[import-untyped]
    import orjson
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'rlkit\'s server and client need {error.name}: pip install "rlkit[serve]"', name=error.name
    ) from error

from rlkit.deploy.graph import DEEPEST, TYPES
from rlkit.spaces import Array

Message: TypeAlias = dict[str, Any]  # the object in a body

LARGEST = 2 * 2**20  # bytes of a body
JSON, MSGPACK = "application/json", "application/msgpack"
_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in TYPES.values()}


class Refused(Exception):
    """A request that is not served, with a status of HTTP and headers of the answer."""

    def __init__(self, status: int, words: str, **headers: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def kind_of(content_type: str) -> str:
    """JSON or MSGPACK, of a header's value. Raises Refused(415): pages of other sites send neither without asking."""
    found = content_type.partition(";")[0].strip().lower()
    if found in ("application/x-msgpack", "application/vnd.msgpack"):
        return MSGPACK
    if found not in (JSON, MSGPACK):
        raise Refused(415, f"content-type {found[:60]!r}; allowed: {JSON}, {MSGPACK}")
    return found


def decode(kind: str, body: bytes | str) -> Message:
    """The object in a body. Raises Refused(422), among others for numbers that JSON does not have (NaN, 1e400)."""
    try:
        found = orjson.loads(body) if kind == JSON else msgpack.unpackb(body, object_hook=_array)
    except (ValueError, RecursionError) as error:
        words = str(error) or type(error).__name__
        raise Refused(422, f"the body is no {kind}: {words}; NaN and infinity are not read") from error
    if not isinstance(found, dict):
        raise Refused(422, 'the body is no object; {"obs": ...} is read')
    return found


def encode(kind: str, value: Message) -> bytes:
    """An answer, whose arrays become lists in JSON and bytes in msgpack."""
    if kind == JSON:
        return orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY)
    packed: bytes = msgpack.packb(value, default=_packed)
    return packed


def numbers(value: Any, where: str, gaps: bool = False) -> Any:
    """The same value, as long as it holds numbers alone, or is one text. gaps: null stands for a missing number.

    NumPy makes an array of texts as wide as the longest one for each of them, so lists are looked at before. Raises
    Refused(422).
    """
    if isinstance(value, dict):
        return {name: numbers(each, f"entry {str(name)[:60]!r}", gaps) for name, each in value.items()}
    level = [value] if isinstance(value, list) else []
    for _ in range(DEEPEST + 2):
        found = {kind for each in level for kind in set(map(type, each))}
        if found <= {int, float, bool}:
            return value
        if gaps and found <= {int, float, bool, NoneType}:
            return np.array(value, np.float64)
        if found != {list}:
            break
        level = [inner for each in level for inner in each]
    raise Refused(422, f"{where} is no array of numbers: it mixes or holds something else, or is too deep")


def _array(value: dict[Any, Any]) -> Any:
    """An array that msgpack carries as bytes; any other map as it is."""
    data = value.get("data")
    if value.keys() != {"dtype", "shape", "data"} or not isinstance(data, bytes):
        return value
    dtype, shape = _DTYPES.get(value["dtype"] if isinstance(value["dtype"], str) else ""), value["shape"]
    if dtype is None:
        raise ValueError(f"an array of another dtype than {', '.join(_DTYPES)}")
    whole = isinstance(shape, list) and len(shape) <= DEEPEST
    if not whole or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array whose shape is no list of whole numbers")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _packed(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise TypeError(type(value).__name__)
    data: Array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": data.tobytes()}


def _plain(value: Any) -> Any:
    """What orjson writes no array of: those that are not contiguous."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
