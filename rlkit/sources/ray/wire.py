"""What travels between Ray actors: weights and rows as arrays, which Ray moves through shared memory without pickling
their contents, and the messages that they are part of.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias, TypedDict, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.spaces import Array
from rlkit.types import Rollout, tree_map

ObjectRef: TypeAlias = Any  # Ray's reference to a value, which may not be there yet
ActorHandle: TypeAlias = Any  # through which Ray calls the methods of an actor
# the fields of a Rollout or an EnvStep, with arrays in the place of tensors
Packed: TypeAlias = dict[str, Any]
# where a tensor lies in the flat weights: name, first byte, shape, stride, dtype
Place: TypeAlias = tuple[str, int, tuple[int, ...], tuple[int, ...], str]

ALIGN = 64  # bytes: where each tensor of the flat weights begins


class Weights(TypedDict):
    """The parameters and buffers of a module as one flat array (`pack_weights`)."""

    bytes: npt.NDArray[np.uint8]  # [size]
    layout: list[Place]


class Started(TypedDict):
    """A worker's answer when its environments are made."""

    pid: int
    node: str  # Ray's name of where it runs; "": not known
    warning: str | None  # environments that did not come back as they were


@final
class Collected(TypedDict, total=False):
    """A worker's answer to one call of `collect`; lists have an entry per rollout.

    It is empty before it has arrived, and without `rollouts` where an aggregator has joined these.
    """

    rollouts: list[Packed]
    returns: list[list[float]]  # of the episodes that ended
    lengths: list[list[int]]
    lanes: list[list[int]]  # counted in the worker
    step: int  # transitions per lane so far
    episode: npt.NDArray[np.int64]  # [lanes] number of each lane's current episode
    seconds: float  # that the call took, of which
    environment: float  # in the environments
    policy: float  # in the policy


@final
class Failure(TypedDict):
    """The answer of a worker that cannot go on."""

    failure: str  # what there is to tell
    died: bool  # whether an environment actor is gone; else an environment raised or hung


class Joined(TypedDict):
    """An aggregator's answer: several workers' chunks as one, and what else each of them answered."""

    rollouts: list[Packed]
    values: list[Collected | Failure | None]  # without their rollouts; None: the chunk could not be had


def pack_weights(module: nn.Module) -> Weights:
    """Parameters and buffers as one flat array.

    Every tensor is there as it lies in memory: in its order of axes, and at the same place of a block of 64 bytes.
    """
    layout: list[Place] = []
    pieces, size = [], 0
    for name, value in module.state_dict().items():
        place = value.data_ptr() % ALIGN
        x = value.detach().cpu()
        flat = x.as_strided((x.numel(),), (1,)) if _dense(x) else x.contiguous().view(-1)
        stride = x.stride() if _dense(x) else x.contiguous().stride()
        start = size + (place - size) % ALIGN
        layout.append((name, start, tuple(x.shape), stride, str(x.dtype).removeprefix("torch.")))
        pieces.append((start, flat.view(torch.uint8).numpy()))
        size = start + len(pieces[-1][1])
    packed = np.zeros(size, np.uint8)
    for start, raw in pieces:
        packed[start : start + len(raw)] = raw
    return {"bytes": packed, "layout": layout}


def load_weights(module: nn.Module, packed: Weights) -> None:
    """Copy `pack_weights`' value, which may be read-only memory, into a module like the one that was packed."""
    flat, tensors = tensor(packed["bytes"]), {}
    for name, start, shape, stride, dtype in packed["layout"]:
        tensors[name] = _view(flat, start, shape, stride, dtype)
    module.load_state_dict(tensors)


def lay_out(module: nn.Module, layout: list[Place]) -> None:
    """Have the module's tensors lie in memory as the packed ones did: the last bits of products follow from that."""
    for name, value in module.state_dict(keep_vars=True).items():
        (entry,) = [entry for entry in layout if entry[0] == name]
        _, start, shape, stride, dtype = entry
        block = torch.zeros(math.prod(shape) * value.element_size() + ALIGN, dtype=torch.uint8)
        value.data = _view(block, (start - block.data_ptr()) % ALIGN, shape, stride, dtype)


def _dense(x: Tensor) -> bool:
    """Whether the elements fill one piece of memory, in any order of axes."""
    expected = 1
    for stride, count in sorted(zip(x.stride(), x.shape, strict=True)):
        if count > 1 and stride != expected:
            return False
        expected *= count
    return True


def _view(flat: Tensor, start: int, shape: tuple[int, ...], stride: tuple[int, ...], dtype: str) -> Tensor:
    """The tensor that lies at byte `start` of flat uint8 memory."""
    kind: torch.dtype = getattr(torch, dtype)
    return flat[start : start + math.prod(shape) * kind.itemsize].view(kind).as_strided(shape, stride)


def tensor(array: Array) -> Tensor:
    """The tensor of an array's memory, also where that is read-only: nobody may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*array is not writable.*")
        return torch.from_numpy(array)


def pack_rollout(rollout: Rollout, copy: bool) -> Packed:
    """A rollout's fields as arrays of its memory, or copied."""

    def array(x: Tensor) -> Array:
        found: Array = x.detach().cpu().contiguous().numpy()
        return found.copy() if copy else found

    return dict(vars(rollout.map(array)))  # type: ignore[arg-type]


def unpack_rollout(fields: Packed) -> Rollout:
    """The rollout whose tensors are `pack_rollout`'s arrays."""
    tensors = {name: tree_map(tensor, value) for name, value in fields.items() if name != "version"}
    return Rollout(**tensors, version=fields["version"])
