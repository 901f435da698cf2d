"""Option names of earlier versions, so that their run folders still load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.options import Plain

RENAMED = {  # of version 0.1.0 -> today's
    "agent.duelling": "agent.dueling",
    "agent.normalise_advantage": "agent.normalize_advantage",
    "agent.normalise_reward": "agent.normalize_reward",
    "env.patience": "env.stuck_after",
    "network.normalise": "network.normalize",
}
REMOVED = ("env.extra", "network.name")  # they changed nothing


def modern(group: str, plain: Mapping[str, Any]) -> Plain:
    """The options of one group ("agent", "env", "network") as saved by any version, under today's names."""
    names = {name: RENAMED.get(f"{group}.{name}", f"{group}.{name}") for name in plain}
    return {
        full.removeprefix(f"{group}."): plain[name] for name, full in names.items() if full not in REMOVED
    }
