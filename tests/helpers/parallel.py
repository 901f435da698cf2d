"""Parallel games of PettingZoo's kind that are known in closed form, and some that break its rules."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

ID = "tests.helpers.parallel:Lives"


class Lives(ParallelEnv):  # type: ignore[misc]
    """As rlkit.envs.toys.agents:Lives. wrong: a rule that is broken; draws: observations are drawn."""

    metadata = {"name": "lives", "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        lives: tuple[int, ...] = (3, 6),
        wrong: str = "",
        mask: bool = False,
        draws: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.lives, self.wrong, self.mask, self.draws, self.render_mode = (
            lives,
            wrong,
            mask,
            draws,
            render_mode,
        )
        self.possible_agents = [f"a{i}" for i in range(len(lives))]
        self.longest = max(lives)
        self.state_space = spaces.Box(0.0, 1.0, (len(lives),), np.float32)

    def observation_space(self, agent: str) -> Any:
        own = spaces.Box(0.0, 1.0, (2 + (self.wrong == "spaces" and agent == "a1"),), np.float32)
        allowed = spaces.Box(0, 1, (2,), np.int8)
        return spaces.Dict({"observation": own, "action_mask": allowed}) if self.mask else own

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def state(self) -> Any:
        """How old everyone is."""
        return np.array([min(self.t, life) / self.longest for life in self.lives], np.float32)

    def _seen(self, agent: str) -> Any:
        number = self.possible_agents.index(agent)
        age = min(self.t, self.lives[number]) / self.longest
        obs = np.array([random.random() if self.draws else age, number], np.float32)
        return {"observation": obs, "action_mask": np.array([1, self.t % 2], np.int8)} if self.mask else obs

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents = 0, list(self.possible_agents)
        seen = {agent: self._seen(agent) for agent in self.agents}
        if self.wrong == "reset":
            del seen["a1"]
        return seen, {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        assert set(actions) == set(self.agents), (
            f"actions of {set(actions)}, in the game are {set(self.agents)}"
        )
        if self.wrong == "raises" and self.t == 1:
            raise RuntimeError("broken on purpose")
        self.t += 1
        before = self.agents
        obs = {agent: self._seen(agent) for agent in before}
        reward = {agent: 1.0 + 0.1 * actions[agent] for agent in before}
        over = {agent: self.t == self.lives[self.possible_agents.index(agent)] for agent in before}
        self.agents = [agent for agent in before if not over[agent]]
        if self.wrong == "missing" and self.t == 2:
            del obs["a1"]
        if self.wrong == "silent" and self.t == 2:
            self.agents = self.agents[1:]
        if self.wrong == "revived" and self.t == 4:
            self.agents = list(self.possible_agents)
        return obs, reward, over, dict.fromkeys(before, False), {agent: {} for agent in before}

    def render(self) -> Any:
        return np.full((16, 16, 3), 10 * self.t, np.uint8)


class Unknown(Lives):
    """A game that does not say who plays."""

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = []


class Lacking(Lives):
    """A game whose package lacks another one, which it says in an error of its own."""

    def __init__(self) -> None:
        raise RuntimeError("you may need to install more")
