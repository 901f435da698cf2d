"""Batched environments for everybody else's code: Gymnasium's interfaces around a class that steps all its lanes.

    gymnasium.make("rlkit/Maze", size=7)                     one lane, as a gymnasium.Env
    gymnasium.make_vec("rlkit/Maze", num_envs=64, size=7)    64 lanes, as a gymnasium.vector.VectorEnv: the step after
                                                             an episode's end opens the next one

Arguments are those of the class. reset(seed=s) opens the first episodes of the seed s, those of a run with seed=s; a
reset without a seed opens the ones after those. Observations and rewards are copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.aliases import Info, Opening, Value
from rlkit.envs.backends.actions import pack
from rlkit.envs.backends.batched import make_batched
from rlkit.envs.config import EnvConfig
from rlkit.envs.gym_spaces import gym_space
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Dict, Space, action_row
from rlkit.types import EnvStep, Obs


class Lanes:
    """N lanes of a batched class, and which episodes they are in."""

    def __init__(self, id: str, lanes: int, render_mode: str | None, kwargs: dict[str, Any]) -> None:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        self.config = EnvConfig(id=id, lanes=lanes, kwargs=kwargs | mode)
        self.vector = self._made(0)
        spec = self.vector.spec
        self.observation, self.action = gym_space(spec.observation), gym_space(spec.action)
        self.episode: npt.NDArray[np.int64] | None = None  # None: nothing is opened yet

    def open(self, seed: int | None, chance: Callable[[], np.random.Generator]) -> EnvStep:
        """Begin the first episodes of a seed; without one the next episodes, at first those of a seed that is drawn."""
        if seed is None and self.episode is None:
            seed = int(chance().integers(2**31))
        if seed is not None:
            self.vector.close()
            self.vector = self._made(seed)
        opened = np.zeros(self.vector.lanes, np.int64)
        self.episode = opened if seed is not None or self.episode is None else self.episode + 1
        shape, dtype = action_row(self.vector.spec.action)
        return self.vector.restore(self.episode, [np.zeros((0, *shape), dtype)] * self.vector.lanes)

    def step(self, rows: Array) -> EnvStep:
        """Apply one action row per lane."""
        if self.episode is None:
            raise gymnasium.error.ResetNeeded("step before the first reset: call reset()")
        shape, dtype = action_row(self.vector.spec.action)
        rows = np.ascontiguousarray(rows, dtype).reshape(self.vector.lanes, *shape)
        row = self.vector.step(torch.from_numpy(rows))
        self.episode = self.episode + row.first.numpy()
        return row

    def _made(self, seed: int) -> VecEnv:
        return make_batched(self.config, Seeds(seed, False, 0, self.config.lanes), torch.device("cpu"))


class Single(gymnasium.Env[Value, Value]):
    """One lane of the batched environment `id`."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 30.0}  # noqa: RUF012

    def __init__(self, id: str, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode, self._lanes = render_mode, Lanes(id, 1, render_mode, kwargs)
        self.observation_space, self.action_space = self._lanes.observation, self._lanes.action
        self.metadata = {**self.metadata, "render_fps": self._lanes.vector.fps}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Opening:
        """Open an episode: the first one of a seed, or the next one."""
        super().reset(seed=seed)
        return self._seen(self._lanes.open(seed, lambda: self.np_random)), {}

    def step(self, action: Value) -> tuple[Value, float, bool, bool, Info]:
        """Apply an action."""
        row = self._lanes.step(pack(self.action_space, action)[None])
        terminated = bool(row.terminated[0])
        return self._seen(row), float(row.reward[0]), terminated, bool(row.last[0]) and not terminated, {}

    def render(self) -> Any:
        """A picture [H, W, 3]; None where a window shows it."""
        return self._lanes.vector.render(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free what the environment holds."""
        self._lanes.vector.close()

    def _seen(self, row: EnvStep) -> Value:
        return value(self._lanes.vector.spec.observation, row.obs, lambda rows: rows.numpy()[0].copy())


class Several(VectorEnv[Value, Value, Array]):
    """All lanes of the batched environment `id`."""

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array", "human"],
        "render_fps": 30.0,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, id: str, num_envs: int = 1, render_mode: str | None = None, **kwargs: Any) -> None:
        self.num_envs, self.render_mode = num_envs, render_mode
        self.closed = True  # what has not been made is not closed when it is deleted
        self._lanes = Lanes(id, num_envs, render_mode, kwargs)
        self.closed = False
        self.single_observation_space, self.single_action_space = self._lanes.observation, self._lanes.action
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**self.metadata, "render_fps": self._lanes.vector.fps}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Opening:
        """Open an episode in every lane: the first ones of a seed, or the next ones."""
        if seed is not None and not isinstance(seed, int | np.integer):
            raise TypeError(f"reset(seed={seed!r}): allowed: one whole number for all lanes, or None")
        super().reset(seed=seed)
        return self._seen(self._lanes.open(seed, lambda: self.np_random)), {}

    def step(self, actions: Value) -> tuple[Value, Array, Array, Array, Info]:
        """Apply one action per lane; a lane whose episode has ended ignores it and opens the next one."""
        rows = actions
        if isinstance(self.single_action_space, spaces.Dict | spaces.Tuple):
            each = iterate(self.action_space, actions)
            rows = np.stack([pack(self.single_action_space, action) for action in each])
        row = self._lanes.step(np.asarray(rows))
        terminated = row.terminated.numpy().copy()
        truncated = row.last.numpy() & ~terminated
        return self._seen(row), row.reward.numpy().astype(np.float64), terminated, truncated, {}

    def render(self) -> tuple[Any, ...] | None:
        """A picture [H, W, 3] of every lane; None where a window shows the first one."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(self._lanes.vector.render(lane) for lane in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Free what the environments hold."""
        self._lanes.vector.close()

    def _seen(self, row: EnvStep) -> Value:
        return value(self._lanes.vector.spec.observation, row.obs, lambda rows: rows.numpy().copy())


def value(space: Space, obs: Obs, take: Callable[[Tensor], Value], name: str = "") -> Value:
    """An observation of a Gymnasium space from the rows `obs`, whose entries have dotted names; take: of one leaf."""
    if isinstance(space, Dict):
        parts = {key: value(sub, obs, take, f"{name}.{key}" if name else key) for key, sub in space}
        return tuple(parts.values()) if space.is_tuple else parts
    return take(obs[name] if isinstance(obs, dict) else obs)
