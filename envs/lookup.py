"""From an id to an environment's constructor, with errors that say what to type.

Three forms of id: "CartPole-v1" (registered with Gymnasium), "module:Id-v0" (importing the module registers
it) and "package.module:Class" (a class that nobody registered, found from the user's current directory
too).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium

from rlkit.own import is_module

if TYPE_CHECKING:
    from rlkit.envs.backends.lane import Block
    from rlkit.envs.config import EnvConfig
    from rlkit.seeding import Seeds

Constructor: TypeAlias = Callable[..., Any]  # makes an environment: a class of one, or a function
# (config, seeds, start, stop, render, threads)
ThreadedBlock: TypeAlias = "Callable[[EnvConfig, Seeds, int, int, bool, int], Block]"

# (what the id or the entry point starts with, module it needs, pip argument that installs it)
PROVIDERS = (
    ("ALE/", "ale_py", "rlkit[atari]"),
    ("ale_py", "ale_py", "rlkit[atari]"),
    ("MiniGrid-", "minigrid", "rlkit[grid]"),
    ("BabyAI-", "minigrid", "rlkit[grid]"),
    ("MinAtar/", "minatar", "rlkit[minatar]"),
    ("highway-", "highway_env", "rlkit[highway]"),
    ("merge-", "highway_env", "rlkit[highway]"),
    ("roundabout-", "highway_env", "rlkit[highway]"),
    ("intersection-", "highway_env", "rlkit[highway]"),
    ("racetrack-", "highway_env", "rlkit[highway]"),
    ("parking-", "highway_env", "rlkit[highway]"),
    ("exit-", "highway_env", "rlkit[highway]"),
    ("lane-keeping-", "highway_env", "rlkit[highway]"),
    ("two-way-", "highway_env", "rlkit[highway]"),
    ("u-turn-", "highway_env", "rlkit[highway]"),
    ("gymnasium.envs.mujoco", "mujoco", "rlkit[mujoco]"),
    ("gymnasium.envs.mujoco", "imageio", "rlkit[mujoco]"),
    ("gymnasium.envs.box2d", "Box2D", "box2d==2.3.10"),
    ("rlkit.envs.driving.exact.car_racing", "Box2D", "box2d==2.3.10"),
    ("rlkit.envs.driving.exact.car_racing", "pygame", "pygame-ce"),
    ("gymnasium.envs.toy_text", "pygame", "pygame-ce"),
    ("gymnasium.envs.phys2d", "jax", "jax"),
    ("gymnasium.envs.tabular", "jax", "jax"),
)
ZOO = "pettingzoo:"  # what ids in PettingZoo's registry begin with
# ids of environments that step all lanes at once; Gymnasium's registry knows them as `adapters`
BATCHED = {
    "rlkit/Board": "rlkit.envs.boards.board:Board",
    "rlkit/Driving": "rlkit.envs.driving.batched.driving:Driving",
    "rlkit/Maze": "rlkit.envs.navigation.maze:Maze",
    "rlkit/Nav": "rlkit.envs.navigation.nav:Nav",
}


def find_class(id: str) -> Constructor | None:
    """The class or function that "package.module:Class" names, or None where the id is registered with
    Gymnasium.

    Imports what the id needs. Raises ValueError for an unknown id or a missing package.
    """
    if not id:
        raise ValueError(
            "env.id: missing; allowed: a Gymnasium id or package.module:Class, for example CartPole-v1"
        )
    prepare_display()
    if id.startswith(ZOO) or (is_module(id) and id not in gymnasium.registry):
        return _game(id)
    module, _, name = BATCHED.get(id, id).rpartition(":")
    if not module:  # the current directory stays out: a file in it must not pass for a package
        _require_registered(id)
        return None
    found = _module(module, id)
    if name in gymnasium.registry:
        return None
    kind: Constructor | None = getattr(found, name, None)
    if callable(kind):
        return kind
    names = [key for key, value in vars(found).items() if isinstance(value, type)]
    close = difflib.get_close_matches(name, names, n=3)
    nearest = f"; nearest: {', '.join(close)}" if close else ""
    raise ValueError(f"env.id={id}: {module} has no {name}{nearest}")


def _module(name: str, id: str) -> Any:
    """Import a module that an id names, from the user's current directory too. Raises ValueError."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        extra = {"mpe2": "rlkit[multiagent]", "pymunk": "rlkit[multiagent]"}.get(error.name or "")
        if extra:
            raise ValueError(
                f'env.id={id}: needs the package {error.name}; type: pip install "{extra}"'
            ) from error
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"env.id={id}: there is no module {error.name}; it is looked for in {os.getcwd()} and in the "
                f"installed packages"
            ) from error
        raise ValueError(f"env.id={id}: {name} needs the package {error.name}; pip install it") from error


def plays_games(config: EnvConfig) -> bool:
    """Whether every agent of an environment's games is a lane: those with PettingZoo's parallel interface.

    Raises as `find_class`.
    """
    return config.seats != "one" and _interface(config.id) == "ParallelEnv"


def plays_turns(config: EnvConfig) -> bool:
    """Whether a lane is one seat of a game of PettingZoo's. Raises as `find_class`."""
    interface = _interface(config.id)
    if interface == "AECEnv" and config.seats == "all":
        raise ValueError(f"env.seats=all: in {config.id} agents move in turns; type env.seats=one")
    return interface == "AECEnv" or (config.seats == "one" and interface == "ParallelEnv")


def _interface(id: str) -> str:
    """Which of PettingZoo's interfaces an environment has: ParallelEnv, AECEnv, or none: ""."""
    kind = find_class(id)
    told = str(getattr(kind, "interface_of_games", ""))
    if told:
        return told
    for name in ("ParallelEnv", "AECEnv"):
        known = getattr(sys.modules.get("pettingzoo"), name, None)
        if known is not None and isinstance(kind, type) and issubclass(kind, known):
            return name
    return ""


@lru_cache(maxsize=256)
def _game(id: str) -> Constructor:
    """What makes the games of "pettingzoo:sisl/pursuit-v5", or of a module that has a `parallel_env` or an `env`.

    Where a game has both interfaces it is a parallel one.
    """
    registered, interface = id.removeprefix(ZOO), "ParallelEnv"
    if registered == id:
        module = _module(id, id)
        make = getattr(module, "parallel_env", None)
        if make is None:
            make, interface = getattr(module, "env", None), "AECEnv"
        if make is None:
            raise ValueError(
                f"env.id={id}: the module has neither parallel_env nor env; allowed: a module of PettingZoo's games "
                "(mpe2.simple_spread_v3), or module:Class"
            )
    else:
        zoo = _module("pettingzoo", id)
        if not hasattr(zoo, "make"):
            raise ValueError(
                f"env.id={id}: this version of pettingzoo has no registry; type the module, for example "
                "env=pettingzoo.sisl.pursuit_v4"
            )
        known = list(zoo.parallel_registry)
        if registered not in known:
            interface = "AECEnv"
            known = list(dict.fromkeys((*known, *zoo.aec_registry)))
        if registered not in known:
            close = difflib.get_close_matches(registered, known, n=3)
            nearest = f"nearest: {', '.join(close)}" if close else f"allowed: {', '.join(known)}"
            raise ValueError(f"env.id={id}: pettingzoo has no game {registered}; {nearest}")
        make = partial(zoo.make, "parallel" if interface == "ParallelEnv" else "aec", registered)

    def made(**kwargs: Any) -> Any:
        return make(**kwargs)

    made.interface_of_games = interface  # type: ignore[attr-defined]
    return made


def only_here(id: str) -> bool:
    """Whether only this process knows an id: registered by the program that runs, or a class of its script.

    Ids of Gymnasium and rlkit are registered in every process, those of other packages when their module is imported.
    """
    module = id.rpartition(":")[0]
    if module or id not in gymnasium.registry:
        return module == "__main__"
    entry = gymnasium.registry[id].entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else str(getattr(entry, "__module__", ""))
    package = home.partition(".")[0]
    if package == "gymnasium":
        return f'"{id}"' not in Path(str(gymnasium.envs.__file__)).read_text(encoding="utf-8")
    plugins = {
        each.value.partition(":")[0].partition(".")[0] for each in entry_points(group="gymnasium.envs")
    }
    return package not in {"rlkit", *plugins, *(module for _, module, _ in PROVIDERS)}


def constructor(id: str) -> Constructor:
    """What makes the environments of an id, registered with Gymnasium or not. Raises ValueError as `find_class`."""
    kind = find_class(id)
    if kind is not None:
        return kind
    entry = gymnasium.spec(id).entry_point
    found: Constructor = (
        entry if callable(entry) else gymnasium.envs.registration.load_env_creator(str(entry))
    )
    return found


def agents_of(id: str) -> tuple[str, ...]:
    """The agents of one game of a batched class: its attribute `agents`, without which there is one."""
    return tuple(getattr(find_class(id), "agents", ("agent",)))


def threaded_block(id: str) -> ThreadedBlock:
    """The `Block` whose lanes several threads draw: "module:Class", named by a class of environments as its `block`.

    Its constructor takes a number of threads beside a Block's arguments. Raises ValueError where none is named.
    """
    module, _, name = str(getattr(constructor(id), "block", "")).partition(":")
    if not module:
        raise ValueError(
            "env.backend=threads: draws env.id=rlkit/CarRacing and other classes that name a `block` for it; given "
            f"env.id={id}; type env.backend=auto"
        )
    block: ThreadedBlock = getattr(importlib.import_module(module), name)
    return block


def prepare_display(render_mode: str | None = None) -> None:
    """Let SDL draw without a screen where there is none, and keep pygame from greeting."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if render_mode == "rgb_array":
        os.environ.setdefault(
            "SDL_AUDIODRIVER", "dummy"
        )  # pictures are silent; pygame would look for a sound card
    if render_mode != "human" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _require_registered(id: str) -> None:
    """Register and check a Gymnasium id and the packages behind it; raises ValueError."""
    for prefix, module, package in PROVIDERS:
        if id.startswith(prefix):
            _import(id, module, package)  # importing registers
    if id not in gymnasium.registry:
        with contextlib.suppress(ImportError):  # Atari ids of the old form, such as PongNoFrameskip-v4
            importlib.import_module("ale_py")
    if id not in gymnasium.registry:
        lower = {known.lower(): known for known in (*gymnasium.registry, *BATCHED)}
        close = [lower[key] for key in difflib.get_close_matches(id.lower(), lower, n=3)]
        nearest = f"nearest: {', '.join(close)}; " if close else ""
        raise ValueError(f"env.id={id}: no such environment; {nearest}rlkit list environments shows them")
    entry = str(gymnasium.registry[id].entry_point)
    for prefix, module, package in PROVIDERS:
        if entry.startswith(prefix):
            _import(id, module, package)


def _import(id: str, module: str, package: str) -> None:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f'env.id={id}: needs the package {module}; type: pip install "{package}"') from error
    if module == "ale_py":
        found.ALEInterface.setLoggerMode(found.LoggerMode.Error)  # no banner per environment
