"""The next rollout is collected in a thread while the learner learns: lag exactly 1.

    get k:   wait for rollout k; give the collector the newest weights; start rollout k+1; return rollout k

The collector acts with its own copy of the policy, updated only between rollouts, so which weights acted does not
depend on timing and a run is as reproducible as a synchronous one. A checkpoint holds the collector's weights and its
state at the start of the rollout under way, which is collected again on resume: nothing is waited for.
"""

from __future__ import annotations

import threading

from rlkit.collect.actor import Actor
from rlkit.contracts import Episodes, Policy, RolloutSource, Saved
from rlkit.types import Rollout


class ThreadSource(RolloutSource):
    """A queue of one. `actor.policy` must be a copy of the learner's policy, with two buffers."""

    def __init__(self, actor: Actor, learner: Policy) -> None:
        assert id(actor.policy) != id(learner), "the collector needs its own copy of the policy"
        self.actor, self.learner, self.timing = actor, learner, actor.timing
        self.version = 0  # of the learner's weights
        self._acting = 0  # of the collector's weights
        # set when the rollout under way is complete; None before the first
        self._done: threading.Event | None = None
        self._result: tuple[Rollout, Episodes] | BaseException | None = None
        self._begun: Saved = {}  # state at the start of the rollout under way

    def get(self) -> tuple[Rollout, Episodes]:
        if self._done is None:
            self._start()
        result, acting = self._wait(), self._acting
        self._start()
        result[0].version = acting
        return result

    def _start(self) -> None:
        """Give the collector the learner's weights, and start the next rollout."""
        self.actor.policy.load_state_dict(self.learner.state_dict())
        self._acting = self.version
        self._launch()

    def _launch(self) -> None:
        """Collect a rollout in a thread, with the weights that the collector has."""
        self._begun = self.actor.state_dict()
        self._result, self._done = None, threading.Event()
        threading.Thread(target=self._collect, args=[self._done], name="rlkit-collector", daemon=True).start()

    def _collect(self, done: threading.Event) -> None:
        try:
            self._result = self.actor.collect()
        except BaseException as error:  # handed to the learner's thread by get()
            self._result = error
        finally:
            done.set()

    def _wait(self) -> tuple[Rollout, Episodes]:
        """The rollout under way, once it is complete; raises what ended the collector."""
        assert self._done is not None, "nothing to wait for"
        # unlike Thread.join, still truthful after a signal has interrupted it
        while not self._done.wait(timeout=1.0):
            if (fault := self.actor.env.lost()) is not None:
                raise fault
        if isinstance(self._result, BaseException):
            raise self._result
        assert self._result is not None, "the collector ended without a result"
        return self._result

    def publish(self, version: int) -> None:
        self.version = version

    def report(self) -> dict[str, float]:
        return self.actor.report()

    def lags(self) -> list[int]:
        return []

    def close(self) -> None:
        """Stop the collector at its next step, then close the environments."""
        self.actor.stop = True
        if self._done is not None:
            self._done.wait(timeout=3)  # an environment that hangs is closed under it
        self.actor.env.close()

    def state_dict(self) -> Saved:
        policy = self.actor.policy.state_dict()
        return {
            "actor": self._begun,
            "started": self._done is not None,
            "policy": {name: value.clone() for name, value in policy.items()},
            "version": self.version,
            "acting": self._acting,
        }

    def load_state_dict(self, state: Saved) -> str | None:
        self.version, self._acting = state["version"], state["acting"]
        warning = self.actor.load_state_dict(state["actor"])
        if state["started"]:
            self.actor.policy.load_state_dict(state["policy"])
            self._launch()
        return warning
