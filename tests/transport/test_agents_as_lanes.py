"""Several agents of one game as lanes: one that is out before the others counts one episode, whoever looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rlkit
from rlkit.collect.account import Account
from rlkit.collect.actor import Actor
from rlkit.config.compose import compose
from rlkit.contracts import Policy
from rlkit.metrics import read_metrics
from rlkit.play.evaluate import evaluate_policy, run_episodes
from rlkit.play.saved import load
from rlkit.run.folder import run_config
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, closings

ENV = "rlkit.envs.toys.agents:Lives"  # agents "short" and "long" live 3 and 6 steps


class One(Policy):
    """Always action 1: a reward of 1.1 per step."""

    noise_size, memoryless = 1, True

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.spec = spec

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        return ((),)

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        return torch.ones(len(first), dtype=torch.int64), state, {}

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        return torch.zeros(first.shape)

    def to_env(self, action: Tensor) -> Tensor:
        return action


def options(**more: object) -> dict[str, object]:
    return {
        "env": ENV, "preset": "none", "env.lanes": 4, "seed": 1, "network.hidden": [8], "log.tensorboard": False,
        "device": "cpu", "threads": 1, "evaluate.episodes": 4, **more,
    }  # fmt: skip


def vector(lanes: int = 4, evaluation: bool = False):
    from rlkit.envs import make_vec

    config = compose(values={"agent": "ppo", **options(**{"env.lanes": lanes})}).config
    return make_vec(config.env, 1, evaluation=evaluation)


def test_closings_by_hand() -> None:
    last = torch.tensor([[0, 0], [1, 0], [1, 0], [1, 1], [0, 0], [1, 1]], dtype=torch.bool)
    assert closings(last).int().tolist() == [[1, 0], [0, 0], [0, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize("steps", [1, 2, 4, 14])
def test_the_account_counts_each_life_once(steps: int) -> None:
    """Two games of 7 rows each: lives of 3 and 6 steps, however rollouts cut them."""
    env = vector()
    assert env.spec.agents == ("short", "long")
    actor = Actor(env, One(env.spec), steps, seed=0, device=torch.device("cpu"))
    returns: list[float] = []
    lengths: list[int] = []
    for _ in range(28 // steps):
        _, episodes = actor.collect()
        returns += episodes.returns
        lengths += episodes.lengths
    games = [3, 3, 6, 6] * 4
    assert lengths == games
    np.testing.assert_allclose(returns, [1.1 * length for length in games], rtol=1e-6)
    assert actor.account.episode.tolist() == [4] * 4


def test_an_account_of_one_agent_is_as_ever() -> None:
    """Without repeated rows an episode closes at every `last`."""
    first = torch.tensor([[1], [0], [0], [1], [0], [0]], dtype=torch.bool)
    last = torch.tensor([[0], [0], [1], [0], [0], [1]], dtype=torch.bool)
    none = torch.zeros(5, 1)
    rollout = Rollout(torch.zeros(6, 1), first, last, none, torch.arange(5.0)[:, None], none.bool())
    episodes = Account(1, reward_scale=0.5).take(rollout, 0)
    # rewards of transitions 0, 1; then 3, 4 (2 belongs to the row that opens the next episode)
    assert (episodes.returns, episodes.lengths) == ([2.0, 14.0], [2, 2])


def test_evaluation_counts_each_life_once() -> None:
    env = vector(evaluation=True)
    played = run_episodes(One(env.spec), env, 8, seed=1, device=torch.device("cpu"))
    assert [each.length for each in played] == [3, 6, 3, 6] * 2
    np.testing.assert_allclose(
        [each.result for each in played], [1.1 * each.length for each in played], rtol=1e-6
    )
    assert [each.number for each in played] == list(range(8))


@pytest.mark.parametrize(
    ("agent", "more"),
    [
        ("ppo", {"agent.steps": 7, "agent.minibatch": 14, "agent.epochs": 1}),
        ("ppo", {"agent.steps": 8, "agent.sequence": 4, "agent.minibatch": 16, "network": "lstm", "agent.epochs": 1}),
        ("reinforce", {"agent.steps": 5, "agent.episodes": 4}),
        ("dqn", {"agent.replay.warmup": 50, "agent.replay.batch": 8, "agent.replay.ratio": 0.1}),
        ("dqn", {"agent.replay.warmup": 50, "agent.replay.batch": 32, "agent.replay.ratio": 0.1, "network": "gru",
                 "agent.replay.sequence": 8, "agent.replay.burn_in": 2, "agent.replay.capacity": 1000}),
    ],
)  # fmt: skip
def test_every_agent_counts_lives(agent: str, more: dict[str, object], tmp_path: Path) -> None:
    run = rlkit.train(agent, **options(**more, total_steps=400, dir=str(tmp_path), name="run"))  # type: ignore[arg-type]
    rows = read_metrics(run / "metrics.csv")
    last = rows[-1]
    # of every 7 rows a game has 9 transitions and 2 episodes
    assert abs(last["episodes"] - 2 * last["step"] / 9) <= 4
    assert 4.0 <= last["length/mean"] <= 4.7
    assert 1.0 <= last["return/mean"] / last["length/mean"] <= 1.1
    config, policy = run_config(run), load(run, "last").policy
    found = evaluate_policy(policy, config, 3, seed=0, device=torch.device("cpu"))  # one and a half games
    assert [each.length for each in found] == [3, 6, 3]


def test_replay_never_draws_what_is_no_transition() -> None:
    """Every start that a memory hands out is a row whose action reached the environment."""
    from rlkit.config.schema import ReplayConfig
    from rlkit.replay.memory import Replay

    env = vector()
    policy = One(env.spec)
    actor = Actor(env, policy, 7, seed=0, device=torch.device("cpu"))
    replay = Replay(
        ReplayConfig(capacity=400, warmup=0, ratio=1.0, batch=16), policy, lanes=4, steps=7, gamma=0.9
    )
    taken = 0
    for _ in range(6):
        rollout, _ = actor.collect()
        replay.add(rollout)
        taken += int(rollout.valid.sum())
        assert replay.valid == taken  # 9 of 14 rows of a game, twice
        for batch in replay.batches(0.0):
            assert bool(batch.valid.all())
            np.testing.assert_allclose(batch.reward.numpy(), 1.1, rtol=1e-6)
    assert taken == 6 * 18
