"""k in a row with PettingZoo's AEC interface, for everybody else's code.

    from rlkit.envs.boards.zoo import env
    game = env(width=7, height=6, row=4, gravity=True)

Observations are {observation: [height, width, 2] int8, action_mask}: the stones of who looks and of the other, as in
PettingZoo's own board games.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from rlkit.envs.aliases import Value
from rlkit.envs.boards.board import Boards
from rlkit.spaces import MASK

FIRST = np.zeros(1, np.int64)  # the one game
NAMES = ("player_0", "player_1")


class BoardGame(AECEnv):  # type: ignore[misc]
    """One game; arguments as of `rlkit.envs.boards.board`. A forbidden move loses it."""

    metadata: ClassVar[dict[str, Any]] = {
        "name": "rlkit_board",
        "render_modes": ["rgb_array", "ansi"],
        "is_parallelizable": False,
    }

    def __init__(
        self,
        width: int = 3,
        height: int = 3,
        row: int = 3,
        gravity: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        self.boards, self.render_mode = Boards(1, width, height, row, gravity), render_mode
        self.possible_agents = list(NAMES)
        board = spaces.Box(0, 1, (height, width, 2), np.int8)
        mask = spaces.Box(0, 1, (self.boards.moves,), np.int8)
        self.observation_spaces = {
            name: spaces.Dict({"observation": board, MASK: mask}) for name in self.possible_agents
        }
        self.action_spaces: dict[str, Value] = {
            name: spaces.Discrete(self.boards.moves) for name in self.possible_agents
        }

    def observation_space(self, agent: str) -> Value:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Value:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Empty the board: nothing is drawn."""
        self.boards.open(FIRST, FIRST)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = (
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, False),
        )
        self.infos: dict[str, dict[str, Any]] = {name: {} for name in self.agents}
        self.agent_selection = NAMES[0]

    def step(self, action: int | None) -> None:
        """The move of who is to move."""
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        assert action is not None, "a move"
        self._cumulative_rewards[agent] = 0.0
        own = NAMES.index(agent)
        try:
            self.boards.play(FIRST, np.array([action], np.int64))
            paid, over = self.boards.reward[0], bool(self.boards.over[0])
        except ValueError:
            paid, over = np.where(np.arange(2) == own, -1.0, 1.0), True
        self.rewards = {name: float(paid[number]) for number, name in enumerate(NAMES)}
        self.terminations = dict.fromkeys(self.agents, over)
        self.agent_selection = NAMES[1 - own]
        self._accumulate_rewards()

    def observe(self, agent: str) -> dict[str, Value]:
        """What an agent sees, whoever is to move."""
        boards = self.boards
        stones = boards.cells[0].reshape(boards.shape)
        own = NAMES.index(agent) + 1
        seen = np.stack([stones == own, stones == 3 - own], -1).astype(np.int8)
        mask = np.zeros(boards.moves, np.int8)
        if agent == self.agent_selection and not self.terminations.get(agent, True):
            mask = boards.look(FIRST)[MASK][0]
        return {"observation": seen, MASK: mask}

    def render(self) -> npt.NDArray[np.uint8] | str | None:
        """A picture or a text, as render_mode says."""
        if self.render_mode == "ansi":
            return self.boards.text(0)
        return self.boards.render(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        return


def env(**kwargs: Any) -> Value:
    """A game that says where its methods are called in the wrong order."""
    return OrderEnforcingWrapper(BoardGame(**kwargs))
