"""Frame stacks: gathered, stepped and unrolled windows are those of a slow deque."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from rlkit.buffers import minibatches, select, sequences
from rlkit.nn.stack import stack_rows
from rlkit.types import Rollout


def slow_stack(obs: torch.Tensor, first: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
    """A deque per lane; an episode's first observation fills it."""
    k = history.shape[1] + 1
    rows = torch.empty(*first.shape, k, *obs.shape[2:], dtype=obs.dtype)
    for n in range(first.shape[1]):
        window = deque(history[n], maxlen=k)
        for t in range(first.shape[0]):
            if first[t, n]:
                window = deque([obs[t, n]] * k, maxlen=k)
            else:
                window.append(obs[t, n])
            rows[t, n] = torch.stack(list(window))
    return rows


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (12, 5, 2, 3), dtype=torch.uint8, generator=generator)
    first = torch.rand(12, 5, generator=generator) < 0.25
    history = torch.randint(0, 256, (5, 3, 2, 3), dtype=torch.uint8, generator=generator)
    return obs, first, history


def test_unrolled_equals_slow(rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    obs, first, history = rows
    assert torch.equal(stack_rows(obs, first, history)[0], slow_stack(obs, first, history))


def test_chunks_and_steps_equal_unrolled(rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    obs, first, history = rows
    whole, end = stack_rows(obs, first, history)
    for sizes in ([1] * 12, [5, 1, 6]):
        state, pieces, start = history, [], 0
        for size in sizes:
            piece, state = stack_rows(obs[start : start + size], first[start : start + size], state)
            pieces.append(piece)
            start += size
        assert torch.equal(torch.cat(pieces), whole)
        assert torch.equal(state, end)


def test_transitions_gather_the_same_stacks(rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    obs, first, history = rows
    T, N = 11, 5
    rollout = Rollout(
        obs, first, torch.zeros_like(first), torch.zeros(T, N), torch.zeros(T, N),
        torch.zeros(T, N, dtype=torch.bool), state=((history,), ()),
    )  # fmt: skip
    unroll = lambda obs, first, state: state  # noqa: E731
    index = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    stacked, _, state = select(sequences(rollout, 1, unroll), index)  # [1, B, k, ...]
    assert state == ((), ())
    assert torch.equal(stacked[0], slow_stack(obs, first, history).flatten(0, 1)[index])


def test_minibatches_partition_everything() -> None:
    pieces = minibatches(100, 32, torch.Generator().manual_seed(0))
    assert [len(piece) for piece in pieces] == [34, 33, 33]
    assert sorted(torch.cat(pieces).tolist()) == list(range(100))
    assert len(minibatches(10, 64, torch.Generator())) == 1
