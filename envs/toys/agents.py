"""Games of two agents, one of which leaves before the other: every row is known in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.contracts import Saved, VecEnv
from rlkit.spaces import Array, Box, Discrete
from rlkit.types import EnvSpec, EnvStep


class Lives(VecEnv):
    """Games whose agents "short" and "long" live lives[0] and lives[1] steps; lane n is agent n % 2 of game n // 2.

    obs [N, 2] = (steps lived / longest life, which agent: 0 or 1). Step k of an agent pays 1 + 0.1 a for its action a:
    0 or 1, or with `continuous` a number that is clamped to [-1, 1]. So the best return of an agent that lives L steps
    is 1.1 L, and actions without a meaning would give L. An agent whose life is over has terminated; it repeats that
    row until the game is over, then both open the next game. Nothing is random. The rows are overwritten in every step.
    """

    batched = True
    agents = ("short", "long")
    exact = "snapshot"

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        lives: tuple[int, int] = (3, 6),
        continuous: bool = False,
    ) -> None:
        for name, value in (("lanes", lanes), ("first_lane", first_lane)):
            if value % 2:
                raise ValueError(f"{name}={value}: a game has 2 agents, each a lane; allowed: multiples of 2")
        if len(lives) != 2 or not all(isinstance(life, int) and life > 0 for life in lives):
            raise ValueError(
                f"env.kwargs.lives={lives}: allowed: two whole numbers above 0, for example [3, 6]"
            )
        self.lanes, self.device, self.continuous = lanes, torch.device(device), continuous
        action = Box((1,), "float32", -1.0, 1.0) if continuous else Discrete(2)
        observation = Box((2,), "float32", 0.0, 1.0)
        self.spec = EnvSpec("rlkit.envs.toys.agents:Lives", observation, action, agents=self.agents)
        self.longest = max(lives)
        self.lives = torch.tensor(lives, device=self.device).repeat(lanes // 2)  # [N]
        self.t = torch.zeros(
            lanes, dtype=torch.int64, device=self.device
        )  # [N] steps of the lane's game so far
        self.obs = torch.zeros(lanes, 2, device=self.device)
        self.obs[:, 1] = torch.arange(lanes) % 2
        flags = [torch.zeros(lanes, dtype=torch.bool, device=self.device) for _ in range(3)]
        self.row = EnvStep(self.obs, torch.zeros(lanes, device=self.device), *flags)

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Open a game on every lane: all games are alike, so their numbers do not matter."""
        assert not any(map(len, actions)), "exact=snapshot: a game in its midst comes back by load_snapshot"
        self.t.zero_()
        self.row.reward.zero_()
        self._look()
        return self.row

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N], or with `continuous` [N, 1])."""
        over = self.t == self.longest  # [N], of the game; both of its lanes have ended
        gone = self.row.last & ~over  # [N], of the agent alone
        paid = 1.0 + 0.1 * action.reshape(self.lanes).float().clamp(-1.0, 1.0)  # 1 + 0.1 a
        self.row.reward.copy_(torch.where(gone, self.row.reward, torch.where(over, 0.0, paid)))
        self.t.copy_(torch.where(over, 0, self.t + 1))
        self._look()
        return self.row

    def snapshot(self) -> Saved:
        """The whole state, copied: the rest of a row follows from it."""
        return {"t": self.t.clone(), "reward": self.row.reward.clone()}

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        self.t.copy_(state["t"])
        self.row.reward.copy_(state["reward"])
        self._look()

    def _look(self) -> None:
        """Write what follows from how long the games have lasted."""
        row, age = self.row, torch.minimum(self.t, self.lives)  # [N]
        self.obs[:, 0] = age / self.longest
        row.first.copy_(self.t == 0)
        row.last.copy_(age == self.lives)
        row.terminated.copy_(row.last)
