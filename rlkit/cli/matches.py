"""rlkit evaluate and rlkit watch, of games of turns: opponents, tournaments, people."""

from __future__ import annotations

import argparse
import csv
import io
import sys

from rlkit.cli.common import elsewhere, open_run
from rlkit.cli.words import dashed, find_run
from rlkit.collect.league import league_of
from rlkit.config.schema import RunConfig
from rlkit.files import Place
from rlkit.options import ConfigError
from rlkit.play.matches import Entrant, opponent, play, same_game, scores, seated_only, table
from rlkit.play.matches import tournament as every_pair
from rlkit.play.saved import AgentPolicy
from rlkit.text import clean, quoted


def evaluate_matches(
    arguments: argparse.Namespace, folder: Place, config: RunConfig, agent: AgentPolicy
) -> int:
    """Games against opponents; print the table, write the CSV."""
    games, seed, policy = arguments.episodes or 100, arguments.seed, agent.policy
    names = [name for name in arguments.opponent if name != "league"]
    if names and len(names) < len(arguments.opponent):
        raise ConfigError("--opponent league: is a field of its own; leave the others out, or league")
    sample = config.evaluate.sample if arguments.sample is None else arguments.sample
    only = [opponent(name, policy, _say) for name in names]
    played = play(policy, config, only, games, seed=seed, greedy=not sample)
    league = league_of(policy)
    assert league is not None, "whoever plays has one"
    members = names or [league.name(n) for n in range(1, league.first + league.size)]
    mode = "sampled" if sample else "greedy"
    print(clean(f"{agent.path}: {games} {mode} games of {config.env.id} against each opponent"))
    found = scores(played, members)
    _show(table(found))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["game", "seed", "opponent", "seat", "return", "length"])
    writer.writerows(
        (each.number, each.seed, members[each.opponent - 1], each.seat, repr(each.result), each.length)
        for each in played
    )
    against = "-".join(
        ["league"] if not names else [name.replace("/", "_").replace(":", "") for name in names]
    )
    name = f"{agent.path.name}{elsewhere(arguments)}-{against}-{mode}-seed{seed}-{games}.csv"
    path = (folder / "eval").mkdir() / name
    path.write(text.getvalue().encode())
    print(f"games:     {clean(path)}\nplay it:   rlkit watch {quoted(folder)} --opponent human")
    return 0


def tournament(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    """Every pair of runs plays; print results and ratings."""
    arguments = parser.parse_intermixed_args([part for word in argv for part in dashed(word, parser.prog)])
    runs = [word for word in (arguments.run, *arguments.env) if word is not None]
    if len(runs) < 2:
        raise ConfigError(
            f"--tournament: {len(runs)} runs; type two or more: rlkit evaluate A B C --tournament"
        )
    entrants: list[Entrant] = []
    for run in runs:
        arguments.run, arguments.env = str(find_run(run)), []
        _, config, agent = open_run(arguments)
        sample = config.evaluate.sample if arguments.sample is None else arguments.sample
        seated_only(agent.policy, "--tournament")
        if entrants:
            same_game(entrants[0][1], runs[0], agent.policy, f"--tournament: {run}")
        entrants.append((run, agent.policy, config, not sample))
    found, elo = every_pair(entrants, arguments.episodes or 100, seed=arguments.seed)
    _show(table(found))
    for rating, run in sorted(zip(elo, runs, strict=True), reverse=True):
        print(f"{rating:>7.0f} Elo  {clean(run)}")
    return 0


def _show(text: str) -> None:
    for line in text.splitlines():
        print(clean(line, 500))


def _say(text: str) -> None:
    print(clean(text), file=sys.stderr)
