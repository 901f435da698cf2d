"""Refuses network.privileged, entries of an observation that only the value function reads, where it fits nothing."""

from __future__ import annotations

from collections.abc import Collection

from rlkit.nn.config import NetworkConfig
from rlkit.spaces import Dict, leaves
from rlkit.types import EnvSpec

VALUE = "value"  # the head that network.privileged is for


def check_privileged(spec: EnvSpec, config: NetworkConfig, heads: Collection[str]) -> None:
    """Raise ValueError where network.privileged names what is not there, or leaves the policy nothing to read."""
    if not config.privileged:
        return
    given = f"network.privileged=[{', '.join(config.privileged)}]"
    if VALUE not in heads:
        raise ValueError(
            f"{given}: for agents with a value function of their own, ppo and reinforce; type []"
        )
    if config.shared:
        raise ValueError(f"{given}: what policy and value share reads the same; type network.shared=false")
    known = [name for name, _ in leaves(spec.inputs)] if isinstance(spec.inputs, Dict) else []
    wrong = [name for name in config.privileged if name not in known]
    if wrong:
        raise ValueError(
            f"{given}: the observation has no entry {wrong[0]}; allowed: {', '.join(known) or 'none, it is no Dict'}"
        )
    if set(known) <= set(config.privileged):
        raise ValueError(f"{given}: leaves the policy nothing to read; allowed: some of {', '.join(known)}")
