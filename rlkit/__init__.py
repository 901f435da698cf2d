"""rlkit: train, watch, evaluate and embed deep reinforcement learning agents.

    import rlkit
    run = rlkit.train("ppo", "cartpole", total_steps=100_000)
    agent = rlkit.load("runs/ppo-cartpole-0")

Importing this module is cheap: torch, gymnasium, ray and pygame are imported when something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlkit.play.saved import load_any as load
    from rlkit.run.start import train as train

__all__ = ["__version__", "load", "train"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    rooms = {"load": ("rlkit.play.saved", "load_any"), "train": ("rlkit.run.start", "train")}
    if name in rooms:
        module, function = rooms[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module 'rlkit' has no attribute {name!r}; it has {', '.join(__all__)}")
