"""Environments with habits that a run is told of."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Clock(gymnasium.Env):
    """Shows a time that goes on by `tick` seconds per step, with noise far below what matters."""

    def __init__(self, start=1.7e9, tick=0.5, dtype="float64", nested=False):
        self.start, self.tick, self.nested = start, tick, nested
        self.box = (
            spaces.Box(0, np.inf, (2,), dtype) if dtype[0] == "f" else spaces.Box(0, 2**62, (2,), dtype)
        )
        self.observation_space = spaces.Dict({"a": spaces.Tuple((self.box,))}) if nested else self.box
        self.action_space = spaces.Discrete(2)

    def show(self):
        value = np.array([self.time, 1.0 + 1e-12 * self.time]).astype(self.box.dtype)
        return {"a": (value,)} if self.nested else value

    def reset(self, *, seed=None, options=None):
        self.time = self.start
        return self.show(), {}

    def step(self, action):
        self.time += self.tick
        return self.show(), 0.0, False, False, {}


def normalized(which, render_mode=None):
    """CartPole with one of Gymnasium's normalizing wrappers."""
    wrapper = getattr(gymnasium.wrappers, which)
    return gymnasium.wrappers.TimeAwareObservation(
        wrapper(gymnasium.make("CartPole-v1", render_mode=render_mode))
    )


def keyed(key, render_mode=None):
    """CartPole with an action in a Dict of this key."""
    env = gymnasium.make("CartPole-v1", render_mode=render_mode)
    env.action_space = spaces.Tuple((spaces.Dict({key: spaces.Discrete(2)}),))
    return env
