"""Games of turns with PettingZoo's AEC interface (`rlkit.turns.Turns`): one agent moves at a time.

    reward   what both agents are paid by a move
    over     when both have terminated or been truncated; one that is out while the other plays on is passed over

(Terry et al., "PettingZoo: Gym for multi-agent reinforcement learning", NeurIPS 2021.) A parallel game with
env.seats=one is one of turns, too: both choose without seeing the other's action. A game comes back from its seed and
its moves.
"""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rlkit.envs.abilities import WRAPPED
from rlkit.envs.aliases import Core, Value
from rlkit.envs.backends.faults import EnvFault
from rlkit.envs.backends.games import construct
from rlkit.envs.backends.interface import own
from rlkit.envs.backends.lane import overdue
from rlkit.envs.backends.leaf import observation_leaves
from rlkit.envs.backends.rows import Check
from rlkit.envs.backends.seats import PLAYERS
from rlkit.envs.backends.watchdog import Guard
from rlkit.envs.config import EnvConfig
from rlkit.envs.lookup import plays_games
from rlkit.options import show
from rlkit.spaces import MASK, Dict, Discrete, MultiBinary, from_gymnasium, leaves, row_dtype
from rlkit.turns import Ints, Player, Rows
from rlkit.types import EnvSpec

PASSES = 100  # steps of agents that are out, one after the other


def settled_turns(config: EnvConfig) -> EnvConfig:
    """`rlkit.envs.make.settled` of a game of turns. Raises ValueError."""
    usual = EnvConfig()
    for name in (
        *WRAPPED,
        "labels",
        "stack",
        "show_agent",
        "show_state",
        "groups",
        "reward",
        "reward_scale",
        "max_failures",
    ):
        if getattr(config, name) != getattr(usual, name):
            raise ValueError(
                f"env.{name}={show(getattr(config, name))}: a game of turns is taken as it is; its own options go into "
                "env.kwargs"
            )
    if config.backend not in ("auto", "inprocess"):
        raise ValueError(
            f"env.backend={config.backend}: not possible for a game of turns; allowed: auto, inprocess"
        )
    if config.action_mask == "info":
        raise ValueError(
            "env.action_mask=info: a game of turns shows masks as PettingZoo's do; allowed: auto, none"
        )
    return replace(config, backend="inprocess", action_mask="none", workers=0)


def same_spaces(config: EnvConfig, game: Core) -> None:
    """Raise ValueError where the agents of a game do not see and do the same kinds of things."""
    agents = game.possible_agents
    for what in ("observation", "action"):
        own = [getattr(game, f"{what}_space")(agent) for agent in agents]
        other = next((i for i, space in enumerate(own) if space != own[0]), None)
        if other is not None:
            raise ValueError(
                f"env.id={config.id}: the {what} spaces of its agents differ ({agents[0]}: {own[0]}, {agents[other]}: "
                f"{own[other]}); allowed: games whose agents can share one policy"
            )


def make_turns(config: EnvConfig, mode: str | None = None) -> Core:
    """One game of turns. Raises ValueError where it cannot be made, or is none of two agents with the same spaces."""
    game = construct(config, mode)
    if plays_games(replace(config, seats="all")):
        from pettingzoo.utils.conversions import parallel_to_aec

        game = parallel_to_aec(game)
    agents: list[str] = list(getattr(game, "possible_agents", None) or [])
    if len(agents) != 2:
        raise ValueError(
            f"env.id={config.id}: a game of turns of {len(agents) or 'unknown'} agents (its possible_agents); allowed: "
            "of two"
        )
    same_spaces(config, game)
    if type(game.action_space(agents[0])).__name__ != "Discrete":
        raise ValueError(
            f"env.id={config.id}: actions are {game.action_space(agents[0])}; allowed in a game of turns: Discrete"
        )
    return game


class AecTurns:
    """N games of PettingZoo's AEC interface, stepped one after the other in this process."""

    def __init__(self, config: EnvConfig, render: bool = False) -> None:
        self.config, self.games = config, config.lanes
        mode = "rgb_array" if render else None
        self.envs = [make_turns(config, mode if n == 0 else None) for n in range(config.lanes)]
        self.agents = list(self.envs[0].possible_agents)
        seen = self.envs[0].observation_space(self.agents[0])
        self.shown = from_gymnasium(seen, config.channels, what="observation")
        # what PettingZoo's games call the observation beside a mask
        self.masked = isinstance(self.shown, Dict) and MASK in dict(self.shown.entries)
        action = from_gymnasium(self.envs[0].action_space(self.agents[0]))
        assert isinstance(action, Discrete), "checked where a game is made"
        self.start, self.moves = action.start, action.n
        entries = list(self.shown.entries) if isinstance(self.shown, Dict) else [("obs", self.shown)]
        entries = [entry for entry in entries if entry[0] != MASK]
        self.spec = EnvSpec(config.id, Dict((*entries, (MASK, MultiBinary(self.moves)))), action)
        n = self.games
        self.mover, self.over = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        self.reward = np.zeros((n, 2), np.float32)
        self.seeds = np.zeros(n, np.int64)
        self.history: list[list[int]] = [[] for _ in range(n)]
        names = [name for name, _ in leaves(self.shown)]
        self._rows = {name: np.zeros((1, *leaf.shape), row_dtype(leaf)) for name, leaf in leaves(self.shown)}
        self._leaves = observation_leaves(seen, self._rows)
        # what was last seen of each game, and what looks for numbers that may not be there
        self._seen = {
            name: np.zeros((n, *leaf.shape), row_dtype(leaf)) for name, leaf in leaves(self.spec.observation)
        }
        self._seen[MASK][:] = 1
        self._check = Check(
            self.spec.observation, action, self._seen, np.zeros(n, np.float32), self.over, config.check
        )
        self._at = 0  # the game whose code runs
        self._guard = Guard(
            config.deadline, lambda trace: self._fault(self._at, "hung", "", overdue(config), trace)
        )
        self._names = dict(zip(names, [name or "obs" for name in names], strict=True))

    def open(self, games: Ints, seeds: Ints) -> None:
        """Begin new ones."""
        for game, seed in zip(games, seeds, strict=True):
            self.seeds[game], self.history[game] = seed, []
            self._call(int(game), "reset", lambda env=self.envs[game], s=seed: env.reset(seed=int(s) % 2**31))
            self.reward[game] = 0.0
            self._settle(int(game))

    def play(self, games: Ints, moves: Ints) -> None:
        """Make moves. Raises ValueError for one that a mask forbids, EnvFault where a game fails."""
        for game, move in zip(games.tolist(), moves.tolist(), strict=True):
            env = self.envs[game]
            if self.over[game] or not 0 <= move < self.moves or not self._mask(game)[move]:
                raise ValueError(
                    f"move {move} of game {game} is against the rules; allowed: what action_mask says"
                )
            self.history[game].append(move)
            self.reward[game] = 0.0
            self._call(game, "step", lambda env=env, m=move: env.step(m + self.start))
            self._pay(game)
            self._settle(game)

    def _pay(self, game: int) -> None:
        rewards = self.envs[game].rewards
        for seat, agent in enumerate(self.agents):
            value = float(rewards.get(agent, 0.0))
            if not np.isfinite(value):
                raise self._fault(game, "nan", "reward", f"{value}")
            self.reward[game, seat] += value

    def _settle(self, game: int) -> None:
        """Pass over agents that are out until one is to move, or both are."""
        env = self.envs[game]

        def out(agent: str) -> bool:
            return agent not in env.agents or bool(env.terminations[agent] or env.truncations[agent])

        for _ in range(PASSES):
            self.over[game] = all(out(agent) for agent in self.agents)
            if self.over[game]:
                return
            agent = env.agent_selection
            if agent in env.agents and not out(agent):
                self.mover[game] = self.agents.index(agent)
                if not self._mask(game).any():
                    raise self._fault(game, "mask", MASK, f"allows nothing to {agent}, who is to move")
                return
            self._call(game, "step", lambda: env.step(None))
        raise self._fault(
            game, "interface", "agent_selection", f"stays at {env.agent_selection}, which is out of the game"
        )

    def _mask(self, game: int) -> npt.NDArray[np.bool_]:
        """What who is to move may choose."""
        env, agent = self.envs[game], self.agents[self.mover[game]]
        if env.agent_selection in self.agents:
            agent = env.agent_selection
        mask = (env.infos.get(agent) or {}).get(MASK)
        if self.masked:
            mask = self._observe(game, agent)[MASK]
        return np.ones(self.moves, np.bool_) if mask is None else np.asarray(mask).astype(np.bool_).ravel()

    def _observe(self, game: int, agent: str) -> Value:
        return self._call(game, "observe", lambda: self.envs[game].observe(agent))

    def look(self, games: Ints) -> Rows:
        for game in games.tolist():
            seen = self._observe(game, self.agents[self.mover[game]])
            for leaf, (name, rows) in zip(self._leaves, self._rows.items(), strict=True):
                wrong = leaf.put(0, seen, strict=False)
                if wrong is not None:
                    raise self._fault(game, wrong[0], leaf.name, wrong[1])
                if name != MASK:
                    self._seen[self._names[name]][game] = rows[0]
            self._seen[MASK][game] = self._mask(game) if not self.over[game] else 1
        finding = self._check.find()
        if finding is not None:
            raise self._fault(finding.row, finding.kind, finding.field, finding.detail)
        return {name: rows[games] for name, rows in self._seen.items()}

    def player(self, name: str) -> Player:
        """random, first."""
        if name in PLAYERS:
            return PLAYERS[name]
        raise ValueError(f"{name}: no such player here; allowed: {', '.join(PLAYERS)}")

    def text(self, game: int) -> str:
        """What the game draws as text where it can, else the observation; and the moves that are allowed."""
        env = self.envs[game]
        drawn = env.render() if getattr(env, "render_mode", None) == "ansi" else None
        shown = drawn or str(self._observe(game, self.agents[self.mover[game]]))
        return f"{shown}\nmoves: {', '.join(map(str, np.flatnonzero(self._mask(game))))}"

    def snapshot(self) -> dict[str, Any]:
        """Seeds and moves."""
        length = max(map(len, self.history), default=0)
        moves = np.full((self.games, length), -1, np.int64)
        for game, each in enumerate(self.history):
            moves[game, : len(each)] = each
        return {"seeds": self.seeds.copy(), "moves": moves}

    def load_snapshot(self, state: dict[str, Any]) -> None:
        """Open the games again and make their moves."""
        self.open(np.arange(self.games), state["seeds"])
        for moves in state["moves"].T:
            games = np.flatnonzero(moves >= 0)
            self.play(games, moves[games])

    def lost(self) -> Exception | None:
        return self._guard.hand_over()

    def render(self, game: int) -> npt.NDArray[np.uint8] | None:
        picture = self.envs[game].render()
        return picture if isinstance(picture, np.ndarray) and picture.ndim == 3 else None

    def close(self) -> None:
        self._guard.close()
        for env in self.envs:
            env.close()

    def _call(self, game: int, method: str, call: Any) -> Any:
        """What the environment's own code returns. Raises EnvFault where it raises."""
        self._at = game
        try:
            with self._guard.watching():
                return call()
        except EnvFault:  # that it hung
            raise
        except BaseException as error:
            if not own(error):
                raise
            raise self._fault(game, "raised", method, repr(error), traceback.format_exc()) from error

    def _fault(self, game: int, kind: str, field: str, detail: str, trace: str = "") -> EnvFault:
        step = len(self.history[game])
        return EnvFault(kind, self.config.id, game, 0, step, int(self.seeds[game]), field, detail, trace)
