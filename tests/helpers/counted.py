"""Environments that count how often they are made and reset, and vectors of one's own that lack something."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.backends.lane import Block
from rlkit.envs.config import EnvConfig
from rlkit.seeding import Seeds
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, EnvStep


class Counted(gymnasium.Env[Any, Any]):
    """obs [1]; draws [4, 6, 3] unless `blind`; fails in `fails` ("": nowhere)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    made = resets = closed = 0

    def __init__(self, blind: bool = False, fails: str = "", render_mode: str | None = None) -> None:
        if fails == "constructor":
            raise ValueError("broken on purpose")
        self.blind, self.fails, self.render_mode = blind, fails, render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        Counted.made += 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        Counted.resets += 1
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fails == "step":
            raise RuntimeError("broken on purpose")
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def render(self) -> Any:
        return None if self.blind else np.zeros((4, 6, 3), np.uint8)

    def close(self) -> None:
        Counted.closed += 1

    @staticmethod
    def clear() -> None:
        Counted.made = Counted.resets = Counted.closed = 0


class Plain(Counted):
    """Takes no render_mode."""

    def __init__(self) -> None:
        super().__init__()


class Patient(Counted):
    """No step of it is slow."""

    slow_step = float("inf")


class Hasty(Counted):
    """Every step of it is slow."""

    slow_step = 0.0


class ThreadedBlock(Block):
    """Remembers for how many threads it was made."""

    def __init__(
        self, config: EnvConfig, seeds: Seeds, start: int, stop: int, render: bool, threads: int
    ) -> None:
        super().__init__(config, seeds, start, stop, render)
        self.threads = threads


class Threaded(Counted):
    """Announces a block whose lanes several threads draw."""

    block = "tests.helpers.counted:ThreadedBlock"


class Whole(VecEnv):
    """The least that a batched environment must be."""

    batched = True
    built: tuple[int, ...] = ()  # lanes of all vectors so far

    def __init__(
        self, lanes: int, seed: int, evaluation: bool = False, first_lane: int = 0, device: Any = "cpu"
    ) -> None:
        Whole.built = (*Whole.built, lanes)
        self.lanes, self.device = lanes, torch.device("cpu")
        self.spec = EnvSpec("tests.helpers.counted:Whole", Box((1,), "float32"), Discrete(2))

    def restore(self, episode: npt.NDArray[np.int64], actions: list[npt.NDArray[Any]]) -> EnvStep:
        flags = [torch.zeros(self.lanes, dtype=torch.bool) for _ in range(3)]
        return EnvStep(torch.zeros(self.lanes, 1), torch.zeros(self.lanes), *flags)

    def step(self, action: Tensor) -> EnvStep:
        return self.restore(np.zeros(self.lanes, np.int64), [])


class Unsaved(Whole):
    """Says that it saves snapshots, and inherits what raises."""

    exact = "snapshot"


class Still(VecEnv):
    """Has no step of its own: VecEnv's declaration does nothing."""

    batched = True
    __init__ = Whole.__init__
    restore = Whole.restore


class Loose:
    """Extends nothing, and lacks fps and more."""

    batched = True
    exact = "none"
    __init__ = Whole.__init__
    restore = Whole.restore
    step = Whole.step


class Unannounced(Whole):
    """Two agents in a game, of which its class says nothing."""

    def __init__(self, lanes: int, seed: int, **others: Any) -> None:
        super().__init__(lanes, seed)
        self.spec = EnvSpec(self.spec.id, self.spec.observation, self.spec.action, agents=("a", "b"))
