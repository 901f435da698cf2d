"""How a model is taught on the states to which acting on it leads (rlkit.perception.rounds)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import option


@dataclass(frozen=True)
class RoundsConfig:
    """Rounds of DAgger (Ross, Gordon and Bagnell, 2011)."""

    number: int = option(
        0,
        min=0,
        max=100,
        help="How often the learner acts itself, while the expert says what it would do, at points that divide the run "
        "evenly; rounds=3 means rounds.number=3",
    )
    run: str = option(
        "",
        help="The run of an agent that acts on what a model says (task=regress, of a label that is what the agent "
        "sees); empty: the learner acts itself (task=imitate)",
    )
    frames: int = option(4_000, min=1, help="How many rows a round collects, which are learned from as well")
    sample: bool = option(False, help="Actions are drawn; false: whoever acts takes the most likely ones")
