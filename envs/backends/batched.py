"""Environments that step all their lanes at once, as torch tensors: a class with `batched = True` that is a VecEnv.

    class Mine(VecEnv):
        batched = True
        def __init__(self, lanes, seed, evaluation=False, first_lane=0, device="cpu", **kwargs): ...

Where several agents share a game, the class attribute `agents` has their names, as `spec.agents`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.contracts import VecEnv
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels.batch import attach
from rlkit.envs.lookup import agents_of, find_class
from rlkit.envs.single import refusal
from rlkit.seeding import Seeds

MEMBERS = tuple(
    dict.fromkeys((*VecEnv.__annotations__, *(name for name in vars(VecEnv) if not name.startswith("_"))))
)


def make_batched(config: EnvConfig, seeds: Seeds, device: torch.device) -> VecEnv:
    """The vector of a batched class. Raises ValueError for wrong kwargs, wrong labels and a class that is no VecEnv."""
    kind = find_class(config.id)
    assert kind is not None, f"{config.id} is registered with Gymnasium, which has no batched environments"
    try:
        vector: VecEnv = kind(
            lanes=config.lanes,
            seed=seeds.seed,
            evaluation=seeds.evaluation,
            first_lane=seeds.first_lane,
            device=device,
            **config.kwargs,
        )
    except TypeError as error:
        raise refusal(config.id, kind, config.kwargs, error) from error
    lacking = missing_member(vector)
    if lacking:
        raise ValueError(
            f"env.id={config.id}: {type(vector).__name__} lacks {lacking}; a batched environment extends "
            "rlkit.contracts.VecEnv, which has the defaults, and offers all its members"
        )
    if vector.spec.agents != agents_of(config.id):
        raise ValueError(
            f"env.id={config.id}: spec.agents={vector.spec.agents}, but its class says "
            f"{agents_of(config.id)}; type agents = {vector.spec.agents} in the class"
        )
    if config.labels:
        attach(vector, config)
    if config.stack > 1:
        vector.spec = replace(vector.spec, stack=config.stack)
    return vector


def missing_member(vector: object) -> str:
    """The first member of VecEnv that an object does not offer; "" where it offers all.

    VecEnv only declares `restore`, `step` and, for exact="snapshot", what saves and loads one: these must be its own.
    """
    own = ["restore", "step"]
    if getattr(vector, "exact", "") == "snapshot":
        own += ["snapshot", "load_snapshot"]
    for name in MEMBERS:
        inherited = name in own and getattr(type(vector), name, None) is getattr(VecEnv, name)
        if inherited or not hasattr(vector, name):
            return name
    return ""
