"""What an environment is, as plain values: the fields of configs/env/*.yaml and of `env.<field>=`.

This module imports neither torch nor Gymnasium; worker processes receive the same values as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rlkit.envs.abilities import ABILITIES
from rlkit.options import build, option, show

CHECKS = ("warn", "space", "finite", "none")


@dataclass(frozen=True)
class AtariConfig:
    """How an Atari game is played, where any of this is set (rlkit.envs.wrappers.atari)."""

    pool: bool = option(False, help="Show the brighter of the last two frames of a skip, pixel by pixel")
    noops: int = option(
        0,
        min=0,
        max=1000,
        help="An episode opens with 1 to so many frames without action, by its seed; 0: with none",
    )
    fire: bool = option(False, help="Press fire at the start of a game")
    lives: bool = option(False, help="In training no value is carried over a lost life; the game goes on")
    sign: bool = option(False, help="In training rewards are -1, 0 or 1")
    sticky: float | None = option(
        None,
        min=0,
        max=1,
        help="How likely the emulator repeats the action before, in training; null: as the id says",
    )
    evaluation_sticky: float | None = option(
        None, min=0, max=1, help="The same in evaluations and films; null: as in training"
    )
    frames: int = option(108_000, min=1, help="How many frames of the emulator a game may have")

    def describe(self) -> str:
        """What is on, in a line."""
        parts = [
            "the brighter of two frames" if self.pool else "",
            f"1 to {self.noops} frames without action first" if self.noops else "",
            "fire at the start" if self.fire else "",
            "returns cut at lost lives (training)" if self.lives else "",
            "the sign of rewards (training)" if self.sign else "",
            ""
            if self.sticky is None
            else f"sticky actions {self.sticky:g} (evaluation {self.judged().sticky:g})",
            f"at most {self.frames:,} frames",
        ]
        return f"Atari: {'; '.join(part for part in parts if part)} (env.atari.*)"

    def judged(self) -> AtariConfig:
        """As evaluations play it."""
        sticky = self.sticky if self.evaluation_sticky is None else self.evaluation_sticky
        return replace(self, lives=False, sign=False, sticky=sticky, evaluation_sticky=None)


@dataclass(frozen=True)
class EnvConfig:
    """One environment and how its lanes are run. The order of work per step: skip, then pixels, gray and size,
    then what is kept of it."""

    name: str = option("", help="The configuration's name")
    id: str = option("", help='A Gymnasium id, "module:Id" (imports module first) or "package.module:Class"')
    kwargs: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Arguments of the environment's constructor"}
    )
    lanes: int = option(8, min=1, max=65536, help="How many environments are stepped together")
    backend: str = option(
        "auto",
        choices=("auto", *ABILITIES),
        help="; ".join(f"{name}: {backend.about}" for name, backend in ABILITIES.items())
        + "; auto: measured",
    )
    workers: int = option(
        0,
        min=0,
        max=4096,
        help="How many worker processes there are (envpool, threads: threads); 0: one per core",
    )
    skip: int = option(
        1,
        min=1,
        max=1000,
        help="Every action is repeated for so many environment steps; their rewards are summed",
    )
    pixels: int = option(
        0,
        min=0,
        max=4096,
        help="The agent sees so many times so many pixels of what render() draws, in RGB, instead of the observation; "
        "0: the observation",
    )
    gray: bool = option(False, help="Turn RGB frames [H, W, 3] into luminance [H, W]")
    size: int = option(0, min=0, max=4096, help="Shrink frames to size x size pixels; 0: keep their size")
    channels: str = option(
        "auto",
        choices=("auto", "first", "last"),
        help="Which axis of images of rank 3 is channels; auto: told by their shape, refused where both could be",
    )
    keep: tuple[int | str, ...] = option(
        (),
        min=0,
        help="The entries that the agent sees of a vector observation, by number, or of a Dict, by name; []: all",
    )
    drop: tuple[str, ...] = option((), help="The entries of a Dict observation that the agent does not see")
    codes: tuple[str, ...] = option(
        (),
        help="The entries of an observation whose uint8 numbers name kinds of things, not brightness (observation: "
        "all of one that is no Dict); network.encoder=auto reads them with grid",
    )
    labels: tuple[str, ...] = option(
        (),
        help="What the environment says of its observation for supervised models, as entries label.NAME that no policy "
        "reads: mask, pose, expert of env=carracing for example (docs/labels.md)",
    )
    text: int = option(
        96,
        min=1,
        max=4096,
        help="How many bytes the texts in an observation may have; the agent sees rows of so many",
    )
    show_agent: bool = option(
        False,
        help="In a game of several agents an observation also says which of them it is, as an entry agent",
    )
    show_state: bool = option(
        False,
        help="In a game of several agents an observation also has the whole game's state, as an entry state: what its "
        "method state() says; for network.privileged=[state]",
    )
    reward: str = option(
        "own",
        choices=("own", "team"),
        help="In a game of several agents: own: each is paid its reward; team: the mean of those who are in the game",
    )
    groups: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={
            "help": "In a game of several agents: who shares a policy, {NAME: [AGENT, ...]} with * for any "
            "characters; {}: all, or, where their spaces differ, those with the same ones"
        },
    )
    seats: str = option(
        "auto",
        choices=("auto", "all", "one"),
        help="In a game of several agents: all: every agent is a lane; one: a lane is one seat, and the league plays "
        "the other; auto: one where agents move in turns",
    )
    action_mask: str = option(
        "auto",
        choices=("auto", "info", "none"),
        help='info: info["action_mask"] of reset and step says which choices are allowed; none: all are; '
        "auto: info if the environment gives one",
    )
    stack: int = option(
        1, min=1, max=64, help="How many frames the policy sees at once; the environment emits one"
    )
    reward_scale: float = option(
        1.0, above=0, help="Training rewards are multiplied by this; evaluation keeps the true ones"
    )
    stuck_after: int = option(
        0, min=0, help="So many actions without a reward above 0 end a training episode as lost; 0: none do"
    )
    time_limit: int = option(
        0, min=0, help="How many environment steps (before skip) an episode may have; 0: its own limit"
    )
    check: str = option(
        "warn",
        choices=CHECKS,
        help="What ends the run: space: a wrong shape or dtype, NaN, infinity, a value out of its bounds; warn: "
        "the same, but floats out of their bounds are counted and reported; finite: a wrong shape, NaN, infinity; "
        "none: nothing",
    )
    deadline: float = option(
        60.0, above=0, max=1e6, help="How many seconds a step of all lanes may take before it counts as hung"
    )
    max_failures: int = option(
        0,
        min=-1,
        help="How many episodes in which the environment raises, hangs or breaks its space are cut and replaced before "
        "the run ends with an error; -1: any number",
    )

    atari: AtariConfig = field(default_factory=AtariConfig)

    def __post_init__(self) -> None:
        if isinstance(self.atari, dict):  # of JSON
            object.__setattr__(self, "atari", AtariConfig(**self.atari))
        for name in ("keep", "drop", "codes", "labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # YAML and JSON have lists
        object.__setattr__(self, "groups", {name: tuple(each) for name, each in self.groups.items()})

    def validate(self) -> None:
        """Raise ValueError, one line that names the field (`env.skip=0: ...`), for a value out of range."""
        build(EnvConfig, asdict(self), "env")
        if not self.id:
            raise ValueError("env.id: missing; allowed: a Gymnasium id or package.module:Class")
        if "*" in self.id:
            raise ValueError(f"env.id={self.id}: stands for many; type env=ID with one of them")
        backend = ABILITIES.get(self.backend)
        if backend is None:  # auto
            return
        if backend.unmasked and self.action_mask == "info":
            raise ValueError(
                f"env.action_mask=info: env.backend={self.backend} {backend.unmasked}; allowed: auto, none"
            )
        # vectors of Atari games have options of their own for these
        able = ("skip", "gray", "size") if self.atari != AtariConfig() else ()
        for name in backend.refused:
            if name not in able and getattr(self, name) != getattr(EnvConfig(), name):
                raise ValueError(
                    f"env.{name}={show(getattr(self, name))}: env.backend={self.backend} takes its environment as it "
                    f"is; {backend.instead}"
                )
