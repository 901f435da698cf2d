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


class Chase(ParallelEnv):  # type: ignore[misc]
    """Three agents in two groups with other spaces, whose best actions are known.

    A hunter sees a digit 0, 1 or 2 as one of three numbers and is paid 1 for naming it; the prey sees a sign and is
    paid its product with its own sign (Discrete: of 2 * action - 1). The prey is out after 3 steps, hunters after 5.
    prey: what it sees and does; "closed" breaks a rule.
    """

    metadata = {"name": "chase", "render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, prey: str = "box", render_mode: str | None = None) -> None:
        self.prey, self.render_mode = prey, render_mode
        self.possible_agents = ["hunter_0", "prey_0", "hunter_1"]

    def observation_space(self, agent: str) -> Any:
        if agent == "prey_0":
            entries = {"sign": spaces.Box(-1.0, 1.0, (1,), np.float32)}
            if self.prey in ("masked", "closed"):
                entries["action_mask"] = spaces.MultiBinary(2)
            return spaces.Dict(entries)
        return spaces.Box(1.0, 2.0, (3,), np.float32)  # 0 is no value of it

    def action_space(self, agent: str) -> Any:
        if agent != "prey_0":
            return spaces.Discrete(3)
        return {
            "box": spaces.Box(-2.0, 2.0, (1,), np.float32),
            "bits": spaces.MultiBinary(2),
            "many": spaces.MultiDiscrete([2, 3]),
            "both": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (2,), np.float32)}),
        }.get(self.prey, spaces.Discrete(2))

    def _seen(self, agent: str) -> Any:
        if agent == "prey_0":
            seen = {"sign": np.array([self.sign], np.float32)}
            if self.prey == "masked":  # only the right one is allowed
                seen["action_mask"] = np.array([self.sign < 0, self.sign > 0], np.int8)
            if self.prey == "closed":  # nothing is, once it has acted
                seen["action_mask"] = np.full(2, self.t == 0, np.int8)
            return seen
        seen = np.ones(3, np.float32)
        seen[(self.digit + (agent == "hunter_1")) % 3] = 2.0
        return seen

    def _draw(self) -> None:
        self.digit, self.sign = int(self.random.integers(3)), float(self.random.choice([-1.0, 1.0]))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents, self.random = 0, list(self.possible_agents), np.random.default_rng(seed)
        self._draw()
        return {agent: self._seen(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def _paid(self, agent: str, action: Any) -> float:
        if agent != "prey_0":
            assert isinstance(action, int), f"a hunter's action is a whole number, not {action!r}"
            return float(action == (self.digit + (agent == "hunter_1")) % 3)
        if self.prey == "both":
            action = action["a"]
        first = float(np.ravel(action)[0])
        return self.sign * (np.sign(first) if self.prey == "box" else 2 * first - 1)

    def step(self, actions: Any) -> Any:
        reward = {agent: self._paid(agent, action) for agent, action in actions.items()}
        self.t += 1
        self._draw()
        over = {agent: self.t == (3 if agent == "prey_0" else 5) for agent in reward}
        obs = {agent: self._seen(agent) for agent in reward}
        self.agents = [agent for agent in self.agents if not over[agent]]
        return obs, reward, over, dict.fromkeys(reward, False), {agent: {} for agent in reward}

    def render(self) -> Any:
        return np.full((16, 16, 3), 10 * self.t, np.uint8)
