"""What a replay buffer hands out, against the rows that were put in."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit import machine
from rlkit.config.schema import ReplayConfig
from rlkit.nn.stack import stack_rows, stack_step
from rlkit.options import ConfigError
from rlkit.replay import priorities
from rlkit.replay import ring as ring_module
from rlkit.replay.memory import Replay
from rlkit.replay.targets import bootstrapped, warmed
from rlkit.returns import n_step as n_step_returns
from rlkit.types import Batch, Lanes, tree_leaves, tree_map
from tests.helpers.experience import Policy, Stream

GAMMA = 0.9


def make(policy: Policy, lanes: int, steps: int, **options: Any) -> Replay:
    folder = options.pop("folder", Path("none"))
    options = {"capacity": 60 * lanes, "warmup": 0, "batch": 16} | options
    config = ReplayConfig(**options)
    return Replay(config, policy, lanes=lanes, steps=steps, gamma=GAMMA, seed=1, folder=folder)


def feed(replay: Replay, stream: Stream, policy: Policy, lengths: list[int]) -> None:
    """Add the stream from where the memory is, in rollouts of these lengths."""
    for steps in lengths:
        replay.add(stream.rollout(policy, replay.written, steps))


def drawn(replay: Replay, updates: int) -> list[Batch]:
    """Copies of that many batches."""
    replay.due = updates
    return [tree_map(torch.clone, batch) for batch in replay.batches(0.0)]


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("total", [20, 59, 60, 61, 200])
def test_transitions_are_those_of_the_definition(stack: int, n_step: int, total: int) -> None:
    lanes, policy = 3, Policy(stack=stack)
    stream = Stream.make(total, lanes, seed=total)
    replay = make(policy, lanes, 7, n_step=n_step)
    lengths = [7] * (total // 7) + [1] * (total % 7)
    feed(replay, stream, policy, lengths)
    oldest = max(total - 60, 0)
    seen = set()
    for batch in drawn(replay, 40):
        assert batch.reward.shape == batch.now.first.shape == batch.later.first.shape == (1, 16)
        assert batch.valid.all()
        assert not batch.now.first.any() and not batch.later.first.any()
        for b in range(16):
            t, n = (int(x) for x in batch.now.obs[0, b])  # type: ignore[index]
            assert oldest <= t < total
            assert not stream.last[t, n]
            seen.add((t, n))
            after, total_reward, discount, ended = stream.transition(t, n, n_step, total, GAMMA)
            assert batch.later.obs[0, b].tolist() == [after, n]  # type: ignore[index]
            assert int(batch.action[0, b]) == t
            assert float(batch.reward[0, b]) == pytest.approx(total_reward, abs=1e-5)
            assert float(batch.discount[0, b]) == pytest.approx(discount)
            assert bool(batch.discount[0, b] == 0) == ended
            assert bool(batch.later.last[0, b]) == bool(stream.last[after, n])
            if stack > 1:
                for span, row in ((batch.now, t), (batch.later, after)):
                    assert span.state[0][0][b, :, 0].tolist() == stream.history(row, n, stack)  # type: ignore[index]
    can = {(t, n) for t in range(oldest, total) for n in range(lanes) if not stream.last[t, n]}
    assert replay.items == replay.valid == len(can)
    assert len(seen) > 0.95 * len(can)


def test_every_transition_is_equally_likely() -> None:
    """chi^2 of 48,000 draws among the ~130 transitions of a memory that has gone round twice."""
    lanes, policy = 3, Policy()
    stream = Stream.make(140, lanes, seed=5, ending=0.3)
    replay = make(policy, lanes, 7, batch=240)
    feed(replay, stream, policy, [7] * 20)
    counts: Counter[tuple[int, ...]] = Counter()
    for batch in drawn(replay, 200):
        counts.update(tuple(row) for row in batch.now.obs[0].long().tolist())  # type: ignore[index]
    assert len(counts) == replay.items
    expected = 48_000 / replay.items
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = replay.items - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_n_step_by_hand() -> None:
    """Rewards 1, 2, 4 then a termination; then 8, 16 and the newest row. gamma 1/2, n = 3.

    t = 0: 1 + 2/2 + 4/4 = 3, over     t = 1: 2 + 4/2 = 4, over     t = 2: 4, over
    t = 3 resets                       t = 4: 8 + 16/2 = 16, 1/4    t = 5: 16, 1/2
    """
    policy = Policy()
    flags = np.zeros((7, 1), bool)
    first, last, ended = flags.copy(), flags.copy(), flags[:-1].copy()
    first[[0, 4]], last[3], ended[2] = True, True, True
    reward = np.array([[1], [2], [4], [0], [8], [16]], np.float32)
    stream = Stream(first, last, ended, reward)
    config = ReplayConfig(capacity=20, warmup=0, batch=64, n_step=3)
    replay = Replay(config, policy, lanes=1, steps=6, gamma=0.5)
    replay.add(stream.rollout(policy, 0, 6))
    (batch,) = drawn(replay, 1)
    rows = zip(*(x.tolist() for x in (batch.action[0], batch.reward[0], batch.discount[0])), strict=True)
    assert set(rows) == {(0, 3.0, 0.0), (1, 4.0, 0.0), (2, 4.0, 0.0), (4, 16.0, 0.25), (5, 16.0, 0.5)}


@pytest.mark.parametrize("n", [1, 4])
def test_n_step_in_closed_form(n: int) -> None:
    """Reward 1 without end: (1 - gamma^m) / (1 - gamma) and gamma^m, m = n but near the newest row."""
    policy, none = Policy(), np.zeros((31, 2), bool)
    stream = Stream(none.copy(), none, none[:-1], np.ones((30, 2), np.float32))
    stream.first[0] = True
    replay = make(policy, 2, 10, n_step=n, batch=300)
    feed(replay, stream, policy, [10, 10, 10])
    (batch,) = drawn(replay, 1)
    m = torch.clamp(30 - batch.action[0], max=n).double()
    assert torch.allclose(batch.reward[0].double(), (1 - GAMMA**m) / (1 - GAMMA), atol=1e-6)
    assert torch.allclose(batch.discount[0].double(), GAMMA**m, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_targets_are_those_of_the_rollout(n: int) -> None:
    """reward + discount V(o_{t+m}) is `returns.n_step` of the rows as they were collected."""
    policy, stream = Policy(), Stream.make(40, 2, seed=8)
    whole = stream.rollout(policy, 0, 40)
    value = torch.randn(41, 2, generator=torch.Generator().manual_seed(0))
    expected = n_step_returns(whole.reward, value, whole.terminated, whole.last, GAMMA, n)
    replay = make(policy, 2, 40, n_step=n, batch=300)
    replay.add(whole)
    (batch,) = drawn(replay, 1)
    (t, lane), (after, _) = (span.obs[0].long().T for span in (batch.now, batch.later))  # type: ignore[index]
    target = batch.reward[0] + batch.discount[0] * value[after, lane]
    assert torch.allclose(target, expected[t, lane], atol=1e-5)


@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_history_is_what_the_network_sees_when_it_steps(n_step: int) -> None:
    """Stacks made from a batch are those of stepping through the whole stream."""
    k, policy, rows = 4, Policy(stack=4), 70
    stream = Stream.make(rows, 2, seed=3)
    whole = stream.rollout(policy, 0, rows)
    stacked, _ = stack_rows(whole.obs, whole.first, policy.initial_state(Lanes(2))[0][0])  # type: ignore[arg-type]
    replay = make(policy, 2, 5, n_step=n_step, capacity=60)
    feed(replay, stream, policy, [5] * 14)
    for batch in drawn(replay, 5):
        for span in (batch.now, batch.later):
            obs = span.obs[0]  # type: ignore[index]
            here, _ = stack_step(obs, span.first[0], span.state[0][0])  # type: ignore[arg-type,index]
            t, n = obs.long().T
            assert here.shape == (16, k, 2)
            assert torch.equal(here, stacked[t, n])


def test_named_observations() -> None:
    policy = Policy(named=True)
    stream = Stream.make(100, 2, seed=1)
    replay = make(policy, 2, 10)
    feed(replay, stream, policy, [10] * 10)
    (batch,) = drawn(replay, 1)
    for obs in (batch.now.obs, batch.later.obs):
        assert isinstance(obs, dict)
        assert obs["mask"].dtype == torch.int64
        assert torch.equal(obs["x"][..., 0].long() % 5, obs["mask"])
    assert torch.equal(batch.now.obs["x"][0, :, 0].long(), batch.action[0])  # type: ignore[call-overload]


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_sequences_begin_with_their_stored_memory(stack: int, steps: int) -> None:
    lanes, total, policy = 2, 120, Policy(stack=stack, memory=True)
    stream = Stream.make(total, lanes, seed=2)
    replay = make(policy, lanes, steps, sequence=6, burn_in=2, batch=24)
    feed(replay, stream, policy, [steps] * (total // steps))
    length, warm, starts = 8, 2, set()
    for batch in drawn(replay, 50):
        assert batch.warm == warm
        assert batch.reward.shape == batch.valid.shape == (length - warm, 4)
        for b in range(4):
            t, n = (int(x) for x in batch.now.obs[0, b])  # type: ignore[index]
            starts.add(t)
            assert total - 60 <= t <= total - length
            for span, end in ((batch.now, t + length), (batch.later, t + length + 1)):
                assert span.obs[:, b].tolist() == [[i, n] for i in range(t, end)]  # type: ignore[index]
                assert torch.equal(span.first[:, b], torch.from_numpy(stream.first[t:end, n]))
                assert torch.equal(span.last[:, b], torch.from_numpy(stream.last[t:end, n]))
                h, (c,) = span.state[1]  # type: ignore[misc]
                assert h[b].tolist() == [t] * 3  # type: ignore[index]
                assert c[b].tolist() == [10 * t] * 2
                if stack > 1:
                    assert span.state[0][0][b, :, 0].tolist() == stream.history(t, n, stack)  # type: ignore[index]
            assert batch.action[:, b].tolist() == list(range(t + warm, t + length))
            learned = slice(t + warm, t + length)
            assert torch.equal(batch.reward[:, b], torch.from_numpy(stream.reward[learned, n]))
            ended = torch.from_numpy(stream.terminated[learned, n])
            assert torch.allclose(batch.discount[:, b], GAMMA * (~ended).float())
            assert torch.equal(batch.valid[:, b], torch.from_numpy(~stream.last[learned, n]))
    gaps = np.diff(sorted(starts))
    assert set(gaps) == {
        -(-3 // steps) * steps
    }  # half a sequence, in whole rollouts: every row is learned from
    assert gaps.max() <= 6


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_sequence_is_drawn_as_soon_as_its_last_row_is_there(alpha: float) -> None:
    """Row by row: starts lie 2 apart; 5 rows and the one after them must have been written, none overwritten."""
    policy, stream = Policy(memory=True), Stream.make(60, 1, seed=2)
    replay = make(policy, 1, 1, capacity=20, sequence=4, burn_in=1, batch=200, alpha=alpha)
    for written in range(1, 60):
        feed(replay, stream, policy, [1])
        starts = [start for start in range(0, written, 2) if max(written - 20, 0) <= start <= written - 5]
        assert (replay.items, replay.ready) == (len(starts), bool(starts))
        if starts and written % 5 == 0:
            (batch,) = drawn(replay, 1)
            rows = batch.later.obs[..., 0]  # type: ignore[index, call-overload]
            assert set(rows[0].tolist()) == set(starts)
            assert torch.equal(rows, rows[:1] + torch.arange(6)[:, None])


def test_a_batch_of_transitions_by_hand() -> None:
    """Two stacked frames, n = 2, gamma 1/2; rewards 1, 2, 4, a termination, row 3 resets, 8, 16, the newest row 6."""
    policy = Policy(stack=2)
    first, last = np.zeros((2, 7, 1), bool)
    first[[0, 4]], last[3] = True, True
    ended = np.array([[False]] * 2 + [[True]] + [[False]] * 3)
    reward = np.array([[1], [2], [4], [0], [8], [16]], np.float32)
    config = ReplayConfig(capacity=20, warmup=0, batch=64, n_step=2)
    replay = Replay(config, policy, lanes=1, steps=6, gamma=0.5)
    replay.add(Stream(first, last, ended, reward).rollout(policy, 0, 6))
    (batch,) = drawn(replay, 1)
    assert batch.warm == 0 and batch.valid.tolist() == [[True] * 64]
    frames = [(span.state[0][0][:, 0, 0], span.obs[0, :, 0]) for span in (batch.now, batch.later)]  # type: ignore[index, call-overload]
    parts = (*frames[0], batch.reward[0], batch.discount[0], *frames[1], batch.later.last[0])
    assert set(zip(*(x.tolist() for x in parts), strict=True)) == {
        # the frame before, o_t, reward, discount, the frame before, o_{t+m}, whether it closes an episode
        (0, 0, 1 + 2 / 2, 0.25, 1, 2, False),
        (0, 1, 2 + 4 / 2, 0, 2, 3, True),
        (1, 2, 4, 0, 2, 3, True),
        (4, 4, 8 + 16 / 2, 0.25, 5, 6, False),
        (4, 5, 16, 0.5, 5, 6, False),
    }


def test_a_batch_of_sequences_by_hand() -> None:
    """W = 1, L = 3, gamma 1/2: rows 0 1 2 | 3 4 5 | 6 7 8, terminated at row 2, truncated at row 5; V(row t) = 10 t."""
    policy = Policy(memory=True)
    first, last = np.zeros((2, 9, 1), bool)
    first[[0, 3, 6]], last[[2, 5]] = True, True
    ended = np.zeros((8, 1), bool)
    ended[1] = True
    reward = np.array([[1], [2], [0], [4], [5], [0], [7], [8]], np.float32)
    config = ReplayConfig(capacity=20, warmup=0, batch=60, sequence=3, burn_in=1)
    replay = Replay(config, policy, lanes=1, steps=2, gamma=0.5)
    feed(replay, Stream(first, last, ended, reward), policy, [2, 2, 2, 2])
    (batch,) = drawn(replay, 1)
    assert batch.warm == 1
    t: Any = batch.later.obs
    value = 10 * t[-3:, :, 0]  # of the row after each that is learned from
    targets = [bootstrapped(batch, value, 0.5, n) for n in (1, 2)]
    flags = [
        x.int() for x in (batch.now.first, batch.now.last, batch.later.first, batch.later.last, batch.valid)
    ]
    found = {}
    for b in range(20):
        rows = (batch.action, batch.reward, batch.discount, *flags, *targets)
        found[int(t[0, b, 0])] = [x[:, b].tolist() for x in rows]
    assert found == {
        0: [
            [1, 2, 3], [2, 0, 4], [0, 0.5, 0.5],
            [1, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [1, 0, 1],
            [2, 0, 4 + 40 / 2], [2, 0, 4 + 40 / 2],
        ],
        2: [
            [3, 4, 5], [4, 5, 0], [0.5, 0.5, 0.5],
            [0, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0, 1], [1, 0, 0, 1, 0], [1, 1, 0],
            [4 + 40 / 2, 5 + 50 / 2, 0], [4 + 5 / 2 + 50 / 4, 5 + 50 / 2, 0],
        ],
        4: [
            [5, 6, 7], [0, 7, 8], [0.5, 0.5, 0.5],
            [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1],
            [0, 7 + 70 / 2, 8 + 80 / 2], [0, 7 + 8 / 2 + 80 / 4, 8 + 80 / 2],
        ],
    }  # fmt: skip


def test_warming_up_moves_the_memory_over_the_first_rows_once() -> None:
    """Without such rows no network is asked."""

    class Counter:
        """Remembers the sum of what it saw."""

        calls = 0

        def features(self, obs: Any, first: Any, state: Any) -> Any:
            self.calls += 1
            return {}, (state[0], (state[1][0] + obs.sum(), *state[1][1:]))

    policy, network = Policy(memory=True), Counter()
    replay = make(policy, 1, 2, sequence=3, burn_in=2, batch=3)
    feed(replay, Stream.make(20, 1, seed=0), policy, [2] * 10)
    (batch,) = drawn(replay, 1)
    t = int(batch.now.obs[0, 0, 0])  # type: ignore[call-overload]
    now, later = warmed(network, batch)  # type: ignore[arg-type]
    assert network.calls == 1
    assert now.obs[:, 0, 0].tolist() == [t + 2, t + 3, t + 4]  # type: ignore[call-overload]
    assert later.obs[:, 0, 0].tolist() == [t + 2, t + 3, t + 4, t + 5]  # type: ignore[call-overload]
    assert len(now.first) == len(now.last) == 3 and len(later.first) == len(later.last) == 4
    for span in (now, later):
        h, (c,) = span.state[1]  # type: ignore[misc]
        assert h[0].tolist() == [t + t + (t + 1)] * 3  # type: ignore[index]
        assert c[0].tolist() == [10 * t] * 2
    replay = make(Policy(), 1, 2)
    feed(replay, Stream.make(20, 1, seed=0), Policy(), [2] * 10)
    (batch,) = drawn(replay, 1)
    now, later = warmed(network, batch)  # type: ignore[arg-type]
    assert now is batch.now and later is batch.later and network.calls == 1


def test_a_batch_is_a_tree_of_tensors() -> None:
    policy = Policy(named=True)
    replay = make(policy, 1, 2)
    feed(replay, Stream.make(20, 1, seed=0), policy, [2] * 10)
    (batch,) = drawn(replay, 1)
    leaves = list(tree_leaves(batch))
    assert (
        len(leaves) == 2 * 4 + 5
    )  # two leaves of an observation, first and last; twice; and five of the batch
    numbered = iter(range(13))
    again = tree_map(lambda x: next(numbered), batch)
    assert isinstance(again, Batch) and list(tree_leaves(again)) == list(range(13))
    both = tree_map(lambda a, b: (a + b).float().sum(), batch, batch)
    assert float(both.later.obs["x"]) == 2 * float(batch.later.obs["x"].sum())  # type: ignore[call-overload]


def test_due_is_exact_and_carries_fractions() -> None:
    policy = Policy()
    stream = Stream.make(300, 3, seed=4)
    replay = make(policy, 3, 1, ratio=0.29, warmup=100)
    updates = before = 0
    for _ in range(300):
        feed(replay, stream, policy, [1])
        assert replay.ready == (replay.collected >= 100)
        updates += replay.due
        after = max(replay.collected - 100, 0)
        assert updates == after * 29 // 100
        before = replay.collected
    assert before == int((~stream.last[:-1]).sum())
    replay = make(policy, 3, 10, ratio=2.5)
    feed(replay, stream, policy, [10])
    assert replay.due == replay.collected * 5 // 2


def test_a_lane_that_was_opened_anew_does_not_continue_its_old_episode() -> None:
    """After a resume that could not bring an environment back: row 10 of lane 1 is another episode's first."""
    policy = Policy()
    quiet = Stream(
        np.zeros((31, 2), bool),
        np.zeros((31, 2), bool),
        np.zeros((30, 2), bool),
        np.ones((30, 2), np.float32),
    )
    quiet.first[0] = True
    replay = make(policy, 2, 10, n_step=5, batch=200)
    feed(replay, quiet, policy, [10])
    snapshot = replay.snapshot()
    rows = replay.saved(snapshot)
    replay = make(policy, 2, 10, n_step=5, batch=200)
    replay.load(snapshot, rows)
    quiet.first[10, 1] = True
    feed(replay, quiet, policy, [10])
    assert replay.valid == 39
    found = {}
    for batch in drawn(replay, 5):
        for b in range(200):
            t, n = (int(x) for x in batch.now.obs[0, b])  # type: ignore[index]
            found[t, n] = int(batch.later.obs[0, b, 0])  # type: ignore[index]
    assert (9, 1) not in found
    assert found[8, 1] == 9
    assert found[6, 1] == 9
    assert found[9, 0] == 14
    assert found[10, 1] == 15


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    policy = Policy()
    stream = Stream.make(60, 2, seed=6)
    runs = []
    for due in (6, 3):  # however many are drawn at once
        replay = make(policy, 2, 10)
        feed(replay, stream, policy, [10] * 6)
        runs.append([batch.index for _ in range(6 // due) for batch in drawn(replay, due)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    other = Replay(replay.config, policy, lanes=2, steps=10, gamma=GAMMA, seed=2)
    feed(other, stream, policy, [10] * 6)
    assert not torch.equal(drawn(other, 1)[0].index, runs[0][0])


def test_a_stack_is_stored_once() -> None:
    """84x84 pixels, stacks of 4, 100,000 transitions: at most a seventh of the 56,448 bytes of two stacks."""
    from rlkit.agents.dqn import Config
    from rlkit.agents.dqn import Policy as Pixels
    from rlkit.nn.config import NetworkConfig
    from rlkit.spaces import Box, Discrete
    from rlkit.types import EnvSpec

    spec = EnvSpec("pixels", Box((84, 84), "uint8", 0.0, 255.0), Discrete(4), stack=4)
    policy = Pixels(spec, NetworkConfig(), Config())
    config = ReplayConfig(capacity=100_000, alpha=0.6)
    replay = Replay(config, policy, lanes=8, steps=4, gamma=0.99)
    assert sum(replay.ring.layout.bytes) / 100_000 <= 2 * 4 * 84 * 84 / 7
    held = sum(array.nbytes for array in replay.ring.fields.values())
    assert replay.tree is not None
    assert held + 16 * (len(replay.tree._tree) // 2) == sum(replay.ring.layout.bytes)
    assert (
        replay.statement
        == f"replay: 100,000 transitions, {sum(replay.ring.layout.bytes) / 2**30:.2f} GiB in memory"
    )


def test_too_large_a_memory_is_refused_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "available", lambda folder: (10 * 2**20, 20 * 2**20))
    policy = Policy()
    with pytest.raises(
        ConfigError, match=r"it takes 2\d\.\d\d MiB of memory, and 9.00 MiB may be used"
    ) as caught:
        make(policy, 4, 4, capacity=1_000_000)
    words = str(caught.value).split("type agent.replay.capacity=")[1]
    assert words.endswith(" or less, or agent.replay.storage=disk")
    largest = int(words.split()[0])
    assert make(policy, 4, 4, capacity=largest).rows == largest // 4
    with pytest.raises(ConfigError, match="of memory"):
        make(policy, 4, 4, capacity=largest + 4000)


def test_sizes_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"capacity=10: too small for 4 lanes; type agent.replay.capacity=32 or"
    ):
        make(Policy(), 4, 8, capacity=10)
    with pytest.raises(ConfigError, match=r"agent.steps=20: .* type agent.steps=16 or less"):
        make(Policy(memory=True), 4, 20)
    with pytest.raises(ConfigError, match=r"type agent.replay.capacity=160 or more"):
        make(Policy(memory=True), 4, 8, capacity=100)
    make(Policy(memory=True), 4, 8, capacity=160)
    replay = make(Policy(), 2, 4)
    with pytest.raises(ValueError, match="a rollout of 4 steps of 3 lanes"):
        replay.add(Stream.make(4, 3, seed=0).rollout(Policy(), 0, 4))


def test_a_ring_on_disk_hands_out_the_same(tmp_path: Path) -> None:
    policy = Policy(stack=3, memory=True)
    stream = Stream.make(150, 2, seed=9)
    batches = []
    for storage in ("memory", "disk"):
        replay = make(policy, 2, 5, storage=storage, folder=tmp_path / "replay", sequence=6, burn_in=2)
        feed(replay, stream, policy, [5] * 30)
        batches.append(drawn(replay, 3))
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.later.obs, theirs.later.obs)  # type: ignore[arg-type]
        assert torch.equal(ours.now.state[1][0], theirs.now.state[1][0])  # type: ignore[index,arg-type]
    assert sorted(path.name for path in (tmp_path / "replay").iterdir()) == [
        "action.bin", "obs.bin", "state-0.bin", "state-1.bin",
    ]  # fmt: skip
    assert replay.ring.layout.bytes[1] == sum(p.stat().st_size for p in (tmp_path / "replay").iterdir())
    replay.close()
    assert not (tmp_path / "replay").exists()


def test_a_disk_that_cannot_hold_the_ring_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"storage=disk: cannot make .*obs.bin \(No space left on device\)"):
        make(Policy(), 2, 5, storage="disk", folder=tmp_path / "replay")
    assert not (tmp_path / "replay").exists()
    monkeypatch.setattr(ring_module, "available", lambda folder: (2**30, 2**20))
    with pytest.raises(ConfigError, match=r"of disk, and 0.90 MiB may be used; type .* or less$"):
        make(Policy(), 2, 5, storage="disk", capacity=10**6, folder=tmp_path / "replay")


def test_what_is_available_respects_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = machine.available(tmp_path / "not" / "yet")
    assert 0 < memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert disk == shutil.disk_usage(tmp_path).free or abs(disk - shutil.disk_usage(tmp_path).free) < 2**30
    monkeypatch.setattr(machine, "_group_memory", lambda: iter([2**40, 12345]))
    assert machine.available(tmp_path)[0] == 12345


def test_without_a_folder_for_machine_code_it_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def njit(function: Any = None, cache: bool = False) -> Any:
        if cache:

            def locate(function: Any) -> Any:
                raise RuntimeError("cannot cache function: no locator available")

            return locate
        made.append(function)
        return function

    monkeypatch.setattr(priorities.numba, "njit", njit)
    kernel = priorities.compiled(len)
    assert kernel("abc") == 3 and made == [len]
