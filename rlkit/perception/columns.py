"""Which columns of a table a task reads, and the spec that follows."""

from __future__ import annotations

from collections.abc import Callable

from rlkit.options import ConfigError
from rlkit.perception.table import LABEL, Column, Table
from rlkit.spaces import Dict, Space, describe
from rlkit.types import EnvSpec


def choose_label(table: Table, asked: str, fits: Callable[[Space], bool], what: str) -> str:
    """The name of the label's column: the one that was asked for, or the only one that fits.

    what: the labels that a task learns, in words. Raises ConfigError.
    """
    found = {name: table.columns[LABEL + name] for name in table.labels}
    spaces = {name: column.space for name, column in found.items() if column.space is not None}
    fitting = [name for name, space in spaces.items() if fits(space)]
    there = ", ".join(f"{name}: {describe(space)}" for name, space in spaces.items()) or "no labels"
    if asked:
        if asked not in spaces:
            raise ConfigError(f"task.label={asked}: {table.name} has no such label; it has {there}")
        if asked not in fitting:
            raise ConfigError(f"task.label={asked}: it is {describe(spaces[asked])}; this task learns {what}")
        return LABEL + asked
    if len(fitting) != 1:
        choice = f"type task.label={' or task.label='.join(fitting)}" if fitting else "choose another task"
        raise ConfigError(f"data={table.name}: this task learns {what}; the table has {there}: {choice}")
    return LABEL + fitting[0]


def spec_of(table: Table, label: Column | None, stack: int) -> EnvSpec:
    """Inputs and label of a table as the observation and the action of a spec. Raises ConfigError.

    A single input is no Dict, as an environment's single observation is none.
    """
    spaces: dict[str, Space] = {}
    for name in table.inputs:
        space = table.columns[name].space
        if space is None:
            raise ConfigError(f"data={table.name}: column {name} has no space, so no network reads it")
        spaces[name] = space
    if not spaces:
        raise ConfigError(f"data={table.name}: no column beside labels, action, group and first")
    observation = next(iter(spaces.values())) if len(spaces) == 1 else Dict(tuple(spaces.items()))
    action = observation if label is None else label.space
    assert action is not None, "a label that was chosen has a space"
    env = table.made.get("env")
    id = str(env.get("id")) if isinstance(env, dict) else table.name
    return EnvSpec(id, observation, action, stack)
