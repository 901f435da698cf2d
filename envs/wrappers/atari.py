"""Atari games as experiments play them (Machado et al., 2018, arXiv:1709.06009; Mnih et al., Nature 2015).

picture     luminance of the emulator's palette; of the last two frames of a skip, pixel by pixel the brighter:
            many games draw an object only in every other frame
opening     1 to `noops` frames without action, as many as the episode's seed says; then fire, where there is one
lives       in training, no value is carried over a lost life: the transition counts as terminated, and the game
            goes on (so an episode is a whole game, and follows from its seed and its actions)
reward      in training, its sign
sticky      with this probability the emulator repeats the action of the frame before
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np

from rlkit.envs.aliases import Core, Env, Info, Opening, Step, Value
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.wrappers.frames import FrameSkip


def is_atari(id: str) -> bool:
    """Whether an id is one of ale-py's."""
    name = id.rpartition(":")[2]
    known = gymnasium.registry.get(name)
    return name.startswith("ALE/") or (known is not None and str(known.entry_point).startswith("ale_py"))


def game_of(id: str) -> str:
    """The name of the emulator's game that an id stands for: "breakout" for ALE/Breakout-v5."""
    return str(gymnasium.spec(id).kwargs["game"])


def arguments(config: EnvConfig) -> dict[str, Any]:
    """What `gymnasium.make` is given for the frames that `AtariGame` plays. Raises ValueError."""
    taken = [name for name in ("frameskip", "repeat_action_probability", "obs_type") if name in config.kwargs]
    if taken:
        raise ValueError(
            f"env.kwargs.{taken[0]}: follows from env.skip, env.atari.sticky and env.gray; type those, or none of "
            "env.atari (preset=none env=gymnasium env.id=...)"
        )
    sticky = config.atari.sticky
    return {
        "frameskip": 1,
        "obs_type": "grayscale" if config.gray else "rgb",
        "max_num_frames_per_episode": config.atari.frames,
    } | ({} if sticky is None else {"repeat_action_probability": sticky})


class AtariGame(FrameSkip):
    """One game of one frame a step, played `skip` frames at a time. film: as `FrameSkip`'s.

    lost_life: whether a life was lost in the latest step, where `lives` asks for it.
    """

    def __init__(self, env: Env, config: AtariConfig, skip: int, film: bool = False) -> None:
        super().__init__(env, skip, film)
        core: Core = env.unwrapped
        known = importlib.import_module("ale_py").Action.__members__
        names = core.get_action_meanings()
        self.config, self.ale = config, core.ale
        self.actions = [known[name] for name in names]
        self.fire = config.fire and "FIRE" in names
        gray = len(env.observation_space.shape or ()) == 2
        self.screen = self.ale.getScreenGrayscale if gray else self.ale.getScreenRGB
        self.lives, self.lost_life = 0, False

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        self.passed, self.lost_life = [], False
        _, info = self.env.reset(seed=seed, options=options)
        generator = np.random.default_rng(seed)
        idle = int(generator.integers(1, self.config.noops + 1)) if self.config.noops else 0
        for action in [0] * idle + [1] * self.fire:
            self.ale.act(self.actions[action])
            if self.ale.game_over():
                self.ale.reset_game()
        self.lives = self.ale.lives()
        return self.screen(), info

    def step(self, action: Value) -> Step:
        act, move, before = self.ale.act, self.actions[int(action)], None
        total, self.passed = 0, []
        for left in reversed(range(self.skip)):
            total += act(move)
            if self.ale.game_over():
                before = None
                break
            if left == 1 and self.config.pool:
                before = self.screen()
            if self.film and left:
                self.passed.append(self.env.render())
        picture = self.screen()
        if before is not None:
            np.maximum(picture, before, out=picture)
        lives = self.ale.lives()
        self.lost_life, self.lives = self.config.lives and lives < self.lives, lives
        reward = float(np.sign(total)) if self.config.sign else float(total)
        terminated = self.ale.game_over(with_truncation=False)
        return picture, reward, terminated, self.ale.game_truncated(), {"lives": lives}
