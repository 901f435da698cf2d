"""Spaces as plain values: what an observation or an action looks like, without Gymnasium and without torch.

A policy folder stores its spaces as JSON, so an agent is rebuilt without its environment. Worker processes import
this module, so it depends on NumPy alone.

Rows (one per lane) have the dtypes given by `row_dtype`: pixels stay uint8, every float becomes float32, Discrete and
MultiDiscrete are int64 counted from 0 (an offset `start` is added at the environment's edge), MultiBinary is int8.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.images import likely_channels

Array: TypeAlias = npt.NDArray[Any]
Bound: TypeAlias = float | npt.NDArray[np.float64]

HUGE = 1e18  # the square of a larger number is more than float32 holds
MASK = "action_mask"  # the entry of a Dict observation that says which choices are allowed


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of `shape` with `low <= x <= high`; bounds are one number or an array of `shape`; +-inf is unbounded.

    So are bounds of floats from HUGE on: many environments write the largest float where they mean none.
    """

    shape: tuple[int, ...]
    dtype: str  # of the environment: "uint8", "float32", "float64", ...
    low: Bound = -math.inf
    high: Bound = math.inf
    channels: str = ""  # "first" or "last" where an image's axis of channels was said; see `channel_axis`
    meaning: str = (
        ""  # of uint8 numbers that are no brightness: "codes" (of kinds of things), "text" (UTF-8, then 0)
    )

    def __post_init__(self) -> None:
        if row_dtype(self) == "float32":
            for name in ("low", "high"):
                bound = getattr(self, name)
                open_ = np.where(np.abs(bound) >= HUGE, np.copysign(np.inf, bound), bound)
                object.__setattr__(self, name, open_ if open_.ndim else float(open_))

    @property
    def channel_axis(self) -> str:
        """Which axis of an array of rank 3 is channels, "first" or "last"; "" where that cannot be told."""
        return self.channels or (likely_channels(self.shape) if len(self.shape) == 3 else "")

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def image(self) -> bool:
        """uint8 of rank 2 (H, W) or 3 (H, W, C) or (C, H, W), codes too: goes through a convolutional encoder."""
        return self.dtype == "uint8" and len(self.shape) in (2, 3)


@dataclass(frozen=True)
class Discrete:
    """One of n choices."""

    n: int
    start: int = 0

    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class MultiDiscrete:
    """len(nvec) independent choices."""

    nvec: tuple[int, ...]
    start: tuple[int, ...]
    dims: tuple[int, ...] = ()  # of the environment's own arrays, where these are no vectors
    dtype: str = "int64"  # of the environment's own arrays

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)


@dataclass(frozen=True)
class MultiBinary:
    """n bits."""

    n: int
    dims: tuple[int, ...] = ()  # of the environment's own arrays, where these are no vectors

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)


@dataclass(frozen=True)
class Dict:
    """Named entries, in the order of the environment. A Gymnasium Tuple becomes entries "0", "1", ..."""

    entries: tuple[tuple[str, Space], ...]
    is_tuple: bool = False  # the environment's own values are tuples

    def __getitem__(self, name: str) -> Space:
        return dict(self.entries)[name]

    def __iter__(self) -> Iterator[tuple[str, Space]]:
        return iter(self.entries)


Space: TypeAlias = Box | Discrete | MultiDiscrete | MultiBinary | Dict


def leaves(space: Space, prefix: str = "") -> list[tuple[str, Box | Discrete | MultiDiscrete | MultiBinary]]:
    """(dotted name, leaf space) of every leaf; a space that is no Dict is one leaf named ""."""
    if isinstance(space, Dict):
        return [leaf for name, sub in space for leaf in leaves(sub, f"{prefix}.{name}" if prefix else name)]
    return [(prefix, space)]


def kinds(space: Space) -> set[str]:
    """What an agent must handle to act in a space: the kinds of its leaves, and "Dict" if it is composite.

    Whole numbers in a Box are a kind of their own, "integer Box": no policy chooses them.
    """
    found = {
        "integer Box" if isinstance(leaf, Box) and row_dtype(leaf) != "float32" else type(leaf).__name__
        for _, leaf in leaves(space)
    }
    return found | ({"Dict"} if isinstance(space, Dict) else set())


def describe(space: Space) -> str:
    """A space in words: "Dict(steer: Box(1,) of float32 in [-1, 1], gear: Discrete(3))"."""
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, MultiDiscrete):
        return f"MultiDiscrete({', '.join(map(str, space.nvec))})"
    if isinstance(space, MultiBinary):
        return f"MultiBinary({space.n})"
    if isinstance(space, Dict):
        return f"Dict({', '.join(f'{name}: {describe(sub)}' for name, sub in space)})"
    same = isinstance(space.low, float) and isinstance(space.high, float)
    limits = f" in [{space.low:g}, {space.high:g}]" if same and space.bounded else ""
    return f"Box{space.shape} of {space.dtype}{limits}{space.meaning and f' ({space.meaning})'}"


def row_dtype(space: Space) -> str:
    """NumPy dtype name of one row of a leaf space."""
    if isinstance(space, Box):
        return space.dtype if space.dtype in ("uint8", "int8", "int16", "int32", "int64") else "float32"
    if isinstance(space, MultiBinary):
        return "int8"
    assert not isinstance(space, Dict), "row_dtype takes leaf spaces"
    return "int64"


def limits_of(leaf: Space) -> tuple[Array, Array] | None:
    """(low, high) of rows in their own dtype; None where no value can lie outside."""
    if isinstance(leaf, Discrete):
        return np.array(0), np.array(leaf.n - 1)
    if isinstance(leaf, MultiDiscrete):
        return np.zeros(leaf.shape, np.int64), np.array(leaf.nvec) - 1
    if isinstance(leaf, MultiBinary):
        return np.array(0, np.int8), np.array(1, np.int8)
    assert isinstance(leaf, Box), "leaves are Box, Discrete, MultiDiscrete or MultiBinary"
    dtype = np.dtype(row_dtype(leaf))
    if dtype.kind == "f":
        largest = np.finfo(np.float32).max
        # Rounding is monotone: what lies within the float64 bounds lies within their float32 roundings.
        with np.errstate(over="ignore"):
            low, high = np.asarray(leaf.low, np.float32), np.asarray(leaf.high, np.float32)
        return np.clip(low, -largest, largest), np.clip(high, -largest, largest)
    info = np.iinfo(dtype)
    low, high = np.clip(leaf.low, info.min, info.max), np.clip(leaf.high, info.min, info.max)
    if np.all(low == info.min) and np.all(high == info.max):
        return None
    return np.asarray(low, np.int64), np.asarray(high, np.int64)


def action_row(space: Space) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of one action row: the leaf's own, or for a Dict all numbers of its leaves in one float32 vector.

    There a Discrete takes one column, a MultiDiscrete and a MultiBinary one per component, a Box one per number.
    """
    if isinstance(space, Dict):
        return (sum(columns(leaf) for _, leaf in leaves(space)),), "float32"
    return space.shape, row_dtype(space)


def columns(leaf: Space) -> int:
    """Numbers of one row of a leaf space."""
    assert not isinstance(leaf, Dict), "columns takes leaf spaces"
    return math.prod(leaf.shape)


def start_of(leaf: Space) -> npt.NDArray[np.int64] | None:
    """What the environment's choices of a leaf space count from, in the shape of a row; None where that is 0."""
    start = np.array(leaf.start if isinstance(leaf, Discrete | MultiDiscrete) else 0, np.int64)
    return start if start.any() else None


def to_rows(values: Array, shape: tuple[int, ...], start: npt.NDArray[np.int64] | None) -> Array:
    """An environment's values of a leaf space as rows of `shape`, counted from 0; start: its `start_of`.

    shape: that of a row for one value, [N, ...] for those of N lanes.
    """
    rows = values.reshape(shape)
    return rows if start is None else rows - start


def text_row(text: str, size: int) -> Array:
    """A text as [size] uint8: UTF-8, then zeros. Raises ValueError where it is longer."""
    data = text.encode()
    if len(data) > size:
        raise ValueError(too_long(text, len(data), size))
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8)


def too_long(text: str, length: int, size: int) -> str:
    """What to say of a text of more bytes than its row."""
    return f"the text {text[:60]!r} has {length} bytes; the agent sees {size}"


def choice_counts(space: Space) -> list[int]:
    """How many choices each component has: every Discrete and every component of a MultiDiscrete, side by side."""
    counts: list[int] = []
    for _, leaf in leaves(space):
        if isinstance(leaf, Discrete | MultiDiscrete):
            counts += [leaf.n] if isinstance(leaf, Discrete) else leaf.nvec
    return counts


def choices(space: Space) -> int:
    """Entries of an action mask: one per choice of every component."""
    return sum(choice_counts(space))


def component_starts(space: Space) -> Array:
    """[components] where the choices of each begin in a mask."""
    return np.cumsum([0, *choice_counts(space)[:-1]])


def open_components(mask: Array, starts: Array) -> npt.NDArray[np.bool_]:
    """mask [..., choices] -> [..., components]: whether it allows anything there; starts: `component_starts`."""
    allowed: npt.NDArray[np.bool_] = np.logical_or.reduceat(mask != 0, starts, axis=-1)
    return allowed


def check_mask(observation: Space, action: Space) -> None:
    """Raise ValueError where an observation's entry MASK cannot mask the action space."""
    entry = dict(observation).get(MASK) if isinstance(observation, Dict) else None
    if entry is None:
        return
    size = choices(action)
    if not isinstance(entry, Box | MultiBinary) or not size or entry.shape != (size,):
        allowed = (
            f"a MultiBinary({size}) or Box({size},) of 0 and 1, or another name" if size else "another name"
        )
        raise ValueError(
            f"its observations' entry {MASK} is {describe(entry)}, and its action space {describe(action)} "
            f"has {size or 'no'} choices; allowed: {allowed}"
        )


def native_action(space: Space, row: Array) -> Any:
    """The environment's own action of a row in its units: starts added, a Dict's (or Tuple's) structure restored."""
    if isinstance(space, Dict):
        entries, column = {}, 0
        for name, sub in space:
            width = sum(columns(leaf) for _, leaf in leaves(sub))
            entries[name] = native_action(sub, row[column : column + width])
            column += width
        return tuple(entries.values()) if space.is_tuple else entries
    if isinstance(space, Discrete):
        return int(row.item()) + space.start
    if isinstance(space, MultiDiscrete):
        own = row.astype(np.int64) + np.array(space.start)
        return own.astype(space.dtype).reshape(space.dims or space.shape)
    if isinstance(space, MultiBinary):
        return row.astype(np.int8).reshape(space.dims or space.shape)
    return row.astype(space.dtype).reshape(space.shape)


def from_gymnasium(space: Any, channels: str = "auto", what: str = "") -> Space:
    """The rlkit space of a Gymnasium space (found by class name: this module imports no Gymnasium).

    channels: which axis of its images is channels, first or last; auto: as `likely_channels` finds. what: whose space
    it is, for errors: "observation". An attribute `meaning` of a Box of bytes becomes that of ours; bits in a Box are
    the bytes 0 and 1. Raises ValueError for spaces that no network reads (Graph, Sequence, OneOf; Text, of which
    rlkit.envs.wrappers.entries makes bytes) and for those without a number in them, which names the entry.
    """
    kind = type(space).__name__
    place = f"{what}: " if what else ""
    if kind in ("Box", "MultiDiscrete", "MultiBinary") and 0 in space.shape:
        raise ValueError(
            f"{place}a {kind} of shape {tuple(space.shape)} holds no number; leave it out, or give it one that is "
            "always 0"
        )
    if kind == "Box":
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        shape = tuple(int(n) for n in space.shape)
        said = channels if channels != "auto" and len(shape) == 3 else ""
        dtype = "uint8" if str(space.dtype) == "bool" else str(space.dtype)
        return Box(shape, dtype, uniform(low), uniform(high), said, getattr(space, "meaning", ""))
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "MultiDiscrete":
        start = getattr(space, "start", np.zeros_like(space.nvec))
        nvec = tuple(int(n) for n in np.ravel(space.nvec))
        return MultiDiscrete(nvec, tuple(int(n) for n in np.ravel(start)), _dims(space), str(space.dtype))
    if kind == "MultiBinary":
        return MultiBinary(int(np.prod(space.shape)), _dims(space))
    if kind == "Dict":
        return _named(
            tuple(
                (str(name), from_gymnasium(sub, channels, _entry(what, name)))
                for name, sub in space.spaces.items()
            )
        )
    if kind == "Tuple":
        return Dict(
            tuple(
                (str(i), from_gymnasium(sub, channels, _entry(what, i))) for i, sub in enumerate(space.spaces)
            ),
            True,
        )
    raise ValueError(
        f"{place}space {kind} is not supported; allowed: Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple; "
        "leave it out or convert it in a wrapper of gymnasium.wrappers"
    )


def _entry(what: str, name: object) -> str:
    """The name of an entry of a space, for errors: "observation entry 'camera'", "... entry 'camera' entry 0"."""
    return f"{what} entry {name!r}".strip()


def _named(entries: tuple[tuple[str, Space], ...]) -> Dict:
    """A Dict whose leaves have names of their own. Raises ValueError."""
    found = Dict(entries)
    names = [name for name, _ in leaves(found)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two entries of a Dict space have the dotted name {twice!r} (a key with a dot in it, or an empty one, "
            "beside a Dict); rename one of them"
        )
    return found


def leaf_values(space: Space, value: Any) -> list[Any]:
    """The parts of a value of a space (dicts and tuples, as its environment has them), in the order of `leaves`."""
    if not isinstance(space, Dict):
        return [value]
    if not isinstance(value, tuple | list):
        value = {str(key): part for key, part in value.items()}
    parts = (value[i if isinstance(value, tuple | list) else name] for i, (name, _) in enumerate(space))
    return [leaf for (_, sub), part in zip(space, parts, strict=True) for leaf in leaf_values(sub, part)]


def without(space: Space, names: Collection[str], path: str = "") -> Space:
    """A space without these leaves, by their names in `leaves`, and without groups of entries of which none is left."""
    if not names or not isinstance(space, Dict):
        return space
    entries = []
    for name, sub in space:
        whole = f"{path}.{name}" if path else name
        inner = without(sub, names, whole)
        if whole not in names and not (isinstance(inner, Dict) and not tuple(inner)):
            entries.append((name, inner))
    return Dict(tuple(entries), space.is_tuple)


def _dims(space: Any) -> tuple[int, ...]:
    """The shape of a Gymnasium space whose values are no vectors, else ()."""
    return tuple(int(n) for n in space.shape) if len(space.shape) != 1 else ()


def uniform(bound: npt.NDArray[np.float64]) -> Bound:
    """One number where all entries are equal (images: 0 and 255), else the array."""
    first = float(bound.flat[0]) if bound.size else 0.0
    return first if bool(np.all(bound == first)) else bound
