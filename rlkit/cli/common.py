"""Arguments and opening of a run folder, for the verbs that work on one."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlkit.options import ConfigError

if TYPE_CHECKING:
    from rlkit.config.schema import RunConfig
    from rlkit.play.saved import AgentPolicy


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help says more")


def run_parser(verb: str, description: str, newest: bool = False) -> argparse.ArgumentParser:
    """A parser for `rlkit VERB RUN`, with --trust. newest: RUN may be left out."""
    parser = Parser(prog=f"rlkit {verb}", description=description)
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?" if newest else None,
        help="a run folder, for example runs/ppo-cartpole-0, or its name in runs/"
        + ("; without one: the newest there" if newest else ""),
    )
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action="append",
        default=[],
        help="allow code that a run made elsewhere names to be imported: an agent's module, or module:Name of an "
        "environment, encoder or core; may be given several times",
    )
    return parser


def episode_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A `run_parser` with the arguments of the verbs that play episodes."""
    parser = run_parser(
        verb, f"{description} Options may be typed as KEY=VALUE, too: episodes=5.", newest=True
    )
    parser.add_argument(
        "env",
        nargs="*",
        metavar="env=NAME env.KEY=VALUE",
        help="another environment than the one that was trained in, or options of it",
    )
    parser.add_argument(
        "--checkpoint", default="", metavar="X", help="best (default where there is one), last, or a step"
    )
    parser.add_argument("--episodes", type=positive, metavar="N", help="how many")
    parser.add_argument("--seed", type=natural, metavar="N", help="which held-out episodes")
    parser.add_argument(
        "--sample",
        action=argparse.BooleanOptionalAction,
        help="draw actions instead of taking the most likely ones (default: as the run's evaluate.sample says)",
    )
    return parser


def open_run(arguments: argparse.Namespace) -> tuple[Path, RunConfig, AgentPolicy]:
    """The run's folder, configuration and chosen policy; sets torch's threads as for its training.

    Raises ConfigError (among others where another environment was asked for and the agent cannot live in it) and
    CheckpointError.
    """
    import torch

    from rlkit.config.compose import to_plain, with_env
    from rlkit.config.trust import code_of, remember, require
    from rlkit.device import choose_threads
    from rlkit.play.saved import load
    from rlkit.run.check import has_pixels, probe_env
    from rlkit.run.folder import run_config
    from rlkit.spaces import describe, to_json

    folder = Path(arguments.run)
    remember(*arguments.trust)
    config = run_config(folder)
    trained = config.env.id
    if arguments.env:
        config = with_env(config, arguments.env)
    code = code_of(to_plain(config))
    if config.env.id == trained:
        require(*code)
    else:
        remember(*code)  # it was typed
    agent = load(folder, arguments.checkpoint, say=lambda text: print(text, file=sys.stderr))
    if arguments.env:
        probe = probe_env(config)
        config, spec = replace(config, env=probe.config), probe.spec
        for what in ("observation", "action"):
            given, known = getattr(spec, what), getattr(agent.spec, what)
            if to_json(given) != to_json(known):
                words = [describe(given), describe(known)]
                if words[0] == words[1]:
                    words[1] = "the same with other bounds"
                raise ConfigError(
                    f"{' '.join(arguments.env)}: its {what} space is {words[0]}, the agent's {words[1]}"
                )
    torch.set_num_threads(choose_threads(config.threads, has_pixels(agent.spec)))
    return folder, config, agent


def elsewhere(arguments: argparse.Namespace) -> str:
    """The part of a file's name that says in which other environment was played; empty for the run's own."""
    return f"-{re.sub('[^A-Za-z0-9._=-]+', '-', ' '.join(arguments.env))}" if arguments.env else ""


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: allowed: a whole number of at least {least}")
    return int(text)
