"""Groups of the agents of a game: those of one group share a policy, and so have the same spaces.

The lanes of a game have one space whatever its groups see and do: a Dict with an entry per group. An agent's
observation fills the entry of its own group, the others hold a neutral value; of its action that entry is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

from rlkit.envs.aliases import GymSpace, Value
from rlkit.options import show

Groups: TypeAlias = dict[str, tuple[str, ...]]  # name -> its agents, in the order of possible_agents
NAME = re.compile(r"[A-Za-z]\w{0,40}")  # of a group: part of options, metrics and names of files


def groups_of(
    id: str,
    typed: Mapping[str, Sequence[str]],
    agents: Sequence[str],
    own: Sequence[tuple[GymSpace, GymSpace]],
) -> Groups:
    """The groups of a game's agents, {} where all share one policy.

    typed: env.groups, names of agents with * for any characters; own: what each agent sees and does. Without typed
    groups agents with the same spaces are one. Raises ValueError.
    """
    natural = _by_spaces(agents, own)
    if not typed:
        return natural if len(natural) > 1 else {}
    instead = f"type {as_typed(natural)}"
    found = {
        name: tuple(agent for agent in agents if any(fnmatchcase(agent, each) for each in patterns))
        for name, patterns in typed.items()
    }
    for name, members in found.items():
        given = f"env.groups.{name}={show(typed[name])}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{given}: names of groups are letters, digits and _; {instead}")
        unknown = [each for each in typed[name] if not any(fnmatchcase(agent, each) for agent in agents)]
        if unknown or not members:
            raise ValueError(
                f"{given}: {id} has no agent {unknown[0] if unknown else ''}; its agents are {', '.join(agents)}; "
                f"{instead}"
            )
        kinds = [own[agents.index(agent)] for agent in members]
        other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
        if other is not None:
            raise ValueError(
                f"{given}: the agents of a group share a policy, and the spaces of {members[0]} and {members[other]} "
                f"differ; {instead}"
            )
    for agent in agents:
        count = sum(agent in members for members in found.values())
        if count != 1:
            where = "in no group" if count == 0 else f"in {count} groups"
            raise ValueError(f"env.groups: {agent} of {id} is {where}; {instead}")
    return found


def _by_spaces(agents: Sequence[str], own: Sequence[tuple[GymSpace, GymSpace]]) -> Groups:
    """Agents with the same spaces, called by what their names begin with."""
    kinds: list[tuple[GymSpace, GymSpace]] = []
    members: list[list[str]] = []
    for agent, kind in zip(agents, own, strict=True):
        if kind not in kinds:
            kinds.append(kind)
            members.append([])
        members[kinds.index(kind)].append(agent)
    names = [re.sub(r"\W+", "_", _beginning(each)).rstrip("_0123456789") for each in members]
    fitting = all(NAME.fullmatch(name) for name in names) and len(set(names)) == len(names)
    names = names if fitting else [f"group{i}" for i in range(len(names))]
    return {name: tuple(each) for name, each in zip(names, members, strict=True)}


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with."""
    least, most = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return least[:same]


def as_typed(groups: Groups) -> str:
    """Groups as an option: "env.groups={hunters: [a,b], prey: [c]}"."""
    parts = (f"{name}: [{','.join(members)}]" for name, members in groups.items())
    return f"env.groups={{{', '.join(parts)}}}"


def numbers(groups: Groups, agents: Sequence[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Groups as an EnvSpec has them: (name, numbers of its agents) each."""
    return tuple((name, tuple(agents.index(each) for each in members)) for name, members in groups.items())


def neutral(space: GymSpace) -> Value:
    """A value of a space that says nothing: 0, or the bound that is nearest to it."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if isinstance(space, spaces.Discrete):
        return space.start
    if isinstance(space, spaces.Dict):
        return {name: neutral(sub) for name, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(neutral(sub) for sub in space.spaces)
    start: Any = getattr(space, "start", 0)  # of a MultiDiscrete
    return np.zeros(space.shape or (), space.dtype) + np.asarray(start, space.dtype)
