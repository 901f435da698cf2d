"""The lanes of several actors as those of one: their rollouts joined, their states merged and split.

A state in a checkpoint speaks of all lanes of the run, whoever acted for them, so a run can go on with another number
of workers, or with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.contracts import Saved
from rlkit.types import Rollout, Tree, tree_map

# [T, N, ...]; state is [N, ...]
TIME_MAJOR = ("obs", "first", "last", "action", "reward", "terminated", "extra")


def join_lanes(
    rollouts: Sequence[Rollout], device: torch.device, places: Sequence[Tensor] | None = None
) -> Rollout:
    """Rollouts of as many steps side by side, on `device`: by way of pinned memory where that is a GPU.

    places: where the lanes of each go, int64 [N] each, together all numbers from 0 on; None: one after the other, and
    a single one for the CPU is then handed on as it is. The version is the oldest one's.
    """

    def cat(dim: int, parts: Sequence[Tensor]) -> Tensor:
        if device.type == "cpu" and places is None:
            return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        host = torch.empty(shape, dtype=parts[0].dtype, pin_memory=device.type == "cuda")
        if places is None:
            torch.cat(list(parts), dim, out=host)
        else:
            for place, part in zip(places, parts, strict=True):
                host.index_copy_(dim, place, part)
        return host.to(device, non_blocking=True)

    def joined(name: str) -> Any:
        """A field of all of them."""
        trees = [getattr(rollout, name) for rollout in rollouts]
        return tree_map(lambda *parts: cat(1 if name in TIME_MAJOR else 0, parts), *trees)

    fields = {name: joined(name) for name in (*TIME_MAJOR, "state")}
    return Rollout(**fields, version=min(rollout.version for rollout in rollouts))


def take_lanes(rollout: Rollout, lanes: Tensor) -> Rollout:
    """The lanes with these numbers (int64 [n]) of a rollout on the CPU, copied."""

    def taken(name: str) -> Any:
        """These lanes of a field."""
        dim = 1 if name in TIME_MAJOR else 0
        return tree_map(lambda x: x.index_select(dim, lanes), getattr(rollout, name))

    return replace(rollout, **{name: taken(name) for name in (*TIME_MAJOR, "state")})


def merge_states(states: Sequence[Saved]) -> Saved:
    """The `Actor.state_dict` of all lanes, from those of actors of consecutive lanes at the same step."""
    assert len({state["step"] for state in states}) == 1, "actors at different steps have no common state"
    merged = merge(*({**state, "log": None} for state in states))
    merged["log"] = []
    logs = [state["log"] for state in states]  # each without gaps, up to the same step
    ends = {
        step for log in logs for each in log for step in (each["start"], each["start"] + len(each["actions"]))
    }
    wholes = [np.concatenate([each["actions"] for each in log]) if log else None for log in logs]
    for start, stop in pairwise(sorted(ends)):  # within which no entry begins or ends
        pieces = []
        like = next(whole for whole in wholes if whole is not None)
        for state, whole in zip(states, wholes, strict=True):
            begin = start - state["log"][0]["start"] if state["log"] else -1
            if whole is None or begin < 0:  # an actor without an entry needs none of those actions
                whole, begin = np.zeros((stop - start, len(state["episode"]), *like.shape[2:]), like.dtype), 0
            pieces.append(whole[begin : begin + stop - start])
        merged["log"].append({"start": start, "actions": np.concatenate(pieces, 1)})
    return merged


def split_state(state: Saved, start: int, stop: int) -> Saved:
    """The part of `merge_states`' value that lanes [start, stop) need."""
    found = cut({**state, "log": None}, slice(start, stop))
    log = [{"start": each["start"], "actions": each["actions"][:, start:stop]} for each in state["log"]]
    return found | {"log": log}


def merge(*parts: Tree) -> Tree:
    """One tree of the lanes of several: tensors and arrays [n, ...] end to end, all else the first one's."""

    def end_to_end(*leaves: Any) -> object:
        if isinstance(leaves[0], Tensor):
            return torch.cat([leaf.cpu() for leaf in leaves])
        return np.concatenate(leaves) if isinstance(leaves[0], np.ndarray) else leaves[0]

    return tree_map(end_to_end, *parts)


def cut(tree: Tree, lanes: slice) -> Tree:
    """The part of `merge`'s value that belongs to some of its lanes."""
    return tree_map(lambda x: x[lanes] if isinstance(x, (Tensor, np.ndarray)) else x, tree)
