"""Cutting rollouts into sequences: every row once, in its place, with the memory that its lane had there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlkit.buffers import cut, minibatches, select, sequences, uncut
from rlkit.nn.stack import stack_rows
from rlkit.types import Obs, Rollout, State

T, N = 12, 3


def sum_of(obs: Obs, first: Tensor, state: State) -> State:
    """A memory that can be checked by hand: the sum of the episode's observations so far (all lanes, [N])."""
    assert isinstance(obs, Tensor)
    frames, (total,) = state
    for t in range(len(obs)):
        total = torch.where(first[t], 0, total) + obs[t]  # type: ignore[call-overload]
    return (frames, (total,))


@pytest.fixture
def rollout() -> Rollout:
    """Observation 10 t + n, lane n opens an episode at row n + 4; memory 100 (n + 1) before row 0."""
    obs = (10 * torch.arange(T + 1)[:, None] + torch.arange(N)).float()  # [T+1, N]
    first = torch.zeros(T + 1, N, dtype=torch.bool)
    first[torch.arange(N) + 4, torch.arange(N)] = True
    last = torch.zeros_like(first)
    last[:-1] = first[1:]
    state = ((), (100.0 * torch.arange(1, N + 1),))
    return Rollout(obs, first, last, obs[:-1], obs[:-1], torch.zeros(T, N, dtype=torch.bool), state)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 12])
def test_rows_lie_in_their_sequences(rollout: Rollout, length: int) -> None:
    rows = sequences(rollout, length, sum_of)
    count = T // length
    index = torch.randperm((count + 1) * N, generator=torch.Generator().manual_seed(0))
    obs, first, _ = select(rows, index)
    assert isinstance(obs, Tensor)
    assert obs.shape == first.shape == (length, (count + 1) * N)
    for b, s in enumerate(index.tolist()):
        c, n = divmod(s, N)
        for j in range(length):
            t = min(c * length + j, T)  # row T repeats
            assert obs[j, b] == 10 * t + n
            assert bool(first[j, b]) == bool(rollout.first[t, n])


@pytest.mark.parametrize("length", [1, 3, 4])
def test_each_begins_with_its_lanes_memory(rollout: Rollout, length: int) -> None:
    count = T // length + 1
    state = select(sequences(rollout, length, sum_of), torch.arange(count * N))[2]
    for s, found in enumerate(state[1][0].tolist()):
        c, n = divmod(s, N)
        total = 100.0 * (n + 1)
        for t in range(c * length):
            total = (0 if t == n + 4 else total) + 10 * t + n
        assert found == total


def test_without_memory_nothing_is_unrolled(rollout: Rollout) -> None:
    def never(obs: Obs, first: Tensor, state: State) -> State:
        raise AssertionError("unrolled")

    rollout.state = ((), (), ())
    assert select(sequences(rollout, 1, never), torch.arange(4))[2] == ((), (), ())


@pytest.mark.parametrize("length", [1, 4])
def test_frame_stacks_continue_in_every_sequence(rollout: Rollout, length: int) -> None:
    """The stacks of sequences are those of the unrolled rollout."""
    history = -torch.arange(1.0, 1 + N * 2).view(N, 2)
    rollout.state = ((history,), (torch.zeros(N),))
    whole, _ = stack_rows(rollout.obs, rollout.first, history)  # type: ignore[arg-type]  # [T+1, N, 3]
    keep: Callable[..., State] = lambda obs, first, state: state  # noqa: E731
    obs, first, state = select(sequences(rollout, length, keep), torch.arange(T // length * N))
    if length == 1:
        stacked = obs  # [1, S, 3]
    else:
        stacked, _ = stack_rows(obs, first, state[0][0])  # type: ignore[arg-type]  # [L, S, 3]
    assert torch.equal(uncut(stacked, N), whole[:T])


@pytest.mark.parametrize("shape", [(T, N), (T, N, 2)])
def test_cut_and_uncut(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for length in (1, 3, 4, T):
        pieces = cut(x, length)
        assert pieces.shape == (length, T // length * N, *shape[2:])
        assert torch.equal(pieces[:, N : 2 * N], x[length : 2 * length]) or length == T
        assert torch.equal(uncut(pieces, N), x)


def test_steps_that_are_no_multiple_are_refused(rollout: Rollout) -> None:
    with pytest.raises(ValueError, match="sequences of 5 rows: 12 rows are no multiple"):
        sequences(rollout, 5, sum_of)


def test_minibatches_of_sequences_have_equal_sizes_where_possible() -> None:
    generator = torch.Generator().manual_seed(0)
    pieces = minibatches(128, 256 / 16, generator)  # 8 lanes of 256 rows, sequences of 16, 256 transitions
    assert [len(piece) for piece in pieces] == [16] * 8
    assert [len(piece) for piece in minibatches(7, 100 / 16, generator)] == [7]
    assert [len(piece) for piece in minibatches(3, 4 / 16, generator)] == [1, 1, 1]  # never less than one
