"""Exported policies in a server: loaded, verified, replaced while they serve, and computed many requests at once.

    model = Model("cartpole", "runs/cartpole/export", turns)
    action, memory = await turns.step(model.version, rows, first, memory, greedy=True)

A turn takes the requests that wait when it comes, at most `most` lanes of them, and waits for none.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.deploy.graph import GraphError
from rlkit.deploy.parity import recorded, replay
from rlkit.deploy.runtime import Policy
from rlkit.reading import Reader
from rlkit.serve.metrics import Counts, Ranges, Rows
from rlkit.serve.wire import Refused
from rlkit.spaces import Array

OLD = 4  # versions that are kept for memories that clients hold
Memory = tuple[Array, ...]


class RowReader(Reader):
    """Observations that are rows already, by the inputs of policy.onnx: looked at as any other observation."""

    @classmethod
    def of(cls, reader: Reader) -> RowReader:
        found = cls(reader.space, reader.action, gaps=reader.gaps, remedy=reader.remedy)
        for entry in found.entries:
            entry.start = None  # rows count from 0
        return found

    def _values(self, obs: Any) -> list[Any]:
        names = [f"obs.{entry.name}" if entry.name else "obs" for entry in self.entries]
        if obs.keys() != set(names):
            raise ValueError(f"the observations of this policy are {', '.join(names)}")
        return [obs[name] for name in names]


class Version:
    """An exported folder that was loaded, and verified with its recorded steps. Raises GraphError."""

    def __init__(self, folder: Path) -> None:
        self.policy = policy = Policy.load(folder)
        wrong = replay(policy)
        if wrong:
            raise GraphError(f"{folder} does not do what its agent did: {wrong}")
        record = recorded(policy.folder)
        names = {entry.name: f"obs.{entry.name}" if entry.name else "obs" for entry in policy.reader.entries}
        self.rows = {name: record[key] for name, key in names.items()}
        self.ranges, self.actions = Ranges.of(self.rows), record["action"]
        one = {name: x[:1] for name, x in self.rows.items()}
        policy.step(
            one, np.array([True]), policy.opening(1), False
        )  # opens sample.onnx, as long as it is there
        self.name = policy.folder.digest[:12]
        self.reader, self.used = RowReader.of(policy.reader), time.monotonic()


@dataclass
class Model:
    """A name that is served, and the version of its policy that new episodes get."""

    name: str
    folder: Path
    version: Version
    old: list[Version] = field(default_factory=list)  # the newest first

    def __post_init__(self) -> None:
        self.counts = Counts(self.version.policy.reader.action, self.version.actions)

    def replace(self, version: Version) -> None:
        """Serve another version to the episodes that open from now on. Raises GraphError."""
        mine, new = self.version.policy.info, version.policy.info
        for what in ("observation", "action", "labels", "gaps"):
            if mine.get(what) != new.get(what):
                raise GraphError(
                    f"{self.folder} has another {what} than the policy that is served: start the server again"
                )
        if version.name != self.version.name:
            self.old = [self.version, *(each for each in self.old if each.name != version.name)][:OLD]
            self.version = version

    def find(self, name: str) -> Version:
        """The version of a memory that a client holds. Raises Refused."""
        for version in (self.version, *self.old):
            if version.name == name:
                return version
        words = f"version {name[:60]!r} is not served any more: open another episode (first: true)"
        raise Refused(409, words)

    def forget(self, before: float) -> None:
        """Let go of old versions that nobody has used since."""
        self.old = [version for version in self.old if version.used >= before]


@dataclass(slots=True)
class _Waiting:
    rows: Rows
    first: Array
    memory: Memory
    result: asyncio.Future[tuple[Array, Memory]]


@dataclass
class Turns:
    """Steps of many requests in one call of a policy. most: lanes of a call, full: lanes that may wait."""

    most: int
    full: int
    waiting: int = 0

    def __post_init__(self) -> None:
        self._queue: deque[tuple[Model, Version, bool, _Waiting]] = deque()

    async def step(
        self, model: Model, version: Version, rows: Rows, first: Array, memory: Memory, greedy: bool
    ) -> tuple[Array, Memory]:
        """Policy.step of a few lanes: actions [lanes, ...], memory. Raises Refused(429) where too many wait."""
        lanes = len(first)
        if self.waiting + lanes > self.full:
            raise Refused(429, f"{self.waiting} decisions wait already: try again", retry_after="1")
        loop = asyncio.get_running_loop()
        if not self._queue:
            loop.call_soon(self._turn, loop)
        item = _Waiting(rows, first, memory, loop.create_future())
        self._queue.append((model, version, greedy, item))
        self.waiting += lanes
        return await item.result

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        groups: dict[tuple[int, bool], tuple[Model, Version, list[_Waiting]]] = {}
        lanes = 0
        while self._queue and (not lanes or lanes + len(self._queue[0][3].first) <= self.most):
            model, version, greedy, item = self._queue.popleft()
            groups.setdefault((id(version), greedy), (model, version, []))[2].append(item)
            lanes += len(item.first)
        self.waiting -= lanes
        if self._queue:
            loop.call_soon(self._turn, loop)
        for (_, greedy), (model, version, items) in groups.items():
            version.used = time.monotonic()
            _answer(model, version, greedy, items)


def _answer(model: Model, version: Version, greedy: bool, items: list[_Waiting]) -> None:
    """Compute a group, and give every request its own; one that cannot be computed does not spoil the others."""
    try:
        rows, first, memory = items[0].rows, items[0].first, items[0].memory
        if len(items) > 1:
            rows = {name: np.concatenate([item.rows[name] for item in items]) for name in rows}
            first = np.concatenate([item.first for item in items])
            memory = tuple(
                np.concatenate(parts) for parts in zip(*(item.memory for item in items), strict=True)
            )
        actions, after = version.policy.step(rows, first, memory, greedy)
    except Exception as error:  # ONNX Runtime has its own classes
        if len(items) > 1:
            for item in items:
                _answer(model, version, greedy, [item])
        elif not items[0].result.done():
            items[0].result.set_exception(
                Refused(422, f"the graph does not work on this input: {error}"[:300])
            )
        return
    start = 0
    for item in items:
        end = start + len(item.first)
        if not item.result.done():  # its connection may be gone
            mine = tuple(part[start:end].copy() for part in after) if len(items) > 1 else after
            item.result.set_result((actions[start:end], mine))
        start = end
    model.counts.decided(rows, actions, version.ranges)
