"""What several verbs share: arguments, the opening of a run folder, and a run's end with its report."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlkit.files import Place, named
from rlkit.options import ConfigError
from rlkit.text import clean, quoted

if TYPE_CHECKING:
    from rlkit.config.schema import Common, RunConfig, TaskRun
    from rlkit.play.saved import AgentPolicy


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help says more")


def run_parser(verb: str, description: str, newest: bool = False) -> Parser:
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
        help="allow what a run made elsewhere asks for: an agent's module or module:Name of an environment, encoder "
        "or core to be imported, OPTION=VALUE that starts programs or reaches other machines; may be given several "
        "times",
    )
    return parser


def episode_parser(verb: str, description: str) -> Parser:
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
        "--eyes",
        metavar="RUN",
        help="a task's run whose model says what the agent sees: an agent that learned from the true state acts from "
        "pictures",
    )
    parser.add_argument(
        "--part", choices=("training", "validation", "test"), help="of a task's table (default: test)"
    )
    parser.add_argument("--data", metavar="DATA", help="another table than a task's own")
    parser.add_argument(
        "--sample",
        action=argparse.BooleanOptionalAction,
        help="draw actions instead of taking the most likely ones (default: as the run's evaluate.sample says)",
    )
    return parser


def open_task(arguments: argparse.Namespace) -> TaskRun | None:
    """The configuration of a task's run, None where the run is an agent's. Raises ConfigError."""
    from rlkit.config.edits import read_plain
    from rlkit.config.schema import TaskRun
    from rlkit.config.trust import remember
    from rlkit.run.folder import any_config, run_folder

    if not (Path(arguments.run) / "config.yaml").is_file():
        return None  # a checkpoint's folder
    plain = read_plain(run_folder(arguments.run) / "config.yaml")
    if "task" not in plain:
        for name in ("data", "part"):
            if getattr(arguments, name):
                raise ConfigError(
                    f"{name}={getattr(arguments, name)}: of runs of tasks; {arguments.run} is an agent's"
                )
        return None
    if arguments.env and "agent" in plain:
        return None  # a policy, to be played
    remember(*arguments.trust)
    if arguments.env:
        raise ConfigError(
            f"{arguments.env[0]}: {arguments.run} is the run of a task, which reads rows of a table: data=DATA"
        )
    config = any_config(arguments.run)
    assert isinstance(config, TaskRun), "config.yaml says so"
    return config


def open_run(arguments: argparse.Namespace) -> tuple[Place, RunConfig, AgentPolicy]:
    """The run's folder, configuration and chosen policy; sets torch's threads as for its training.

    Raises ConfigError (among others where another environment was asked for and the agent cannot live in it) and
    CheckpointError.
    """
    import torch

    from rlkit.config.compose import with_env
    from rlkit.config.trust import remember, require
    from rlkit.device import choose_threads
    from rlkit.machine import cores
    from rlkit.play.saved import load
    from rlkit.run.folder import changed_by_hand, run_folder
    from rlkit.run.probe import has_pixels, probe_env
    from rlkit.space_json import to_json
    from rlkit.spaces import describe

    folder = run_folder(arguments.run)
    remember(*arguments.trust)
    config = _of_agent(folder)
    changed = changed_by_hand(folder, config, "env.")  # the agent is as it was saved
    asked = _played(config)
    if arguments.env:
        config = with_env(config, arguments.env)
        whole = any(
            word.startswith("env=") for word in arguments.env
        )  # nothing of the run's own environment is left
        remember(*(each for each in _played(config) if whole or each not in asked))  # it was typed
    require(*_played(config))
    for line in changed:
        _say(line)
    agent = load(folder, arguments.checkpoint, say=_say)
    if arguments.eyes:
        agent = _seeing(agent, arguments.eyes)
    if arguments.env or arguments.eyes:
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
    threads = min(config.threads, cores())  # it may have been trained on a larger machine
    torch.set_num_threads(choose_threads(threads, has_pixels(agent.spec)))
    return folder, config, agent


def _of_agent(folder: Place) -> RunConfig:
    """The configuration of an agent's run, or of a task's that trained an agent's policy, as if it were one.

    Raises ConfigError where a run has no policy.
    """
    from rlkit.config.compose import compose
    from rlkit.config.schema import TaskRun
    from rlkit.run.folder import any_config, run_config

    config = any_config(folder)
    if not isinstance(config, TaskRun) or config.agent is None:
        return run_config(folder)
    base = run_of(compose(values={"preset": "none"}).config)  # the environment is the one that is typed
    return replace(base, agent=config.agent, network=config.network, threads=config.threads, seed=config.seed)


def run_of(config: Common) -> RunConfig:
    """A configuration that is an agent's."""
    from rlkit.config.schema import RunConfig

    assert isinstance(config, RunConfig), "no task was typed"
    return config


def _seeing(agent: AgentPolicy, run: str) -> AgentPolicy:
    """The agent with a model between the environment and itself. Raises ConfigError where it does not fit."""
    from rlkit.config.registry import open_eyes
    from rlkit.play.saved import AgentPolicy
    from rlkit.run.handover import open_source
    from rlkit.space_json import to_json
    from rlkit.spaces import describe

    source = open_source(f"eyes={run}", run, _say)
    eyes = open_eyes({"source": source.parts, "gives": "prediction"})
    if to_json(eyes.space) != to_json(agent.policy.spec.observation):
        raise ConfigError(
            f"eyes={run}: its model says {describe(eyes.space)}, and the agent sees "
            f"{describe(agent.policy.spec.observation)}; train a task on a label with that space"
        )
    agent.policy.eyes = eyes
    return AgentPolicy(agent.policy, agent.path)


def _say(text: str) -> None:
    print(clean(text), file=sys.stderr)


def _played(config: RunConfig) -> tuple[str, ...]:
    """What playing an agent asks for beyond what is installed: not where its training got its experience from."""
    from rlkit.config.compose import to_plain
    from rlkit.config.trust import requests

    plain = to_plain(config)
    return requests({key: plain[key] for key in ("agent", "env", "network", "groups")})


def elsewhere(arguments: argparse.Namespace) -> str:
    """The part of a file's name that says in which other environment was played; empty for the run's own."""
    words = [*arguments.env, *([f"eyes={arguments.eyes}"] if arguments.eyes else [])]
    return f"-{re.sub('[^A-Za-z0-9._=-]+', '-', ' '.join(words))}" if words else ""


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


def run_to_end(action: Callable[[], Path]) -> int:
    """Train or resume, turning an interruption into its message and exit code."""
    from rlkit.learn.signals import Interrupted

    here = Path.cwd()  # which an environment may change
    try:
        folder = action()
    except Interrupted as stop:
        print(f"\n{stop}: saved. Continue with: rlkit resume {quoted(stop.folder)}", file=sys.stderr)
        return stop.exit_code
    report(named(folder), folder.relative_to(here) if folder.is_relative_to(here) else folder)
    return 0


def report(folder: Place, shown: Path) -> None:
    """Print the last evaluation, and the commands that watch and evaluate the agent in a folder, shown as typed."""
    from rlkit.config.edits import read_plain
    from rlkit.metrics import read_metrics
    from rlkit.run.console import clock, number

    every = read_metrics(folder / "metrics.csv")
    if every and "time/seconds" in every[-1]:
        beside = every[-1].get("time/evaluation_seconds", 0.0)
        print(
            f"total time: {clock(every[-1]['time/seconds'])}, of it {clock(beside)} in evaluations and films"
        )
    rows = [row for row in every if "evaluate/mean" in row]
    if rows:
        last = rows[-1]
        what = (
            "score on held-out rows" if "task" in read_plain(folder / "config.yaml") else "evaluated return"
        )
        elo = (
            f", {last['evaluate/elo']:.0f} Elo" if "evaluate/elo" in last else ""
        )  # by which best/ is chosen
        best = f"{last['evaluate/best']:.0f} Elo" if elo else number(last["evaluate/best"])
        print(
            f"{what}: {number(last['evaluate/mean'])} +- {number(last['evaluate/std'])}{elo} at step "
            f"{last['step']:,.0f}; best {best} (in {clean(shown / 'best')})"
        )
    print(f"watch it:    rlkit watch {quoted(shown)}\nevaluate it: rlkit evaluate {quoted(shown)}")
