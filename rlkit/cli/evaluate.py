"""rlkit evaluate: measure how good an agent is, and how sure that is."""

from __future__ import annotations

import csv
import io

from rlkit.cli.common import Parser, elsewhere, episode_parser, open_run, open_task, positive
from rlkit.cli.words import parse
from rlkit.text import clean, quoted


def _parser() -> Parser:
    parser = episode_parser(
        "evaluate",
        "Run episodes on seeds that training never used, or score a task's model on rows that it never learned from; "
        "report mean, median and inter-quartile mean with their 95% intervals; write RUN/eval/*.csv. Of a game of "
        "turns: won, drawn and lost games against each opponent.",
    )
    # another default seed than training's own evaluations, which chose best/
    parser.set_defaults(seed=1_000_000)
    parser.add_argument(
        "--opponent",
        metavar="X",
        action="append",
        default=[],
        help="of a game of turns: league (default), random, first, the game's own players (perfect, minimax:4), "
        "another run, or module:function; may be given several times",
    )
    parser.add_argument(
        "--games", type=positive, metavar="N", dest="episodes", help="how many games against each opponent"
    )
    parser.add_argument(
        "--tournament",
        action="store_true",
        help="several runs: every pair of them plays, and gets Elo ratings",
    )
    return parser


def main(argv: list[str]) -> int:
    """Evaluate, print the table, write the CSV."""
    parser = _parser()
    if "--tournament" in argv:
        from rlkit.cli.matches import tournament

        return tournament(parser, argv)
    arguments = parse(parser, argv)
    config_of_task = open_task(arguments)
    if config_of_task is not None:
        from rlkit.cli.tasks import evaluate

        return evaluate(arguments, config_of_task)
    import torch

    from rlkit.play.evaluate import by_group, evaluate_policy, group_of
    from rlkit.play.statistics import summarise, table
    from rlkit.turns import seated

    folder, config, agent = open_run(arguments)
    if arguments.opponent or seated(agent.policy.spec):
        from rlkit.cli.matches import evaluate_matches

        return evaluate_matches(arguments, folder, config, agent)
    episodes, seed = arguments.episodes or 100, arguments.seed
    sample = config.evaluate.sample if arguments.sample is None else arguments.sample
    played = evaluate_policy(
        agent.policy, config, episodes, seed=seed, device=torch.device("cpu"), greedy=not sample
    )
    mode = "sampled" if sample else "greedy"
    episodes = len(played)  # whole games, where groups of agents play
    print(clean(f"{agent.path}: {episodes} {mode} episodes of {config.env.id}, on seeds never trained on"))
    print(table(summarise([episode.result for episode in played])))
    groups = by_group(agent.policy, played)
    for name, results in groups.items():
        print(f"\n{clean(name)}: {len(results)} of them\n{table(summarise(results))}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [group_of(agent.policy, each) for each in played]
    writer.writerow(["episode", "seed", "return", "length", *(["group"] if groups else [])])
    writer.writerows(
        (each.number, each.seed, repr(each.result), each.length, *([name] if groups else []))
        for each, name in zip(played, names, strict=True)
    )
    name = f"{agent.path.name}{elsewhere(arguments)}-{mode}-seed{seed}-{episodes}.csv"
    path = (folder / "eval").mkdir() / name
    path.write(text.getvalue().encode())
    print(f"episodes:  {clean(path)}\nwatch it:  rlkit watch {quoted(folder)}")
    return 0
