"""Memories of simulations that a server keeps, by name or with a connection."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlkit.serve.models import Memory, Model, Version
from rlkit.serve.wire import Refused

IDLE = 600.0  # seconds after which a memory that nobody uses is dropped


@dataclass
class Session:
    """One simulation: its memory, and the version of the policy that its episode began with."""

    version: Version
    memory: Memory | None = None  # None: the next observation opens an episode
    used: float = 0.0
    busy: bool = False


class Sessions:
    """All sessions of a server, at most `most`."""

    def __init__(self, most: int, idle: float = IDLE) -> None:
        self.most, self.idle = most, idle
        self._kept: dict[tuple[str, Any], Session] = {}

    def open(self, model: Model, key: Any) -> Session:
        """A new session, in the stead of one with that key. Raises Refused(429) where there are too many."""
        place = (model.name, key)
        if place not in self._kept and len(self._kept) >= self.most:
            self.sweep()
            if len(self._kept) >= self.most:
                oldest = min(session.used for session in self._kept.values())
                wait = max(1, int(oldest + self.idle - time.monotonic()) + 1)
                raise Refused(429, f"{self.most} sessions are open (--max-sessions)", retry_after=str(wait))
        self._kept[place] = session = Session(model.version, used=time.monotonic())
        return session

    def get(self, model: Model, key: str) -> Session | None:
        """The session with that name, if one is open."""
        return self._kept.get((model.name, key))

    def close(self, model: Model, key: Any) -> None:
        self._kept.pop((model.name, key), None)

    @contextmanager
    def using(self, session: Session) -> Iterator[None]:
        """One request at a time. Raises Refused(409)."""
        if session.busy:
            raise Refused(
                409, "this session decides on another observation: send the next one after its action"
            )
        session.busy = True
        try:
            yield
        finally:
            session.busy, session.used = False, time.monotonic()

    def sweep(self) -> None:
        """Drop those that nobody has used for long."""
        before = time.monotonic() - self.idle
        for place in [place for place, each in self._kept.items() if each.used < before and not each.busy]:
            del self._kept[place]

    def count(self) -> Counter[str]:
        """How many are open, by model."""
        return Counter(name for name, _ in self._kept)
