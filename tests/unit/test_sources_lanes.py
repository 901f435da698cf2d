"""Lanes of several actors are those of one: groups, joined rollouts, merged states, flat weights."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlkit.agents.ppo import Config, Policy
from rlkit.collect import history
from rlkit.collect.actor import Actor
from rlkit.collect.history import History
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec
from rlkit.learn.optim import flatten
from rlkit.nn.config import NetworkConfig
from rlkit.sources.ray.lanes import join_lanes, merge_states, split_state
from rlkit.sources.ray.wire import lay_out, load_weights, pack_rollout, pack_weights, unpack_rollout
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, tree_leaves

CPU = torch.device("cpu")
ENVS = {
    "cartpole": EnvConfig(id="CartPole-v1", lanes=8, backend="inprocess"),
    "snapshot": EnvConfig(id="rlkit.envs.toys.batched:Quadratic", lanes=8, backend="batched"),
}


def make_actor(config: EnvConfig, start: int, stop: int, group: int = 4) -> Actor:
    env = make_vec(dataclasses.replace(config, lanes=stop - start), 7, first_lane=start)
    torch.manual_seed(0)
    network = NetworkConfig(core="lstm", core_size=8, hidden=(8,))
    policy = Policy(env.spec, network, Config(steps=16))
    return Actor(env, policy, 16, seed=3, device=CPU, first_lane=start, group=group)


def leaves(rollout: Rollout) -> list[torch.Tensor]:
    return list(tree_leaves({name: value for name, value in vars(rollout).items() if name != "version"}))


def equal(a: Rollout, b: Rollout) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def collect(*actors: Actor) -> Rollout:
    return join_lanes([actor.collect()[0].map(torch.clone) for actor in actors], CPU)


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("cuts", [[0, 8], [0, 4, 8], [0, 2, 4, 6, 8]])
def test_groups_make_actors_of_some_lanes_one_of_all(name: str, cuts: list[int]) -> None:
    whole = make_actor(ENVS[name], 0, 8, group=2)
    parts = [make_actor(ENVS[name], *cut, group=2) for cut in pairwise(cuts)]
    for _ in range(3):
        assert equal(collect(*parts), collect(whole))


def test_a_policy_that_knows_its_lanes_is_told_their_share_of_the_run() -> None:
    """i / (N - 1), whoever acts for lane i: one actor of four lanes, or two of two."""

    class Watcher:
        noise_size = 2

        def __init__(self, spec: EnvSpec) -> None:
            self.spec = spec
            self.shares: list[list[float]] = []
            self.kept: list[Tensor] = []

        def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
            return (lanes.share,)

        def act(
            self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
        ) -> tuple[Tensor, State, dict[str, Tensor]]:
            assert noise is not None
            self.shares.append(state[0].tolist())  # type: ignore[union-attr]
            self.kept.append(noise)
            return torch.zeros(len(first), dtype=torch.int64), state, {}

        def to_env(self, action: Tensor) -> Tensor:
            return action

    found = []
    for start, stop in ((0, 4), (0, 2), (2, 4)):
        env = make_vec(dataclasses.replace(ENVS["cartpole"], lanes=stop - start), 7, first_lane=start)
        watcher = Watcher(env.spec)
        Actor(env, watcher, 2, seed=3, device=CPU, first_lane=start, total=4).collect()
        found.append(watcher)
    whole, left, right = found
    assert whole.shares == [[0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]] * 2
    assert [a + b for a, b in zip(left.shares, right.shares, strict=True)] == whole.shares
    assert torch.equal(torch.cat([left.kept[1], right.kept[1]]), whole.kept[1])


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("before", [1, 5])
def test_merged_and_split_states_continue_exactly(name: str, before: int) -> None:
    """Two actors -> one -> four."""
    config = ENVS[name]
    two = [make_actor(config, 0, 4), make_actor(config, 4, 8)]
    for _ in range(before):
        collect(*two)
    state = merge_states([actor.state_dict() for actor in two])
    one = make_actor(config, 0, 8)
    assert one.load_state_dict(state) is None
    four = [make_actor(config, i, i + 2, group=0) for i in (0, 2, 4, 6)]
    for actor, i in zip(four, (0, 2, 4, 6), strict=True):
        assert actor.load_state_dict(split_state(state, i, i + 2)) is None
    first = collect(*two)
    assert equal(collect(one), first)
    again = collect(*four)
    assert torch.equal(again.first, first.first) and torch.equal(again.obs[0], first.obs[0])  # type: ignore[index]
    assert equal(collect(one), collect(*two))


def test_long_histories_are_joined_and_merge_whatever_their_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rollouts of one episode are few entries, and what is brought back from them stays the same."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 9, (200, 2, 5))  # 200 rollouts of 2 steps, 5 lanes
    plain, joined = History(), History()
    for number, each in enumerate(actions):
        monkeypatch.setattr(history, "LONG", 10**9)
        plain.add(2 * number, each)
        monkeypatch.setattr(history, "LONG", 8)
        joined.add(2 * number, each)
        if number == 150:
            again = History(joined.state_dict())  # as a resumed run has it
    for number in range(151, 200):
        again.add(2 * number, actions[number])
    assert [each["start"] for each in again.state_dict()] == [each["start"] for each in joined.state_dict()]
    assert len(joined.state_dict()) < 60
    for log in (plain, joined):
        log.forget(77)
    for begun in (77, 78, 100, 399):
        for lane in range(5):
            assert np.array_equal(joined.of(lane, begun), actions.reshape(400, 5)[begun:, lane])
    states = [
        {"step": 400, "episode": np.zeros(5), "log": each.state_dict()} for each in (plain, joined, History())
    ]
    merged = History(merge_states(states)["log"])
    for lane in range(15):
        expected = np.zeros(323, int) if lane >= 10 else actions.reshape(400, 5)[77:, lane % 5]
        assert np.array_equal(merged.of(lane, 77), expected)


def test_actors_at_different_steps_are_not_merged() -> None:
    two = [make_actor(ENVS["cartpole"], 0, 4), make_actor(ENVS["cartpole"], 4, 8)]
    two[0].collect()
    collect(*two)
    with pytest.raises(AssertionError, match="different steps"):
        merge_states([actor.state_dict() for actor in two])


def test_reopened_lanes_have_new_episodes_at_the_given_step() -> None:
    actor, fresh = make_actor(ENVS["cartpole"], 0, 4), make_actor(ENVS["cartpole"], 0, 4)
    actor.collect()
    fresh.reopen(16, np.array([5, 0, 7, 1]))
    rollout, _ = fresh.collect()
    assert rollout.first[0].all() and fresh.step == 32
    env = make_vec(dataclasses.replace(ENVS["cartpole"], lanes=4), 7)
    row = env.restore(np.array([5, 0, 7, 1]), [np.zeros(0)] * 4)
    assert torch.equal(rollout.obs[0], row.obs)  # type: ignore[index]
    rebuilt = make_actor(ENVS["cartpole"], 0, 4)
    assert rebuilt.load_state_dict(fresh.state_dict()) is None
    assert equal(collect(rebuilt), collect(fresh))


class Net(nn.Module):
    """All kinds of tensors, parameters flattened as an optimiser does."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Conv2d(3, 4, 2), nn.Linear(5, 2))
        self.register_buffer("epsilon", torch.tensor(fill))
        self.register_buffer("count", torch.arange(3) * int(fill))
        self.register_buffer("flag", torch.tensor([fill > 0]))
        self.register_buffer("running", torch.full((int(fill) or 1,), fill))

    def _load_from_state_dict(self, state: dict[str, torch.Tensor], prefix: str, *args: object) -> None:
        self.running = torch.empty_like(state[f"{prefix}running"])
        super()._load_from_state_dict(state, prefix, *args)  # type: ignore[arg-type]


def test_flat_weights_arrive_in_place_laid_out_alike() -> None:
    """From read-only memory, without a warning; also where a buffer has changed its shape."""
    ours, theirs = Net(3.0), Net(0.0)
    flatten(ours)
    packed = pack_weights(ours)
    packed["bytes"].flags.writeable = False
    assert packed["bytes"].ndim == 1
    weight = theirs.layers[0].weight
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lay_out(theirs, packed["layout"])
        load_weights(theirs, packed)
    assert theirs.layers[0].weight is weight
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a.data_ptr() % 64 == b.data_ptr() % 64
    ours.running = torch.ones(7)
    load_weights(theirs, pack_weights(ours))
    assert theirs.running.tolist() == [1.0] * 7


def test_rollouts_are_packed_as_views_or_copies() -> None:
    actor = make_actor(ENVS["cartpole"], 0, 4)
    rollout, _ = actor.collect()
    rollout.version = 5
    for copy in (False, True):
        packed = pack_rollout(rollout, copy)
        assert np.shares_memory(packed["obs"], rollout.obs.numpy()) != copy  # type: ignore[union-attr]
        assert np.shares_memory(packed["reward"], rollout.reward.numpy()) != copy
        packed["obs"].flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            back = unpack_rollout(packed)
        assert equal(back, rollout) and back.version == 5
        assert back.obs.data_ptr() == packed["obs"].ctypes.data  # type: ignore[union-attr]
