"""Action distributions (families.py) and the heads that make them from a network's outputs (heads.py)."""

from rlkit.distributions.families import (
    Bernoulli,
    Categorical,
    Composite,
    Distribution,
    Gaussian,
    MultiCategorical,
    Part,
    TanhGaussian,
)
from rlkit.distributions.heads import ActionHead, BoxHead, CompositeHead, action_head

__all__ = [
    "ActionHead",
    "Bernoulli",
    "BoxHead",
    "Categorical",
    "Composite",
    "CompositeHead",
    "Distribution",
    "Gaussian",
    "MultiCategorical",
    "Part",
    "TanhGaussian",
    "action_head",
]
