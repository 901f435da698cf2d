"""A tiny environment with pictures that says what it shows, and a table of its kind."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import Core, Value
from rlkit.envs.config import EnvConfig
from rlkit.envs.gym_spaces import gym_space
from rlkit.envs.labels import Labels
from rlkit.perception.table import Table, from_arrays
from rlkit.spaces import Box, Discrete

SIDE = 8
ID = "tests.helpers.sights:Sights"
MASK = Box((SIDE, SIDE), "uint8", 0.0, 2.0, meaning="codes")  # nothing, the dot, the bar


class Sights(gymnasium.Env[Any, Any]):
    """A dot in a picture that is moved left and right, and whose place the reward follows: 1 in column 4.

    The dot moves down with time, so every frame of an episode is another one; episodes have 5 to 9 steps. The lowest
    line is a bar. view=vector: the state instead of the picture.
    """

    label_family = f"{__name__}:Said"

    def __init__(self, continuous: bool = False, view: str = "picture") -> None:
        self.continuous, self.view = continuous, view
        picture = spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
        self.observation_space = picture if view == "picture" else spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(3)

    def state(self) -> Value:
        """Column and time, scaled."""
        return np.array([self.x / 4 - 1, self.t / 10], np.float32)

    def mask(self) -> Value:
        """What each pixel shows."""
        found = np.zeros((SIDE, SIDE), np.uint8)
        found[SIDE - 1] = 2
        found[self.t % (SIDE - 1), round(self.x)] = 1
        return found

    def _seen(self) -> Value:
        if self.view == "vector":
            return self.state()
        return np.array([10, 200, 90], np.uint8)[self.mask()] + np.uint8(self.t)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.x = 0, float(self.np_random.integers(SIDE))
        self.length = int(self.np_random.integers(5, 10))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        move = float(action[0]) if self.continuous else int(action) - 1
        self.x = min(max(self.x + move, 0.0), SIDE - 1.0)
        self.t += 1
        return self._seen(), 1 - abs(self.x - 4) / 4, self.t == self.length, False, {}


class Said(Labels):
    """The mask, the state as the other view shows it, and a step towards column 4."""

    expert = "seeker"

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        return ("mask", "vector", "expert")

    def __init__(self, core: Core, names: tuple[str, ...], shape: tuple[int, ...], config: EnvConfig) -> None:
        self.core, self.names = core, names
        own = {
            "mask": gym_space(MASK),
            "vector": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "expert": core.action_space,
        }
        self.spaces = {name: own[name] for name in names}

    def read(self, action: Value | None) -> dict[str, Value]:
        core = self.core
        move = np.sign(4 - core.x)
        expert = np.array([move], np.float32) if core.continuous else np.int64(move + 1)
        found = {"mask": core.mask(), "vector": core.state(), "expert": expert}
        return {name: found[name] for name in self.names}


def sights(episodes: int = 60, seed: int = 0) -> Table:
    """A table in memory of the same kind, with classes, numbers, masks and actions."""
    generator = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("image", "mask", "vector", "kind", "action", "first", "group")
    }
    env = Sights()
    for number in range(episodes):
        env.reset(seed=int(generator.integers(2**31)))
        done = False
        while not done:
            action = int(generator.integers(3))
            rows["image"].append(env._seen())
            rows["mask"].append(env.mask())
            rows["vector"].append(env.state())
            rows["kind"].append(int(env.x))
            rows["action"].append(action)
            rows["first"].append(env.t == 0)
            rows["group"].append(number)
            done = env.step(action)[2]
    return from_arrays(
        "sights",
        {
            "image": (np.array(rows["image"]), Box((SIDE, SIDE), "uint8", 0.0, 255.0)),
            "label.mask": (np.array(rows["mask"]), MASK),
            "label.vector": (np.array(rows["vector"]), Box((2,), "float32", -1.0, 1.0)),
            "label.kind": (np.array(rows["kind"]), Discrete(SIDE)),
            "action": (np.array(rows["action"]), Discrete(3)),
            "first": (np.array(rows["first"]), None),
            "group": (np.array(rows["group"], np.uint64), None),
        },
    )


OPTIONS: dict[str, Any] = {  # of small runs of agents in it
    "preset": "none", "network.encoder": "mlp", "network.hidden": [12], "env.lanes": 2, "env.backend": "inprocess",
    "agent.steps": 8, "agent.minibatch": 16, "agent.epochs": 1, "evaluate.episodes": 1, "log.tensorboard": False,
    "threads": 1, "total_steps": 32, "env.stack": 2, "precision": "float32",
}  # fmt: skip


def typed(options: dict[str, Any]) -> list[str]:
    """The same options as words of a command."""
    return [f"{key}={value}".replace(" ", "") for key, value in options.items()]
