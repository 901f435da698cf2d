"""The only training loop, for agents and for supervised models alike.

    take a batch, learn from it, tell the feed, run the hooks (evaluate, stop, log, checkpoint)

A signal to stop raises Interrupted wherever the loop is. Nothing half-done is saved: the checkpoint hook keeps the
state of the last completed update and writes that, and the update that was cut is made again on resume.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlkit.contracts import Feed, Learner, Report, Saved
from rlkit.learn.signals import shielded


class Clock:
    """How far a run is. `seconds` counts the time of earlier sessions too."""

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.step = 0  # environment steps (real transitions) learned from
        self.previous = 0  # the step before the last update
        self.update = 0
        self.stop_reason = ""  # set by a hook: the run is complete
        self.learning = 0.0  # seconds spent in learn
        self.beside = 0.0  # seconds spent beside training, on evaluations and films, in earlier sessions too
        self._earlier, self._begun = 0.0, time.monotonic()

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return min(self.step / self.total_steps, 1.0)

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return self._earlier + time.monotonic() - self._begun

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or a hook has found a reason to stop."""
        return bool(self.stop_reason) or self.step >= self.total_steps

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Count the time spent inside as beside training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.beside += time.perf_counter() - begin

    def due(self, every: int) -> bool:
        """Whether the last update passed a multiple of `every` steps (a function of the step alone)."""
        return every > 0 and self.step // every > self.previous // every

    def advance(self, steps: int) -> None:
        """Count one update, and the environment steps that it has learned from."""
        self.previous, self.step, self.update = self.step, self.step + steps, self.update + 1

    def state_dict(self) -> Saved:
        """How far the run is."""
        names = ("step", "previous", "update", "stop_reason")
        return {name: getattr(self, name) for name in names} | {
            "seconds": self.seconds,
            "beside": self.beside,
        }

    def load_state_dict(self, state: Saved) -> None:
        """Continue from `state_dict`'s value."""
        for name in ("step", "previous", "update"):  # a run that is continued has no reason to stop
            setattr(self, name, state[name])
        self._earlier, self._begun = state["seconds"], time.monotonic()
        self.beside = state.get("beside", 0.0)


class Hook:
    """Something that happens beside learning. `report` is the row of numbers that hooks add to and log."""

    def after_update(self, clock: Clock, report: Report) -> None:
        """Called after each update, in the order of the hooks."""

    def resume(self, clock: Clock) -> None:
        """Called once, before the first update of a run that is continued."""

    def close(self, clock: Clock, error: BaseException | None) -> None:
        """Called once, in the order of the hooks; error: why the loop ended early."""


def fit(learner: Learner[Any], feed: Feed, hooks: Sequence[Hook], clock: Clock) -> None:
    """Train until the clock says that it is finished; hooks are closed whatever happens."""
    error: BaseException | None = None
    try:
        while not clock.finished:
            batch, steps = feed.next()
            begin = time.perf_counter()
            metrics = learner.learn(batch, clock.progress)
            clock.learning += time.perf_counter() - begin
            clock.advance(steps)
            feed.learned(clock.update)
            report: Report = feed.report() | metrics
            for hook in hooks:
                hook.after_update(clock, report)
    except BaseException as raised:
        error = raised
        raise
    finally:
        with shielded():
            _close(hooks, clock, error)


def _close(hooks: Sequence[Hook], clock: Clock, error: BaseException | None) -> None:
    """Close every hook whatever the others do, the last one (which saves) first."""
    problems = []
    for hook in reversed(hooks):
        try:
            hook.close(clock, error)
        except Exception as problem:
            problems.append(problem)
    if problems and not isinstance(error, Exception):  # an error that ended the loop is the one to tell
        raise problems[0]
