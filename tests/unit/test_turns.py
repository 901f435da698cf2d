"""Games with PettingZoo's AEC interface as seats: the rows of our own boards; faults by name; PettingZoo's tests."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.test import api_test, seed_test

from rlkit.contracts import VecEnv
from rlkit.envs import EnvConfig, EnvFault, make_vec, probe
from rlkit.envs.backends.seats import random_player
from rlkit.envs.boards.zoo import env as board_game
from rlkit.spaces import MASK
from rlkit.turns import SEAT
from tests.helpers.zoo import REGISTRY, needs_registry

CONNECT = {"width": 5, "height": 4, "row": 3, "gravity": True}


class Odd(AECEnv):
    """Two agents who say numbers in turn, 2 turns each; `fault` breaks a rule. Agent a is out after its first turn."""

    metadata: ClassVar[dict[str, Any]] = {"name": "odd"}

    def __init__(self, fault: str = "", agents: int = 2, render_mode: str | None = None) -> None:
        super().__init__()
        self.fault, self.possible_agents, self.render_mode = fault, list("abc"[:agents]), None

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0, 9, (2,), np.float32)

    def action_space(self, agent: str) -> Any:
        size = 3 if self.fault == "spaces" and agent == "b" else 4
        return spaces.Discrete(size, start=1) if self.fault != "box" else spaces.Box(0, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents = list(self.possible_agents)
        self.seed = seed
        self.t, self.said = 0, 0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = (
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, False),
        )
        mask = np.zeros(4, np.int8) if self.fault == "mask" else np.array([1, 1, 0, 1], np.int8)
        self.infos = {agent: {MASK: mask} for agent in self.agents}
        self.agent_selection = "a"

    def step(self, action: int | None) -> None:
        if self.fault == "raise" and self.t == 1:
            raise RuntimeError("no more")
        while self.fault == "hangs" and self.t == 1:
            pass
        if action is None:
            self.agents.remove(self.agent_selection)
            if self.fault == "stays":
                self.agents.append(self.agent_selection)
            else:
                self.agent_selection = "b"
            return
        self.t, self.said = self.t + 1, int(action)
        self.rewards = {"a": float(action), "b": float("nan") if self.fault == "nan" else -float(action)}
        self.terminations["a"] = True
        self.terminations["b"] = self.t == 3
        self.agent_selection = "a" if self.fault == "stays" or self.t == 1 else "b"
        if self.t == 1:  # a, who is out, is asked once more
            self.agent_selection = "a"

    def observe(self, agent: str) -> Any:
        seen = np.zeros(3 if self.fault == "shape" else 2, np.float32) + self.said
        return seen + np.nan if self.fault == "unseen" and self.t else seen

    def render(self) -> None:
        return None


def play(env: VecEnv, steps: int) -> list[dict[str, torch.Tensor]]:
    row, found = env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0)] * env.lanes), []
    generator = np.random.default_rng(0)
    for _ in range(steps):
        flags = {name: getattr(row, name).clone() for name in ("reward", "first", "last", "terminated")}
        obs = row.obs
        assert isinstance(obs, dict)
        found.append(flags | {name: value.clone() for name, value in obs.items()})
        draws = generator.random(env.lanes)
        row = env.step(
            torch.from_numpy(random_player(np.arange(env.lanes), {MASK: obs[MASK].numpy()}, draws))
        )
    return found


def test_our_boards_are_the_same_through_both_interfaces() -> None:
    ours = make_vec(EnvConfig(id="rlkit/Board", lanes=4, kwargs=CONNECT), 3)
    theirs = make_vec(EnvConfig(id="rlkit.envs.boards.zoo", lanes=4, kwargs=CONNECT), 3)
    for own, other in zip(play(ours, 60), play(theirs, 60), strict=True):
        for name in ("reward", "first", "last", "terminated", SEAT):
            assert torch.equal(own[name], other[name]), name
        turn = ~own["last"]
        assert torch.equal(own[MASK][turn], other[MASK][turn])
        for code in (1, 2):
            assert torch.equal((own["board"] == code)[turn], (other["observation"][..., code - 1] == 1)[turn])
    saved, after = theirs.snapshot(), play_on(theirs)
    again = make_vec(EnvConfig(id="rlkit.envs.boards.zoo", lanes=4, kwargs=CONNECT), 3)
    again.load_snapshot(saved)
    assert all(torch.equal(a, b) for a, b in zip(after, play_on(again), strict=True))


def play_on(env: VecEnv) -> list[torch.Tensor]:
    found = []
    for _ in range(12):
        obs = env.row.obs  # type: ignore[attr-defined]
        row = env.step(torch.from_numpy(np.argmax(obs[MASK].numpy(), 1)))
        found += [row.reward.clone(), row.last.clone(), row.obs["observation"].clone()]  # type: ignore[index]
    return found


def test_an_agent_that_is_out_is_passed_over() -> None:
    """a moves once, then b twice; who moves is paid what it says, the other loses that."""
    config = EnvConfig(id=f"{__name__}:Odd", lanes=2)
    found = probe(config)
    assert found.config.backend == "inprocess" and found.spec.action.start == 1  # type: ignore[union-attr]
    env = make_vec(found.config, 0)
    row = env.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
    obs = row.obs
    assert isinstance(obs, dict) and obs[SEAT].tolist() == [0, 1] and row.last.tolist() == [False, False]
    first = float(obs["obs"][1, 0])  # what a has said to b: one of 1, 2, 4
    assert obs["obs"][0].tolist() == [0, 0] and first in (1, 2, 4)
    assert obs[MASK].tolist() == [[1, 1, 0, 1]] * 2
    # lane 0 says 2 and is out; b then moves twice; a is paid what is said by either
    row = env.step(torch.tensor([1, 1]))
    assert row.last.tolist() == [True, False] and row.terminated.tolist() == [True, False]
    said = env.game.history[0]  # type: ignore[attr-defined]
    assert float(row.reward[0]) == sum(move + 1 for move in said) and float(row.reward[1]) == -2
    with pytest.raises(
        ValueError, match="move 2 of game 1 is against the rules; allowed: what action_mask says"
    ):
        env.step(torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("mask", "mask: environment .*, lane 0, .* action_mask: allows nothing to a, who is to move"),
        ("raise", "no more"),
        ("nan", "nan: .* reward: nan"),
        ("unseen", r"nan: environment .* obs: entry \[0\] is nan"),
        ("hangs", "hung: environment .*, lane 0, .* no answer in 0.5 s"),
        ("stays", "interface: .* agent_selection: stays at a, which is out of the game"),
        ("shape", r"shape: .* obs: shape \(3,\), its space says \(2,\)"),
    ],
)
def test_what_breaks_the_rules_is_told(fault: str, message: str) -> None:
    env = make_vec(EnvConfig(id=f"{__name__}:Odd", lanes=1, kwargs={"fault": fault}, deadline=0.5), 0)
    with pytest.raises(EnvFault, match=message):
        play(env, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kwargs": {"agents": 3}}, r"a game of turns of 3 agents \(its possible_agents\); allowed: of two"),
        ({"kwargs": {"agents": 0}}, "a game of turns of unknown agents"),
        ({"kwargs": {"fault": "spaces"}}, "the action spaces of its agents differ"),
        ({"kwargs": {"fault": "box"}}, "allowed in a game of turns: Discrete"),
        ({"skip": 2}, "env.skip=2: a game of turns is taken as it is"),
        ({"reward_scale": 0.1}, "env.reward_scale=0.1: a game of turns is taken as it is"),
        ({"backend": "workers"}, "env.backend=workers: not possible for a game of turns"),
        ({"seats": "all"}, "env.seats=all: in .* agents move in turns; type env.seats=one"),
        ({"action_mask": "info"}, "env.action_mask=info"),
        ({"id": "CartPole-v1", "seats": "one"}, "env.seats=one: env.id=CartPole-v1 has one agent"),
        pytest.param(
            {"id": "pettingzoo:classic/nothing-v0"}, "has no game classic/nothing-v0", marks=needs_registry
        ),
        pytest.param(
            {"id": "pettingzoo:classic/connect_five-v3"}, "nearest: classic/connect_four-v3", marks=needs_registry
        ),
    ],
)  # fmt: skip
def test_wrong_games_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(EnvConfig(**{"id": f"{__name__}:Odd", "lanes": 2, **options}))


def test_a_parallel_game_has_seats_too() -> None:
    """Rock, paper, scissors: who is asked second does not see what the first one chose."""
    id = "pettingzoo:classic/rps-v2" if REGISTRY else "pettingzoo.classic.rps_v2"
    env = make_vec(EnvConfig(id=id, lanes=4, seats="one", kwargs={"max_cycles": 3}), 0)
    rows = play(env, 13)
    assert (
        sum(int(row["last"].sum()) for row in rows) == 12
    )  # 3 turns a game, then the row that opens the next
    seen = torch.stack([row["obs"][row["first"]] for row in rows if row["first"].all()])
    assert (seen == 3).all()  # nothing was chosen yet
    results = torch.stack([row["reward"] for row in rows])
    assert set(results.unique().tolist()) <= {-1.0, 0.0, 1.0} and results.abs().sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_pettingzoo_accepts_our_boards(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api_test(board_game(**CONNECT), num_cycles=60)
        seed_test(lambda: board_game(**CONNECT), num_cycles=60)
    game = board_game(render_mode="ansi")
    game.reset()
    game.step(4)
    game.step(4)  # taken: the second player loses
    assert game.rewards == {"player_0": 1.0, "player_1": -1.0} and all(game.terminations.values())
    assert game.render().splitlines()[1] == "3 X 5"
