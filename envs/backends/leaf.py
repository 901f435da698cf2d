"""The leaves of Gymnasium's observations, and the rows that hold them. NumPy, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import GymSpace, Value
from rlkit.spaces import Array, Space, from_gymnasium, leaves, start_of, to_rows

Keys: TypeAlias = tuple[str | int, ...]  # the way to a leaf through dicts and tuples


class Leaf:
    """One leaf of an observation and the rows that hold it."""

    def __init__(self, name: str, keys: Keys, space: GymSpace, leaf: Space, rows: Array) -> None:
        self.name, self.keys, self.rows, self.start = name or "obs", keys, rows, start_of(leaf)
        self.shape = tuple(space.shape or ())
        self.dtype = np.dtype(space.dtype)
        self.choice = isinstance(space, spaces.Discrete)  # may come as a Python int: any integer type will do

    def of(self, obs: Value) -> Value:
        """This leaf of an observation, or of a batch of them."""
        for key in self.keys:
            obs = obs[key]
        return obs

    def write(self, lanes: int | slice | Array, values: Array) -> None:
        """Write the leaf's values into the rows of `lanes`: of one lane its value, of several a batch."""
        self.rows[lanes] = to_rows(values, self.rows[lanes].shape, self.start)

    def put(self, index: int, obs: Value, strict: bool) -> tuple[str, str] | None:
        """Write this leaf of `obs` into its row; (kind, detail) of a fault if shape or dtype are wrong."""
        obs = self.of(obs)
        array = obs if isinstance(obs, np.ndarray) else np.asarray(obs)
        if array.shape != self.shape:
            return "shape", f"shape {array.shape}, its space says {self.shape}"
        if strict:
            given = (
                array.dtype
                if self.choice or isinstance(obs, (np.ndarray, np.generic))
                else type(obs).__name__
            )
            if (array.dtype.kind not in "iu") if self.choice else given != self.dtype:
                return "dtype", f"dtype {given}, its space says {self.dtype}"
        self.rows[index] = to_rows(array, self.rows.shape[1:], self.start)
        return None


def observation_leaves(space: GymSpace, rows: dict[str, Array]) -> list[Leaf]:
    """A Leaf for every leaf of a Gymnasium observation space, in the order of `rlkit.spaces.leaves`."""

    def walk(part: GymSpace, keys: Keys) -> Iterator[tuple[Keys, GymSpace]]:
        if isinstance(part, spaces.Dict):
            for key, sub in part.spaces.items():
                yield from walk(sub, (*keys, key))
        elif isinstance(part, spaces.Tuple):
            for i, sub in enumerate(part.spaces):
                yield from walk(sub, (*keys, i))
        else:
            yield keys, part

    found = zip(leaves(from_gymnasium(space)), walk(space, ()), strict=True)
    return [Leaf(name, keys, part, leaf, rows[name]) for (name, leaf), (keys, part) in found]
