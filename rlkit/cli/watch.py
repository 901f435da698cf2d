"""rlkit watch: see the agent, in a window or as a video."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlkit.cli.common import Parser, elsewhere, episode_parser, open_run, open_task
from rlkit.cli.words import parse
from rlkit.files import at
from rlkit.options import ConfigError
from rlkit.text import clean, quoted

if TYPE_CHECKING:
    from rlkit.config.schema import RunConfig
    from rlkit.contracts import Policy
    from rlkit.play.evaluate import Episode
    from rlkit.play.matches import Opponent


def _parser() -> Parser:
    parser = episode_parser(
        "watch",
        "Show episodes in a window; without a display, with --video, or in EnvPool write an MP4 "
        "(RUN/videos/watch-*.mp4). Of a task's run: its worst held-out rows, or with --video all of them.",
    )
    parser.add_argument("--video", metavar="FILE", help="write this .mp4 instead of opening a window")
    parser.add_argument(
        "--opponent",
        metavar="X",
        help="of a game of turns: human, who types moves at the terminal; or random, perfect, another run, ... as of "
        "rlkit evaluate",
    )
    parser.set_defaults(seed=0)
    return parser


def main(argv: list[str]) -> int:
    """Play episodes and report their returns."""
    parser = _parser()
    arguments = parse(parser, argv)
    if arguments.video and not arguments.video.endswith(".mp4"):
        raise ConfigError(f"--video {arguments.video}: allowed: a file that ends in .mp4")
    task = open_task(arguments)
    if task is not None:
        from rlkit.cli.tasks import watch

        return watch(arguments, task)
    import torch

    from rlkit.play.video import record

    film = (
        at(arguments.video) if arguments.video else None
    )  # before an environment changes the current directory
    folder, config, agent = open_run(arguments)
    sample = config.evaluate.sample if arguments.sample is None else arguments.sample
    if arguments.opponent == "human":
        from rlkit.play.people import play_person

        play_person(agent.policy, config, arguments.episodes or 1000, seed=arguments.seed, greedy=not sample)
        return 0
    against = _against(arguments.opponent, agent.policy)
    obstacle = ""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        obstacle = "no display here"
    elif config.env.backend == "envpool":
        obstacle = "EnvPool opens no window"
    windowed = not (arguments.video or obstacle)
    episodes = arguments.episodes or (3 if windowed else 1)
    if windowed:
        _tell(_window(agent.policy, config, episodes, arguments.seed, not sample, against))
        return 0
    if not arguments.video:
        print(f"{obstacle}, so a video is written instead")
    name = f"watch-{agent.path.name}{elsewhere(arguments)}-seed{arguments.seed}.mp4"
    path = film or folder / "videos" / name
    _tell(
        record(
            agent.policy,
            config,
            path,
            seed=arguments.seed,
            device=torch.device("cpu"),
            episodes=episodes,
            greedy=not sample,
            only=against,
        )
    )
    print(f"video:       {clean(path)}\nevaluate it: rlkit evaluate {quoted(folder)}")
    return 0


def _tell(episodes: list[Episode]) -> None:
    for episode in episodes:
        print(f"episode {episode.number}: return {episode.result:.1f} in {episode.length} steps")


def _against(name: str | None, policy: Policy) -> list[Opponent]:
    """Who takes the other seat; [] for the policy's league. Raises ConfigError."""
    if name is None:
        return []
    from rlkit.play.matches import opponent, seated_only

    seated_only(policy)
    return [opponent(name, policy, lambda text: print(clean(text), file=sys.stderr))]


def _window(
    policy: Policy,
    config: RunConfig,
    episodes: int,
    seed: int,
    greedy: bool,
    against: Sequence[Opponent],
) -> list[Episode]:
    """Episodes in the environment's own window (render_mode human)."""
    import torch

    from rlkit.collect.make import meeting
    from rlkit.config import registry
    from rlkit.play.evaluate import run_episodes

    env_config = replace(
        config.env,
        lanes=len(policy.spec.agents),  # of one game
        reward_scale=1.0,
        backend="auto",
        workers=0,
        kwargs={**config.env.kwargs, "render_mode": "human"},
    )
    device = torch.device("cpu")
    made = registry.env_package().make_vec(env_config, seed, evaluation=True, device=device)
    env = meeting(made, policy, only=against)
    try:
        return run_episodes(policy, env, episodes, seed=seed, device=device, greedy=greedy)
    finally:
        env.close()
