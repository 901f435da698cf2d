"""Q-learning targets and losses: by hand, against slow versions, with masks, memory and quantiles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.agents.dqn import Agent, Config, Policy
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.nn.config import NetworkConfig
from rlkit.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from rlkit.types import Batch, EnvSpec, Lanes, Rollout, tree_map
from tests.helpers import experience

STATES = 3
ONLINE = [[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]]  # Q(s, a): one row per action, one column per state
TARGET = [[10.0, 20.0, 30.0], [40.0, 5.0, 60.0]]


def make_agent(
    action: Space | None = None, masked: int = 0, core: str = "identity", replay: Any = None, **options: Any
) -> Agent:
    """An agent over one-hot states whose memoryless network is a table."""
    observation: Any = Box((STATES,), "float32")
    if masked:
        observation = Dict((("state", observation), ("action_mask", Box((masked,), "int8", 0.0, 1.0))))
    spec = EnvSpec("table", observation, action or Discrete(2))
    config = Config(replay=ReplayConfig(**(replay or {})), gamma=0.5, **options)
    torch.manual_seed(0)
    policy = Policy(spec, NetworkConfig(hidden=(), core=core, core_size=8), config)
    for head in policy.network.heads.values():
        torch.nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return Agent(policy, config, OptimConfig(), compile=False)


def table_agent(**options: Any) -> Agent:
    agent = make_agent(**options)
    with torch.no_grad():
        agent.network.heads["q"].weight.copy_(torch.tensor(ONLINE))
        agent.target.heads["q"].weight.copy_(torch.tensor(TARGET))
    return agent


def one_hot(states: list[int]) -> Tensor:
    return torch.eye(STATES)[torch.tensor(states)]


def transitions(
    agent: Agent, states: list[int], actions: Any, rewards: list[float], after: list[int], discount: list[float],
    mask_after: Any = None, weight: list[float] | None = None,
) -> Batch:  # fmt: skip
    """A batch [1, B] as the replay buffer of a memoryless network hands it out."""
    size = len(states)
    obs: Any = torch.stack([one_hot(states), one_hot(after)])  # [2, B, S]
    if mask_after is not None:
        after_mask = torch.tensor(mask_after, dtype=torch.int8)
        obs = {"state": obs, "action_mask": torch.stack([torch.ones_like(after_mask), after_mask])}
    flags = torch.zeros(2, size, dtype=torch.bool)
    rollout = Rollout(
        obs=obs, first=flags, last=flags, action=torch.tensor([actions]), reward=torch.tensor([rewards]),
        terminated=torch.zeros(1, size, dtype=torch.bool), state=agent.policy.initial_state(Lanes(size)),
    )  # fmt: skip
    return replace(experience.transitions(rollout, 1.0, weight), discount=torch.tensor([discount]))


def target_of(agent: Agent, batch: Batch) -> Tensor:
    """[L, B] expected targets of a memoryless network."""
    return agent.targets(batch, batch.later).mean(-1)


def test_targets_by_hand() -> None:
    """y = r + discount max_b Q'(s', b); the discount is 0 after a termination and gamma^m after m steps."""
    steps = {"states": [0, 1, 2, 0], "actions": [0, 1, 0, 1], "rewards": [1.0, 2.0, 3.0, 4.0]}
    after, discount = [1, 0, 2, 1], [0.5, 0.5, 0.0, 0.25]
    agent = table_agent(double=False)
    # 1 + .5 * 20;  2 + .5 * 40;  3;  4 + .25 * 20
    batch = transitions(agent, **steps, after=after, discount=discount)
    assert target_of(agent, batch).tolist() == [[11.0, 22.0, 3.0, 9.0]]
    agent = table_agent(double=True)
    # the online network prefers action 0 in state 1 (5 > 0), 1 in state 0 (4 > 1)
    assert target_of(agent, batch).tolist() == [[11.0, 22.0, 3.0, 9.0]]
    with torch.no_grad():
        agent.network.heads["q"].weight.copy_(torch.tensor(ONLINE).flip(0))
    # now it prefers 1 in state 1 and 0 in state 0: 1 + .5 * 5; 2 + .5 * 10; 3; 4 + .25 * 5
    assert target_of(agent, batch).tolist() == [[3.5, 7.0, 3.0, 5.25]]


@pytest.mark.parametrize("double", [False, True])
def test_masks_forbid_in_the_bootstrap(double: bool) -> None:
    agent = table_agent(double=double, masked=2)
    mask = [[0, 1], [1, 1], [1, 0], [0, 0]]
    batch = transitions(
        agent, [0, 0, 0, 0], [0, 0, 0, 0], [1.0] * 4, [1, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], mask_after=mask
    )
    # state 1 without action 0: 5, else 20; state 0 without action 1 is worth 10; none allowed: as if all were
    assert target_of(agent, batch).tolist() == [[3.5, 11.0, 6.0, 11.0]]


def test_masks_of_combined_choices() -> None:
    """A combination is allowed where each of its choices is."""
    agent = make_agent(action=MultiDiscrete((2, 3), (0, 0)), masked=5, double=False)
    with torch.no_grad():
        agent.target.heads["q"].weight.copy_(
            torch.arange(6.0)[:, None].expand(6, STATES)
        )  # Q of combination i is i
    masks = list(product([0, 1], repeat=5))
    size = len(masks)
    batch = transitions(
        agent,
        [0] * size,
        [0] * size,
        [0.0] * size,
        [1] * size,
        [1.0] * size,
        mask_after=[list(m) for m in masks],
    )
    for mask, y in zip(masks, target_of(agent, batch)[0].tolist(), strict=True):
        allowed = [i for i, (a, b) in enumerate(product(range(2), range(3))) if mask[a] and mask[2 + b]]
        assert y == (max(allowed) if allowed else 5)


def test_loss_by_hand() -> None:
    """Huber loss with importance weights; the priorities are |y - Q|."""
    agent = table_agent(double=False)
    batch = transitions(agent, [0, 1], [0, 1], [1.25, -3.0], [0, 0], [0.0, 0.0], weight=[1.0, 0.5])
    loss, report = agent.loss(batch)
    # Q = 1 and 0, y = 1.25 and -3: u = 0.25 and -3; Huber 0.03125 and 2.5
    assert float(loss.detach()) == pytest.approx((0.03125 + 0.5 * 2.5) / 2)
    assert report.tolist() == pytest.approx([float(loss.detach()), 0.5, (1.25 - 3) / 2, 0.25, 3.0])
    loss.backward()  # type: ignore[no-untyped-call]
    # dL/dQ = -clamp(u, -1, 1) w / B
    gradient = agent.network.heads["q"].weight.grad
    assert gradient is not None
    assert gradient[0].tolist() == pytest.approx([-0.125, 0.0, 0.0])
    assert gradient[1].tolist() == pytest.approx([0.0, 0.25, 0.0])


def test_one_quantile_is_the_huber_loss() -> None:
    agent = table_agent()
    batch = transitions(agent, [0, 1, 2], [0, 1, 1], [0.3, -2.0, 6.0], [1, 2, 0], [0.5, 0.0, 0.5])
    y = agent.targets(batch, batch.later)
    q = torch.tensor([ONLINE[0][0], ONLINE[1][1], ONLINE[1][2]])
    loss, _ = agent.loss(batch)
    assert float(loss.detach()) == pytest.approx(float(F.huber_loss(q, y[0, :, 0].detach())))


def test_quantile_loss_against_loops() -> None:
    agent = make_agent(quantiles=3, double=True)
    with torch.no_grad():
        for network in (agent.network, agent.target):
            torch.nn.init.normal_(network.heads["q"].weight)  # type: ignore[arg-type]
    batch = transitions(agent, [0, 1, 2], [0, 1, 1], [0.3, -0.7, 1.0], [1, 2, 0], [0.5, 0.0, 0.5])
    online = agent.network.heads["q"].weight.detach().T.reshape(STATES, 2, 3).tolist()  # type: ignore[operator, union-attr]
    old = agent.target.heads["q"].weight.detach().T.reshape(STATES, 2, 3).tolist()  # type: ignore[operator, union-attr]
    total = 0.0
    for s, a, r, after, discount in [(0, 0, 0.3, 1, 0.5), (1, 1, -0.7, 2, 0.0), (2, 1, 1.0, 0, 0.5)]:
        best = max(range(2), key=lambda b: sum(online[after][b]))
        for i in range(3):
            for j in range(3):
                u = r + discount * old[after][best][j] - online[s][a][i]
                huber = u * u / 2 if abs(u) <= 1 else abs(u) - 0.5
                total += 2 * abs((i + 0.5) / 3 - (u < 0)) * huber / 3
    loss, _ = agent.loss(batch)
    assert float(loss.detach()) == pytest.approx(total / 3, rel=1e-5)


def test_dueling() -> None:
    """Q = V + A - mean A, by hand."""
    agent = make_agent(dueling=True)
    with torch.no_grad():
        agent.network.heads["value"].weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        agent.network.heads["advantage"].weight.copy_(torch.tensor(ONLINE))
        obs = torch.eye(STATES)[None]
        state = agent.policy.initial_state(Lanes(STATES))
        z, _ = agent.policy.returns(agent.network, obs, torch.zeros(1, STATES, dtype=torch.bool), state)
    # state 0: 1 + (1, 4) - 2.5; state 1: 2 + (5, 0) - 2.5; state 2: 3 + (2, 3) - 2.5
    assert z[0, :, :, 0].tolist() == [[-0.5, 2.5], [4.5, -0.5], [2.5, 3.5]]


def make_sequences(agent: Agent, length: int, size: int) -> tuple[Rollout, Tensor]:
    """Random rows of several episodes, some terminated, some truncated, with the rows between them; weights [B]."""
    generator = torch.Generator().manual_seed(1)
    last = torch.rand(length + 1, size, generator=generator) < 0.25
    last[0] = False
    last[1:] &= ~last[:-1]
    first = torch.zeros_like(last)
    first[1:] = last[:-1]
    terminated = last[1:] & (torch.rand(length, size, generator=generator) < 0.5)
    rollout = Rollout(
        obs=torch.randn(length + 1, size, STATES, generator=generator), first=first, last=last,
        action=torch.randint(0, 2, (length, size), generator=generator),
        reward=torch.randn(length, size, generator=generator) * ~last[:-1], terminated=terminated,
        state=tree_map(lambda x: torch.randn(x.shape, generator=generator), agent.policy.initial_state(Lanes(size))),
    )  # fmt: skip
    return rollout, torch.rand(size, generator=generator) + 0.5


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("burn_in", [0, 2])
@pytest.mark.parametrize("double", [False, True])
def test_sequences_against_a_slow_version(n: int, burn_in: int, double: bool) -> None:
    """n-step targets through memory, stepped row by row; burn-in rows have no loss and no gradient."""
    L, B = 8, 5
    agent = make_agent(
        core="gru", double=double, replay={"n_step": n, "burn_in": burn_in, "sequence": L - burn_in}
    )
    with torch.no_grad():
        for network in (agent.network, agent.target):
            torch.nn.init.normal_(network.heads["q"].weight)  # type: ignore[arg-type]
    rollout, weight = make_sequences(agent, L, B)
    q = {}
    with torch.no_grad():
        for name, network in (("online", agent.network), ("old", agent.target)):
            state, rows = rollout.state, []
            for t in range(L + 1):
                obs: Any = rollout.obs
                z, state = agent.policy.returns(network, obs[t : t + 1], rollout.first[t : t + 1], state)
                rows.append(z[0, :, :, 0])
            q[name] = torch.stack(rows).tolist()  # [L+1, B, 2]
    judge = q["online"] if double else q["old"]
    terminated, last, reward = (x.tolist() for x in (rollout.terminated, rollout.last, rollout.reward))
    total, count = 0.0, 0
    errors = torch.zeros(L - burn_in, B)
    for b in range(B):
        for t in range(burn_in, L):
            if last[t][b]:
                continue
            y, k, scale = 0.0, t, 1.0
            while True:
                y += scale * reward[k][b]
                scale *= 0.5 * (1 - terminated[k][b])
                k += 1
                if last[k][b] or k == L or k - t == n:
                    break
            best = max(range(2), key=lambda a: judge[k][b][a])
            y += scale * q["old"][k][b][best]
            u = abs(y - q["online"][t][b][int(rollout.action[t, b])])
            errors[t - burn_in, b] = u
            total += float(weight[b]) * (u * u / 2 if u <= 1 else u - 0.5)
            count += 1
    loss, report = agent.loss(experience.sequences(rollout, 0.5, burn_in, weight))
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-4)
    assert report[3:].tolist() == pytest.approx(errors.flatten().tolist(), rel=1e-4)
