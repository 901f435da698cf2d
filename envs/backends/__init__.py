"""What steps the lanes of a vector environment: a factory for every value of env.backend but auto.

A factory imports its backend when it is called: this package itself loads neither torch nor Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rlkit.contracts import VecEnv
    from rlkit.envs.config import EnvConfig
    from rlkit.seeding import Seeds


def _inprocess(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.inprocess import InProcess
    from rlkit.envs.lookup import plays_turns

    if plays_turns(config):
        from rlkit.envs.backends.seats import Seats
        from rlkit.envs.backends.turns import AecTurns

        return Seats(AecTurns(config, render), seeds)
    return InProcess(config, seeds, render)


def _threads(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.inprocess import InProcess
    from rlkit.envs.lookup import threaded_block

    block = threaded_block(config.id)(config, seeds, 0, config.lanes, render, config.workers)
    return InProcess(config, seeds, render, block)


def _workers(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.workers import Workers

    return Workers(config, seeds, render)


def _native(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.atari import make_games
    from rlkit.envs.backends.gymnasium import Native
    from rlkit.envs.config import AtariConfig

    if config.atari != AtariConfig():
        return make_games(config, seeds, render)
    return Native.make(config, seeds, render)


def _envpool(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.envpool import Pool

    return Pool(config, seeds, render)


def _batched(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.batched import make_batched

    return make_batched(config, seeds, device)


# name -> make(config, seeds, render, device): the vector of a configuration in which nothing is left to choose; the
# device is that of batched environments
FACTORIES: dict[str, Callable[[EnvConfig, Seeds, bool, torch.device], VecEnv]] = {
    "inprocess": _inprocess,
    "threads": _threads,
    "workers": _workers,
    "native": _native,
    "envpool": _envpool,
    "batched": _batched,
}
