"""The actor: rows in their places, episodes counted, any split of time or lanes the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rlkit.agents.ppo import Config, Policy
from rlkit.collect.actor import Actor
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec
from rlkit.nn.config import NetworkConfig
from rlkit.sources.sync import SyncSource
from rlkit.sources.thread import ThreadSource
from rlkit.types import EnvStep, Rollout, tree_leaves

SCRIPTED = EnvConfig(id="rlkit.envs.toys.tasks:Scripted", lanes=3, backend="inprocess")
CARTPOLE = EnvConfig(id="CartPole-v1", lanes=4, backend="inprocess")
BATCHED = "rlkit.envs.toys.batched:Quadratic"
CPU = torch.device("cpu")


def make_policy(config: EnvConfig, seed: int = 0) -> Policy:
    env = make_vec(config, 0)
    env.close()
    torch.manual_seed(seed)
    return Policy(env.spec, NetworkConfig(), Config())


def make_actor(config: EnvConfig, steps: int, policy: Policy | None = None, **options: object) -> Actor:
    return Actor(
        make_vec(config, 7, first_lane=options.get("first_lane", 0)),  # type: ignore[arg-type]
        policy or make_policy(config),
        steps,
        seed=3,
        device=CPU,
        **options,  # type: ignore[arg-type]
    )


def copied(rollout: Rollout) -> Rollout:
    return rollout.map(torch.clone)


def same(a: Rollout, b: Rollout) -> bool:
    ours = [a.obs, a.first, a.last, a.action, a.reward, a.terminated, a.state, a.extra]
    theirs = [b.obs, b.first, b.last, b.action, b.reward, b.terminated, b.state, b.extra]
    return all(
        torch.equal(x, y) for x, y in zip(tree_leaves(tuple(ours)), tree_leaves(tuple(theirs)), strict=True)
    )


def test_rows_follow_the_script() -> None:
    """Scripted episodes of 3, 1, 4 steps, terminated, truncated, terminated; a row of reset follows each ending."""
    rollout, episodes = make_actor(SCRIPTED, 12).collect()
    lane = rollout.map(lambda x: x[:, 0] if x.dim() > 1 else x)
    #                        row  0  1  2  3  | 4  5 | 6  7  8  9  10 | 11 12
    assert lane.first.tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0]
    assert lane.last.tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    assert lane.terminated.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]  # the episode of 1 is truncated
    assert lane.valid.tolist() == [1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1]
    assert lane.reward[3] == 0 and lane.reward[5] == 0 and lane.reward[10] == 0
    # obs = (episode, step, last action, seed): the action of row t shows in row t + 1
    played = lane.valid
    assert torch.equal(lane.obs[1:][played][:, 2].long(), lane.action[played])
    assert sorted(episodes.lengths) == [1, 1, 1, 3, 3, 3, 4, 4, 4]


def test_episode_returns_are_sums_of_rewards() -> None:
    """Against a slow loop, over rollouts that cut episodes, with the environment's reward scale divided out."""
    config = EnvConfig(id="CartPole-v1", lanes=4, backend="inprocess", reward_scale=0.5)
    actor = make_actor(config, 13, reward_scale=0.5)
    total, length = np.zeros(4), np.zeros(4, int)
    expected, found = [], []
    for _ in range(30):
        rollout, episodes = actor.collect()
        found += list(zip(episodes.returns, episodes.lengths, strict=True))
        for t in range(13):
            for n in range(4):
                if not rollout.last[t, n]:
                    total[n] += 2.0 * float(rollout.reward[t, n])
                    length[n] += 1
                if rollout.last[t + 1, n]:
                    expected.append((total[n], length[n]))
                    total[n], length[n] = 0.0, 0
    assert len(expected) > 40
    assert found == expected


def test_rollouts_do_not_depend_on_how_time_is_cut() -> None:
    long = copied(make_actor(CARTPOLE, 24).collect()[0])
    actor = make_actor(CARTPOLE, 8)
    pieces = [copied(actor.collect()[0]) for _ in range(3)]
    assert torch.equal(torch.cat([piece.action for piece in pieces]), long.action)
    assert torch.equal(torch.cat([piece.reward for piece in pieces]), long.reward)
    assert torch.equal(pieces[1].obs[0], long.obs[8])
    assert torch.equal(pieces[1].obs[0], pieces[0].obs[-1])


def test_lanes_do_not_depend_on_how_they_are_split() -> None:
    """Seeds and noise belong to global lane numbers (groups of at least four: see the forward pass's last bits)."""
    policy = make_policy(CARTPOLE)
    eight = EnvConfig(id="CartPole-v1", lanes=8, backend="inprocess")
    whole = copied(make_actor(eight, 40, policy).collect()[0])
    halves = [copied(make_actor(CARTPOLE, 40, policy, first_lane=lane).collect()[0]) for lane in (0, 4)]
    assert torch.equal(torch.cat([half.action for half in halves], 1), whole.action)
    assert torch.equal(torch.cat([half.obs for half in halves], 1), whole.obs)


def test_worker_processes_collect_what_this_process_collects() -> None:
    workers = EnvConfig(id="CartPole-v1", lanes=4, backend="workers", workers=2)
    policy = make_policy(CARTPOLE)
    here, there = make_actor(CARTPOLE, 50, policy), make_actor(workers, 50, policy)
    try:
        for _ in range(2):
            assert same(copied(here.collect()[0]), copied(there.collect()[0]))
    finally:
        there.env.close()


@pytest.mark.parametrize("id", ["CartPole-v1", "LunarLander-v3", BATCHED, "rlkit.envs.toys.tasks:Identity"])
@pytest.mark.parametrize("before", [0, 1, 5, 13])
def test_a_rebuilt_actor_continues_exactly(id: str, before: int) -> None:
    config = EnvConfig(id=id, lanes=3, backend="auto" if "batched" in id else "inprocess", check="finite")
    policy = make_policy(config)
    actor = make_actor(config, 9, policy)
    for _ in range(before):
        actor.collect()
    state = actor.state_dict()
    expected = [(copied(r), e) for r, e in (actor.collect() for _ in range(3))]
    rebuilt = make_actor(config, 9, policy)
    assert rebuilt.load_state_dict(state) is None
    for rollout, episodes in expected:
        ours, theirs = rebuilt.collect()
        assert same(ours, rollout) and theirs == episodes


def test_an_environment_that_does_not_come_back_is_reported() -> None:
    """Scripted counts its episodes, which no seed can bring back."""
    policy = make_policy(SCRIPTED)
    actor = make_actor(SCRIPTED, 9, policy)
    actor.collect()
    rebuilt = make_actor(SCRIPTED, 9, policy)
    warning = rebuilt.load_state_dict(actor.state_dict())
    assert warning is not None and "did not come back as it was" in warning and "Scripted" in warning
    rollout, episodes = rebuilt.collect()
    assert rollout.first[0].all()  # new episodes, not splices of two
    assert set(episodes.lengths) <= {1, 3, 4}


def test_another_number_of_lanes_is_refused() -> None:
    actor = make_actor(CARTPOLE, 9)
    actor.collect()
    two = EnvConfig(id="CartPole-v1", lanes=2, backend="inprocess")
    with pytest.raises(ValueError, match="env.lanes=2, but the checkpoint has 4 lanes"):
        make_actor(two, 9).load_state_dict(actor.state_dict())


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
@pytest.mark.parametrize("space", ["MultiDiscrete([3, 2])", "MultiBinary(3)", "Box(-1, 1, (2, 2))"])
def test_every_action_space_reaches_the_environment(backend: str, space: str) -> None:
    config = EnvConfig(
        id="tests.helpers.echo:Echo", kwargs={"space": space}, lanes=2, backend=backend, workers=2
    )
    actor = make_actor(config, 12)
    try:
        rollout, _ = actor.collect()
    finally:
        actor.env.close()
    commands = actor.policy.to_env(rollout.action).float().flatten(2)  # [T, N, d]
    assert torch.equal(rollout.obs[1:][rollout.valid], commands[rollout.valid])


def test_the_thread_source_is_exactly_one_update_behind() -> None:
    """Rollout k is collected with the weights after update k - 2, whatever the timing."""
    learner = make_policy(CARTPOLE)
    source = ThreadSource(make_actor(CARTPOLE, 16, copy.deepcopy(learner), buffers=2), learner)
    reference = make_policy(CARTPOLE)
    slow = SyncSource(make_actor(CARTPOLE, 16, reference))
    weights = [copy.deepcopy(learner.state_dict())]
    versions = []
    for update in range(5):
        rollout = copied(source.get()[0])
        versions.append(source.get and rollout.version)
        reference.load_state_dict(weights[max(update - 1, 0)])
        assert same(rollout, copied(slow.get()[0]))
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.add_(
                    0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(update))
                )
        weights.append(copy.deepcopy(learner.state_dict()))
        source.publish(update + 1)
    source.close()
    assert versions == [0, 0, 1, 2, 3]


def test_a_fault_in_the_collecting_thread_reaches_the_learner() -> None:
    learner = make_policy(CARTPOLE)
    actor = make_actor(CARTPOLE, 16, copy.deepcopy(learner), buffers=2)

    def fail(action: torch.Tensor) -> EnvStep:
        raise RuntimeError("broken environment")

    actor.env.step = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken environment"):
        ThreadSource(actor, learner).get()


def test_rows_on_a_device_stay_there() -> None:
    """A batched environment's rows and the rollout are on the policy's device (here cpu; cuda under the gpu marker)."""
    config = EnvConfig(id=BATCHED, lanes=16, backend="batched")
    rollout, episodes = make_actor(config, 25).collect()
    assert rollout.action.shape[:2] == (25, 16)
    assert len(episodes.returns) >= 16


def test_an_evaluation_that_never_ends_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlkit.play import evaluate

    monkeypatch.setattr(evaluate, "MAX_STEPS", 50)
    config = EnvConfig(id="tests.helpers.pixels:Constant", lanes=2, backend="inprocess")
    env = make_vec(config, 0, evaluation=True)
    with pytest.raises(evaluate.EndlessEpisode, match="did not end in 50 steps; .*env.time_limit=1000"):
        evaluate.run_episodes(make_policy(config), env, 2, seed=0, device=CPU)
