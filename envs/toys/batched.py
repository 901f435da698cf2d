"""A vector environment that is torch tensors throughout: its rows are born on the learner's device.

The template of a batched environment: a class with `batched = True` and the VecEnv protocol, chosen by its
id ("rlkit.envs.toys.batched:Quadratic"). Python's loop over lanes is gone; one step is a handful of tensor
operations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Saved, VecEnv
from rlkit.seeding import Seeds, uniforms
from rlkit.spaces import Array, Box
from rlkit.types import EnvSpec, EnvStep


class Quadratic(VecEnv):
    """N lanes of x' = x + gain a, a in [-1, 1]^n, reward -|x'|^2 / n, truncated after `length` steps.

    Starts x_0, uniform in [-1, 1]^n, come from (seed, lane, episode) alone. The rows are overwritten in
    every step.
    """

    batched = True
    exact = "snapshot"

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        size: int = 1,
        gain: float = 1.0,
        length: int = 10,
    ) -> None:
        self.lanes, self.device = lanes, torch.device(device)
        self.seeds = Seeds(seed, evaluation, first_lane, lanes)
        self.size, self.gain, self.length = size, gain, length
        bound = 1.0 + abs(gain) * length
        observation, action = Box((size,), "float32", -bound, bound), Box((size,), "float32", -1.0, 1.0)
        self.spec = EnvSpec("rlkit.envs.toys.batched:Quadratic", observation, action)
        self.x = torch.zeros(lanes, size, device=self.device)  # [N, n]
        self.t = torch.zeros(lanes, dtype=torch.int64, device=self.device)
        self.episode = np.zeros(lanes, np.int64)
        self.elapsed = np.zeros(
            lanes, np.int64
        )  # `t` on the host: starts are drawn without asking the device
        flags = [torch.zeros(lanes, dtype=torch.bool, device=self.device) for _ in range(3)]
        self.row = EnvStep(self.x, torch.zeros(lanes, device=self.device), *flags)

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after actions[n]."""
        self.episode[:] = episode
        self._open(np.arange(self.lanes))
        counts = np.array([len(history) for history in actions])
        for t in range(int(counts.max(initial=0))):
            action = torch.zeros(self.lanes, self.size)
            for lane in np.flatnonzero(counts > t):
                action[lane] = torch.as_tensor(actions[lane][t], dtype=torch.float32)
            self._advance(action.to(self.device), torch.from_numpy(counts > t).to(self.device), counts > t)
        return self.row

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, n])."""
        opening = self.elapsed == self.length  # [N]
        ended = self.row.last.clone()
        self._advance(action, ~ended, ~opening)
        if opening.any():
            self.episode += opening
            self._open(np.flatnonzero(opening))
        return self.row

    def snapshot(self) -> Saved:
        """The whole state, copied: cheaper than replaying, and exact on any device."""
        row = {
            name: getattr(self.row, name).clone() for name in ("obs", "reward", "terminated", "first", "last")
        }
        return {
            "row": row,
            "t": self.t.clone(),
            "episode": self.episode.copy(),
            "elapsed": self.elapsed.copy(),
        }

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        for name, value in state["row"].items():
            getattr(self.row, name).copy_(value)  # row.obs is self.x
        self.t.copy_(state["t"])
        self.episode[:], self.elapsed[:] = state["episode"], state["elapsed"]

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """Nothing to see."""
        return None

    def close(self) -> None:
        """Nothing to free."""

    def _advance(self, action: Tensor, acting: Tensor, on_host: npt.NDArray[np.bool_]) -> None:
        """One step of the lanes where `acting` [N]; the others keep their rows."""
        row = self.row
        moved = self.x + self.gain * action.clamp(-1.0, 1.0)  # x' = x + gain a, [N, n]
        self.x.copy_(torch.where(acting[:, None], moved, self.x))
        row.reward.copy_(torch.where(acting, -self.x.square().mean(-1), row.reward))
        self.t += acting
        self.elapsed += on_host
        row.first.logical_and_(~acting)
        row.last.copy_(self.t == self.length)

    def _open(self, lanes: npt.NDArray[np.int64]) -> None:
        """Write the first rows of the present episodes of `lanes`."""
        starts = np.stack([self._start(int(lane)) for lane in lanes])  # [k, n]
        index = torch.from_numpy(lanes).to(self.device)
        self.x[index] = torch.from_numpy(starts).to(self.device)
        self.row.reward[index] = 0.0
        self.row.first[index], self.row.last[index] = True, False
        self.t[index], self.elapsed[lanes] = 0, 0

    def _start(self, lane: int) -> npt.NDArray[np.float32]:
        """x_0 [n] of the lane's present episode."""
        seed = self.seeds.of(lane, int(self.episode[lane]))
        start: npt.NDArray[np.float32] = (
            2.0 * uniforms(seed, np.zeros(1, np.int64), 0, 1, self.size)[0, 0] - 1.0
        )
        return start
