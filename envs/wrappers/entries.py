"""What the agent sees of an observation: which entries, what their numbers mean, and texts as bytes.

    env.keep=[0, 2]                 the entries of a vector; the agent has to remember the rest
    env.keep=[image, direction]     the entries of a Dict
    env.drop=[mission]              all entries of a Dict but these
    env.codes=[image]               uint8 numbers that name kinds of things: no brightness, no order
    env.text=96                     texts as rows of so many bytes: UTF-8, then zeros

`shown` gives the space that is left, for the backends whose observations need no more than that; `Entries` wraps one
environment. An entry inside an entry has a dotted name, and a whole observation that is no Dict is "observation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import Core, Env, GymSpace, Value
from rlkit.envs.backends.interface import Misuse
from rlkit.envs.config import EnvConfig
from rlkit.envs.wrappers.masks import BESIDE
from rlkit.options import nearest
from rlkit.spaces import Array, text_row

Convert = Callable[[Value], Value]


class Entries(gymnasium.ObservationWrapper[Value, Value, Value]):
    """An environment of which the agent sees what `config` says. Raises ValueError as `shown`."""

    def __init__(self, env: Env, config: EnvConfig) -> None:
        super().__init__(env)
        self.observation_space = shown(env.observation_space, config)
        if isinstance(self.observation_space, spaces.Dict) or not config.keep:
            self.convert = _converter(env.observation_space, self.observation_space)
        else:
            kept = np.array(config.keep)
            self.convert = lambda observation: observation[kept]

    def observation(self, observation: Value) -> Value:
        """An observation as `observation_space` has it. Raises Misuse for a text that is too long."""
        return self.convert(observation)


def changes(space: GymSpace, config: EnvConfig) -> bool:
    """Whether the agent sees anything else than what the environment shows."""
    return bool(config.keep or config.drop or config.codes) or any(is_text(part) for _, part in parts(space))


def shown(space: GymSpace, config: EnvConfig, texts: tuple[str, ...] = ()) -> GymSpace:
    """The observation space that the agent sees of `space`.

    texts: the entries of uint8 that hold texts already. Raises ValueError for entries that are not there, or that
    cannot be what is said of them.
    """
    nested = isinstance(space, spaces.Dict)
    if config.keep and not nested:
        return _entries(space, config)
    named = dict(parts(space))
    for option in ("keep", "drop", "codes"):
        for entry in getattr(config, option):
            groups = {name[:i] for name in named for i in range(len(name)) if name[i] == "."} | named.keys()
            if str(entry) not in groups:
                what = f"env.{option}={list(getattr(config, option))}: observations have no entry {entry}"
                raise ValueError(f"{what}; {nearest(str(entry), sorted(groups))}")
    left = _rebuilt(space, config, "", texts)
    if left is None:
        raise ValueError(
            f"env.keep={list(config.keep)} env.drop={list(config.drop)}: nothing of the observation is left; it has "
            f"{', '.join(named)}"
        )
    return left


def parts(space: GymSpace, prefix: str = "") -> Iterator[tuple[str, GymSpace]]:
    """(dotted name, leaf) of every leaf of an observation space; one that is no Dict or Tuple is "observation"."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, sub in _inner(space):
            yield from parts(sub, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix or BESIDE, space


def text_space(size: int) -> GymSpace:
    """Rows of bytes that hold texts."""
    return _meaning(spaces.Box(0, 255, (size,), np.uint8), "text")


def is_text(space: GymSpace) -> bool:
    """Whether the values of a space are texts (`Text`, and MiniGrid's own)."""
    return space.dtype is not None and np.dtype(space.dtype).kind == "U"


def _entries(space: GymSpace, config: EnvConfig) -> spaces.Box:
    """A vector's entries, in the given order."""
    keep = [entry for entry in config.keep if isinstance(entry, int)]
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or len(keep) < len(config.keep):
        raise ValueError(
            f"env.keep={list(config.keep)}: observations are {space}; allowed: the names of entries of a Dict, the "
            "numbers of those of a Box of one axis; type env.keep=[]"
        )
    size = space.shape[0]
    if len(set(keep)) < len(keep) or not all(0 <= entry < size for entry in keep):
        raise ValueError(
            f"env.keep={keep}: the observation has {size} entries; allowed: different numbers from 0 to {size - 1}"
        )
    kind: Core = space.dtype
    return spaces.Box(space.low[keep], space.high[keep], dtype=kind)


def _inner(space: spaces.Dict | spaces.Tuple) -> list[tuple[str | int, GymSpace]]:
    return list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))


def _rebuilt(space: GymSpace, config: EnvConfig, name: str, texts: tuple[str, ...]) -> GymSpace | None:
    """What the agent sees of the part `name`; None where it sees nothing of it."""
    keep = {str(entry) for entry in config.keep}
    if name in config.drop or (
        name and keep and not any(_within(name, each) or _within(each, name) for each in keep)
    ):
        return None
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = {
            key: _rebuilt(sub, config, f"{name}.{key}" if name else str(key), texts)
            for key, sub in _inner(space)
        }
        left = {key: sub for key, sub in inner.items() if sub is not None}
        if not left:
            return None
        if isinstance(space, spaces.Dict):
            return spaces.Dict([(str(key), sub) for key, sub in left.items()])  # in their order
        if len(left) < len(inner):
            raise ValueError(
                f"env.drop={list(config.drop)}: a part of a Tuple cannot be left out; allowed: all of it"
            )
        return spaces.Tuple(left.values())
    if is_text(space):
        return text_space(config.text)
    if (name or BESIDE) in texts:
        return _meaning(space, "text")
    if (name or BESIDE) in config.codes:
        if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
            raise ValueError(
                f"env.codes={list(config.codes)}: {name or 'the observation'} is {space}; allowed: uint8 boxes "
                "[height, width, codes of a cell]"
            )
        return _meaning(space, "codes")
    return space


def _meaning(space: GymSpace, meaning: str) -> GymSpace:
    """A copy of a box with the attribute that `from_gymnasium` reads."""
    box: Core = space
    marked: Core = spaces.Box(box.low, box.high, dtype=box.dtype)
    marked.meaning = meaning
    return marked  # type: ignore[no-any-return]


def _within(name: str, group: str) -> bool:
    """Whether a dotted name is a group's, or of an entry inside it."""
    return name == group or name.startswith(f"{group}.")


def _text(value: Value, size: int, name: str) -> Array:
    """A text as the row that the agent sees. Raises Misuse."""
    if not isinstance(value, str):
        raise Misuse("interface", name, f"{value!r} ({type(value).__name__}) is no text, as its space says")
    try:
        return text_row(value, size)
    except ValueError as error:
        raise Misuse("text", name, str(error)) from error


def _converter(space: GymSpace, left: GymSpace, name: str = "") -> Convert:
    """From a value of `space` to one of the space that is left of it."""
    if is_text(space):
        size = int(left.shape[0])  # type: ignore[index]
        return lambda value: _text(value, size, name or BESIDE)
    if isinstance(space, spaces.Dict) and isinstance(left, spaces.Dict):
        # Gymnasium's own key may be no text; that of what is left is
        inner = [
            (key, str(key), _converter(sub, left.spaces[str(key)], f"{name}.{key}" if name else str(key)))
            for key, sub in space.spaces.items()
            if str(key) in left.spaces
        ]
        return lambda value: {entry: convert(value[key]) for key, entry, convert in inner}
    if isinstance(space, spaces.Tuple) and isinstance(left, spaces.Tuple):
        each = [
            _converter(*both, f"{name}.{i}" if name else str(i))
            for i, both in enumerate(zip(space.spaces, left.spaces, strict=True))
        ]
        return lambda value: tuple(convert(part) for convert, part in zip(each, value, strict=True))
    return lambda value: value
