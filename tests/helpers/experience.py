"""Made-up experience whose every row tells who it is, and the slow, obvious way to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlkit.spaces import Box, Dict, Discrete
from rlkit.types import Batch, EnvSpec, Lanes, Rollout, Span, State, tree_map


def transitions(rollout: Rollout, gamma: float, weight: Any = None, after: State | None = None) -> Batch:
    """The lanes of one transition [1, B] as a replay buffer hands them out; `after`: memory before the second row."""
    now, later = (_span(rollout, row, row + 1) for row in (0, 1))
    later = later if after is None else Span(later.obs, later.first, later.last, after)
    return _batch(rollout, now, later, 0, gamma, weight)


def sequences(rollout: Rollout, gamma: float, warm: int, weight: Any = None) -> Batch:
    """The lanes of a rollout as sequences that a replay buffer hands out; the first `warm` rows are burn-in."""
    steps = rollout.size[0]
    return _batch(rollout, _span(rollout, 0, steps), _span(rollout, 0, steps + 1), warm, gamma, weight)


def _span(rollout: Rollout, begin: int, end: int) -> Span:
    rows = tree_map(lambda x: x[begin:end], (rollout.obs, rollout.first, rollout.last))
    return Span(*rows, rollout.state)


def _batch(rollout: Rollout, now: Span, later: Span, warm: int, gamma: float, weight: Any) -> Batch:
    lanes = rollout.size[1]
    return Batch(
        now, later, action=rollout.action[warm:], reward=rollout.reward[warm:],
        discount=gamma * (~rollout.terminated[warm:]).float(), index=torch.arange(lanes),
        weight=torch.ones(lanes) if weight is None else torch.as_tensor(weight),
    )  # fmt: skip


class Policy:
    """The shapes that a replay buffer asks for: observations [2], actions int64 []; memory (h [3], (c [2],))."""

    def __init__(self, *, stack: int = 1, memory: bool = False, named: bool = False) -> None:
        box = Box((2,), "float32")
        space = Dict((("x", box), ("mask", Discrete(5)))) if named else box
        self.spec = EnvSpec("made-up", space, Discrete(1 << 20), stack)
        self.memoryless, self.memory, self.stack = not memory, memory, stack

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def initial_state(self, lanes: Lanes, device: Any = "cpu") -> Any:
        n = len(lanes)
        frames = (torch.zeros(n, self.stack - 1, 2),) if self.stack > 1 else ()
        core = (torch.zeros(n, 3), (torch.zeros(n, 2),)) if self.memory else ()
        return (frames, core)

    def act(self, obs: Any, first: Any, state: Any, noise: Any) -> Any:
        return torch.zeros(len(first), dtype=torch.int64), state, {}


@dataclass
class Stream:
    """Rows 0 .. rows of `lanes` lanes: obs[t, n] = (t, n), action t, random rewards, both endings, lost lives."""

    first: np.ndarray
    last: np.ndarray
    terminated: np.ndarray  # of the transition t -> t+1
    reward: np.ndarray

    @staticmethod
    def make(rows: int, lanes: int, seed: int, ending: float = 0.2) -> Stream:
        rng = np.random.default_rng(seed)
        first, last = np.zeros((2, rows + 1, lanes), bool)
        terminated = np.zeros((rows, lanes), bool)
        first[0] = True
        for n in range(lanes):
            for t in range(1, rows + 1):
                if last[t - 1, n]:
                    first[t, n] = True
                elif rng.random() < ending:
                    last[t, n] = True
                    terminated[t - 1, n] = rng.random() < 0.5
                else:
                    terminated[t - 1, n] = rng.random() < 0.1  # and the episode goes on
        reward = np.where(last[:-1], 0, rng.standard_normal((rows, lanes))).astype(np.float32)
        return Stream(first, last, terminated, reward)

    def rollout(self, policy: Policy, start: int, steps: int) -> Rollout:
        """Rows start .. start + steps, with the memory h = start, c = 10 start before them."""
        lanes = self.first.shape[1]
        t = torch.arange(start, start + steps + 1).float()[:, None].expand(-1, lanes)
        n = torch.arange(lanes).float().expand_as(t)
        obs: Any = torch.stack([t, n], -1)
        if isinstance(policy.spec.observation, Dict):
            obs = {"x": obs, "mask": t.long() % 5}
        state = policy.initial_state(Lanes(lanes))
        if policy.memory:
            h, (c,) = state[1]
            state = (state[0], (h + start, (c + 10 * start,)))
        rows, steps_ = slice(start, start + steps + 1), slice(start, start + steps)
        return Rollout(
            obs=obs,
            first=torch.from_numpy(self.first[rows].copy()),
            last=torch.from_numpy(self.last[rows].copy()),
            action=t[:-1].long(),
            reward=torch.from_numpy(self.reward[steps_].copy()),
            terminated=torch.from_numpy(self.terminated[steps_].copy()),
            state=state,
        )

    def history(self, t: int, n: int, k: int) -> list[int]:
        """The k-1 rows that are seen before row t: the episode's first row stands in for those before it."""
        start = max(s for s in range(t + 1) if self.first[s, n])
        return [max(t - back, start) for back in range(k - 1, 0, -1)]

    def transition(
        self, t: int, n: int, steps: int, newest: int, gamma: float
    ) -> tuple[int, float, float, bool]:
        """(row after it, summed reward, discount, terminated) of an n-step transition, by the definition."""
        total, m = 0.0, 0
        while True:
            total += gamma**m * float(self.reward[t + m, n])
            m += 1
            if self.last[t + m, n] or self.terminated[t + m - 1, n] or m == steps or t + m == newest:
                break
        ended = bool(self.terminated[t + m - 1, n])
        return t + m, total, 0.0 if ended else gamma**m, ended
