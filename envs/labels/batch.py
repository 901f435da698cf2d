"""Labels of environments that step all their lanes at once (`rlkit.envs.kernels.KernelVec`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch

from rlkit.contracts import VecEnv
from rlkit.envs.aliases import Core
from rlkit.envs.config import EnvConfig
from rlkit.envs.kernels import KernelVec
from rlkit.envs.labels import LABEL, Family, entry_of, family, label_leaves, refuse_entry
from rlkit.spaces import Array, Box, Dict, MultiDiscrete, row_dtype


class BatchLabels(Family, ABC):
    """What N lanes say of themselves. `spaces` has a space for each of the names asked for."""

    spaces: Mapping[str, Box | MultiDiscrete]

    @abstractmethod
    def __init__(self, vector: Core, names: tuple[str, ...]) -> None:
        """vector: the lanes."""

    @abstractmethod
    def write(self, rows: dict[str, Array], low: int, high: int) -> None:
        """Write the labels of the lanes low .. high - 1 into rows [N, ...]."""


def attach(vector: VecEnv, config: EnvConfig) -> None:
    """Let a vector show the labels of `config` beside its observations. Raises ValueError for labels it lacks."""
    kind = family(config, type(vector))
    assert isinstance(vector, KernelVec), f"{type(vector).__name__} has labels and is no KernelVec"
    assert issubclass(kind, BatchLabels), f"{kind.__name__} labels one environment"
    labels, spec, shown = kind(vector, config.labels), vector.spec, vector.row.obs
    own = spec.observation
    obs = shown if isinstance(shown, dict) else {entry_of(own): shown}
    entries = own.entries if isinstance(own, Dict) else ((entry_of(own), own),)
    refuse_entry(config, (name for name, _ in entries))
    said = {
        name: torch.zeros((vector.lanes, *space.shape), dtype=getattr(torch, row_dtype(space)))
        for name, space in labels.spaces.items()
    }
    rows = {name: row.numpy() for name, row in said.items()}
    observation = Dict((*entries, (LABEL, Dict(tuple(labels.spaces.items())))))
    vector.spec = replace(spec, observation=observation, labels=label_leaves(config, observation))
    vector.row.obs = obs | {f"{LABEL}.{name}": row for name, row in said.items()}
    vector.say = lambda low, high: labels.write(rows, low, high)
