"""What rlkit uses of Ray, in this process: calls run when their answer is asked for, in an order drawn from a seed."""

from __future__ import annotations

import pickle
import random
from types import SimpleNamespace
from typing import Any

import numpy as np


class RayError(Exception):
    """As ray.exceptions.RayError."""


class RayTaskError(RayError):
    """As ray.exceptions.RayTaskError."""


class RuntimeEnvSetupError(RayError):
    """As ray.exceptions.RuntimeEnvSetupError."""


class Ref:
    """A call's answer to come."""

    def __init__(self, handle: Handle, name: str, args: Any) -> None:
        self.handle, self.name, self.args = handle, name, args
        self.answer: Any = None


class Handle:
    """An actor: calls are queued, and lost once it is dead."""

    def __init__(self, ray: FakeRay, kind: type, args: Any) -> None:
        self.ray, self.object, self.dead = ray, kind(*args), False
        if hasattr(self.object, "ray"):  # it calls Ray itself
            self.object.ray = ray
        self.calls: list[Ref] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> Ref:
            call = Ref(self, name, args)
            self.calls.append(call)
            if self.ray.aggregators_start and hasattr(self.object, "ray") and name == "start":
                self.work(call)  # nobody waits for that
            return call

        return SimpleNamespace(remote=remote)

    def work(self, until: Ref) -> None:
        """Answer the calls up to `until`, in order."""
        while until.answer is None:
            call = self.calls.pop(0)
            if self.dead:
                call.answer = ("error", RayError("the actor died"))
            else:
                call.answer = ("value", _copied(getattr(self.object, call.name)(*call.args)))


class FakeRay:
    """Stands in for the module `ray`."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, RuntimeEnvSetupError=RuntimeEnvSetupError
    )

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.puts = 0
        self.aggregators_start = True

    def is_initialized(self) -> bool:
        return False

    def remote(self, kind: type) -> Any:
        actor = SimpleNamespace(remote=lambda *args: Handle(self, kind, args))
        return SimpleNamespace(options=lambda **options: actor)

    def put(self, value: Any) -> Any:
        self.puts += 1
        return _copied(value)

    def wait(
        self, refs: list[Ref], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[Ref], list[Ref]]:
        if timeout is None:
            for ref in refs:
                ref.handle.work(ref)
        elif timeout:
            chosen = self.random.choice(refs)
            chosen.handle.work(chosen)
            return [chosen], []
        return [ref for ref in refs if ref.answer is not None], [ref for ref in refs if ref.answer is None]

    def get(self, ref: Ref, timeout: float | None = None) -> Any:
        ref.handle.work(ref)
        kind, value = ref.answer
        if kind == "error":
            raise value
        return value

    def kill(self, handle: Handle) -> None:
        handle.dead = True


def _copied(value: Any) -> Any:
    """As it comes out of the object store: a copy whose arrays are read-only."""
    found = pickle.loads(pickle.dumps(value))
    todo = [found]
    while todo:
        each = todo.pop()
        if isinstance(each, np.ndarray):
            each.flags.writeable = False
        todo += each.values() if isinstance(each, dict) else each if isinstance(each, (list, tuple)) else []
    return found
