"""What MiniGrid's rooms can say of themselves, BabyAI's levels also what its bot would do next."""

from __future__ import annotations

import importlib

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import Core, GymSpace, Value
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels import Labels

KINDS, COLOURS, STATES = 11, 6, 3  # minigrid.core.constants
EMPTY = np.array([1, 0, 0])
LEVEL = "minigrid.envs.babyai.core.roomgrid_level:RoomGridLevel"  # what has an instruction for the bot
UNSOLVED = ("KeyInBox-v0", "PutNextS5N2Carrying-v0", "PutNextS6N3Carrying-v0", "PutNextS7N4Carrying-v0")


class GridLabels(Labels):
    """The labels of one room or level.

    The bot's plan follows from what it has seen in the episode and from the actions that were taken, whoever chose
    them. Where they led to something that its plan does not know (a box that was opened, for example), it plans anew
    from there, and where it cannot do that either its action is `done`.
    """

    expert = "bot"

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """expert: of levels that the bot solves."""
        bases = (f"{base.__module__}:{base.__qualname__}" for base in getattr(kind, "__mro__", ()))
        solved = LEVEL in bases and not id.endswith(UNSOLVED)
        return ("front", "pose", "expert") if solved else ("front", "pose")

    def __init__(self, core: Core, names: tuple[str, ...], shape: tuple[int, ...], config: EnvConfig) -> None:
        if "expert" in names and config.skip > 1:
            raise ValueError(
                f"env.skip={config.skip}: BabyAI's bot plans every step; with env.labels=[expert] type env.skip=1"
            )
        self.core, self.names = core, names
        self.bot: Core = None
        known: dict[str, GymSpace] = {
            "front": spaces.MultiDiscrete([KINDS, COLOURS, STATES]),
            "pose": spaces.MultiDiscrete([core.width, core.height, 4]),
            "expert": core.action_space,
        }
        self.spaces = {name: known[name] for name in names}

    def read(self, action: Value | None) -> dict[str, Value]:
        """The labels of the present frame."""
        found: dict[str, Value] = {}
        for name in self.names:
            if name == "front":
                found[name] = self.front()
            elif name == "pose":
                found[name] = np.array([*self.core.agent_pos, self.core.agent_dir])
            else:
                found[name] = self.advice(action)
        return found

    def front(self) -> Value:
        """Kind, colour and state of what stands in front of the agent."""
        thing = self.core.grid.get(*self.core.front_pos)
        return EMPTY.copy() if thing is None else np.array(thing.encode())

    def advice(self, action: Value | None) -> Value:
        """The bot's next action after `action`."""
        if action is not None:
            try:
                return np.int64(self.bot.replan(action))
            except Exception:  # a plan that the agent's actions made impossible
                pass
        bot: Core = importlib.import_module("minigrid.utils.baby_ai_bot").BabyAIBot
        try:
            self.bot = bot(self.core)
            return np.int64(self.bot.replan())
        except Exception:
            return np.int64(self.core.actions.done)
