"""rlkit evaluate: measure how good an agent is, and how sure that is."""

from __future__ import annotations

import csv
import io

from rlkit.cli.common import elsewhere, episode_parser, open_run, open_task
from rlkit.cli.words import parse
from rlkit.text import clean, quoted


def main(argv: list[str]) -> int:
    """Evaluate, print the table, write the CSV."""
    parser = episode_parser(
        "evaluate",
        "Run episodes on seeds that training never used, or score a task's model on rows that it never learned from; "
        "report mean, median and inter-quartile mean with their 95% intervals; write RUN/eval/*.csv.",
    )
    # another default seed than training's own evaluations, which chose best/
    parser.set_defaults(seed=1_000_000)
    arguments = parse(parser, argv)
    config_of_task = open_task(arguments)
    if config_of_task is not None:
        from rlkit.cli.tasks import evaluate

        return evaluate(arguments, config_of_task)
    import torch

    from rlkit.play.evaluate import evaluate_policy
    from rlkit.play.statistics import summarise, table

    folder, config, agent = open_run(arguments)
    episodes, seed = arguments.episodes or 100, arguments.seed
    sample = config.evaluate.sample if arguments.sample is None else arguments.sample
    played = evaluate_policy(
        agent.policy, config, episodes, seed=seed, device=torch.device("cpu"), greedy=not sample
    )
    mode = "sampled" if sample else "greedy"
    print(clean(f"{agent.path}: {episodes} {mode} episodes of {config.env.id}, on seeds never trained on"))
    print(table(summarise([episode.result for episode in played])))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["episode", "seed", "return", "length"])
    writer.writerows((each.number, each.seed, repr(each.result), each.length) for each in played)
    name = f"{agent.path.name}{elsewhere(arguments)}-{mode}-seed{seed}-{episodes}.csv"
    path = (folder / "eval").mkdir() / name
    path.write(text.getvalue().encode())
    print(f"episodes:  {clean(path)}\nwatch it:  rlkit watch {quoted(folder)}")
    return 0
