"""Gymnasium's classic control problems without Python in a step: the same names, the same bits (docs/architecture.md).

`known` says for which configurations `block` steps the lanes; all others are Gymnasium's own environments.
"""

from __future__ import annotations

from rlkit.envs.classic.problems import suits
from rlkit.envs.config import EnvConfig


def known(config: EnvConfig) -> bool:
    """Whether lanes that are not drawn are stepped by `block`: of a classic problem as it is, with the same bits."""
    if not suits(config):
        return False
    from rlkit.envs.classic.block import same  # machine code: only where it is used

    return same(config.id)
