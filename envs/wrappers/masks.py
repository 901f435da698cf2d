"""Action masks: info["action_mask"], from reset and every step, as an entry of the observation.

The entry `action_mask` is a row of 0 and 1 with one number per choice: n for Discrete(n), sum(nvec) for
MultiDiscrete(nvec), and for Dict and Tuple actions those of all their choices side by side. The agent's policy reads it
there; an environment whose own observation has such an entry needs no wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import Env, GymSpace, Info, Opening, Step, Value, Wrapper
from rlkit.envs.backends.interface import own
from rlkit.envs.backends.watchdog import Guard, Hang
from rlkit.spaces import (
    MASK,
    Array,
    Dict,
    Space,
    choice_counts,
    choices,
    component_starts,
    describe,
    from_gymnasium,
    open_components,
)

BESIDE = "observation"  # the entry that holds an observation that was no Dict


class Masks:
    """Reads the masks of one action space. Raises ValueError for a space without choices."""

    def __init__(self, action: Space) -> None:
        self.action, self.size = action, choices(action)
        if not self.size:
            raise ValueError(
                f"env.action_mask=info: masks forbid choices, but the actions are {describe(action)}; "
                "type env.action_mask=none"
            )
        self.counts, self.starts = np.array(choice_counts(action)), component_starts(action)

    def read(self, info: Mapping[str, Value], ended: bool) -> Array:
        """The row [size] int8 of an info. Raises ValueError where it is missing or wrong.

        At an ending, where no action follows, a missing mask is full, and so are components that allow nothing.
        """
        if MASK not in info:
            if ended:
                return np.ones(self.size, np.int8)
            raise ValueError(
                f"no {MASK} in this info: reset and every step must give one, or type env.action_mask=none"
            )
        flat = np.asarray(_flatten(self.action, info[MASK]))
        if flat.shape != (self.size,):
            raise ValueError(
                f"info['{MASK}'] has {flat.size} entries; {describe(self.action)} has {self.size} choices"
            )
        mask: Array = (flat != 0).astype(np.int8)
        open_ = open_components(mask, self.starts)
        if not open_.all():
            if not ended:
                raise ValueError(f"info['{MASK}'] allows nothing in component {int(np.argmin(open_))}")
            mask |= np.repeat(~open_, self.counts).astype(np.int8)
        return mask


def _flatten(space: Space, mask: Value) -> Array:
    """A mask as one vector: an array, a part per component or per entry, or a mapping of those by name."""
    if isinstance(space, Dict) and isinstance(mask, Mapping | tuple | list):
        parts = mask.values() if isinstance(mask, Mapping) else mask
        keys = map(str, mask) if isinstance(mask, Mapping) else dict(space.entries)
        named = dict(zip(keys, parts, strict=True))
        return np.concatenate([_flatten(sub, named[name]) for name, sub in space if choices(sub)])
    if isinstance(mask, tuple | list):
        return np.concatenate([np.ravel(part) for part in mask])
    return np.ravel(mask)


def with_mask(observation: GymSpace, size: int) -> spaces.Dict:
    """The Gymnasium observation space with the entry. Raises ValueError where it has one."""
    entries = dict(observation.spaces) if isinstance(observation, spaces.Dict) else {BESIDE: observation}
    if MASK in entries:
        raise ValueError(
            f"env.action_mask=info: observations have an entry {MASK}; type env.action_mask=none"
        )
    return spaces.Dict({**entries, MASK: spaces.MultiBinary(size)})


def add_mask(obs: Value, mask: Array, nested: bool) -> dict[str, Value]:
    """The observation with its mask; nested: it is a Dict's."""
    return {**obs, MASK: mask} if nested else {BESIDE: obs, MASK: mask}


class ActionMask(Wrapper):
    """Puts info["action_mask"] into the observation."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.masks = Masks(from_gymnasium(env.action_space))
        self.nested = isinstance(env.observation_space, spaces.Dict)
        self.observation_space = with_mask(env.observation_space, self.masks.size)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        obs, info = self.env.reset(seed=seed, options=options)
        return add_mask(obs, self.masks.read(info, False), self.nested), info

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        mask = self.masks.read(info, bool(terminated or truncated))
        return add_mask(obs, mask, self.nested), reward, terminated, truncated, info


def gives_mask(env: Env, deadline: float) -> bool:
    """Whether an environment's reset says which actions are allowed; one that fails there fails again later."""
    space = env.observation_space
    if not choices(from_gymnasium(env.action_space)) or (
        isinstance(space, spaces.Dict) and MASK in space.spaces
    ):
        return False
    guard = Guard(deadline, lambda stack: TimeoutError(f"reset took more than {deadline:g} s\n{stack}"))
    guard.begin()
    try:
        _, info = env.reset(seed=0)
        return MASK in info
    except BaseException as error:
        if isinstance(error, Hang) or own(error):
            return False
        raise
    finally:
        guard.close()
