"""What steps the lanes of a vector environment: one entry for every value of env.backend but auto.

A factory imports its backend when it is called: this package itself loads neither torch nor Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from rlkit.contracts import VecEnv
    from rlkit.envs.config import EnvConfig
    from rlkit.seeding import Seeds

WRAPPED = (
    "skip",
    "gray",
    "size",
    "keep",
    "stuck_after",
    "time_limit",
)  # options that wrap a single environment
OWN_MASK = "shows masks as an entry action_mask of its observations"


@dataclass(frozen=True)
class Backend:
    """One way to step lanes.

    make(config, seeds, render, device) makes the vector of a configuration in which nothing is left to choose; the
    device is that of batched environments.
    """

    make: Callable[[EnvConfig, Seeds, bool, torch.device], VecEnv]
    about: str  # for people who choose one
    exact: Literal["replay", "snapshot", "none"] | None = (
        "replay"  # as VecEnv.exact; None: its environments say it
    )
    workers: bool = False  # whether it takes env.workers
    refused: tuple[str, ...] = ()  # options of EnvConfig that must keep their defaults
    instead: str = ""  # what an error about those says
    unmasked: str = ""  # why env.action_mask=info is refused; "" where it is not


def _inprocess(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.inprocess import InProcess

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
    from rlkit.envs.backends.gymnasium import Native

    return Native.make(config, seeds, render)


def _envpool(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.envpool import Pool

    return Pool(config, seeds, render)


def _batched(config: EnvConfig, seeds: Seeds, render: bool, device: torch.device) -> VecEnv:
    from rlkit.envs.backends.batched import make_batched

    return make_batched(config, seeds, device)


BACKENDS = {
    "inprocess": Backend(_inprocess, "one after the other here"),
    "threads": Backend(
        _threads,
        "as inprocess, drawn by threads (rlkit/CarRacing)",
        workers=True,
        refused=("keep",),
        instead="allowed with env.backend=inprocess or workers",
        unmasked="draws pictures, which have no masks beside them",
    ),
    "workers": Backend(_workers, "in processes", workers=True),
    "native": Backend(
        _native,
        "the environment's own Gymnasium vector",
        exact="none",
        refused=WRAPPED,
        instead="allowed with env.backend=inprocess or workers",
    ),
    "envpool": Backend(
        _envpool,
        "EnvPool's version of it",
        exact="none",
        workers=True,
        refused=WRAPPED,
        instead="its own options, such as frame_skip or max_episode_steps, go into env.kwargs; "
        "allowed with env.backend=inprocess or workers",
        unmasked=OWN_MASK,
    ),
    "batched": Backend(
        _batched,
        "its own torch vector",
        exact=None,
        refused=(*WRAPPED, "reward_scale"),
        instead="its own options go into env.kwargs",
        unmasked=OWN_MASK,
    ),
}
