"""Lanes stepped one after the other in this process, and the tensors that show rows to the learner."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import VecEnv
from rlkit.envs.backends.faults import EnvFault
from rlkit.envs.backends.games import make_block
from rlkit.envs.backends.lane import Block
from rlkit.envs.backends.rows import Rows
from rlkit.envs.backends.watchdog import Guard, Hang
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels import label_leaves
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Dict, Space
from rlkit.types import EnvSpec, EnvStep


def rows_step(rows: Rows, observation: Space) -> EnvStep:
    """An EnvStep whose tensors are the rows themselves: no copy, new contents after every step."""
    obs = {name: torch.from_numpy(array) for name, array in rows.obs.items()}
    return EnvStep(
        obs=obs if isinstance(observation, Dict) else obs[""],
        reward=torch.from_numpy(rows.reward),
        terminated=torch.from_numpy(rows.terminated),
        first=torch.from_numpy(rows.first),
        last=torch.from_numpy(rows.last),
    )


def reward_scale(config: EnvConfig, seeds: Seeds) -> float:
    """The factor of rewards: evaluation reports the environment's own."""
    return 1.0 if seeds.evaluation else config.reward_scale


class InProcess(VecEnv):
    """VecEnv: `config.lanes` environments of this process. `step` returns the same EnvStep every time."""

    def __init__(
        self, config: EnvConfig, seeds: Seeds, render: bool = False, block: Block | None = None
    ) -> None:
        self.lanes, self.device = config.lanes, torch.device("cpu")
        self.block = make_block(config, seeds, 0, config.lanes, render) if block is None else block
        shown = self.block.observation
        labels = label_leaves(config, shown)
        self.spec = EnvSpec(
            config.id, shown, self.block.action, config.stack, self.block.agents, labels, self.block.groups
        )
        self.rows = Rows(self.spec.observation, self.spec.action, self.lanes)
        self.block.attach(self.rows)
        self.row = rows_step(self.rows, self.spec.observation)
        self.scale = reward_scale(config, seeds)
        self.doing = ""  # what the environments are asked for, beside steps and resets
        self.guard = Guard(config.deadline, self._hung)
        self.block.beat = self.guard.begin
        self.fps = self.block.fps
        self.picture_rate = self.fps * config.skip

    @property
    def failures(self) -> int:
        """How many episodes were cut because the environment failed in them."""
        return int(self.rows.failures.sum())

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...]); raises EnvFault."""
        self.rows.action[:] = action.numpy()
        guard = self.guard
        guard.begin()
        try:
            self.block.step()
        except Hang:
            raise guard.pending or self._hung("") from None
        finally:
            guard.end()
        if self.scale != 1.0:
            self.rows.reward *= self.scale
        return self.row

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after actions[n]; raises EnvFault."""
        with self.guard.watching():
            self.block.restore(episode, actions)
        if self.scale != 1.0:
            self.rows.reward *= self.scale
        return self.row

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture of a lane, or None (made without render=True, or nothing to draw).

        Raises EnvFault.
        """
        with self._doing("render"):
            return self.block.render(lane)

    def pictures(self, lane: int = 0) -> list[npt.NDArray[np.uint8]]:
        """What a frame skip passed over in the latest step of a lane, and its present picture."""
        return [*self.block.passed(lane), *super().pictures(lane)]

    def lost(self) -> Exception | None:
        return self.guard.hand_over()

    def close(self) -> None:
        """Close the environments; idempotent. One that raises or hangs there is warned of: its work is done."""
        try:
            with self._doing("close"):
                self.block.close()
        except EnvFault as fault:
            warnings.warn(fault.text, RuntimeWarning, stacklevel=2)
        finally:
            self.guard.close()

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Watch the block; a fault says what it was in."""
        self.doing = what
        try:
            with self.guard.watching():
                yield
        finally:
            self.doing = ""

    def _hung(self, stack: str) -> Exception:
        return self.block.hung(stack, self.doing)
