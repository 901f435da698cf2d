"""Games of turns between an agent and a person at a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from rlkit.collect.make import meeting
from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy
from rlkit.options import ConfigError
from rlkit.play.matches import ready
from rlkit.seeding import uniforms
from rlkit.spaces import MASK
from rlkit.turns import Ints, Rows, Turns
from rlkit.types import Lanes

Floats = np.ndarray[tuple[int], np.dtype[np.float32]]


class Left(Exception):
    """The person has typed q."""


class Person:
    """A player who is asked for every move. say, ask: print and input."""

    def __init__(self, say: Callable[[str], object], ask: Callable[[str], str]) -> None:
        self.say, self.ask = say, ask
        self.game: Turns | None = None

    def __call__(self, games: Ints, seen: Rows, draws: Floats) -> Ints:
        return np.array(
            [self._move(int(game), mask) for game, mask in zip(games, seen[MASK], strict=True)], np.int64
        )

    def _move(self, game: int, mask: Floats) -> int:
        assert self.game is not None, "a person sits at a game"
        allowed = np.flatnonzero(mask)
        self.say(self.game.text(game))
        while True:
            try:
                typed = self.ask("your move: ").strip()
            except EOFError:
                raise Left from None
            if typed in ("q", "quit", "exit"):
                raise Left
            if typed.isdecimal() and int(typed) in allowed:
                return int(typed)
            shown = ", ".join(map(str, allowed[:40])) + (", ..." if len(allowed) > 40 else "")
            self.say(f"{typed!r}: no move here; allowed: {shown}, q to stop")


@torch.no_grad()
def play_person(
    policy: Policy,
    config: RunConfig,
    games: int,
    *,
    seed: int,
    greedy: bool,
    say: Callable[[str], object] = print,
    ask: Callable[[str], str] = input,
) -> list[float]:
    """`games` games, the person in the other seat each time; the agent's results. Ends early where q is typed.

    Raises ConfigError where the environment is no game of turns.
    """
    policy, results, device = ready(policy, config), list[float](), torch.device("cpu")
    alone, person = replace(config.env, lanes=1, workers=0), Person(say, ask)
    made = registry.env_package().make_vec(alone, seed, evaluation=True, device=device)
    env = meeting(made, policy, only=[person])
    person.game = game = getattr(made, "game", None)
    if game is None:
        raise ConfigError(f"--opponent human: {config.env.id} has no seats")
    state = policy.initial_state(Lanes(1), device)
    try:
        row, step, total = env.restore(np.zeros(1, np.int64), [np.zeros(0)]), 0, 0.0
        while len(results) < games:
            noise = None
            if not greedy:
                noise = torch.from_numpy(uniforms(seed, np.zeros(1, np.int64), step, 1, policy.noise_size)[0])
            action, state, _ = policy.act(row.obs, row.first, state, noise)
            acts = not bool(row.last)
            move = policy.to_env(action)
            if acts:
                say(f"the agent's move: {int(move)}")
            row, step = env.step(move), step + 1
            total = total + float(row.reward) if acts else 0.0
            if acts and bool(row.last):
                say(game.text(0))
                say("the agent has won" if total > 0 else "you have won" if total < 0 else "a draw")
                results.append(total)
    except Left:
        say("stopped")
    finally:
        env.close()
    return results
