"""Action rows and the actions that environments expect.

A row is what `rlkit.spaces.action_row` says: a leaf's own numbers counted from 0, or for Dict and Tuple spaces
one float32 vector of all their leaves. NumPy, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import GymSpace, Value
from rlkit.spaces import Array, Discrete, MultiDiscrete, Space, columns, leaves


def unpack(space: GymSpace, rows: Array) -> list[Value]:
    """Rows [n, ...] as n actions of a Gymnasium space: ints for Discrete, else arrays of its dtype and shape."""
    if not len(rows):
        return []
    if isinstance(space, spaces.Dict):
        parts = [unpack(sub, piece) for sub, piece in _split(space.spaces.values(), rows)]
        return [dict(zip(space.spaces, values, strict=True)) for values in zip(*parts, strict=True)]
    if isinstance(space, spaces.Tuple):
        return list(zip(*(unpack(sub, piece) for sub, piece in _split(space.spaces, rows)), strict=True))
    if isinstance(space, spaces.Discrete):
        numbers: list[int] = rows.reshape(-1).astype(np.int64, copy=False).tolist()
        return [number + int(space.start) for number in numbers] if space.start else numbers
    values = np.array(rows, dtype=space.dtype)  # a copy: an environment may keep its action
    if isinstance(space, spaces.MultiDiscrete):
        values += _start(space).astype(space.dtype)
    values = values.reshape(len(values), *(space.shape or ()))
    return list(values) if space.shape else [np.array(value) for value in values]


def unpack_batch(space: GymSpace, batch: GymSpace, rows: Array) -> Value:
    """Rows [n, ...] as one action of a vector environment: `batch` is its space, `space` that of a lane."""
    if isinstance(space, spaces.Dict):
        assert isinstance(batch, spaces.Dict), "a batch of a space has its structure"
        named = zip(space.spaces, _split(space.spaces.values(), rows), strict=True)
        return {key: unpack_batch(sub, batch.spaces[key], piece) for key, (sub, piece) in named}
    if isinstance(space, spaces.Tuple):
        assert isinstance(batch, spaces.Tuple), "a batch of a space has its structure"
        pieces = zip(_split(space.spaces, rows), batch.spaces, strict=True)
        return tuple(unpack_batch(sub, whole, piece) for (sub, piece), whole in pieces)
    values = np.asarray(rows + _start(space), batch.dtype)
    return values.reshape(batch.shape or values.shape)


def pack(space: GymSpace, action: Value) -> Array:
    """The row of one action of a Gymnasium space, as a flat vector; inverse of `unpack`."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([pack(sub, action[key]) for key, sub in space.spaces.items()]).astype(
            np.float32
        )
    if isinstance(space, spaces.Tuple):
        parts = [pack(sub, part) for sub, part in zip(space.spaces, action, strict=True)]
        return np.concatenate(parts).astype(np.float32)
    row: Array = np.ravel(action) - _start(space)
    return row


def allow(space: Space, row: Array, mask: Array, generator: np.random.Generator) -> None:
    """Replace the choices of a flat row that a mask [choices] forbids by allowed ones, drawn evenly."""
    column = entry = 0
    for _, leaf in leaves(space):
        counts = (
            (leaf.n,) if isinstance(leaf, Discrete) else leaf.nvec if isinstance(leaf, MultiDiscrete) else ()
        )
        for i, n in enumerate(counts):
            allowed = np.flatnonzero(mask[entry : entry + n])
            if len(allowed) and int(row[column + i]) not in allowed:
                row[column + i] = generator.choice(allowed)
            entry += n
        column += columns(leaf)


def _start(space: GymSpace) -> Array:
    """What the environment's choices count from: [components]."""
    start: Array = np.ravel(getattr(space, "start", 0))
    return start


def _split(parts: Iterable[GymSpace], rows: Array) -> list[tuple[GymSpace, Array]]:
    """(part, its columns [n, k] of rows [n, K]) of every part of a composite space."""
    pieces, column = [], 0
    for part in parts:
        width = _width(part)
        pieces.append((part, rows[:, column : column + width]))
        column += width
    return pieces


def _width(space: GymSpace) -> int:
    """Numbers of one action."""
    if isinstance(space, spaces.Dict):
        return sum(map(_width, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return sum(map(_width, space.spaces))
    return int(np.prod(space.shape or ()))
