"""Early stopping: the evaluations end a run."""

from __future__ import annotations

import math

from rlkit.contracts import Report, Saved
from rlkit.learn.trainer import Clock, Hook


class EarlyStopHook(Hook):
    """Ends the run when an evaluation is good enough, or when `patience` of them in a row were no better than the best.

    score: the mean, in a league the Elo rating, that is good enough, None: there is none; patience 0: there is no such
    limit. It comes after the hook that evaluates. (Prechelt, "Early stopping - but when?", 1998.)
    """

    def __init__(self, score: float | None, patience: int) -> None:
        self.score, self.patience = score, patience
        self.best = -math.inf
        self.since = 0  # evaluations since the best one

    def after_update(self, clock: Clock, report: Report) -> None:
        mean = report.get("evaluate/elo", report.get("evaluate/mean"))  # as best/ is chosen
        if mean is None:
            return
        mean = float(mean)
        if mean > self.best:
            self.best, self.since = mean, 0
        else:
            self.since += 1
        if self.score is not None and mean >= self.score:
            clock.stop_reason = f"the evaluation's mean {mean:.4g} reached stop.score={self.score:g}"
        elif self.patience and self.since >= self.patience:
            clock.stop_reason = (
                f"{self.since} evaluations in a row were not above the best mean, {self.best:.4g} "
                f"(stop.patience={self.patience})"
            )

    def state_dict(self) -> Saved:
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state: Saved) -> None:
        self.best, self.since = state["best"], state["since"]
