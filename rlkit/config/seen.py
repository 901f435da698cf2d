"""What an agent sees through, and which rows a model is scored on."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import option


@dataclass(frozen=True)
class EyesConfig:
    """A model through which the agent sees its environment; it does not learn."""

    run: str = option(
        "",
        help="A run, RUN, RUN:best, RUN:last or RUN:STEP, of a task or an agent, whose model the agent sees through "
        "(eyes=RUN); empty: it sees the environment itself",
    )
    gives: str = option(
        "features",
        choices=("features", "prediction"),
        help="features: what the model's encoder gives; prediction: what the model says, a state or a mask",
    )


@dataclass(frozen=True)
class RowsConfig:
    """The score on rows that training never sees."""

    every: int = option(0, min=0, help="How many steps lie between two evaluations; 0: total_steps / 10")
    rows: int = option(
        5_000, min=1, help="How many of the validation rows an evaluation reads, the same ones each time"
    )
