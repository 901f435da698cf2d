"""What environments can say of their own observations: answers for supervised models, never an input of a policy.

With `env.labels=[mask, pose]` an observation becomes a Dict: the environment's own (`image` where it is one, `obs`
where it is another single space, its entries where it is a Dict), and `label` with an entry for each of these names.
They describe the frame that the agent sees, after the frame skip.

A family says what the environments of a class can tell. It is found by that class, or one that it extends, in FAMILIES;
a class of one's own may name one itself, as `label_family = "my_pkg.mod:Family"`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from rlkit.envs.aliases import Core, GymSpace, Value
from rlkit.envs.config import EnvConfig
from rlkit.envs.lookup import constructor
from rlkit.options import nearest
from rlkit.spaces import Box, Space, leaves

LABEL = "label"  # the entry of the observation that holds them
STATE = "state"  # with env.pixels the label that is the environment's own observation

FAMILIES = {  # the class of an environment -> what it can say, "module:Class"
    "rlkit.envs.driving.batched.driving:Driving": "rlkit.envs.labels.driving:DrivingLabels",
    "rlkit.envs.navigation.maze:Maze": "rlkit.envs.labels.robots:MazeLabels",
    "rlkit.envs.navigation.nav:Nav": "rlkit.envs.labels.robots:NavLabels",
    "gymnasium.envs.box2d.car_racing:CarRacing": "rlkit.envs.labels.racing:RacingLabels",
    "minigrid.minigrid_env:MiniGridEnv": "rlkit.envs.labels.grids:GridLabels",
}
SOME = "CarRacing, rlkit/Driving, rlkit/Maze, rlkit/Nav, MiniGrid-* and BabyAI-*"  # for errors


class Family(ABC):
    """The labels of a class of environments."""

    expert: ClassVar[str] = ""  # what people call the driver whose action is the label `expert`

    @classmethod
    @abstractmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """The labels that the environments of the class `kind` and an id can give."""


class Labels(Family, ABC):
    """What one environment says of itself. `spaces` has a space for each of the names asked for."""

    spaces: dict[str, GymSpace]

    @abstractmethod
    def __init__(self, core: Core, names: tuple[str, ...], shape: tuple[int, ...], config: EnvConfig) -> None:
        """core: the environment without wrappers; shape: of the observation that the agent sees, () if it is a Dict."""

    @abstractmethod
    def read(self, action: Value | None) -> dict[str, Value]:
        """The labels of the present frame; action: what led to it, None after a reset."""


def family_of(kind: object) -> type[Family] | None:
    """What says of a class of environments what it can tell; None where nothing does."""
    place = str(getattr(kind, "label_family", ""))
    if not place:
        bases = getattr(kind, "__mro__", ())
        names = (f"{base.__module__}:{base.__qualname__}" for base in bases)
        place = next((FAMILIES[name] for name in names if name in FAMILIES), "")
    module, _, name = place.partition(":")
    found: type[Family] | None = getattr(importlib.import_module(module), name) if module else None
    return found


def family(config: EnvConfig, kind: object) -> type[Family]:
    """The family of an environment of class `kind`. Raises ValueError for labels that it does not have."""
    given = f"env.labels=[{', '.join(config.labels)}]"
    found = family_of(kind)
    if found is None and set(config.labels) == {STATE}:
        raise ValueError(f"{given}: is for pictures of an environment; type env.pixels=64, or env.labels=[]")
    if found is None:
        raise ValueError(
            f"{given}: env.id={config.id} says nothing of itself; allowed with {SOME}; type env.labels=[]"
        )
    known = found.offered(kind, config.id)
    for number, name in enumerate(config.labels):
        if name not in known:
            raise ValueError(f"{given}: env.id={config.id} has no label {name}; {nearest(name, known)}")
        if name in config.labels[:number]:
            raise ValueError(f"{given}: {name} stands there twice; allowed: each label once")
    return found


def offered(config: EnvConfig) -> tuple[str, ...]:
    """The labels that an environment has. Raises ValueError for an unknown one."""
    kind = constructor(config.id)
    found = family_of(kind)
    return () if found is None else found.offered(kind, config.id)


def experts(config: EnvConfig) -> str | None:
    """What people call the driver whose action an environment gives as the label `expert`; None where it has none.

    Raises ValueError for an unknown environment.
    """
    kind = constructor(config.id)
    found = family_of(kind)
    return found.expert if found is not None and "expert" in found.offered(kind, config.id) else None


def entry_of(space: Space) -> str:
    """The entry that holds an observation which is no Dict."""
    return "image" if isinstance(space, Box) and space.image else "obs"


def label_leaves(config: EnvConfig, observation: Space) -> tuple[str, ...]:
    """The leaves of an observation that are labels (`EnvSpec.labels`)."""
    if not config.labels:
        return ()
    return tuple(name for name, _ in leaves(observation) if name.startswith(f"{LABEL}."))


def refuse_entry(config: EnvConfig, entries: Iterable[str]) -> None:
    """Raise ValueError where an observation has an entry of its own by the name of labels."""
    if LABEL in entries:
        raise ValueError(
            f"env.labels=[{', '.join(config.labels)}]: observations of env.id={config.id} have an entry {LABEL} of "
            f"their own; type env.drop=[{LABEL}]"
        )
