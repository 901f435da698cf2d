"""Chunks, and their way to the learner: one by one, or joined on the node where they were collected.

With many workers the learner's own time goes into messages: each chunk is fetched, unpacked and copied. So with more
than source.aggregate workers every node has an aggregator, an actor that joins the chunks of its node's workers:

    worker, worker, ...  -> shared memory of the node -> aggregator -> one message -> learner

The learner calls the workers and owns the references to their chunks; an aggregator is handed references (a *bundle*,
one at a time) and answers with the chunks joined. When it dies the chunks are still where they were: the learner takes
those directly, and all others of the node until another aggregator has started. Nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from rlkit.sources.ray.lanes import join_lanes, take_lanes
from rlkit.sources.ray.wire import (
    ActorHandle,
    Collected,
    Failure,
    Joined,
    ObjectRef,
    pack_rollout,
    unpack_rollout,
)
from rlkit.types import Rollout


@dataclass
class Chunk:
    """Rollouts that a worker was asked for; `value` is Worker.collect's, once they have arrived.

    value["rollouts"] may be shared with other chunks of a bundle: this one's lanes are then those from
    `column` times the lanes of a worker on.
    """

    worker: int
    version: int
    rows: int
    ref: ObjectRef
    value: Collected = field(default_factory=Collected)
    column: int = 0
    handed: bool = False  # an aggregator has it
    direct: bool = False  # it is not for an aggregator


@dataclass
class Bundle:
    """Chunks that an aggregator joins; `ref` is to its answer."""

    node: str
    chunks: list[Chunk]
    ref: ObjectRef


class Aggregator:
    """The actor of a node that waits for the chunks of the node's workers and joins them."""

    def __init__(self) -> None:
        import ray

        self.ray: ModuleType = ray
        torch.set_num_threads(1)

    def start(self) -> int:
        """The id of its process; the answer arrives when the actor runs."""
        return os.getpid()

    def join(self, refs: list[ObjectRef]) -> Joined:
        """The chunks (Worker.collect's answers, of as many rollouts each) as one, with their lanes in this order."""
        self.ray.wait(refs, num_returns=len(refs), timeout=None)
        values = [self._get(ref) for ref in refs]
        had = [value.pop("rollouts") for value in values if value and "failure" not in value]
        joined = []
        for parts in zip(*had, strict=True):
            rollout = join_lanes([unpack_rollout(each) for each in parts], torch.device("cpu"))
            joined.append(pack_rollout(rollout, copy=False))
        return {"rollouts": joined, "values": values}

    def _get(self, ref: ObjectRef) -> Collected | Failure | None:
        """A copy of a worker's answer; None where its chunk could not be had."""
        try:
            answer: Collected | Failure = self.ray.get(ref)
            return answer.copy()
        except self.ray.exceptions.RayError:  # the learner will see for itself
            return None


class Tree:
    """The aggregators, started when there are workers on a node, and the bundles under way: at most one on each node.

    whole: a bundle has the next chunk of every worker of a node, finished or not; else those that are finished.
    """

    def __init__(self, ray: ModuleType, whole: bool) -> None:
        self.ray, self.whole = ray, whole
        self.aggregators: dict[str, ActorHandle] = {}  # by node
        # references to Aggregator.start's answers until those are here, by node
        self.starting: dict[str, ObjectRef] = {}
        self.bundles: dict[str, Bundle] = {}  # by node
        self.pending: list[ObjectRef] = []  # unfinished chunks on nodes where nothing is under way

    def hand_over(self, heads: Sequence[tuple[str, Chunk]]) -> None:
        """Give aggregators what they can join now. heads: (node, next chunk) of each worker that has one."""
        self.pending = []
        up = {node: self._up(node) for node, _ in heads}
        for node, chunk in heads:
            chunk.direct = not up[node]
        free = [(node, chunk) for node, chunk in heads if up[node] and node not in self.bundles]
        if free and not self.whole:
            refs = [chunk.ref for _, chunk in free]
            _, self.pending = self.ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        unfinished = set(self.pending)
        by_node: dict[str, list[Chunk]] = {}
        for node, chunk in free:
            chunks = by_node.setdefault(node, [])
            # only chunks of as many rows can lie side by side
            if chunk.ref not in unfinished and (not chunks or chunk.rows == chunks[0].rows):
                chunks.append(chunk)
        for node, chunks in by_node.items():
            if not chunks:
                continue
            for chunk in chunks:
                chunk.handed = True
            # inside a list references stay references
            ref = self.aggregators[node].join.remote([chunk.ref for chunk in chunks])
            self.bundles[node] = Bundle(node, chunks, ref)

    def _up(self, node: str) -> bool:
        """Whether the node's aggregator can be asked (or has failed, which asking will show); if not, it is started."""
        if node and node not in self.aggregators:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(node, soft=False)
            actor = self.ray.remote(Aggregator).options(num_cpus=0, scheduling_strategy=here, max_restarts=0)
            self.aggregators[node] = actor.remote()
            self.starting[node] = self.aggregators[node].start.remote()
        if node in self.starting and self.ray.wait([self.starting[node]], num_returns=1, timeout=0)[0]:
            del self.starting[node]
        return node in self.aggregators and node not in self.starting

    def receive(self, bundle: Bundle) -> tuple[list[tuple[Chunk, Collected | Failure]], str]:
        """The answer to a bundle: its chunks with their values, but for those to be taken directly.

        The second value says why the aggregator could not answer; it has been dropped then. "": it has answered.
        """
        del self.bundles[bundle.node]
        answer: Joined
        try:
            answer, why = self.ray.get(bundle.ref), ""
        except self.ray.exceptions.RayError as error:
            answer = {"rollouts": [], "values": [None] * len(bundle.chunks)}
            why = " ".join(str(error).split())
            with contextlib.suppress(Exception):
                self.ray.kill(self.aggregators[bundle.node])
            del self.aggregators[bundle.node]
        found, column = [], 0
        for chunk, value in zip(bundle.chunks, answer["values"], strict=True):
            chunk.handed, chunk.direct = False, value is None
            if value is None:
                continue
            if "failure" not in value:
                value["rollouts"], chunk.column = answer["rollouts"], column
                column += 1
            found.append((chunk, value))
        return found, why

    def close(self) -> None:
        """End the aggregators."""
        for handle in self.aggregators.values():
            with contextlib.suppress(Exception):
                self.ray.kill(handle)


def join_chunks(chunks: Sequence[Chunk], index: int, lanes: int, device: torch.device) -> Rollout:
    """Rollout `index` of each chunk side by side, in the order of the chunks. lanes: of each worker.

    What lies in one bundle is moved as one piece. The version is the oldest one's.
    """
    bundles: dict[int, list[int]] = {}  # places of the chunks that share their rollouts
    for place, chunk in enumerate(chunks):
        bundles.setdefault(id(chunk.value["rollouts"]), []).append(place)
    parts, order = [], []
    for places in bundles.values():
        rollout = unpack_rollout(chunks[places[0]].value["rollouts"][index])
        columns = _lanes([chunks[place].column for place in places], lanes)
        whole = np.array_equal(columns, np.arange(rollout.size[1]))
        parts.append(rollout if whole else take_lanes(rollout, torch.from_numpy(columns)))
        order.append(_lanes(places, lanes))
    in_order = np.array_equal(np.concatenate(order), np.arange(len(chunks) * lanes))
    joined = join_lanes(parts, device, None if in_order else [torch.from_numpy(each) for each in order])
    joined.version = min(chunk.version for chunk in chunks)
    return joined


def _lanes(places: Sequence[int], lanes: int) -> npt.NDArray[np.int64]:
    """The numbers of the lanes [len(places) * lanes] of workers at these places."""
    return (np.array(places)[:, None] * lanes + np.arange(lanes)).ravel()
