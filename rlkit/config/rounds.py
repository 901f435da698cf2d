"""How a policy that imitates an expert is taught on what it does itself (rlkit.perception.rounds)."""

from __future__ import annotations

from dataclasses import dataclass

from rlkit.options import option


@dataclass(frozen=True)
class RoundsConfig:
    """Rounds of DAgger (Ross, Gordon and Bagnell, 2011), for task=imitate."""

    number: int = option(
        0,
        min=0,
        max=100,
        help="How often the learner acts itself, while the expert says what it would do, at points that divide the run "
        "evenly; rounds=3 means rounds.number=3",
    )
    frames: int = option(4_000, min=1, help="How many rows a round collects, which are learned from as well")
    sample: bool = option(False, help="The learner draws its actions; false: it takes the most likely ones")
