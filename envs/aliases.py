"""Types of Gymnasium's that say too little, or whose parameters nobody here reads, under one name each."""

from __future__ import annotations

from typing import Any, SupportsFloat, TypeAlias

import gymnasium
from gymnasium.vector import VectorEnv

Value: TypeAlias = Any  # an observation or an action: arrays, numbers, dicts and tuples of them
Core: TypeAlias = Any  # an environment of another package, whose attributes no type declares
Info: TypeAlias = dict[str, Any]
Env: TypeAlias = gymnasium.Env[Value, Value]
Wrapper: TypeAlias = gymnasium.Wrapper[Value, Value, Value, Value]
Vector: TypeAlias = VectorEnv[Value, Value, Value]
GymSpace: TypeAlias = gymnasium.Space[Value]
Opening: TypeAlias = tuple[Value, Info]  # of reset
Step: TypeAlias = tuple[Value, SupportsFloat, bool, bool, Info]
