"""What runs in a Ray actor: some lanes of the run and a policy to act for them. Uses no Ray, but for shared inference.

Everything goes out as NumPy arrays, which Ray moves through shared memory without pickling their contents, and weights
come in as one array that is read where it lies. What goes wrong in an environment is an answer, not an exception: the
text of its traceback. With source.inference=shared the lanes are those of other Ray actors (`remote_env.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlkit.collect.league import league_of
from rlkit.collect.make import make_actor, make_policy
from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import Saved
from rlkit.sources.ray.remote_env import EnvActorError, RemoteVecEnv, error_text, leave_interrupts
from rlkit.sources.ray.wire import (
    Collected,
    Failure,
    Started,
    Weights,
    lay_out,
    load_weights,
    pack_rollout,
)
from rlkit.types import EnvSpec


class Worker:
    """Lanes [first_lane, first_lane + lanes) of a run. Make it, `start` it, then call `collect` again and again."""

    def __init__(
        self,
        config: RunConfig,
        spec: EnvSpec,
        first_lane: int,
        lanes: int,
        eyes: Saved | None = None,
        guests: Saved | None = None,
    ) -> None:
        self.config, self.spec, self.first_lane, self.lanes = config, spec, first_lane, lanes
        # parts of them and of the league's guests, whose weights are arrays
        self.eyes, self.guests = eyes, guests
        self.version = -1
        self.failure: Failure | None = None

    def start(
        self, state: Saved | None, step: int = 0, episode: npt.NDArray[np.int64] | None = None
    ) -> Started | Failure:
        """Make the environments. Go on from `state`, or at `step` with new episodes [lanes], or from the beginning."""
        leave_interrupts()
        config = self.config
        torch.set_num_threads(max(int(config.source.cpus_per_worker), 1))
        wanted = config.source.gpus_per_worker > 0
        if wanted and not torch.cuda.is_available():
            text = "source.gpus_per_worker: torch finds no GPU where this worker runs"
            return {"failure": text, "died": False}
        device = torch.device("cuda" if wanted else "cpu")
        try:
            self.policy = make_policy(config, self.spec, device)
            spec = self.spec  # of what environments emit
            if self.eyes is not None:
                self.policy.eyes = registry.open_eyes(tensors(self.eyes), device)
                spec = replace(self.policy.eyes.spec, action=spec.action)
            league = league_of(self.policy)
            if league is not None and self.guests:
                league.invite(tensors(self.guests), device)
            shared = config.source.inference == "shared"
            vector = RemoteVecEnv(config, spec, self.first_lane, self.lanes) if shared else None
            self.actor = make_actor(
                config, self.policy, device, first_lane=self.first_lane, lanes=self.lanes, vector=vector
            )
            warning = self.actor.load_state_dict(state) if state else None
            if episode is not None:
                self.actor.reopen(step, episode)
        except Exception as error:
            return _failure(error)
        return {"pid": os.getpid(), "node": node_id(), "warning": warning}

    def collect(self, weights: Weights, version: int, rollouts: int) -> Collected | Failure:
        """A chunk: the next `rollouts` rollouts, acted for by the weights of this version.

        Once an environment has failed, this and every later call returns that failure.
        """
        begin = time.perf_counter()
        if self.failure is not None:
            return self.failure
        if version != self.version:
            if self.version < 0 and self.actor.device.type == "cpu":
                lay_out(self.policy, weights["layout"])
            load_weights(self.policy, weights)
            self.version = version
        timing, found = self.actor.timing, []
        before = timing.environment, timing.policy
        returns, lengths, lanes = [], [], []
        try:
            for _ in range(rollouts):
                rollout, episodes = self.actor.collect()
                rollout.version = version
                found.append(pack_rollout(rollout, copy=rollouts > 1))
                returns.append(episodes.returns)
                lengths.append(episodes.lengths)
                lanes.append(episodes.lanes)
        except Exception as error:
            self.failure = _failure(error)
            return self.failure
        return {
            "rollouts": found,
            "returns": returns,
            "lengths": lengths,
            "lanes": lanes,
            "step": self.actor.step,
            "episode": self.actor.account.episode.copy(),
            "seconds": time.perf_counter() - begin,
            "environment": timing.environment - before[0],
            "policy": timing.policy - before[1],
        }

    def state_dict(self) -> Saved:
        """The state of the worker's actor (`Actor.state_dict`)."""
        return self.actor.state_dict()


def arrays(parts: Saved) -> Saved:
    """Parts of a checkpoint with arrays in the place of tensors, for the way to a worker."""
    found: Saved = checkpoint_map(lambda x: x.numpy() if isinstance(x, torch.Tensor) else x, parts)
    return found


def tensors(parts: Saved) -> Saved:
    """Inverse of `arrays`, copied: what arrives is read-only."""
    found: Saved = checkpoint_map(
        lambda x: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x, parts
    )
    return found


def checkpoint_map(function: Callable[[Any], Any], value: Any) -> Any:
    """A tree of dicts and lists with `function` applied to what is in them."""
    if isinstance(value, dict):
        return {key: checkpoint_map(function, each) for key, each in value.items()}
    if isinstance(value, list):
        return [checkpoint_map(function, each) for each in value]
    return function(value)


def node_id() -> str:
    """The name of the Ray node that this process runs on; "" outside of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())


def _failure(error: Exception) -> Failure:
    """The answer of a worker that an error has ended."""
    return {"failure": error_text(error), "died": isinstance(error, EnvActorError) and error.died}
