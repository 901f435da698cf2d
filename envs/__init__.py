"""Environments and the vector adapters around them. Installed as `rlkit.envs`.

`make_vec` gives N lanes that step together, `make_env` one Gymnasium environment, `probe` its spaces and how its lanes
are best stepped. They are found on first use: importing this package loads neither torch nor Gymnasium.
"""

if __name__ != "rlkit.envs":
    raise ImportError("this folder is installed as 'rlkit.envs': use 'from rlkit.envs import make_vec'")

from typing import TYPE_CHECKING

from rlkit.envs.registered import register as _register

if TYPE_CHECKING:
    from rlkit.envs.backends.faults import EnvFault as EnvFault
    from rlkit.envs.config import EnvConfig as EnvConfig
    from rlkit.envs.make import make_vec as make_vec
    from rlkit.envs.make import probe as probe
    from rlkit.envs.single import make_env as make_env

_HOME = {
    "EnvConfig": "config",
    "EnvFault": "backends.faults",
    "make_env": "single",
    "make_vec": "make",
    "probe": "make",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rlkit.envs' has no attribute {name!r}; it has {', '.join(_HOME)}")
    import importlib

    return getattr(importlib.import_module(f"rlkit.envs.{_HOME[name]}"), name)


_register()
