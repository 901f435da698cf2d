"""What the verbs that open a run folder share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlkit.config import RunConfig
    from rlkit.policy import AgentPolicy


def run_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser for `rlkit VERB RUN`, with --trust."""
    parser = argparse.ArgumentParser(prog=f"rlkit {verb}", description=description)
    parser.add_argument("run", metavar="RUN", help="a run folder, for example runs/ppo-cartpole-0")
    parser.add_argument(
        "--trust",
        metavar="ID",
        help="allow the run's environment ID (module:Name) to be imported, if it was made elsewhere",
    )
    return parser


def episode_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """`run_parser` with what plays episodes."""
    parser = run_parser(verb, description)
    parser.add_argument(
        "--checkpoint", default="", metavar="X", help="best (default where there is one), last, or a step"
    )
    parser.add_argument("--episodes", type=positive, metavar="N", help="how many")
    parser.add_argument("--seed", type=natural, metavar="N", help="which held-out episodes")
    return parser


def open_run(arguments: argparse.Namespace) -> tuple[Path, RunConfig, AgentPolicy]:
    """The run's folder, configuration and chosen policy. Raises ConfigError, CheckpointError."""
    from rlkit.policy import load
    from rlkit.run import run_config
    from rlkit.trust import remember, require

    folder = Path(arguments.run)
    config = run_config(folder)
    if arguments.trust:
        remember(arguments.trust)
    require(config.env.id)
    return folder, config, load(folder, arguments.checkpoint)


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: allowed: a whole number of at least 1")
    return value


def natural(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value}: allowed: a whole number of at least 0")
    return value
