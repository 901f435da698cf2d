"""Games of several agents, as PettingZoo's parallel interface has them: every agent is a lane.

    lane n      agent n % A of game n // A, in the order of possible_agents
    step        one action of every agent that is in the game; an agent that is out repeats its `last` row
    over        when all agents are out: the next step opens the next game, for all of them

(Terry et al., "PettingZoo: Gym for multi-agent reinforcement learning", NeurIPS 2021.) A game's episode is seeded with
that of its first lane. A seat is what a lane (rlkit.envs.backends.lane) steps: it hands out what the game has said of
one agent. Agents whose spaces differ are in groups with a policy each (grouping.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlkit.envs.abilities import OWN_MASK, WRAPPED
from rlkit.envs.aliases import Core, Env, GymSpace, Info, Opening, Step, Value
from rlkit.envs.backends.actions import unpack
from rlkit.envs.backends.draws import LEADERS, Draws, Verdict
from rlkit.envs.backends.faults import EnvFault
from rlkit.envs.backends.grouping import Groups, groups_of, neutral, numbers
from rlkit.envs.backends.interface import Misuse
from rlkit.envs.backends.lane import Block, Lane
from rlkit.envs.backends.rows import Rows
from rlkit.envs.classic import known
from rlkit.envs.config import EnvConfig
from rlkit.envs.lookup import find_class, plays_games
from rlkit.envs.single import refusal
from rlkit.machine import cores
from rlkit.options import show
from rlkit.seeding import Seeds
from rlkit.spaces import Array

AGENT = "agent"  # the entry of an observation that says whose it is (env.show_agent)
STATE = "state"  # ... that has the whole game's state (env.show_state)


def make_block(config: EnvConfig, seeds: Seeds, start: int, stop: int, render: bool = False) -> Block:
    """Lanes [start, stop) of a vector environment: games where the environment is one of several agents.

    Classic control that is not drawn has a block of its own (rlkit.envs.classic).
    """
    if not render and known(config):
        from rlkit.envs.classic.block import ClassicBlock  # machine code: only where it is used

        return ClassicBlock(config, seeds, start, stop)
    kind = GameBlock if plays_games(config) else Block
    return kind(config, seeds, start, stop, render)


def construct(config: EnvConfig, mode: str | None = None) -> Core:
    """What makes the games of an id, called. Raises ValueError where it refuses its arguments or lacks a package."""
    make = find_class(config.id)
    assert make is not None, f"{config.id} is no game"
    kwargs = dict(config.kwargs) | ({} if mode is None else {"render_mode": mode})
    try:
        return make(**kwargs)
    except TypeError as error:
        raise refusal(config.id, make, kwargs, error) from error
    except Exception as error:  # a package that is missing is one of PettingZoo's own errors
        raise ValueError(f"env.id={config.id}: cannot be made: {error}") from error


def make_game(config: EnvConfig, mode: str | None = None) -> Core:
    """One parallel game. Raises ValueError where it cannot be made, or does not say what is needed of it."""
    game = construct(config, mode)
    agents = getattr(game, "possible_agents", None)
    if not agents:
        raise ValueError(
            f"env.id={config.id}: has no possible_agents; allowed: games whose agents are known before they begin"
        )
    if config.show_state and not isinstance(getattr(game, "state_space", None), gymnasium.Space):
        raise ValueError(
            f"env.show_state=true: {config.id} has no state_space; allowed: games with state_space and state()"
        )
    return game


def agents_in(config: EnvConfig) -> tuple[str, ...]:
    """The agents of one game, found out from one that is made once. Raises ValueError."""
    return _known(config.id, json.dumps(config.kwargs, sort_keys=True, default=str))[0]


def groups_in(config: EnvConfig) -> Groups:
    """The groups of its agents, {} where all share one policy. Raises ValueError."""
    agents, own = _known(config.id, json.dumps(config.kwargs, sort_keys=True, default=str))
    return groups_of(config.id, config.groups, agents, own)


@lru_cache(maxsize=64)
def _known(id: str, kwargs: str) -> tuple[tuple[str, ...], tuple[tuple[GymSpace, GymSpace], ...]]:
    """The agents of a game, and what each sees and does."""
    game = make_game(EnvConfig(id=id, kwargs=json.loads(kwargs)))
    agents = tuple(map(str, game.possible_agents))
    own = tuple((game.observation_space(each), game.action_space(each)) for each in game.possible_agents)
    game.close()
    return agents, own


def settled_game(config: EnvConfig) -> EnvConfig:
    """`rlkit.envs.make.settled` of a game, of which one is made to know who plays. Raises ValueError."""
    usual = EnvConfig()
    for name in (*WRAPPED, "labels", "stack"):
        if getattr(config, name) != getattr(usual, name):
            raise ValueError(
                f"env.{name}={show(getattr(config, name))}: a game of several agents is taken as it is; its own "
                "options go into env.kwargs"
            )
    if config.backend not in ("auto", "inprocess", "workers"):
        raise ValueError(
            f"env.backend={config.backend}: not possible for a game of several agents; allowed: auto, inprocess or "
            "workers"
        )
    if config.action_mask == "info":
        raise ValueError(f"env.action_mask=info: a game of several agents {OWN_MASK}; allowed: auto, none")
    games, rest = divmod(config.lanes, len(agents_in(config)))
    if rest:
        raise ValueError(lanes_of_games(config))
    groups = groups_in(config)
    return replace(config, action_mask="none", workers=min(config.workers or cores(), games), groups=groups)


class Seat(gymnasium.Env[Value, Value]):
    """One agent of a game: its reset and step hand out what the game has said of it."""

    def __init__(self, game: Core, number: int, config: EnvConfig) -> None:
        self.game, self.number, self.agent = game, number, game.possible_agents[number]
        self.metadata = dict(getattr(game, "metadata", None) or {})
        self.render_mode = getattr(game, "render_mode", None)
        self.show, self.state = config.show_agent, config.show_state
        groups = config.groups or {"": tuple(map(str, game.possible_agents))}
        self.group = next(name for name, members in groups.items() if str(self.agent) in members)
        self.place = groups[self.group].index(str(self.agent))  # in its group
        seen = {name: self._space(members) for name, members in groups.items()}
        done = {name: game.action_space(members[0]) for name, members in groups.items()}
        self.dict = isinstance(game.observation_space(self.agent), spaces.Dict)
        self.observation_space, self.action_space = seen[self.group], done[self.group]
        if self.group:
            self.observation_space = spaces.Dict(list(seen.items()))
            self.action_space = spaces.Dict(list(done.items()))
        self.others = {name: neutral(space) for name, space in seen.items()}
        self.said: Any = None  # what the next call returns

    def _space(self, members: tuple[str, ...]) -> GymSpace:
        """What the agents of a group see."""
        own: GymSpace = self.game.observation_space(members[0])
        added: dict[str, Any] = {AGENT: spaces.Discrete(len(members))} if self.show else {}
        if self.state:
            added[STATE] = self.game.state_space
        if not added:
            return own
        entries = dict(own.spaces) if isinstance(own, spaces.Dict) else {"obs": own}
        return spaces.Dict([*entries.items(), *added.items()])

    def seen(self, obs: Value) -> Value:
        """The game's observation of this agent; which agent it is, and the game's state, where they are asked for."""
        if self.show or self.state:
            added: dict[str, Any] = {AGENT: np.int64(self.place)} if self.show else {}
            if self.state:
                added[STATE] = self.game.state()
            obs = {**(obs if self.dict else {"obs": obs}), **added}
        return {**self.others, self.group: obs} if self.group else obs

    def chosen(self, action: Value) -> Value:
        """The game's own action of this agent."""
        return action[self.group] if self.group else action

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        return self.seen(self.said), {}

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated = self.said
        return self.seen(obs), reward, terminated, truncated, {}

    def render(self) -> Value:
        return self.game.render()

    def close(self) -> None:
        if self.number == 0:
            self.game.close()


class Game:
    """One game and the lanes of its agents."""

    def __init__(self, game: Core, lanes: list[Lane], draws: Draws) -> None:
        self.game, self.lanes, self.draws = game, lanes, draws
        self.agents = list(game.possible_agents)
        self.seats: list[Seat] = [lane.env for lane in lanes]  # type: ignore[misc]
        self.team = lanes[0].config.reward == "team"
        self.episode = 0

    def step(self, actions: list[Value]) -> None:
        """Apply the actions of those who are in the game, or open the next one. Raises EnvFault."""
        inside = [i for i, lane in enumerate(self.lanes) if not lane.last]
        if not inside:
            self.begin(self.episode + 1)
            return
        first = self.lanes[inside[0]]
        for i in inside:
            lane = self.lanes[i]
            lane.rows.steps[lane.index] = lane.steps + 1
        try:
            answer = self.draws.call(
                self.game.step, {self.agents[i]: self.seats[i].chosen(actions[i]) for i in inside}
            )
            said = self._split(answer, inside)
        except BaseException as error:
            raise first.blame(error, "step") from error
        if self.team:
            mean = float(np.mean([each[1] for each in said]))
            said = [(obs, mean, *ends) for obs, _, *ends in said]
        for i, each in zip(inside, said, strict=True):
            self.seats[i].said = each
            self.lanes[i].step(actions[i])

    def begin(self, episode: int) -> None:
        """Open a game. Raises EnvFault."""
        self.episode, first = episode, self.lanes[0]
        for lane in self.lanes:
            lane.rows.episode[lane.index], lane.rows.steps[lane.index] = episode, 0
        try:
            obs, _ = self.draws.reset(self.game.reset, first.seeds.of(first.index, episode))
            missing = [agent for agent in self.agents if agent not in obs]
            if missing:
                raise Misuse("interface", "reset", f"says nothing of {missing[0]}, one of possible_agents")
        except BaseException as error:
            raise first.blame(error, "reset") from error
        for agent, seat, lane in zip(self.agents, self.seats, self.lanes, strict=True):
            seat.said = obs[agent]
            lane.begin(episode)

    def _split(self, answer: Value, inside: list[int]) -> list[tuple[Value, ...]]:
        """(observation, reward, terminated, truncated) of each agent that was in the game. Raises Misuse."""
        obs, rewards, terminated, truncated, _ = answer
        parts = {
            "observation": obs,
            "reward": rewards,
            "terminated": terminated,
            "truncated": truncated,
        }
        for name, part in parts.items():
            missing = [self.agents[i] for i in inside if self.agents[i] not in part]
            if missing:
                raise Misuse("interface", name, f"nothing of {missing[0]}, which is in the game")
        said = [tuple(part[self.agents[i]] for part in parts.values()) for i in inside]
        left = {self.agents[i] for i, each in zip(inside, said, strict=True) if not (each[2] or each[3])}
        now = set(self.game.agents)
        if now - left:
            raise Misuse(
                "interface", "agents", f"{sorted(now - left)[0]} is back in the game after it was out"
            )
        if left - now:
            raise Misuse(
                "interface",
                "agents",
                f"{sorted(left - now)[0]} has left without being terminated or truncated",
            )
        return said

    def restore(self, episode: int, actions: list[list[Value]], beat: Callable[[], object]) -> None:
        """Open a game and replay it; `beat` is called between steps. Raises EnvFault."""
        self.begin(episode)
        steps = max(map(len, actions))
        for t in range(steps):
            if t and all(lane.last for lane in self.lanes):
                break
            beat()
            self.step([each[min(t, len(each) - 1)] if each else None for each in actions])

    def cut(self) -> None:
        """End the game where it failed, for all who are in it."""
        for lane in self.lanes:
            if not lane.last:
                lane.cut()


class GameBlock(Block):
    """Games whose agents are lanes [start, stop), stepped one after the other in this process."""

    def made(self, mode: str | None, seed: Callable[[int], object]) -> list[Env]:
        self.agents = agents_in(self.config)
        self.groups = numbers(self.config.groups, self.agents)
        count = len(self.agents)
        if (self.stop - self.start) % count or self.start % count:
            raise ValueError(lanes_of_games(self.config))
        seats: list[Env] = []
        for first in range(self.start, self.stop, count):
            seed(self.seeds.making(first))
            game = make_game(self.config, mode)
            seats += [Seat(game, number, self.config) for number in range(count)]
        return seats

    def attach(self, rows: Rows) -> None:
        self.rows = rows
        count, verdict = len(self.agents), Verdict()
        self.lanes = [
            Lane(seat, self.config, self.seeds, self.start + i, rows) for i, seat in enumerate(self.envs)
        ]
        self.games = [
            Game(lanes[0].env.game, lanes, Draws(verdict, number < LEADERS))  # type: ignore[attr-defined]
            for number, lanes in enumerate(
                self.lanes[first : first + count] for first in range(0, len(self.lanes), count)
            )
        ]
        self.watch(rows)

    def step(self) -> None:
        actions, count = unpack(self.action_space, self.actions), len(self.agents)
        for number, game in enumerate(self.games):
            first = game.lanes[0]
            self.rows.cursor[self.start] = first.index
            try:
                game.step(actions[number * count : (number + 1) * count])
            except EnvFault as fault:
                self.replace(first, fault)
        self.verify()

    def _restore(self, episode: Array, actions: list[Array]) -> None:
        count = len(self.agents)
        for number, game in enumerate(self.games):
            mine = slice(number * count, (number + 1) * count)
            first = game.lanes[0]
            self.rows.cursor[self.start] = first.index
            history = [unpack(self.action_space, each) for each in actions[mine]]
            try:
                game.restore(int(episode[mine][0]), history, self.beat)
            except EnvFault as fault:
                self.replace(first, fault)

    def cut(self, lane: Lane) -> None:
        self.games[(lane.index - self.start) // len(self.agents)].cut()


def lanes_of_games(config: EnvConfig) -> str:
    """What to say of lanes that are no whole games."""
    count = len(agents_in(config))
    below = config.lanes // count * count
    fitting = " or ".join(f"env.lanes={n}" for n in (below, below + count) if n)
    return f"env.lanes={config.lanes}: a game of {config.id} has {count} agents, each a lane; type {fitting}"
