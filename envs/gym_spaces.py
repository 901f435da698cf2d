"""Gymnasium's spaces of ours. No torch: worker processes import this."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import GymSpace
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, Space, row_dtype


def gym_space(space: Space) -> GymSpace:
    """The Gymnasium space of what rows of `space` hold."""
    if isinstance(space, Dict):
        parts = {name: gym_space(sub) for name, sub in space}
        return spaces.Tuple(tuple(parts.values())) if space.is_tuple else spaces.Dict(parts)
    if isinstance(space, Discrete):
        return spaces.Discrete(space.n)
    if isinstance(space, MultiBinary):
        return spaces.MultiBinary(space.n)
    if isinstance(space, Box):
        dtype: Any = np.dtype(row_dtype(space))
        low, high = (np.broadcast_to(bound, space.shape).astype(dtype) for bound in (space.low, space.high))
        box: Any = spaces.Box(low, high, space.shape, dtype)
        box.meaning = space.meaning  # as `spaces.from_gymnasium` reads it
        return box  # type: ignore[no-any-return]
    return spaces.MultiDiscrete(np.array(space.nvec))
