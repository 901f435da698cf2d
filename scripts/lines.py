"""Every line of play against an agent of a small board game: which of them it loses.

    python scripts/lines.py runs/ppo-tictactoe-0

The agent takes its most likely move; the other side plays all of its moves. A line is a whole game; those that reach
the same position at the same time are counted once there and go on as one.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from rlkit.envs.boards.board import Boards
from rlkit.play.saved import load
from rlkit.run.folder import run_config
from rlkit.spaces import MASK
from rlkit.types import Lanes

CELLS = 12  # a larger board has more lines than can be walked


def moved(boards: Boards, games: np.ndarray, moves: np.ndarray) -> Boards:
    """New games: those of `games` after one move each."""
    width, row, gravity = boards.rules
    after = Boards(len(games), width, boards.shape[0], row, gravity)
    after.load_snapshot({name: value[games] for name, value in boards.snapshot().items()})
    after.play(np.arange(len(games)), moves)
    return after


def walk(policy, boards: Boards, own: int) -> np.ndarray:
    """How many positions end the game won, drawn and lost for the agent in seat `own`: [3]."""
    results = np.zeros(3, np.int64)
    while boards.games:
        everyone = np.arange(boards.games)
        seen = boards.look(everyone)
        if boards.mover[0] == own:
            obs = {name: torch.from_numpy(value) for name, value in seen.items()}
            first = torch.ones(len(everyone), dtype=torch.bool)
            with torch.no_grad():
                action, _, _ = policy.act(obs, first, policy.initial_state(Lanes(len(everyone))), None)
            boards = moved(boards, everyone, policy.to_env(action).numpy())
        else:
            games, moves = np.nonzero(seen[MASK])
            boards = moved(boards, games, moves)
        distinct = np.unique(boards.cells, axis=0, return_index=True)[1]
        ended = distinct[boards.over[distinct]]
        winner = boards.winner[ended]
        results += [(winner == own + 1).sum(), (winner == 0).sum(), (winner == 2 - own).sum()]
        going = distinct[~boards.over[distinct]]
        width, row, gravity = boards.rules
        rest = Boards(len(going), width, boards.shape[0], row, gravity)
        rest.load_snapshot({name: value[going] for name, value in boards.snapshot().items()})
        boards = rest
    return results


def main() -> None:
    """Print a line for each seat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--checkpoint", default="")
    arguments = parser.parse_args()
    agent, config = load(arguments.run, arguments.checkpoint), run_config(arguments.run)
    if config.env.id != "rlkit/Board":
        raise SystemExit(f"{arguments.run}: env.id={config.env.id}; this walks the lines of rlkit/Board")
    if not agent.policy.memoryless:
        raise SystemExit(f"{arguments.run}: its network remembers; this walks positions")
    rules = {"width": 3, "height": 3, "row": 3, "gravity": False} | config.env.kwargs
    if rules["width"] * rules["height"] > CELLS:
        raise SystemExit(
            f"{arguments.run}: a board of {rules['width']} x {rules['height']} has too many lines"
        )
    for own, name in enumerate(("first", "second")):
        won, drawn, lost = walk(agent.policy, Boards(1, **rules), own)
        print(f"{name:<7} {won + drawn + lost} ends: {won} won, {drawn} drawn, {lost} lost")


if __name__ == "__main__":
    main()
