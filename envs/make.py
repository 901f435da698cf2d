"""Makes one environment (`make_env`) or N stepped together (`make_vec`), or finds out what a run must know (`probe`).

Neither torch nor a vector adapter is imported before a vector is made: worker processes import this module.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from gymnasium import spaces

from rlkit.envs.abilities import ABILITIES, OF_GAMES
from rlkit.envs.backends import FACTORIES
from rlkit.envs.backends.faults import EnvFault
from rlkit.envs.backends.simulators import Simulators
from rlkit.envs.classic import known
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.habits import Narrowing, normalizing, wide
from rlkit.envs.labels import experts, label_leaves
from rlkit.envs.lookup import agents_of, find_class, only_here, plays_games, plays_turns, threaded_block
from rlkit.envs.single import make_env
from rlkit.envs.wrappers.atari import is_atari
from rlkit.envs.wrappers.masks import ActionMask, gives_mask
from rlkit.machine import cores, most
from rlkit.options import show
from rlkit.seeding import Seeds
from rlkit.spaces import Space, check_mask, from_gymnasium

if TYPE_CHECKING:
    import torch

    from rlkit.contracts import Probe, VecEnv
    from rlkit.envs.aliases import Env, GymSpace
    from rlkit.types import EnvSpec

# Seconds; above it a step outweighs the ~50 microseconds that talking to workers costs. A class of environments that
# knows better has an attribute `slow_step`.
SLOW_STEP = 1e-3
WORKER = 48 * 2**20  # bytes of memory that a worker process takes at least
POOLED = ("MiniGrid-", "BabyAI-")  # ids whose rules, rewards and observations EnvPool keeps


def is_batched(config: EnvConfig) -> bool:
    """Whether the id names a class that steps all lanes at once as torch tensors (`batched = True`)."""
    return bool(getattr(find_class(config.id), "batched", False))


def make_vec(
    config: EnvConfig,
    seed: int,
    *,
    evaluation: bool = False,
    first_lane: int = 0,
    device: str | torch.device = "cpu",
    render: bool = False,
) -> VecEnv:
    """`config.lanes` environments behind the VecEnv protocol; `restore` opens their first episodes.

    first_lane: number of lane 0 in the whole run (it seeds training lanes); device: of batched environments, all
    others hand out CPU rows; render: make `render()` draw. A configuration with backend or action_mask "auto" is
    probed first; one that `probe` has decided makes nothing beyond its lanes. Raises ValueError for a configuration
    that cannot be used, EnvFault where an environment fails as it starts.
    """
    import torch

    config = settled(config)
    if evaluation and first_lane:
        raise ValueError(f"first_lane={first_lane}: evaluation lanes count from 0; allowed: 0")
    if evaluation:
        config = replace(config, stuck_after=0, atari=config.atari.judged())
    if "auto" in (config.backend, config.action_mask):
        config = probe(config).config
    seeds = Seeds(seed, evaluation, first_lane, config.lanes)
    return FACTORIES[config.backend](config, seeds, render, torch.device(device))


def settled(config: EnvConfig) -> EnvConfig:
    """`config` with all that follows from its values and from its environment's class; makes no environment.

    backend and action_mask stay "auto" where only an environment at work can tell. Raises ValueError for a
    configuration that cannot be used.
    """
    config.validate()
    if config.atari != AtariConfig() and not is_atari(config.id):
        typed = next(
            each.name for each in fields(AtariConfig) if getattr(config.atari, each.name) != each.default
        )
        value = getattr(config.atari, typed)
        raise ValueError(
            f"env.atari.{typed}={show(value)}: env.id={config.id} is no Atari game; allowed for ids of ale-py, "
            "ALE/Pong-v5 for example"
        )
    if config.atari.judged() == AtariConfig() != config.atari:
        raise ValueError(
            "env.atari: lives and sign alone, which evaluations have not, so that those would see other pictures than "
            "training; type env.atari.pool=true, or another rule beside them"
        )
    if config.backend != "envpool":  # which has ids of its own
        config = _of_class(config)
    if config.backend == "threads":
        threaded_block(config.id)  # raises where there is none
    if config.backend == "workers" and only_here(config.id):
        raise ValueError(f"env.backend=workers: {unknown(config.id)}; type env.backend=inprocess")
    if config.backend == "workers" and os.name != "posix":
        raise ValueError("env.backend=workers: not possible on this system; allowed: auto, inprocess, native")
    if config.backend == "auto" and (config.lanes == 1 or cores() == 1 or os.name != "posix"):
        config = replace(config, backend="inprocess")
    if config.backend == "auto":
        return config
    backend = ABILITIES[config.backend]
    workers = min(config.workers or cores(), config.lanes) if backend.workers else 0
    limit = most(WORKER if config.backend == "workers" else 0)
    if workers > limit:
        kind = "processes" if config.backend == "workers" else "threads"
        raise ValueError(
            f"env.workers={config.workers}: this machine carries {limit} {kind}; type env.workers={limit} or less"
        )
    return replace(config, workers=workers, action_mask="none" if backend.unmasked else config.action_mask)


def _of_class(config: EnvConfig) -> EnvConfig:
    """What follows from the environment's class, which may be batched, or of games. Raises ValueError."""
    batched = is_batched(config)
    if batched != (config.backend == "batched") and config.backend != "auto":
        needed = "auto or batched" if batched else "auto, inprocess, workers or native"
        raise ValueError(
            f"env.backend={config.backend}: not possible for env.id={config.id}; allowed: {needed}"
        )
    if batched:
        config = replace(config, backend="batched", action_mask="none")
        config.validate()  # of what a batched environment does not take
        agents = agents_of(config.id)
        if config.lanes % len(agents):
            raise ValueError(
                f"env.lanes={config.lanes}: a game of {config.id} has {len(agents)} agents, each a lane; allowed: "
                f"multiples of {len(agents)}"
            )
    if plays_turns(config):
        from rlkit.envs.backends.turns import settled_turns

        config = settled_turns(config)
    elif plays_games(config):
        from rlkit.envs.backends.games import settled_game

        config = settled_game(config)
    elif not batched:
        for name in OF_GAMES:
            given, usual = getattr(config, name), getattr(EnvConfig(), name)
            if given != usual:
                raise ValueError(
                    f"env.{name}={show(given)}: env.id={config.id} has one agent; type env.{name}={show(usual)}"
                )
    return config


def probe(config: EnvConfig, *, render: bool = False) -> Probe:
    """The spaces of an environment, and the configuration with backend, workers and action_mask decided.

    All of it is learned from one environment (one vector of a batched class; for EnvPool, without `render`, from none).
    Where there are several lanes and cores, env.backend=auto steps it for up to 0.3 s. render: it must draw pictures,
    too. Raises ValueError for a configuration that cannot be used or draws nothing, EnvFault where the environment
    fails at work.
    """
    from rlkit.contracts import Probe

    config, why = settled(config), ""
    if config.backend == "auto" and _pooled(config):
        config = settled(replace(config, backend="envpool"))
        why = (
            f"environment {config.id}: EnvPool's version of it, about ten times as fast, in {config.workers} threads; "
            "a run that is resumed begins with new episodes (env.backend=workers: with those that were cut)"
        )
    if config.backend == "envpool":
        from rlkit.envs.backends.envpool import probe_pool

        spec = probe_pool(config)
        _check_mask(spec)
        if render:
            _draw_alone(replace(config, lanes=1, workers=1))
        return Probe(spec, config, why, tuple(_rules(config)))
    if config.backend == "batched" or plays_turns(config):
        lanes = len(agents_of(config.id)) if config.backend == "batched" else 1
        vector = _alone(replace(config, lanes=lanes), render and config.backend != "batched")
        try:
            _check_mask(vector.spec)
            if render:
                _require_picture(vector)
        finally:
            vector.close()
        return Probe(vector.spec, config, "")
    if plays_games(config):
        return _probe_game(config, render)
    simulators = Simulators()
    try:
        with simulators.tracking():
            env = _one(config, render)
            try:
                return _probe_single(env, config, render)
            finally:
                env.close()  # type: ignore[no-untyped-call]
    finally:
        simulators.close()


def _pooled(config: EnvConfig) -> bool:
    """Whether EnvPool is installed and has the same environment, which takes all of these options."""
    refused, usual = ABILITIES["envpool"].refused, EnvConfig()
    if not config.id.startswith(POOLED) or config.kwargs or importlib.util.find_spec("envpool") is None:
        return False
    if any(getattr(config, name) != getattr(usual, name) for name in refused) or config.action_mask == "info":
        return False
    return config.id in importlib.import_module("envpool").list_all_envs()


def unknown(id: str) -> str:
    """What to say of an environment that other processes cannot make ("" of one that they can)."""
    if not only_here(id):
        return ""
    return (
        f"other processes do not know {id}, which this program alone has registered or defines; they know it by the "
        "name of an importable class, env=my_module:Class"
    )


def no_picture(id: str, reason: str = "its render() returned no picture") -> str:
    """What to say of an environment that cannot be filmed."""
    return (
        f"environment {id} draws no pictures for a video ({reason}); its constructor must take "
        "render_mode='rgb_array', and its render() return [H, W, 3]"
    )


def _probe_single(env: Env, config: EnvConfig, render: bool) -> Probe:
    """`probe` of an environment that is neither batched nor EnvPool's."""
    from rlkit.contracts import Probe
    from rlkit.types import EnvSpec

    if config.action_mask == "auto":
        config = replace(config, action_mask="info" if gives_mask(env, config.deadline) else "none")
        if config.action_mask == "info":
            env = ActionMask(env)
    shown, action = from_gymnasium(env.observation_space, config.channels), from_gymnasium(env.action_space)
    spec = EnvSpec(config.id, shown, action, config.stack, labels=label_leaves(config, shown))
    _check_mask(spec)
    _check_keys(env.action_space, config.id)
    notes, why = _notes(env, shown, config), ""
    if config.backend == "auto" and known(config):
        config = replace(config, backend="inprocess")
        why = f"environment {config.id}: machine code with Gymnasium's numbers, so all lanes in this process"
    if config.backend != "auto" and not render:
        return Probe(spec, settled(config), why, notes)
    from rlkit.envs.backends.trial import lane_of, step_seconds

    lane = lane_of(env, config)
    try:
        if config.backend == "auto":
            seconds = step_seconds(lane)
            slow = seconds > float(getattr(env.unwrapped, "slow_step", SLOW_STEP)) and os.name == "posix"
            alone = slow and only_here(config.id)
            config = settled(replace(config, backend="workers" if slow and not alone else "inprocess"))
            where = f"{config.workers} worker processes" if config.workers else "all lanes in this process"
            if seconds:
                why = f"environment {config.id}: {seconds * 1e3:.2g} ms per step, so {where}"
                why += f" after all: {unknown(config.id)}" if alone else ""
        if render:
            _require_picture(lane)
    finally:
        lane.guard.close()
    return Probe(spec, settled(config), why, notes)


def _probe_game(config: EnvConfig, render: bool) -> Probe:
    """`probe` of a game of several agents."""
    from rlkit.contracts import Probe
    from rlkit.envs.backends.games import agents_in
    from rlkit.envs.backends.inprocess import InProcess
    from rlkit.envs.backends.trial import step_seconds

    agents, why = len(agents_in(config)), ""
    vector = InProcess(replace(config, lanes=agents, check="none"), Seeds(0, False, 0, agents), render)
    try:
        _check_mask(vector.spec)
        if render:
            _require_picture(vector)
        if config.backend == "auto":
            seconds = step_seconds(vector)
            slow = seconds > SLOW_STEP and config.lanes > agents and not only_here(config.id)
            config = settled(replace(config, backend="workers" if slow else "inprocess"))
            where = f"{config.workers} worker processes" if config.workers else "all games in this process"
            why = f"environment {config.id}: {agents} agents, {seconds * 1e3:.2g} ms per step of a game, so {where}"
    finally:
        vector.close()
    return Probe(vector.spec, settled(config), why)


def _notes(env: Env, space: Space, config: EnvConfig) -> tuple[str, ...]:
    """The habits of an environment that a run should know of; one that fails fails again in the run, which tells."""
    found = [*normalizing(env), *_rules(config)]
    if wide(space):
        from rlkit.envs.backends.trial import lane_of, random_steps

        watched = Narrowing(env, space)
        lane = lane_of(watched, config)
        try:
            with contextlib.suppress(EnvFault):
                for _, _ in zip(random_steps(lane), range(10), strict=False):
                    pass
        finally:
            lane.guard.close()
        found += watched.notes()
    return tuple(found)


def _rules(config: EnvConfig) -> list[str]:
    """How an Atari game is played."""
    return [config.atari.describe()] if config.atari != AtariConfig() else []


def _check_mask(spec: EnvSpec) -> None:
    """Raise ValueError where an observation's mask does not fit the actions."""
    try:
        check_mask(spec.observation, spec.action)
    except ValueError as error:
        raise ValueError(f"env.id={spec.id}: {error}") from error


def _check_keys(action: GymSpace, id: str) -> None:
    """Raise ValueError where a saved policy could not give an action its keys back: they are written as texts."""
    if isinstance(action, spaces.Dict):
        other = [key for key in action.spaces if not isinstance(key, str)]
        if other:
            raise ValueError(
                f"env.id={id}: the key {other[0]!r} of its action space is no text; write {str(other[0])!r}"
            )
    if isinstance(action, spaces.Dict | spaces.Tuple):
        for part in action.spaces.values() if isinstance(action, spaces.Dict) else action.spaces:
            _check_keys(part, id)


def _one(config: EnvConfig, render: bool) -> Env:
    """One environment that draws if it should. Raises ValueError; `no_picture`, where only that is impossible."""
    try:
        return make_env(config, "rgb_array" if render else None)
    except ValueError as error:
        if not render:
            raise
        make_env(config).close()  # type: ignore[no-untyped-call]
        raise ValueError(no_picture(config.id, str(error))) from error


def _alone(config: EnvConfig, render: bool = False) -> VecEnv:
    """A vector of its own of a decided configuration."""
    import torch

    seeds = Seeds(0, False, 0, config.lanes)
    return FACTORIES[config.backend](config, seeds, render, torch.device("cpu"))


def _draw_alone(config: EnvConfig) -> None:
    """Make a vector that draws, and see whether it does. Raises ValueError."""
    try:
        vector = _alone(config, render=True)
    except ValueError as error:
        raise ValueError(no_picture(config.id, str(error))) from error
    try:
        _require_picture(vector)
    finally:
        vector.close()


def _require_picture(vector: VecEnv) -> None:
    """Open episodes and draw lane 0. Raises ValueError where that gives no picture."""
    import numpy as np

    vector.restore(np.zeros(vector.lanes, np.int64), [np.zeros(0)] * vector.lanes)
    try:
        picture = vector.render(0)
    except ValueError as error:
        raise ValueError(no_picture(vector.spec.id, str(error))) from error
    if picture is None:
        raise ValueError(no_picture(vector.spec.id))


def expert(config: EnvConfig) -> str | None:
    """What people call the driver whose action an environment gives as its label `expert`; None where it has none.

    Raises ValueError for an unknown environment.
    """
    return experts(config)
