"""The targets of batches that a replay buffer drew, against stepping through the rows that were put in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.agents import ddpg, dqn
from rlkit.config.schema import OptimConfig, ReplayConfig
from rlkit.nn.config import NetworkConfig
from rlkit.replay.memory import Replay
from rlkit.replay.targets import warmed
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, Lanes, Rollout, State
from tests.helpers.experience import Stream

GAMMA, TOTAL, LANES, STEPS, WARM, LENGTH = 0.9, 40, 2, 4, 2, 6


def make_agent(name: str, core: str, stack: int, n: int) -> Any:
    """An agent whose target has other weights than its policy."""
    torch.manual_seed(0)
    replay = ReplayConfig(capacity=TOTAL * LANES, warmup=0, batch=24, n_step=n, sequence=LENGTH, burn_in=WARM)
    network = NetworkConfig(hidden=(8, 6), core=core, core_size=5)
    if name == "dqn":
        spec = EnvSpec("test", Box((3,), "float32"), Discrete(4), stack)
        options = dqn.Config(gamma=GAMMA, replay=replay, double=True, dueling=True)
        agent: Any = dqn.Agent(dqn.Policy(spec, network, options), options, OptimConfig())
        weights = [agent.target_flat]
    else:
        spec = EnvSpec("test", Box((3,), "float32"), Box((2,), "float32", -1.0, 1.0), stack)
        how = ddpg.Config(gamma=GAMMA, replay=replay, critics=2, noise="ou")
        agent = ddpg.Agent(ddpg.Policy(spec, network, how), how, OptimConfig())
        weights = [agent.target_actor, agent.target_critic]
    for flat in weights:
        flat += 0.3 * torch.randn(flat.shape)
    return agent


def stepped(agent: Any, obs: Tensor, first: Tensor, state: State) -> list[list[float]]:
    """The value of every row obs [T, N, 3], first [T, N] that targets are made of, one row at a time: [T, N]."""
    values, old, online = [], state, state
    for t in range(len(obs)):
        row, opens = obs[t : t + 1], first[t : t + 1]
        if isinstance(agent, dqn.Agent):
            z, old = agent.policy.returns(agent.target, row, opens, old)
            judge, online = agent.policy.returns(agent.network, row, opens, online)
            best = judge[0, :, :, 0].argmax(-1)
            values.append([float(z[0, n, a, 0]) for n, a in enumerate(best)])
        else:
            values.append(agent.target.value(row, opens, old)[0].tolist())
            _, old = agent.target.network.features(row, opens, old)
    return values


def targets(agent: Any, batch: Any) -> Tensor:
    if isinstance(agent, dqn.Agent):
        return agent.targets(batch, warmed(agent.network, batch)[1])[..., 0]
    y: Tensor = agent.targets(batch, ())[1]
    return y


@pytest.mark.parametrize("name", ["dqn", "ddpg"])
@pytest.mark.parametrize(
    ("core", "stack", "n"), [("identity", 1, 1), ("identity", 3, 3), ("gru", 1, 1), ("lstm", 3, 2)]
)
@torch.no_grad()
def test_targets_equal_stepping_through_the_rows(name: str, core: str, stack: int, n: int) -> None:
    """y_t = r_t + gamma r_{t+1} + ... + gamma^m V(o_{t+m}), of every transition and of every row of a sequence.

    Of a sequence V remembers from the stored memory on, and rows after its end are not seen.
    """
    agent, stream = make_agent(name, core, stack, n), Stream.make(TOTAL, LANES, seed=1)
    policy, network, memory = agent.policy, agent.policy.network, core != "identity"
    obs, first = torch.randn(TOTAL + 1, LANES, 3), torch.from_numpy(stream.first)
    replay = Replay(agent.config.replay, policy, lanes=LANES, steps=STEPS, gamma=GAMMA)
    state, before = policy.initial_state(Lanes(LANES)), {}
    action = torch.stack([policy.act(obs[0], first[0], state, None)[0]] * STEPS)
    for start in range(0, TOTAL, STEPS):
        before[start] = state
        rows, steps = slice(start, start + STEPS + 1), slice(start, start + STEPS)
        last, reward, terminated = (
            torch.from_numpy(x) for x in (stream.last, stream.reward, stream.terminated)
        )
        replay.add(
            Rollout(obs[rows], first[rows], last[rows], action, reward[steps], terminated[steps], state)
        )
        _, state = network.features(obs[steps], first[steps], state)
    whole = stepped(agent, obs, first, policy.initial_state(Lanes(LANES)))
    seen = 0
    replay.due = 3
    for batch in replay.batches(0.0):
        y = targets(agent, batch)
        assert y.shape == batch.reward.shape == ((LENGTH, 4) if memory else (1, 24))
        for b in range(y.shape[1]):
            ((t, lane),) = (obs == batch.now.obs[0, b]).all(-1).nonzero().tolist()  # type: ignore[index]
            begin, end = (t, t + WARM + LENGTH) if memory else (0, TOTAL)
            span = slice(begin, end + 1)
            values = stepped(agent, obs[span], first[span], before[t]) if memory else whole
            for row in range(len(y)):
                now = t + batch.warm + row
                assert bool(batch.valid[row, b]) == (not stream.last[now, lane])
                if not batch.valid[row, b]:
                    continue
                after, total, discount, _ = stream.transition(now, lane, n, end, GAMMA)
                expected = total + discount * values[after - begin][lane]
                assert float(y[row, b]) == pytest.approx(expected, abs=1e-5)
                seen += 1
    assert seen >= 50
