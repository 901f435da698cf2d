"""An environment that fails on purpose, in every way that an environment can."""

from __future__ import annotations

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import Info, Value

KINDS = (
    "raised",
    "hung",
    "loop",
    "exited",
    "quit",
    "killed",
    "nan",
    "reward",
    "shape",
    "dtype",
    "space",
    "reset",
    "stuck",
)


class Faulty(gymnasium.Env[Value, int]):
    """Counts its steps in obs [2]; fails with `kind` in step `at` of episodes with seed `seed` (-1: any).

    raised: an exception; hung: sleeps; loop: a Python loop; stuck: C code that keeps the interpreter's
    lock; exited: the process ends; killed: by a signal; quit: SystemExit; nan, shape, dtype, space: of the
    observation; reward: NaN; reset: raises in reset.
    """

    def __init__(self, kind: str = "raised", at: int = 3, seed: int = -1, length: int = 10) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind={kind}: allowed: {', '.join(KINDS)}")
        self.kind, self.at, self.victim, self.length = kind, at, seed, length
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Value, Info]:
        super().reset(seed=seed)
        self.chosen = self.victim in (-1, seed)
        self.t = 0
        if self.kind == "reset" and self.chosen:
            raise RuntimeError("broken in reset on purpose")
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Value, float, bool, bool, Info]:
        self.t += 1
        obs: Value = np.array([self.t, action], np.float32)
        reward = 1.0
        if self.t == self.at and self.chosen:
            obs, reward = self._fail(obs)
        return obs, reward, False, self.t == self.length, {}

    def _fail(self, obs: Value) -> tuple[Value, float]:
        if self.kind == "raised":
            raise RuntimeError("broken on purpose")
        if self.kind == "hung":
            time.sleep(3600.0)
        while self.kind == "loop":
            self.t += 0
        if self.kind == "stuck":
            sum(iter(int, 1))  # adds zeros for ever inside C
        if self.kind == "exited":
            os._exit(7)
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "quit":
            raise SystemExit(3)
        changed = {
            "nan": np.array([np.nan, 0.0], np.float32),
            "shape": np.zeros(3, np.float32),
            "dtype": obs.astype(np.float64),
            "space": np.array([0.0, 101.0], np.float32),
        }
        return changed.get(self.kind, obs), float("nan") if self.kind == "reward" else 1.0
