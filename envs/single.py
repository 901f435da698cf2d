"""One environment with its wrappers."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from typing import Any

import gymnasium

from rlkit.envs.aliases import Env
from rlkit.envs.backends.interface import own, require_spaces
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.labels.wrapper import Labelled
from rlkit.envs.lookup import Constructor, constructor, find_class, prepare_display
from rlkit.envs.wrappers.atari import AtariGame, arguments, is_atari
from rlkit.envs.wrappers.entries import Entries, changes
from rlkit.envs.wrappers.frames import FrameSkip, Picture
from rlkit.envs.wrappers.masks import ActionMask
from rlkit.envs.wrappers.rendered import Rendered
from rlkit.envs.wrappers.stuck import Stuck
from rlkit.spaces import from_gymnasium

# arguments of constructors that follow from our options
OURS = ("lanes", "seed", "evaluation", "first_lane", "device", "render_mode")


def make_env(config: EnvConfig, render_mode: str | None = None) -> Env:
    """One environment with its wrappers: time limit, frame skip, pixels, gray, size, entries, labels, mask.

    Frames are stacked by the policy. The environment is made and not reset. With env.action_mask=auto its masks stay in
    info: whether there are any shows in a reset, and `probe` decides that.

    Raises ValueError for an unknown id, a missing package, wrong arguments, frames that cannot be made gray or
    entries or labels that are not there.
    """
    if config.pixels:
        render_mode = "rgb_array"
    prepare_display(render_mode)
    kind = find_class(config.id)
    kwargs = dict(config.kwargs)
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    skip, gray = config.skip, config.gray
    limit = {"max_episode_steps": config.time_limit} if config.time_limit else {}
    film = render_mode == "rgb_array"
    atari = kind is None and is_atari(config.id)
    played = config.atari != AtariConfig()  # by our rules
    if played:
        kwargs |= arguments(config)
        limit = {}
    elif atari and skip > 1 and "frameskip" not in kwargs:
        kwargs["frameskip"] = 1 if film else skip
        if film:  # the same decisions, frame by frame
            decisions = config.time_limit or gymnasium.spec(config.id).max_episode_steps
            limit = {"max_episode_steps": decisions * skip} if decisions else {}
        else:
            skip = 1  # the emulator then draws the last frame only
    env = _made(config.id, kind, limit, kwargs)
    if kind is not None and config.time_limit:
        env = gymnasium.wrappers.TimeLimit(env, config.time_limit)
    if played:
        env, gray = AtariGame(env, config.atari, skip, film), False  # which draws gray itself
        if config.time_limit:
            env = gymnasium.wrappers.TimeLimit(env, -(-config.time_limit // skip))
    elif skip > 1:
        env = FrameSkip(env, skip, film)
    if config.pixels:
        env = Rendered(env, config.id, config.pixels)
    if gray or config.size:
        env = Picture(env, gray, config.size, config.channels)
    if changes(env.observation_space, config):
        env = Entries(env, config)
    if config.labels:
        env = Labelled(env, config)
    if config.stuck_after:
        env = Stuck(env, config.stuck_after)
    if config.action_mask == "info":
        env = ActionMask(env)
    for name, space in (("observation", env.observation_space), ("action", env.action_space)):
        try:
            from_gymnasium(space, what=name)
        except ValueError as error:
            raise ValueError(f"env.id={config.id}: {error}") from error
    return env


def refusal(id: str, kind: Constructor | None, kwargs: dict[str, Any], error: TypeError) -> ValueError:
    """What to say of a constructor (kind, or the one registered under the id) that does not take `kwargs`."""
    detail = str(error)
    with contextlib.suppress(Exception):  # there may be no signature to read
        known = inspect.signature(kind or constructor(id)).parameters
        wrong = [name for name in kwargs if name not in known]
        if wrong and all(each.kind is not each.VAR_KEYWORD for each in known.values()):
            undrawn = ", so it draws no pictures" if "render_mode" in wrong else ""
            allowed = ", ".join(name for name in known if name not in OURS)
            detail = f"no {', '.join(wrong)}{undrawn}; allowed: {allowed}"
    return ValueError(f"env.kwargs={kwargs}: {id} refuses them: {detail}")


def _made(id: str, kind: Constructor | None, limit: dict[str, int], kwargs: dict[str, Any]) -> Env:
    """The environment itself: of a class of one's own, or of a registered id. Raises as `make_env`."""
    try:
        if kind is not None:
            env = kind(**kwargs)
        else:
            with warnings.catch_warnings():
                # a higher version may be a variant (merge-v1 has other roads); the id is what was chosen
                warnings.filterwarnings("ignore", message=".*is out of date")
                env = gymnasium.make(id, disable_env_checker=True, **limit, **kwargs)
    except TypeError as error:
        raise refusal(id, kind, kwargs, error) from error
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"env.id={id}: cannot be made: {error}") from error
    except BaseException as error:
        if isinstance(error, Exception) or not own(error):
            raise
        raise ValueError(f"env.id={id}: its constructor ends the program with {error!r}") from error
    if hasattr(env, "possible_agents"):
        raise ValueError(
            f"env.id={id}: a PettingZoo environment of several agents, which are not trained yet; allowed: a "
            "gymnasium.Env, or a batched class whose lanes are the agents (rlkit.envs.toys.agents is one)"
        )
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"env.id={id}: makes a {type(env).__name__}, allowed: a gymnasium.Env")
    require_spaces(env, id)
    made: Env = env
    return made
