"""Registers rlkit's environments with Gymnasium once both are imported, without importing either for the other."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

IDS: dict[str, dict[str, Any]] = {
    "rlkit/CarRacing": {
        "entry_point": "rlkit.envs.driving.exact.car_racing:CarRacing",
        "max_episode_steps": 1000,
        "reward_threshold": 900,
    },
    **{  # Young and Tian, 2019, arXiv:1903.03176, with the actions that do something; their package registers none
        f"MinAtar/{game.title().replace('_', '')}-v1": {
            "entry_point": "minatar.gym:BaseEnv",
            "kwargs": {"game": game, "use_minimal_action_set": True},
        }
        for game in ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
    },
    **{  # batched classes (`lookup.BATCHED`), for everybody else's code
        id: {
            "entry_point": "rlkit.envs.adapters:Single",
            "vector_entry_point": "rlkit.envs.adapters:Several",
            "kwargs": {"id": id},
        }
        for id in ("rlkit/Driving", "rlkit/Maze", "rlkit/Nav")
    },
}


def register() -> None:
    """Now if Gymnasium is there, else once it has been imported."""
    gymnasium = sys.modules.get("gymnasium")
    if gymnasium is None:
        sys.meta_path.insert(0, _Waiting())
        return
    for id, spec in IDS.items():
        if id not in gymnasium.registry:
            gymnasium.register(id=id, **spec)


class _Waiting:
    """A finder of modules that finds Gymnasium where it would be found anyway, and registers when it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: Any) -> None:
                load(module)
                register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
