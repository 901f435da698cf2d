"""Lanes stepped by Ray actors for one worker, which acts for all of them (source.inference=shared).

    worker (the policy, perhaps on a GPU)       a_t of N lanes
      |  step(a_t[lanes i])  to every environment actor at once
      v
    environment actor i = 1..E                  an ordinary VecEnv of N / E lanes
      |  row_{t+1} of its lanes
      v
    worker: the rows of all lanes, written into one EnvStep

Lanes keep their numbers in the run, so episodes, noise and rows are those of N lanes in the worker's own process. Rows
and actions travel as NumPy arrays, whose contents Ray does not pickle. Environment actors belong to the worker: Ray
ends them when it ends, however it ends. A fault of an environment and the death of an environment actor are raised as
`EnvActorError` in the worker, whose end they are: the worker is replaced, and environment actors with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import Saved, VecEnv
from rlkit.sources.ray.lanes import cut, merge
from rlkit.sources.ray.wire import Packed
from rlkit.spaces import Array
from rlkit.text import fault_line
from rlkit.types import EnvSpec, EnvStep, empty_rows, tree_map

SILENCE = 15.0  # seconds beyond env.deadline after which an actor is given up


class Answer(TypedDict, total=False):
    """What an environment actor answers: the value of a method, or the text of what it raised."""

    value: Any
    failure: str


class Head(TypedDict):
    """What an environment actor says of itself when its environments are made."""

    pid: int
    exact: Literal["replay", "snapshot", "none"]  # as its VecEnv says


class EnvActorError(RuntimeError):
    """An environment actor cannot go on. The message is all there is to tell.

    died: the actor itself is gone (killed, out of memory, its node lost); otherwise an environment raised or hung.
    """

    def __init__(self, text: str, died: bool) -> None:
        super().__init__(text)
        self.died = died


def error_text(error: Exception) -> str:
    """The text that tells of an error: an environment's fault on one line, anything else with its traceback."""
    if hasattr(error, "trace"):
        return fault_line(error)
    return str(error) if isinstance(error, EnvActorError) else "".join(traceback.format_exception(error))


def leave_interrupts() -> None:
    """In a Ray actor, ignore SIGINT: Ctrl-C is the driver's, and a KeyboardInterrupt an environment's own fault."""
    ray = sys.modules.get("ray")
    main = threading.current_thread() is threading.main_thread()
    if main and ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class EnvActor:
    """The Ray actor that only steps environments; the class itself imports no Ray.

    env: the EnvConfig of its lanes, of which `first_lane` is the first one's number in the run; threads: of torch.
    """

    def __init__(self, env: object, seed: int, first_lane: int, threads: int) -> None:
        self.env, self.seed, self.first_lane, self.threads = env, seed, first_lane, threads

    def call(self, method: str, *args: object) -> Answer:
        """Call a method below; the answer holds what it returns, or the text of what it raises."""
        try:
            return {"value": getattr(self, method)(*args)}
        except Exception as error:
            return {"failure": error_text(error)}

    def start(self) -> Head:
        """Make the environments of its lanes."""
        leave_interrupts()
        torch.set_num_threads(self.threads)
        self.vector = registry.env_package().make_vec(self.env, self.seed, first_lane=self.first_lane)
        return {"pid": os.getpid(), "exact": self.vector.exact}

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> Packed:
        """The row of `VecEnv.restore`, as arrays."""
        return _arrays(self.vector.restore(episode, actions))

    def step(self, action: Array) -> Packed:
        """The row of `VecEnv.step` after actions [n, ...], as arrays."""
        return _arrays(self.vector.step(torch.from_numpy(action.copy())))  # what arrives is read-only

    def snapshot(self) -> Saved:
        """The state of its lanes (`VecEnv.snapshot`)."""
        state: Saved = self.vector.snapshot()
        return state

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        self.vector.load_snapshot(state)


def _arrays(step: EnvStep) -> Packed:
    """A row's fields as arrays of its memory."""
    found: Packed = tree_map(lambda x: x.cpu().numpy(), vars(step))
    return found


class RemoteVecEnv(VecEnv):
    """Lanes [first_lane, first_lane + lanes) of a run, in `source.env_actors` Ray actors of as many each.

    `step` returns the same EnvStep every time. Waits until all actors have started. Raises EnvActorError, as do
    `restore`, `step`, `snapshot` and `load_snapshot`.
    """

    def __init__(self, config: RunConfig, spec: EnvSpec, first_lane: int, lanes: int) -> None:
        import ray

        self.ray: ModuleType = ray
        self.spec, self.first_lane, self.lanes, self.device = spec, first_lane, lanes, torch.device("cpu")
        self.deadline = config.env.deadline
        source = config.source
        share = lanes // source.env_actors
        assert share * source.env_actors == lanes, f"{lanes} lanes for {source.env_actors} environment actors"
        self.row = EnvStep(
            empty_rows(spec.observation, (lanes,)),
            torch.zeros(lanes),
            *(torch.zeros(lanes, dtype=torch.bool) for _ in range(3)),
        )
        self.parts = [slice(start, start + share) for start in range(0, lanes, share)]
        # per actor: the arrays that its lanes' rows are written to
        self.places = [tree_map(lambda x: x[part].numpy(), vars(self.row)) for part in self.parts]  # noqa: B023
        actor = self.ray.remote(EnvActor).options(
            num_cpus=source.cpus_per_env_actor,
            num_gpus=0,
            scheduling_strategy="SPREAD" if source.placement == "spread" else "DEFAULT",
            max_restarts=0,  # the worker knows where to go on, and is replaced itself
        )
        threads = max(int(source.cpus_per_env_actor), 1)
        self.handles = [
            actor.remote(replace(config.env, lanes=share), config.seed, first_lane + part.start, threads)
            for part in self.parts
        ]
        self.pids: list[int] = []
        heads: list[Head] = self._ask("start", [()] * len(self.parts))
        self.pids = [head["pid"] for head in heads]
        self.exact = heads[0]["exact"]

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after actions[n] ([k_n, ...])."""
        return self._gather(self._ask("restore", [(episode[part], actions[part]) for part in self.parts]))

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...], on the CPU)."""
        values = action.numpy()
        return self._gather(self._ask("step", [(values[part],) for part in self.parts]))

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """None: these environments draw nothing for people."""
        return None

    def close(self) -> None:
        """End the actors; idempotent."""
        for handle in self.handles:
            self.ray.kill(handle)
        self.handles = []

    def snapshot(self) -> Saved:
        """The state of all lanes, as one vector of them would save it."""
        state: Saved = merge(*self._ask("snapshot", [()] * len(self.parts)))
        return state

    def load_snapshot(self, state: Saved) -> None:
        """Continue from the state of all lanes."""
        self._ask("load_snapshot", [(cut(state, part),) for part in self.parts])

    def _gather(self, rows: list[Packed]) -> EnvStep:
        """The rows of all actors, written into the one row."""
        for places, row in zip(self.places, rows, strict=True):
            tree_map(np.copyto, places, row)
        return self.row

    def _ask(self, method: str, args: Sequence[tuple[object, ...]]) -> list[Any]:
        """The values of a method of every actor; all of them work at once."""
        errors = self.ray.exceptions
        # an environment that hangs is told by its actor; one that says nothing at all was stopped
        patience = self.deadline + SILENCE if method == "step" else None
        refs = [handle.call.remote(method, *each) for handle, each in zip(self.handles, args, strict=True)]
        answers = []
        for index, ref in enumerate(refs):
            try:
                answer: Answer = self.ray.get(ref, timeout=patience)
            except errors.RayError as error:
                # RayTaskError: `call` raises nothing, so something that it needs is missing where it runs
                died = not isinstance(error, errors.RayTaskError)
                raise EnvActorError(f"{self._where(index)}: {' '.join(str(error).split())}", died) from error
            if "failure" in answer:
                raise EnvActorError(f"{self._where(index)}:\n{answer['failure']}", died=False)
            answers.append(answer["value"])
        return answers

    def _where(self, index: int) -> str:
        first, part = self.first_lane, self.parts[index]
        pid = f", process {self.pids[index]}" if self.pids else ""
        return f"environment actor {index} (lanes {first + part.start} to {first + part.stop - 1}{pid})"
