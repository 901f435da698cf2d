"""What runs in a Ray actor: some lanes of the run and a policy to act for them. Uses no Ray, but for shared inference.

Everything goes out as NumPy arrays, which Ray moves through shared memory without pickling their contents, and weights
come in as one array that is read where it lies. What goes wrong in an environment is an answer, not an exception: the
text of its traceback. With source.inference=shared the lanes are those of other Ray actors (rlkit.sources.remote_env).
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit import registry
from rlkit.config import RunConfig
from rlkit.sources import make_actor
from rlkit.sources.remote_env import EnvActorError, RemoteVecEnv, error_text
from rlkit.types import EnvSpec, Rollout, tree_map

Array = npt.NDArray[Any]
ALIGN = 64  # bytes: where each tensor of the flat weights begins


def pack_weights(module: nn.Module) -> dict[str, Any]:
    """Parameters and buffers as one flat array.

    Returns {"bytes": uint8 [size], "layout": [(name, start, shape, stride, dtype)]}. Every tensor is there as it lies
    in memory: in its order of axes, and at the same place of a block of 64 bytes.
    """
    layout, pieces, size = [], [], 0
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


def load_weights(module: nn.Module, packed: dict[str, Any]) -> None:
    """Copy `pack_weights`' value, which may be read-only memory, into a module like the one that was packed."""
    flat, tensors = tensor(packed["bytes"]), {}
    for name, start, shape, stride, dtype in packed["layout"]:
        tensors[name] = _view(flat, start, shape, stride, dtype)
    module.load_state_dict(tensors)


def lay_out(module: nn.Module, layout: list[tuple[Any, ...]]) -> None:
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


def pack_rollout(rollout: Rollout, copy: bool) -> dict[str, Any]:
    """A rollout's fields as arrays of its memory, or copied."""

    def array(x: Tensor) -> Array:
        found: Array = x.detach().cpu().contiguous().numpy()
        return found.copy() if copy else found

    return dict(vars(rollout.map(array)))  # type: ignore[arg-type]


def unpack_rollout(fields: dict[str, Any]) -> Rollout:
    """The rollout whose tensors are `pack_rollout`'s arrays."""
    tensors = {name: tree_map(tensor, value) for name, value in fields.items() if name != "version"}
    return Rollout(**tensors, version=fields["version"])


class Worker:
    """Lanes [first_lane, first_lane + lanes) of a run. Make it, `start` it, then call `collect` again and again."""

    def __init__(self, config: RunConfig, spec: EnvSpec, first_lane: int, lanes: int) -> None:
        self.config, self.spec, self.first_lane, self.lanes = config, spec, first_lane, lanes
        self.version = -1
        self.failure: dict[str, Any] = {}

    def start(
        self, state: dict[str, Any] | None, step: int = 0, episode: Array | None = None
    ) -> dict[str, Any]:
        """Make the environments and go on from `state`, or at `step` with new episodes [lanes], or from the beginning.

        Returns {"pid", "node", "warning"}, or {"failure": text, "died": whether an environment actor is gone}.
        """
        config = self.config
        torch.set_num_threads(max(int(config.source.cpus_per_worker), 1))
        wanted = config.source.gpus_per_worker > 0
        if wanted and not torch.cuda.is_available():
            text = "source.gpus_per_worker: torch finds no GPU where this worker runs"
            return {"failure": text, "died": False}
        device = torch.device("cuda" if wanted else "cpu")
        try:
            agent = registry.agent_module(config.agent_name)
            self.policy = agent.Policy(self.spec, config.network, config.agent).to(device)
            shared = config.source.inference == "shared"
            vector = RemoteVecEnv(config, self.spec, self.first_lane, self.lanes) if shared else None
            self.actor = make_actor(
                config, self.policy, device, first_lane=self.first_lane, lanes=self.lanes, vector=vector
            )
            warning = self.actor.load_state_dict(state) if state else None
            if episode is not None:
                self.actor.reopen(step, episode)
        except Exception as error:
            return _failure(error)
        return {"pid": os.getpid(), "node": node_id(), "warning": warning}

    def collect(self, weights: dict[str, Any], version: int, rollouts: int) -> dict[str, Any]:
        """A chunk: the next `rollouts` rollouts, acted for by the weights of this version.

        Returns {"rollouts", "returns", "lengths", "step", "episode", "seconds", "environment", "policy"}, or
        `start`'s {"failure", "died"} now and ever after once an environment has failed.
        """
        begin = time.perf_counter()
        if self.failure:
            return self.failure
        if version != self.version:
            if self.version < 0 and self.actor.device.type == "cpu":
                lay_out(self.policy, weights["layout"])
            load_weights(self.policy, weights)
            self.version = version
        timing, found = self.actor.timing, []
        before = timing.environment, timing.policy
        returns, lengths = [], []
        try:
            for _ in range(rollouts):
                rollout, episodes = self.actor.collect()
                rollout.version = version
                found.append(pack_rollout(rollout, copy=rollouts > 1))
                returns.append(episodes.returns)
                lengths.append(episodes.lengths)
        except Exception as error:
            self.failure = _failure(error)
            return self.failure
        return {
            "rollouts": found,
            "returns": returns,
            "lengths": lengths,
            "step": self.actor.step,
            "episode": self.actor.episode.copy(),
            "seconds": time.perf_counter() - begin,
            "environment": timing.environment - before[0],
            "policy": timing.policy - before[1],
        }

    def state_dict(self) -> dict[str, Any]:
        """The actor's."""
        return self.actor.state_dict()


def node_id() -> str:
    """Of the Ray node that this process runs on; "" outside of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())


def _failure(error: Exception) -> dict[str, Any]:
    """What a worker answers that cannot go on."""
    return {"failure": error_text(error), "died": isinstance(error, EnvActorError) and error.died}
