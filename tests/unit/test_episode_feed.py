"""EpisodeFeed: every finished episode once and whole, whatever the lengths, lanes and interruptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlkit.checkpoint import pack, unpack
from rlkit.contracts import EndlessEpisode, Episodes, Timing
from rlkit.learn.episodes import EpisodeFeed, complete
from rlkit.types import Rollout


class Tape:
    """A source that plays rows made beforehand, into the same storage every time, as actors do.

    Rewards number the transitions: 1000 lane + row. The state is the row number at which each rollout begins.
    """

    timing = Timing()

    def __init__(self, last: np.ndarray, steps: int) -> None:
        rows, lanes = last.shape
        self.steps, self.place = steps, 0
        self.last = torch.from_numpy(last)
        self.first = torch.cat([torch.ones(1, lanes, dtype=torch.bool), self.last[:-1]])
        self.number = torch.arange(rows)[:, None] + 1000.0 * torch.arange(lanes)  # [rows, N]
        self.storage: dict[str, torch.Tensor] = {}

    def _play(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return self.storage.setdefault(name, torch.empty_like(tensor)).copy_(tensor)

    def get(self) -> tuple[Rollout, Episodes]:
        begin, end = self.place, self.place + self.steps
        assert end < len(self.last), "the tape is over"
        rows, steps = slice(begin, end + 1), slice(begin, end)
        self.place = end
        rollout = Rollout(
            obs={"number": self._play("obs", self.number[rows])},
            first=self._play("first", self.first[rows]),
            last=self._play("last", self.last[rows]),
            action=self._play("action", self.number[steps].long()),
            reward=self._play("reward", self.number[steps]),
            terminated=self._play("terminated", self.last[begin + 1 : end + 1]),
            state=((), torch.full((self.last.shape[1],), begin)),
            extra={"log_prob": self._play("log_prob", -self.number[steps])},
            version=begin,
        )
        ended = int(self.last[begin + 1 : end + 1].sum())
        return rollout, Episodes([0.0] * ended, [1] * ended)

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def tape_of(seed: int, lanes: int, rows: int = 400) -> np.ndarray:
    """last [rows, lanes] of random episodes of 1 to 40 transitions, each lane with its own typical length."""
    generator = np.random.default_rng(seed)
    last = np.zeros((rows, lanes), bool)
    for lane in range(lanes):
        row = 0
        while row < rows:
            row += int(generator.integers(1, 4 if lane == 0 else 41))
            if row < rows:
                last[row, lane] = True
            row += 1
    return last


def weighted(batch: Rollout) -> list[float]:
    """The numbers of the transitions that a batch marks, in order."""
    return sorted(batch.reward[batch.extra["weight"] > 0].tolist())


@pytest.mark.parametrize(("lanes", "steps", "minimum"), [(1, 4, 1), (3, 5, 2), (4, 7, 9), (5, 1, 1)])
def test_every_finished_episode_once_and_whole(lanes: int, steps: int, minimum: int) -> None:
    last = tape_of(0, lanes)
    feed = EpisodeFeed(Tape(last, steps), minimum)
    seen: list[float] = []
    counted = 0
    while feed.source.place + 70 * steps < len(last):
        before = feed.episodes
        batch, count = feed.next()
        counted += count
        assert feed.episodes - before >= minimum
        numbers = weighted(batch)
        seen += numbers
        # episodes are whole: the row before a marked one is marked too, or the marked one opens; the same at the end
        weight = batch.extra["weight"] > 0
        inner = weight & ~batch.first[:-1]
        assert not inner[0].any()
        assert (weight[:-1] | ~inner[1:]).all()
        going = weight & ~batch.last[1:]
        assert not going[-1].any()
        assert (weight[1:] | ~going[:-1]).all()
        assert batch.size[0] % steps == 0
        assert torch.equal(batch.state[1], batch.obs["number"][0].long() % 1000)  # memory of the first row
        assert torch.equal(batch.action, batch.reward.long())
        assert torch.equal(batch.extra["log_prob"], -batch.reward)
        assert torch.equal(batch.obs["number"][:-1], batch.reward)
    assert len(seen) == len(set(seen))
    # the same, the slow way: transitions of each lane up to its last ending so far
    place, expected = feed.source.place, []
    for lane in range(lanes):
        endings = np.flatnonzero(last[: place + 1, lane])
        expected += [1000.0 * lane + row for row in range(endings.max(initial=0)) if not last[row, lane]]
    assert sorted(seen) == sorted(expected)
    assert counted == int((~last[:place]).sum())


def test_a_saved_feed_continues_exactly() -> None:
    """Through what a checkpoint writes and reads."""
    last = tape_of(1, 3)
    whole = EpisodeFeed(Tape(last, 6), 3)
    batches = [whole.next() for _ in range(6)]
    feed = EpisodeFeed(Tape(last, 6), 3)
    for _ in range(3):
        feed.next()
    assert feed.kept, "a saved feed with nothing kept tests nothing"
    state = unpack(*pack(feed.state_dict()))
    other = EpisodeFeed(Tape(last, 6), 3)
    feed.next()  # what was saved is not changed by what comes after
    other.load(state, {})
    for expected, count in batches[3:]:
        batch, found = other.next()
        assert found == count
        assert torch.equal(batch.reward, expected.reward)
        assert torch.equal(batch.extra["weight"], expected.extra["weight"])
        assert torch.equal(batch.first, expected.first)
        assert torch.equal(batch.state[1], expected.state[1])


def test_an_endless_episode_is_refused() -> None:
    last = np.zeros((200, 2), bool)
    last[3::4, 0] = True  # lane 0 ends all the time, lane 1 never
    feed = EpisodeFeed(Tape(last, 10), 2, longest=50)
    batches = iter(feed.next, None)
    with pytest.raises(EndlessEpisode, match=r"did not end in 50 steps.*env\.time_limit"):
        list(batches)


def test_an_episode_that_was_lost_is_not_learned_from() -> None:
    """A lane that did not come back on resume opens a new episode without closing the old one."""
    #                 0      1      2     3     4      5
    first = np.array([[True, False, True, False, False, True]]).T
    last = np.array([[False, False, False, False, True, False]]).T
    assert complete(first, last)[:, 0].tolist() == [False, False, True, True, False]
    # without its opening no episode is whole
    first[2] = False
    first[0] = False
    assert not complete(first, last).any()
