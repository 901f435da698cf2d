"""What a new run takes over from another one: an encoder (network.encoder_from), all weights (init_from), or a player
of its league (league.players).

The other run, of an agent or of a task, is read once, at the start. What was taken is part of the new run's own
checkpoints, so a run that is continued reads nothing, and the other one may be gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlkit import checkpoint
from rlkit.collect.eyes import Eyes
from rlkit.config import registry
from rlkit.config.schema import Common, RunConfig
from rlkit.contracts import Saved
from rlkit.device import Say
from rlkit.files import run_named
from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import make_encoder
from rlkit.nn.network import Network
from rlkit.options import ConfigError, build
from rlkit.play.saved import find, guest_parts
from rlkit.space_json import to_json
from rlkit.spaces import describe
from rlkit.text import clean
from rlkit.turns import seated
from rlkit.types import EnvSpec, tree_map

KNOWN = ("random", "first", "perfect", "minimax")  # players, which runs of these names are never taken for
_ENCODER = re.compile(r"(?:.+\.)?encoders\.0\.")


@dataclass(frozen=True)
class Source:
    """A run that something is taken from."""

    option: str  # as it was typed, network.encoder_from=runs/seg
    path: str  # of its checkpoint
    parts: Saved  # part `policy` of that

    @property
    def spec(self) -> EnvSpec:
        """What it sees and answers."""
        return EnvSpec.from_json(self.parts["spec"])

    @property
    def about(self) -> str:
        """Where it is, and of what."""
        kind = f"task={self.parts['task']}" if "task" in self.parts else f"agent={self.parts['agent']}"
        return f"{clean(self.path)} ({clean(kind, 60)})"


def sources(config: Common, spec: EnvSpec, continued: Saved | None, say: Say) -> list[Source]:
    """The runs that a run with this spec takes over from. Raises ConfigError where one is none or does not fit.

    continued: part `policy` of the checkpoint that the run goes on from, which has what was taken over already.
    """
    found: list[Source] = []
    if continued is not None:
        return found
    if isinstance(config, RunConfig) and config.init_from:
        source = open_source(f"init_from={config.init_from}", config.init_from, say)
        _check_policy(source, config, spec)
        found.append(source)
    if config.network.encoder_from:
        name = config.network.encoder_from
        source = open_source(f"network.encoder_from={name}", name, say)
        _check_encoder(source, config.network, spec)
        found.append(source)
    return found


def through_eyes(
    config: RunConfig, spec: EnvSpec, continued: Saved | None, device: torch.device, say: Say
) -> tuple[RunConfig, EnvSpec, Eyes | None]:
    """What the agent of a run sees of an environment, and through which eyes; otherwise as `eyes_of`.

    An encoder of images, as presets of pictures choose one, gives way to `auto` where numbers are seen.
    """
    parts = eyes_of(config, spec, continued, say)
    if parts is None:
        return config, spec, None
    eyes = registry.open_eyes(parts, device)
    say(
        f"eyes: the agent sees {describe(eyes.space)} that {config.eyes.run}'s model makes of "
        f"{describe(eyes.spec.observation)}; the model is frozen"
    )
    seen = eyes.seen(spec)
    try:
        with torch.device("meta"):
            make_encoder(seen.inputs, seen.stack, config.network)
    except ValueError as error:
        say(f"network.encoder: auto, because {error}")
        config = replace(config, network=replace(config.network, encoder="auto"))
    return config, seen, eyes


def eyes_of(config: RunConfig, spec: EnvSpec, continued: Saved | None, say: Say) -> Saved | None:
    """The parts of the eyes through which the agent of a run sees an environment; None where it has none.

    continued: as of `sources`. Raises ConfigError where the run is none, or where its model reads something else.
    """
    if continued is not None:
        parts: Saved | None = continued.get("eyes")
        return parts
    if not config.eyes.run:
        return None
    source = open_source(f"eyes={config.eyes.run}", config.eyes.run, say)
    return eyes_parts(source, config.eyes.gives, spec)


def eyes_parts(source: Source, gives: str, spec: EnvSpec) -> Saved:
    """The parts of eyes made of a run, for an environment with this spec. Raises ConfigError."""
    _same_inputs(source, spec)
    if source.parts.get("eyes"):
        raise ConfigError(f"{source.option}: has eyes of its own; type the run that they are made of")
    return {"source": source.parts, "gives": gives}


def guests_of(config: RunConfig, spec: EnvSpec, continued: Saved | None, say: Say) -> Saved:
    """The parts of the agents of other runs among the players of a run's league, by name; {} where there is no league.

    continued: as of `sources`. Raises ConfigError where a run has no policy, or one that plays another game.
    """
    if not seated(spec):
        return {}
    names = [(name, _checkpoint_of(name)[0]) for name in config.league.players]
    runs = [name for name, folder in names if folder not in KNOWN and run_named(folder).is_dir()]
    if continued is not None:
        parts: Saved = continued.get("guests", {})
        new = [name for name in runs if name not in parts]
        if new:
            raise ConfigError(
                f"league.players={new[0]}: was no player when the run began; type the players of then (its checkpoint "
                f"has {', '.join(parts) or 'no run'}), or begin a new run"
            )
        return parts
    found = {}
    for name in runs:
        source = open_source(f"league.players={name}", name, say)
        if "agent" not in source.parts or source.parts.get("eyes"):
            raise ConfigError(
                f"{source.option}: {source.about} has eyes of its own or is no agent; type another run"
            )
        for what in ("inputs", "action"):
            theirs, ours = getattr(source.spec, what), getattr(spec, what)
            if to_json(theirs) != to_json(ours):
                raise ConfigError(
                    f"{source.option}: plays another game: its {what} are {describe(theirs)}, this run's "
                    f"{describe(ours)}; type a run of this game"
                )
        found[name] = guest_parts(source.parts)
        say(f"league: {name} plays as {source.about}, and does not learn")
    return found


def hand_over(found: list[Source], model: torch.nn.Module, config: Common, say: Say) -> None:
    """Copy what is taken over into a model that was just built, and say so."""
    device = next(model.parameters()).device
    for source in found:
        weights: dict[str, Tensor] = tree_map(lambda x: x.to(device), source.parts["weights"])
        if source.option.startswith("init_from"):
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"{source.option}: another network than this run's; type its options of network.* and agent.* "
                    f"({reason})"
                ) from error
            count = sum(x.numel() for x in weights.values())
            say(f"init_from: all {count:,} numbers of {source.about}; they are trained on")
        else:
            own = _encoder_weights(weights)
            targets = [
                each for part in model.modules() if isinstance(part, Network) for each in part.encoders
            ]
            for target in targets:
                target.load_state_dict(own)
            count = sum(x.numel() for x in own.values())
            factor = config.network.encoder_lr
            fate = "trained on" if factor else "frozen (network.encoder_lr=0)"
            rate = f" with the learning rate times {factor:g}" if factor not in (0, 1) else ""
            say(
                f"encoder_from: the {count:,} numbers of the encoder of {source.about}; they are {fate}{rate}"
            )


def open_source(option: str, name: str, say: Say) -> Source:
    """The run that RUN or RUN:WHICH names. Raises ConfigError."""
    folder, which = _checkpoint_of(name)
    try:
        path, parts = checkpoint.first_whole(find(folder, which), "policy", say=say)
    except ValueError as error:  # no run, no checkpoint, or none that is whole
        raise ConfigError(f"{option}: {error}") from error
    saved = parts["policy"]
    try:
        EnvSpec.from_json(saved["spec"])
        build(NetworkConfig, saved["network"], "network")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{option}: no policy and no model in {path}: {error}") from error
    return Source(option, str(path), saved)


def _checkpoint_of(name: str) -> tuple[str, str]:
    """RUN and WHICH of RUN:WHICH; WHICH is "" where none is typed."""
    folder, colon, which = name.rpartition(":")
    return (folder, which) if colon and re.fullmatch(r"best|last|\d+", which) else (name, "")


def _check_policy(source: Source, config: RunConfig, spec: EnvSpec) -> None:
    """Raise ConfigError where a policy is one of another agent, or for other spaces."""
    agent = source.parts.get("agent")
    if agent != config.agent_name:
        what = f"agent={agent}" if agent else f"task={source.parts.get('task')}, which has no policy"
        raise ConfigError(
            f"{source.option}: {clean(what, 60)}, and this run is of agent={config.agent_name}: type a run of it"
        )
    for what in ("observation", "action"):
        theirs, ours = getattr(source.spec, what), getattr(spec, what)
        if to_json(theirs) != to_json(ours):
            raise ConfigError(
                f"{source.option}: its {what} space is {describe(theirs)}, this run's {describe(ours)}"
            )
    if source.spec.stack != spec.stack:
        raise ConfigError(
            f"{source.option}: sees {source.spec.stack} frames at once; type env.stack={source.spec.stack}"
        )


def _check_encoder(source: Source, network: NetworkConfig, spec: EnvSpec) -> None:
    """Raise ConfigError where an encoder reads something else than this run's, or is another one."""
    _same_inputs(source, spec)
    other = build(NetworkConfig, source.parts["network"], "network")

    def built(config: NetworkConfig) -> str:
        with torch.device("meta"):
            return str(make_encoder(spec.inputs, spec.stack, config))

    if built(other) != built(network):
        names = ("encoder", "hidden", "activation", "normalize", "standardize")
        # those without which the source's encoder would be another one
        different = [
            name for name in names if built(replace(other, **{name: getattr(network, name)})) != built(other)
        ]
        typed = " ".join(f"network.{name}={_value(getattr(other, name))}" for name in different)
        raise ConfigError(
            f"{source.option}: another encoder than this run's ({', '.join(different)}); type {typed}"
        )


def _same_inputs(source: Source, spec: EnvSpec) -> None:
    """Raise ConfigError where what a run's network reads is not what this run's environment shows."""
    theirs = source.spec
    if to_json(theirs.inputs) != to_json(spec.inputs):
        raise ConfigError(
            f"{source.option}: its encoder reads {describe(theirs.inputs)}, this run's {describe(spec.inputs)}; make "
            "them equal (env.gray, env.size, or the table that the task learned from)"
        )
    if theirs.stack != spec.stack:
        raise ConfigError(
            f"{source.option}: its encoder reads {theirs.stack} frames at once, this run's {spec.stack}; type "
            f"env.stack={theirs.stack} (a task: stack={theirs.stack}), or train the other run with {spec.stack}"
        )


def _value(value: object) -> str:
    """An option's value as one types it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _encoder_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the first encoder in a policy or a model, by their names in it."""
    prefixes = [match[0] for name in weights if (match := _ENCODER.match(name))]
    first = min(prefixes, key=len)
    return {name.removeprefix(first): value for name, value in weights.items() if name.startswith(first)}
