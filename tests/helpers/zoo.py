"""What versions of PettingZoo differ in."""

from __future__ import annotations

import pettingzoo
import pytest

# 1.27 has a registry of its games; before it they are known by their modules alone
REGISTRY = hasattr(pettingzoo, "make")
needs_registry = pytest.mark.skipif(not REGISTRY, reason="this PettingZoo has no registry")
