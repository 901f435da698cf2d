"""Eyes: an agent sees what a model says of a frame instead of the frame.

    s_t = eyes(o_{t-k+1}, ..., o_t)        k: the frames that the model reads at once

The eyes are put on wherever lanes are stepped for a policy (`see`), and the policy is built for what is seen. So
rollouts, replay buffers, chunks and checkpoints hold features instead of pixels, and no epoch computes a convolution.
The eyes never learn. Their frame stack is memory of the environment's side, saved with the row that is acted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Policy, Saved, VecEnv
from rlkit.nn.stack import stack_step
from rlkit.spaces import MASK, Array, Box, Dict, Space, leaves, row_dtype
from rlkit.types import EnvSpec, EnvStep, Obs, tree_map

SEEN = "seen"  # the entry of what is seen, where an action mask stands beside it


@dataclass(frozen=True)
class Eyes:
    """A model that looks. look: inputs [N, ...] (with a stack [N, k, ...]) -> what is seen, [N, ...] of `space`."""

    look: Callable[[Obs], Tensor]
    spec: EnvSpec  # of what it reads
    space: Space  # of what is seen
    parts: Saved  # from which a checkpoint makes it again

    def seen(self, spec: EnvSpec) -> EnvSpec:
        """The spec of an environment through these eyes."""
        entries = dict(leaves(spec.observation))
        observation: Space = self.space
        if MASK in entries:
            observation = Dict(((SEEN, self.space), (MASK, entries[MASK])))
        return replace(spec, observation=observation, stack=1, labels=())

    def memory(self, lanes: int, device: torch.device) -> Tensor:
        """Frames before any observation, [lanes, k-1, ...]; [lanes, 0] where no frames are stacked."""
        if self.spec.stack == 1:
            return torch.zeros(lanes, 0, device=device)
        space = self.spec.observation
        assert isinstance(space, Box), "only boxes are stacked"
        dtype = getattr(torch, row_dtype(space))
        return torch.zeros(lanes, self.spec.stack - 1, *space.shape, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(self, obs: Obs, first: Tensor, memory: Tensor) -> tuple[Obs, Tensor]:
        """obs [N, ...], first [N], memory [N, k-1, ...] -> what is seen, next memory."""
        mask = obs.get(MASK) if isinstance(obs, dict) else None
        if isinstance(obs, dict):
            obs = {name: x for name, x in obs.items() if name != MASK and name not in self.spec.labels}
            obs = obs if isinstance(self.spec.observation, Dict) else next(iter(obs.values()))
        if self.spec.stack > 1:
            assert isinstance(obs, Tensor), "only boxes are stacked"
            obs, memory = stack_step(obs, first, memory)
        seen = self.look(obs)
        return (seen if mask is None else {SEEN: seen, MASK: mask}), memory


def see(env: VecEnv, policy: Policy, group: int = 0) -> VecEnv:
    """The environment as a policy sees it: through its eyes, where it has some. group: lanes that are seen at once."""
    return env if policy.eyes is None else Seeing(env, policy.eyes, group)


class Seeing(VecEnv):
    """Lanes seen through eyes, `group` at a time, 0: all; numbers of a lane depend on which are seen beside it."""

    def __init__(self, env: VecEnv, eyes: Eyes, group: int = 0) -> None:
        self.env, self.eyes = env, eyes
        self.spec, self.lanes, self.device = eyes.seen(env.spec), env.lanes, env.device
        self.exact, self.fps, self.picture_rate = env.exact, env.fps, env.picture_rate
        self.groups = [slice(n, n + (group or env.lanes)) for n in range(0, env.lanes, group or env.lanes)]
        self.before = self.after = eyes.memory(
            env.lanes, env.device
        )  # the frames before and after the last row

    @property
    def failures(self) -> int:
        return self.env.failures

    def _seen(self, row: EnvStep) -> EnvStep:
        """A row of the environment through the eyes."""
        found = []
        for group in self.groups:
            obs, first, memory = tree_map(lambda x: x[group].clone(), (row.obs, row.first, self.before))  # noqa: B023
            found.append(self.eyes(obs, first, memory))
        seen, self.after = found[0] if len(found) == 1 else tree_map(lambda *parts: torch.cat(parts), *found)
        return replace(row, obs=seen)

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        return self._seen(self.env.restore(episode, actions))

    def step(self, action: Tensor) -> EnvStep:
        self.before = self.after
        return self._seen(self.env.step(action))

    def memory(self) -> Saved:
        return {"before": self.before.clone(), "after": self.after.clone()}

    def load_memory(self, state: Saved) -> None:
        self.before, self.after = (state[name].to(self.device) for name in ("before", "after"))

    def snapshot(self) -> Saved:
        return self.env.snapshot()

    def load_snapshot(self, state: Saved) -> None:
        self.env.load_snapshot(state)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        return self.env.render(lane)

    def pictures(self, lane: int = 0) -> list[npt.NDArray[np.uint8]]:
        return self.env.pictures(lane)

    def lost(self) -> Exception | None:
        return self.env.lost()

    def close(self) -> None:
        self.env.close()
