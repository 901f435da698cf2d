"""The ranks of a run: W processes with the same weights, each of which takes its share of every minibatch.

    g <- 1/W sum_r g_r     shares of one size: the gradient of a mean over the whole minibatch
    g <-     sum_r g_r     the gradient of a sum

Every rank holds the whole batch of experience, so advantages, weights, running normalizers, the order of minibatches
and the decision to stop early are computed everywhere from the same numbers in the same way, and are those of one
rank. Only what costs time is shared out: losses and their gradients. Gradient and metrics are summed in one flat
all-reduce per step, before clipping, and every rank then makes the same step. (Synchronous data parallelism as in Li et
al., "PyTorch Distributed", VLDB 2020, arXiv:2006.15704; their buckets are for gradients that are not one vector.)

A process that joined no others is rank 0 of 1: `share` is everything, sums are what they were given, and
torch.distributed is not touched. `rlkit.learn.learners` starts the processes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

_rank, _size = 0, 1
waiting = 0  # odd while this rank waits for the others; every wait adds 2


class Lost(Exception):
    """Another rank is gone: a collective operation failed."""


def size() -> int:
    """The number of ranks, W."""
    return _size


def share(total: int) -> slice:
    """This rank's part of `total` things. Raises ValueError where the parts would not be of one size."""
    if total % _size:
        raise ValueError(f"{total} cannot be shared equally by {_size} ranks; type learner.workers=1")
    part = total // _size
    return slice(_rank * part, (_rank + 1) * part)


def all_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sums over all ranks of tensors of one dtype, in one operation; every rank gets the same bits."""
    if _size == 1:
        return tensors
    import torch.distributed as dist

    flat = torch.cat([x.detach().reshape(-1) for x in tensors])
    with _together():
        dist.all_reduce(flat)
    pieces = torch.split(flat, [x.numel() for x in tensors])
    return tuple(piece.view(x.shape) for piece, x in zip(pieces, tensors, strict=True))


def all_mean(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The means over all ranks of tensors of one dtype, in one operation."""
    return tensors if _size == 1 else tuple(x.div_(_size) for x in all_sum(*tensors))


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give rank 0's values of contiguous tensors to all ranks, which have them in the same shapes; in place."""
    import torch.distributed as dist

    with _together():
        for x in tensors:
            if x.numel():
                dist.broadcast(x.reshape(-1).view(torch.uint8), src=0)  # bytes: any dtype


@contextmanager
def _together() -> Iterator[None]:
    """An operation of all ranks: this one waits for the others in it. Raises Lost where it fails."""
    global waiting
    waiting += 1
    try:
        yield
    except RuntimeError as error:
        raise Lost(str(error)) from error
    finally:
        waiting += 1


def join(rank: int, size: int, device: torch.device, meeting: Path) -> None:
    """Become rank `rank` of `size`; returns when all have joined. meeting: a file that does not exist yet.

    The ranks find one another through the file and talk over the loopback interface (GLOO_SOCKET_IFNAME and
    NCCL_SOCKET_IFNAME name another one): gloo for tensors in memory, NCCL for those on GPUs.
    """
    global _rank, _size
    import torch.distributed as dist

    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, loopback)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device.index or 0)
    store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except RuntimeError as error:
        raise Lost(str(error)) from error
    _rank, _size = rank, size


def leave() -> None:
    """Be rank 0 of 1 again."""
    global _rank, _size
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
    _rank, _size = 0, 1
