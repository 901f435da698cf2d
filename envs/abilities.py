"""What every value of env.backend but auto can do: plain facts, so that options are checked without any backend."""

from __future__ import annotations

from dataclasses import dataclass

SEEN = ("keep", "drop", "codes")  # options that say what the agent sees of an observation
WRAPPED = (
    "skip",
    "pixels",
    "gray",
    "size",
    *SEEN,
    "stuck_after",
    "time_limit",
)  # options that wrap a single environment
OF_GAMES = ("show_agent", "show_state", "reward", "groups", "seats")  # options of games of several agents
OWN_MASK = "shows masks as an entry action_mask of its observations"


@dataclass(frozen=True)
class Ability:
    """One way to step lanes."""

    about: str  # for people who choose one
    workers: bool = False  # whether it takes env.workers
    refused: tuple[str, ...] = ()  # options of EnvConfig that must keep their defaults
    instead: str = ""  # what an error about those says
    unmasked: str = ""  # why env.action_mask=info is refused; "" where it is not


ABILITIES = {
    "inprocess": Ability("one after the other here"),
    "threads": Ability(
        "as inprocess, drawn by threads (rlkit/CarRacing)",
        workers=True,
        refused=(*SEEN, "pixels"),
        instead="allowed with env.backend=inprocess or workers",
        unmasked="draws pictures, which have no masks beside them",
    ),
    "workers": Ability("in processes", workers=True),
    "native": Ability(
        "the environment's own Gymnasium vector",
        refused=(*WRAPPED, "labels", "max_failures"),
        instead="allowed with env.backend=inprocess or workers",
    ),
    "envpool": Ability(
        "EnvPool's version of it",
        workers=True,
        refused=(*(name for name in WRAPPED if name not in SEEN), "labels", "max_failures", *OF_GAMES),
        instead="its own options, such as frame_skip or max_episode_steps, go into env.kwargs; "
        "allowed with env.backend=inprocess or workers",
        unmasked=OWN_MASK,
    ),
    "batched": Ability(
        "its own torch vector",
        refused=(*WRAPPED, "reward_scale", "channels", "max_failures", *OF_GAMES),
        instead="its own options go into env.kwargs",
        unmasked=OWN_MASK,
    ),
}
