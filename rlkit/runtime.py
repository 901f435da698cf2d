"""An exported policy, run with NumPy alone: `from rlkit.runtime import Policy` (rlkit.deploy.runtime)."""

from rlkit.deploy.graph import GraphError
from rlkit.deploy.runtime import Policy

__all__ = ["GraphError", "Policy"]
