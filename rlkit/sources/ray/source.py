"""Rollouts from Ray actors: the run's lanes dealt out to workers, every one with the actor of the other sources.

Lanes, their episode seeds and their noise have the numbers that they have in one process, and `source.group` fixes how
many lanes a forward pass sees, so how lanes are dealt out changes nothing (source.mode=sync).

    sync     every worker collects a rollout with the newest weights, then the learner learns from all of them: lag 0
    async    workers collect while the learner learns; with u updates made, a chunk acted for by weights of version v
             is learned from at a lag of u - v <= max_lag

A batch is one chunk of each worker, T steps of all lanes, so updates are as large as in one process. In `async`, an
agent that learns from whole episodes or keeps a replay buffer gets the chunks of each lane in their order, one of each
worker; agents that learn from rollouts get those that arrived first. The lag is bounded by waiting, not by throwing
away: a worker has at most max_lag chunks under way or unused, and the learner waits for chunks that would be too old
later. (To drop it would lose work, and of slow episodes more than of fast ones.) Agents that learn from rollouts go on
with the chunks of those workers that are up: while one is being replaced, and while some wait for a node to start on
(source.min_workers).

What corrects for the lag is the agent's own: PPO's ratio is to the probabilities with which the actions were drawn, so
the clipped objective is that of the policy that acted; there is no V-trace. A replay buffer is off-policy anyway: its
chunks are of several rollouts (source.rollouts), handed out one by one, and max_lag counts chunks.

Weights lie once per version in shared memory, where workers read them; rollouts are used where they arrived, and with
several workers copied once, into one batch (for a GPU into pinned memory). With many workers that is done on their
nodes first (aggregate.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from rlkit.config.schema import RunConfig
from rlkit.contracts import Episodes, Experience, Policy, Replayed, Rollouts, RolloutSource, Saved, Timing
from rlkit.sources.ray.aggregate import Chunk, join_chunks
from rlkit.sources.ray.fleet import Fleet
from rlkit.sources.ray.lanes import merge_states, split_state
from rlkit.sources.ray.wire import ObjectRef, pack_weights
from rlkit.types import Rollout, tree_leaves

CHUNK = 0.05  # seconds of work that are worth a message


class RaySource(RolloutSource):
    """Ray and the workers start with the first `get`. experience: what the algorithm learns from."""

    def __init__(
        self,
        config: RunConfig,
        learner: Policy,
        experience: Experience,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.learner, self.device, self.say = config, learner, device, say
        self.asynchronous = config.source.mode == "async"
        self.steps = experience.steps
        # chunks that a worker is asked for while the learner learns
        self.ahead = config.source.max_lag if self.asynchronous else 0
        self.ordered = not self.asynchronous or not isinstance(experience, Rollouts)
        self.rollouts = 1  # of a chunk
        self.measured = not (self.asynchronous and isinstance(experience, Replayed))
        if not self.measured and config.source.rollouts:
            self.rollouts, self.measured = config.source.rollouts, True
        self.fleet: Fleet | None = None
        self.version = 0
        self.timing = Timing()
        self._weights: tuple[int, ObjectRef] = (-1, None)  # version, reference
        # not yet handed out, with the versions of their chunks
        self._ready: deque[tuple[Rollout, Episodes, list[int]]] = deque()
        self._restored: dict[str, Saved] = {}  # what the workers are to begin with
        self._begun = False  # enough workers have come up
        # step and episode of every lane after what was taken
        self._mark: dict[str, npt.NDArray[np.int64]] = {}
        self._lags: list[int] = []
        self._row: dict[str, float] = {}

    def get(self) -> tuple[Rollout, Episodes]:
        """The next rollout of all lanes, or (async, rollouts) of as many; its tensors may be read-only memory."""
        begin = time.perf_counter()
        if self.fleet is None:
            self._start()
        if not self._ready:
            self._take()
        rollout, episodes, versions = self._ready.popleft()
        lags = [self.version - version for version in versions]
        self._lags += lags
        self._row = self._numbers(rollout, lags)
        self.timing.waiting += time.perf_counter() - begin
        return rollout, episodes

    def publish(self, version: int) -> None:
        self.version = version

    def _start(self) -> None:
        """Start the workers, each with its part of the state that the run continues from."""
        config, lanes, workers = self.config, self.config.env.lanes, self.config.source.workers
        # with max_lag=1 a worker has one chunk at a time, so the first that arrive are all of them
        whole = self.ordered or self.ahead == 1
        self.fleet = Fleet(config, self.learner, self.steps, self.say, whole)
        cuts = [slice(start, start + lanes // workers) for start in range(0, lanes, lanes // workers)]
        actor, mark = self._restored.get("actor"), self._restored.get("mark")
        states = [split_state(actor, cut.start, cut.stop) if actor else None for cut in cuts]
        marks = [(int(mark["step"][cut].max()), mark["episode"][cut]) if mark else None for cut in cuts]
        self._mark = {"step": np.zeros(lanes, np.int64), "episode": np.full(lanes, -1, np.int64)}
        if actor:
            self._mark = {"step": np.full(lanes, actor["step"]), "episode": actor["episode"].copy()}
        elif mark:
            self._mark = {name: array.copy() for name, array in mark.items()}
        self.fleet.start(states, marks)

    def _take(self) -> None:
        """Wait for the next batch, have the workers go on, and cut the batch into rollouts of all lanes."""
        fleet = self.fleet
        assert fleet is not None, "no workers"
        chunks: list[Chunk] = []
        while not chunks:
            # chunks of one batch have as many rollouts: none is asked for in advance before that number is known
            fleet.ask(max(self.ahead, 1) if self.measured else 1, self.version, self._put(), self.rollouts)
            chunks = self._choose(fleet)
            if not chunks:
                fleet.wait()
        gone = {id(chunk) for chunk in chunks}
        fleet.arrived = [chunk for chunk in fleet.arrived if id(chunk) not in gone]
        if not self.measured:
            slowest = max(chunk.value["seconds"] for chunk in chunks)
            self.rollouts, self.measured = max(round(CHUNK / slowest), 1), True
        fleet.ask(self.ahead, self.version, self._put(), self.rollouts)
        self._unpack(chunks)

    def _choose(self, fleet: Fleet) -> list[Chunk]:
        """The chunks to learn from next, or none yet."""
        if self.ordered:
            oldest = {chunk.worker: chunk for chunk in reversed(fleet.arrived)}
            complete = len(oldest) == len(fleet.members)
            return [oldest[worker] for worker in sorted(oldest)] if complete else []
        if not self._begun:
            self._begun = fleet.up >= (self.config.source.min_workers or len(fleet.members))
            if self._begun and fleet.up < len(fleet.members):
                self.say(
                    f"the run begins with {fleet.up} of {len(fleet.members)} workers; others join as they start"
                )
        # chunks of this version would be too old for the batch after this one
        due = self.version - self.ahead
        oldest_first = sorted(fleet.arrived, key=lambda chunk: chunk.version)
        must = sum(chunk.version <= due for chunk in oldest_first)
        # several learner ranks share batches of one size
        fewer = self._begun and self.config.learner.workers == 1
        count = max(must, fleet.up if fewer else len(fleet.members), 1)
        if len(oldest_first) < count:
            return []
        under_way = [chunk.version for member in fleet.members for chunk in member.chunks]
        left = under_way + [chunk.version for chunk in oldest_first[count:]]
        # of what is left, all that is due within k batches must fit into them
        late = any(sum(version <= due + k for version in left) > k * count for k in range(self.ahead))
        if late and under_way:
            return []
        return sorted(oldest_first[:count], key=lambda chunk: chunk.worker)

    def _unpack(self, chunks: list[Chunk]) -> None:
        """Cut a batch into rollouts of all lanes, ready to be handed out, and note how far each lane is."""
        values = [chunk.value for chunk in chunks]
        for i in range(len(values[0]["rollouts"])):
            episodes = Episodes(
                [each for value in values for each in value["returns"][i]],
                [each for value in values for each in value["lengths"][i]],
                [each for value in values for each in value["lanes"][i]],
            )
            rollout = join_chunks(chunks, i, self.config.env.lanes // self.config.source.workers, self.device)
            self._ready.append((rollout, episodes, [chunk.version for chunk in chunks]))
        for chunk in chunks:
            lanes = slice(
                chunk.worker * len(chunk.value["episode"]), (chunk.worker + 1) * len(chunk.value["episode"])
            )
            self._mark["step"][lanes], self._mark["episode"][lanes] = (
                chunk.value["step"],
                chunk.value["episode"],
            )
        workers = self.config.source.workers
        self.timing.environment += sum(value["environment"] for value in values) / workers
        self.timing.policy += sum(value["policy"] for value in values) / workers

    def _put(self) -> ObjectRef:
        """The reference to the newest weights, put once per version."""
        assert self.fleet is not None, "no workers"
        if self._weights[0] != self.version:
            self._weights = self.version, self.fleet.ray.put(pack_weights(self.learner))
        return self._weights[1]

    def _numbers(self, rollout: Rollout, lags: list[int]) -> dict[str, float]:
        """The numbers that `report` gives after this rollout was handed out."""
        fleet = self.fleet
        assert fleet is not None, "no workers"
        tensors = tree_leaves({name: value for name, value in vars(rollout).items() if name != "version"})
        return {
            "source/workers": fleet.up,
            "source/restarts": fleet.deaths,
            "source/failures": fleet.failures,
            "source/lost_rows": fleet.rows["lost"],
            "source/megabytes": sum(x.numel() * x.element_size() for x in tensors) / 1e6,
            "source/lag_mean": sum(lags) / len(lags),
            "source/lag_max": max(lags),
        }

    def report(self) -> dict[str, float]:
        """Workers, losses, size and lag of what was handed out last."""
        return self._row

    def lags(self) -> list[int]:
        found, self._lags = self._lags, []
        return found

    def close(self) -> None:
        if self.fleet is not None:
            self.fleet.close()

    def state_dict(self) -> Saved:
        """sync: the actor's, of all lanes, as the local source has it. async: where each lane's next episode begins."""
        if self.fleet is None:
            return {"actor": {}, **self._restored, "version": self.version}
        if not self.asynchronous:
            return {"actor": merge_states(self.fleet.states()), "version": self.version}
        return {
            "actor": {},
            "mark": {name: array.copy() for name, array in self._mark.items()},
            "version": self.version,
        }

    def load_state_dict(self, state: Saved) -> str | None:
        """Continue from the state of this source or of the local one, whatever the number of workers was."""
        self.version = state["version"]
        self._restored = {name: state[name] for name in ("actor", "mark") if state.get(name)}
        lanes = len(self._restored.get("actor", self._restored.get("mark", {})).get("episode", ()))
        if lanes not in (0, self.config.env.lanes):
            raise ValueError(
                f"env.lanes={self.config.env.lanes}, but the checkpoint has {lanes} lanes; "
                f"set env.lanes={lanes} in the run's config.yaml"
            )
        if "mark" in self._restored:
            return "source.mode=async: every lane opens a new episode, so the run continues, but not exactly"
        return None
