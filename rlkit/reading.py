"""Observations and actions at the edge of a policy: checked, and made rows [lanes, ...] and back.

    Reader           what an environment says -> rows; refuses what training cannot have shown
    Frames           raw frames -> luminance, small
    native_actions   rows -> what an environment takes, for many lanes

NumPy alone is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlkit.spaces import (
    MASK,
    Array,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    choices,
    columns,
    component_starts,
    describe,
    leaves,
    limits_of,
    open_components,
    row_dtype,
    start_of,
    text_row,
    without,
)


class Entry:
    """One leaf of an observation, and all that is asked of it in every call."""

    def __init__(self, name: str, leaf: Space) -> None:
        self.name, self.leaf, self.shape = name, leaf, tuple(getattr(leaf, "shape", ()))
        self.what = f"entry {name}" if name else "observation"
        self.dtype = np.dtype(row_dtype(leaf))
        self.floats, self.mask = self.dtype.kind == "f", name == MASK
        self.flat = isinstance(
            leaf, (MultiDiscrete, MultiBinary)
        )  # the environment's own arrays may be no vectors
        self.limits, self.start = limits_of(leaf), start_of(leaf)


class Reader:
    """Observations as an environment gives them, checked, and made rows [lanes, ...] by the names of `spaces.leaves`.

    labels: leaves that nobody needs to give. gaps: NaN stands for a missing number. remedy: what helps against a wrong
    shape.
    """

    def __init__(
        self,
        observation: Space,
        action: Space,
        labels: Sequence[str] = (),
        *,
        gaps: bool = False,
        remedy: str = "",
    ) -> None:
        self.known, self.space, self.action = observation, without(observation, labels), action
        self.gaps, self.remedy = gaps, remedy
        self.entries = [Entry(name, leaf) for name, leaf in leaves(self.space)]
        self.components = component_starts(action) if choices(action) else None

    def row(self, obs: Any) -> dict[str, Array]:
        """One observation as rows of one lane. Raises ValueError, which says what came, what is read, what helps."""
        return {
            entry.name: self._read(entry, value, entry.shape)[None]
            for entry, value in zip(self.entries, self._values(obs), strict=True)
        }

    def rows(self, obs: Any) -> dict[str, Array]:
        """Observations of several lanes, every entry an array [lanes, ...], as rows. Raises ValueError."""
        values, found = self._values(obs), {}
        lanes = None
        for entry, value in zip(self.entries, values, strict=True):
            size = (
                np.shape(value)[:1]
                if isinstance(value, np.ndarray)
                else (len(value),)
                if _has_length(value)
                else ()
            )
            lanes = size if lanes is None else lanes
            if size != lanes or not size or not size[0]:
                raise ValueError(
                    f"{entry.what} has {f'{size[0]} lanes' if size else 'no axis of lanes'}; a batch of this "
                    f"policy has {lanes[0] if lanes else 'one or more'} of them along the first axis of every entry"
                )
            if isinstance(value, (list, tuple)) and isinstance(value[0], str):
                value = np.stack([self._text(entry.leaf, text) for text in value])
            found[entry.name] = self._read(entry, value, (*lanes, *entry.shape))
        return found

    def is_batch(self, obs: Any) -> bool:
        """Whether an observation has an axis of lanes before its own."""
        entry = self.entries[0]
        value = self._values(obs)[0]
        dims = getattr(entry.leaf, "dims", ())
        return not isinstance(value, str) and np.ndim(value) == 1 + len(dims or entry.shape)

    def _values(self, obs: Any) -> list[Any]:
        if isinstance(self.space, Dict):
            return self._parts(self.space, self.known, obs, "the observation")
        return [obs]

    def _parts(self, space: Space, known: Space, value: Any, where: str) -> list[Any]:
        """The leaves of a value of a Dict space, in the order of `leaves`."""
        if not isinstance(space, Dict):
            return [value]
        names = [name for name, _ in space]
        if isinstance(value, tuple | list):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        elif isinstance(value, Mapping):
            value = {str(name): part for name, part in value.items()}
        else:
            raise ValueError(
                f"{where} is a {type(value).__name__}; this policy reads a {describe(self.space)}"
            )
        for name in names:
            if name not in value:
                raise ValueError(f"{where} has no {name!r}; this policy reads a {describe(self.space)}")
        entries = dict(known) if isinstance(known, Dict) else {}
        strange = [name for name in value if name not in entries]
        if strange:
            raise ValueError(
                f"{where} has an entry {strange[0]!r} that this policy does not know; it reads a "
                f"{describe(self.space)}: leave the entry out"
            )
        return [
            leaf
            for name, sub in space
            for leaf in self._parts(sub, entries[name], value[name], f"entry {name!r} of {where}")
        ]

    def _text(self, leaf: Space, text: str) -> Array:
        if isinstance(leaf, Box) and leaf.meaning == "text":
            return text_row(text, leaf.shape[0])
        raise ValueError(f"the observation is the text {text[:60]!r}; this policy reads a {describe(leaf)}")

    def _read(self, entry: Entry, value: Any, shape: tuple[int, ...]) -> Array:
        """One leaf as an array of `shape`, which nobody else holds."""
        if entry.mask and isinstance(value, tuple | list) and len(shape) == 1:  # one part per component
            value = np.concatenate([np.ravel(part) for part in value])
        if isinstance(value, str):
            value = self._text(entry.leaf, value)
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{entry.what} is no array ({error}); {self._reads(entry)}") from error
        if entry.flat and array.size == np.prod(shape):
            array = array.reshape(shape)
        if array.shape != shape:
            whole = entry.shape if len(shape) == len(entry.shape) else shape
            remedy = f": {self.remedy}" if self.remedy else ""
            raise ValueError(f"{entry.what} has shape {array.shape}; this policy reads shape {whole}{remedy}")
        found = self._floats(entry, array) if entry.floats else self._integers(entry, array)
        if entry.mask:
            self._allowing(found)
        return found

    @staticmethod
    def _reads(entry: Entry) -> str:
        return f"this policy reads a {describe(entry.leaf)}"

    def _floats(self, entry: Entry, array: Array) -> Array:
        if array.dtype == entry.dtype:
            found = array.copy()
        elif array.dtype.kind in "fiub":
            with np.errstate(over="ignore"):
                found = array.astype(entry.dtype)
        else:
            raise ValueError(f"{entry.what} has dtype {array.dtype}; {self._reads(entry)}")
        # one addition tells in nearly all cases
        if not math.isfinite(np.add.reduce(found, axis=None, dtype=np.float64)):
            wrong = np.isinf(found) if self.gaps else ~np.isfinite(found)
            if wrong.any():
                place = [int(i) for i in np.argwhere(wrong)[0]]
                raise ValueError(
                    f"{entry.what} holds {found[wrong][0]} at {place}; this policy reads finite float32 numbers: "
                    "replace it before the policy sees it, with np.nan_to_num(x) for example"
                )
        return found

    def _integers(self, entry: Entry, array: Array) -> Array:
        dtype, start = entry.dtype, entry.start
        if array.dtype.kind not in "iub":
            remedy = "x.astype(np.int64), if they are whole"
            if dtype == np.uint8:
                remedy = "np.round(255 * x).astype(np.uint8) where they lie in [0, 1]"
            raise ValueError(
                f"{entry.what} has dtype {array.dtype}; {self._reads(entry)}, and what is no whole number would be cut "
                f"off: pass {remedy}"
            )
        wide = array if array.dtype == dtype and start is None else array.astype(np.int64)
        wide = wide if start is None else wide - start
        if entry.limits is not None or wide.dtype != dtype:
            low, high = entry.limits or (np.iinfo(dtype).min, np.iinfo(dtype).max)
            wrong = (wide < low) | (wide > high)
            if wrong.any():
                place = int(np.argmax(wrong))
                first = 0 if start is None else start
                bounds = [
                    int(np.broadcast_to(each + first, wide.shape).ravel()[place]) for each in (low, high)
                ]
                raise ValueError(
                    f"{entry.what} holds {array.ravel()[place]}; {self._reads(entry)}: allowed is {bounds[0]} to "
                    f"{bounds[1]}"
                )
        return np.array(wide, dtype)

    def _allowing(self, mask: Array) -> None:
        """Raise ValueError where a mask [..., choices] leaves nothing to choose."""
        if self.components is not None and not open_components(mask, self.components).all():
            raise ValueError(
                f"entry {MASK} allows no choice in one of its components; at least one entry of each must be 1 (a "
                "simulation in which nothing is allowed is over: reset it)"
            )


def _has_length(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def native_actions(space: Space, rows: Array) -> Any:
    """The environment's own actions of rows [lanes, ...]: arrays [lanes, ...], for a Dict a dict (tuple) of them."""
    if isinstance(space, Dict):
        entries, column = {}, 0
        for name, sub in space:
            width = sum(columns(leaf) for _, leaf in leaves(sub))
            entries[name] = native_actions(sub, rows[:, column : column + width])
            column += width
        return tuple(entries.values()) if space.is_tuple else entries
    lanes = len(rows)
    if isinstance(space, Discrete):
        return rows.reshape(lanes).astype(np.int64) + space.start
    if isinstance(space, MultiDiscrete):
        own = rows.astype(np.int64) + np.array(space.start)
        return own.astype(space.dtype).reshape(lanes, *(space.dims or space.shape))
    if isinstance(space, MultiBinary):
        return rows.astype(np.int8).reshape(lanes, *(space.dims or space.shape))
    return rows.astype(space.dtype).reshape(lanes, *space.shape)


class Frames:
    """Raw frames as training saw them: luminance where `gray`, shrunk to `size` x `size` where that is not 0.

    Every output pixel is the mean of what it covers, as cv2.INTER_AREA has it; within 1 of 255 of OpenCV's result.
    """

    def __init__(self, gray: bool, size: int, channels_first: bool) -> None:
        self.gray, self.size, self.first = gray, size, channels_first
        self._weights: dict[int, Array] = {}

    def __call__(self, frame: Any) -> Array:
        """[H, W, C], [C, H, W] or [H, W] uint8, of any size from `size` on. Raises ValueError."""
        image = np.asarray(frame)
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise ValueError(
                f"a frame of dtype {image.dtype} and shape {image.shape}; uint8 frames [H, W] or [H, W, C] are prepared"
            )
        if self.first and image.ndim == 3:
            image = np.moveaxis(image, 0, -1)
        if self.gray and image.ndim == 3:
            if image.shape[2] != 3:
                raise ValueError(
                    f"a frame of shape {image.shape}; prepare turns RGB frames [H, W, 3] into luminance"
                )
            image = np.floor(image @ np.array([0.299, 0.587, 0.114], np.float32) + 0.5).astype(np.uint8)
        if self.size and image.shape[:2] != (self.size, self.size):
            if min(image.shape[:2]) < self.size:
                raise ValueError(
                    f"a frame of {image.shape[0]} x {image.shape[1]} pixels; prepare shrinks to {self.size} x "
                    f"{self.size}: give one that is at least as large"
                )
            down, across = (self._shares(length) for length in image.shape[:2])
            x = np.tensordot(down, image.astype(np.float32), (1, 0))  # [size, W, ...]
            x = np.moveaxis(np.tensordot(across, x, (1, 1)), 0, 1)  # [size, size, ...]
            image = np.floor(x + 0.5).clip(0, 255).astype(np.uint8)
        return np.moveaxis(image, -1, 0) if self.first and image.ndim == 3 else image

    def _shares(self, length: int) -> Array:
        """[size, length]: which share of every output pixel each input pixel has."""
        if length not in self._weights:
            edges = np.arange(self.size + 1) * (length / self.size)
            left, right = np.arange(length), np.arange(1, length + 1)
            overlap = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
            self._weights[length] = (overlap.clip(0) * (self.size / length)).astype(np.float32)
        return self._weights[length]


def frames_of(observation: Space, preprocessing: Mapping[str, Any]) -> Frames:
    """What prepares raw frames for a policy of `observation`; preprocessing: with gray and size, of env.*."""
    first = (
        isinstance(observation, Box) and len(observation.shape) == 3 and observation.channel_axis == "first"
    )
    return Frames(bool(preprocessing.get("gray")), int(preprocessing.get("size") or 0), first)
