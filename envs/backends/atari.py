"""Atari games in C++ threads: ale-py's vector and EnvPool's, played by the rules of env.atari.* as our rows.

Both draw the same pictures as `AtariGame` (EnvPool rounds some pixels of the reduction differently); openings, and
what sticky actions repeat, follow from generators of their own.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlkit.envs.aliases import Core, Info, Opening, Value, Vector
from rlkit.envs.backends.gymnasium import Native
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.wrappers.atari import arguments, game_of
from rlkit.seeding import Seeds


class Screens(gymnasium.vector.VectorWrapper):
    """ale-py's vector with pictures [N, H, W] in place of stacks of one, seeds as a list, and lives at hand."""

    def __init__(self, env: Vector) -> None:
        super().__init__(env)
        stack = env.single_observation_space
        shape = tuple(stack.shape or ())[1:]
        self.single_observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = gymnasium.vector.utils.batch_space(
            self.single_observation_space, env.num_envs
        )
        self.lives = np.zeros(env.num_envs, np.int64)

    def reset(self, *, seed: Value = None, options: Info | None = None) -> Opening:
        """seed: a list of one per lane."""
        seeds: Core = None if seed is None else np.asarray(seed)
        obs, infos = self.env.reset(seed=seeds, options=options)
        self.lives = infos["lives"].astype(np.int64)
        return obs[:, 0], infos

    def step(self, actions: Value) -> tuple[Value, Value, Value, Value, Info]:
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        self.lives = infos["lives"].astype(np.int64)
        return obs[:, 0], reward, terminated, truncated, infos


class Games(Native):
    """Native lanes whose lost lives cut the return, and whose rewards are signs, where the rules say so."""

    def __init__(self, env: Screens, config: EnvConfig, seeds: Seeds) -> None:
        super().__init__(env, config, seeds)
        self.screens, self.rules = env, config.atari

    def _advance(self) -> None:
        before = self.screens.lives
        super()._advance()
        by_the_rules(
            self.rules, self.rows.reward, self.rows.terminated, self.rows.first, before, self.screens.lives
        )


def by_the_rules(
    rules: AtariConfig,
    reward: npt.NDArray[np.float32],
    terminated: npt.NDArray[np.bool_],
    first: npt.NDArray[np.bool_],
    before: npt.NDArray[np.int64],
    lives: npt.NDArray[np.int64],
) -> None:
    """Signs of rewards [N], and terminations [N] at lost lives, in place; lives [N] before and after the step."""
    if rules.sign:
        np.sign(reward, out=reward)
    if rules.lives:
        terminated |= (lives < before) & ~first


def pool_options(config: EnvConfig) -> dict[str, Value]:
    """The rules as options of EnvPool's games. Raises ValueError for what it cannot do."""
    rules = config.atari
    needed = {
        "env.gray=true": config.gray,
        "env.size=84": config.size,
        "env.atari.pool=true": rules.pool,
        "env.atari.noops=30": rules.noops,  # its process dies where there are none
    }
    missing = next((typed for typed, there in needed.items() if not there), None)
    if missing is not None:
        raise ValueError(
            "env.backend=envpool: its games are gray, resized, of the brighter of two frames, and open with frames "
            f"without action; type {missing}, or env.backend=workers"
        )
    sticky = {} if rules.sticky is None else {"repeat_action_probability": rules.sticky}
    return sticky | {
        "stack_num": 1,
        "frame_skip": config.skip,
        "noop_max": rules.noops,
        "use_fire_reset": rules.fire,
        "episodic_life": False,
        "reward_clip": False,
        "img_height": config.size,
        "img_width": config.size,
        "gray_scale": True,
        "use_inter_area_resize": True,
        "max_episode_steps": rules.frames // config.skip,
    }


def make_games(config: EnvConfig, seeds: Seeds, render: bool) -> Games:
    """ale-py's vector of a game. Raises ValueError for what it cannot do."""
    rules, single = config.atari, arguments(config)
    unable = [f"takes no env.kwargs.{name}" for name in config.kwargs]
    unable += (["draws no films"] if render else []) + ([] if config.size else ["resizes: type env.size=84"])
    if unable:
        raise ValueError(
            f"env.backend=native: ale-py's vector {unable[0]}; allowed with env.backend=inprocess or workers"
        )
    sticky = single.get(
        "repeat_action_probability", gymnasium.spec(config.id).kwargs["repeat_action_probability"]
    )
    vector: Core = gymnasium.make_vec(
        config.id,
        config.lanes,
        vectorization_mode="vector_entry_point",
        stack_num=1,
        img_height=config.size,
        img_width=config.size,
        grayscale=config.gray,
        frameskip=config.skip,
        maxpool=rules.pool,
        noop_max=rules.noops,
        use_fire_reset=rules.fire,
        episodic_life=False,
        reward_clipping=False,
        repeat_action_probability=sticky,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        game=game_of(config.id),
        max_num_frames_per_episode=rules.frames,
    )
    return Games(Screens(vector), config, seeds)
