"""The one error of environments at work: which lane, episode and step, and what to type next."""

from __future__ import annotations

from typing import Any

HINTS = {
    "raised": "the traceback above is the environment's own",
    "hung": "env.deadline=SECONDS allows slower steps",
    "exited": "the environment ended its process: look for output above, or run env.backend=inprocess",
    "nan": "env.check=none accepts it, at the cost of the training",
    "shape": "the environment must keep to its observation_space",
    "dtype": "env.check=finite converts it",
    "mask": "wherever an action follows, every component must have an allowed choice",
    "space": "env.check=finite accepts values outside the space",
    "text": "env.text=BYTES allows longer ones, env.drop=[ENTRY] leaves an entry out",
    "interface": "gymnasium.utils.env_checker.check_env looks for more of this kind",
}


class EnvFault(RuntimeError):
    """An environment failed while it was at work.

    kind: raised | hung | exited | nan | shape | dtype | space | mask | text | interface. lane counts over the run
    (first_lane included), episode from 0, step within the episode (0 is the reset). field: "reward", "action" or the
    observation's dotted name.
    """

    def __init__(
        self,
        kind: str,
        environment: str,
        lane: int,
        episode: int,
        step: int,
        seed: int,
        field: str = "",
        detail: str = "",
        trace: str = "",
    ) -> None:
        self.kind, self.environment, self.field = kind, environment, field
        self.lane, self.episode, self.step, self.seed = lane, episode, step, seed
        self.detail, self.trace = detail, trace
        what = f"{field}: {detail}" if field and detail else field or detail
        where = f"environment {environment}, lane {lane}, episode {episode} (seed {seed}), step {step}"
        text = f"{kind}: {where}{f': {what}' if what else ''}"
        self.text = text  # one line of the message: what and where
        super().__init__(f"{trace.rstrip()}\n{text}\n{HINTS[kind]}" if trace else f"{text}\n{HINTS[kind]}")

    def to_json(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        names = ("kind", "environment", "lane", "episode", "step", "seed", "field", "detail", "trace")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Lets transports that copy exceptions (Ray) hand it over whole."""
        return EnvFault, tuple(self.to_json().values())


def spent(count: int, limit: int) -> str:
    """How much of env.max_failures is used up, in words; a limit below 0 allows any number."""
    return f"{count} of {limit}, env.max_failures" if limit > 0 else f"number {count}, env.max_failures"
