"""The actor: vector environment + policy -> Rollout. The same one in every source, on every machine.

    noise[t, n] ~ U(0, 1)^K           of lane n's own counter-based stream
    a_t, m_{t+1} = policy.act(o_t, first_t, m_t, noise_t)
    row_{t+1} = env.step(to_env(a_t))

Rows are written once into preallocated [T+1, N] storage on the policy's device; the last row of a rollout is the first
of the next. What an environment was asked to do since its episode began is kept (actions are in the rollouts already),
so a checkpoint rebuilds any environment from its seed and its actions.

A forward pass over other lanes may differ in its last bits: matrix products are tiled by the number of rows. With
`group` the policy sees that many lanes at a time, copied to memory of their own, so the numbers of a lane do not depend
on which other groups are acted for beside it: actors of one group each and one actor of all groups give the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.collect.account import Account
from rlkit.collect.history import History, differing
from rlkit.collect.storage import Storage
from rlkit.compile import Compiled
from rlkit.contracts import Episodes, Policy, Saved, Timing, VecEnv
from rlkit.seeding import uniforms
from rlkit.types import EnvStep, Lanes, Obs, Rollout, State, tree_map

# (obs, first, state, noise) -> (action, the same in the environment's units, state, what the policy reports)
Decide: TypeAlias = Callable[[Obs, Tensor, State, Tensor], tuple[Tensor, Tensor, State, dict[str, Tensor]]]


class Stopped(Exception):
    """The actor was told to stop in the middle of a rollout."""


class Actor:
    """Collects rollouts of `steps` transitions from every lane of `env`.

    seed: of the action noise; first_lane: global number of lane 0; total: lanes of all actors (0: this is the only
    one); reward_scale: that of the environment, divided out of reported returns; buffers: 2 if one rollout is learned
    from while the next is collected; group: lanes per forward pass, 0 for all of them.
    """

    def __init__(
        self,
        env: VecEnv,
        policy: Policy,
        steps: int,
        *,
        seed: int,
        device: torch.device,
        first_lane: int = 0,
        total: int = 0,
        reward_scale: float = 1.0,
        buffers: int = 1,
        compile: bool = False,
        group: int = 0,
    ) -> None:
        assert not group or env.lanes % group == 0, f"{env.lanes} lanes are no whole groups of {group}"
        self.env, self.policy, self.steps, self.seed, self.device = env, policy, steps, seed, device
        self.lanes = Lanes(env.lanes, first_lane, total)
        self._numbers = np.arange(first_lane, first_lane + env.lanes)
        self.timing = Timing()
        self.stop = False  # set by another thread: `collect` raises Stopped at its next step
        decide: Decide = Compiled(policy, self._act) if compile else self._act
        self._decide = _Grouped(decide, group, env.lanes) if group else decide
        self._storage = [Storage(env.spec, steps, env.lanes, device) for _ in range(buffers)]
        self._turn = 0
        self.step = 0  # transitions per lane so far: the counter of the noise
        self.state = policy.initial_state(self.lanes, device)
        self.account = Account(env.lanes, reward_scale)
        self._history = History()
        self._row: EnvStep | None = None  # the row to act on next; None until the environments are reset

    @torch.no_grad()
    def collect(self) -> tuple[Rollout, Episodes]:
        """The next `steps` transitions of every lane, and the episodes that ended in them.

        The rollout's tensors are overwritten `buffers` calls later.
        """
        if self._row is None:
            self._row = self._open()
        storage = self._storage[self._turn]
        self._turn = (self._turn + 1) % len(self._storage)
        storage.write(0, self._row)
        # [T, N, K]
        noise = uniforms(self.seed, self._numbers, self.step, self.steps, self.policy.noise_size)
        opening = self.state
        self._play(storage, torch.from_numpy(noise).to(self.device))
        rollout = storage.rollout(opening)
        self._row = storage.rows[self.steps]
        episodes = self.account.take(rollout, self.step)
        if self.env.exact == "replay":
            self._history.add(self.step, self.policy.to_env(rollout.action).cpu().numpy())
            self._history.forget(int(self.account.started.min()))
        self.step += self.steps
        return rollout, episodes

    def _play(self, storage: Storage, noise: Tensor) -> None:
        """Act and step `steps` times: noise [T, N, K]."""
        clock = time.perf_counter
        acting = stepping = 0.0
        for t in range(self.steps):
            if self.stop:
                raise Stopped
            begin = clock()
            row = storage.rows[t]
            action, command, self.state, extra = self._decide(row.obs, row.first, self.state, noise[t])
            storage.write_action(t, action, extra)
            command = command.to(self.env.device)
            middle = clock()
            step = self.env.step(command)
            end = clock()
            storage.write(t + 1, step)
            acting += middle - begin
            stepping += end - middle
        self.timing.policy += acting
        self.timing.environment += stepping

    def _act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor
    ) -> tuple[Tensor, Tensor, State, dict[str, Tensor]]:
        """The policy's action, the same in the environment's units, its memory and what it reports."""
        action, state, extra = self.policy.act(obs, first, state, noise)
        return action, self.policy.to_env(action), state, extra

    def _open(self) -> EnvStep:
        """The rows that open the lanes' present episodes."""
        return self.env.restore(self.account.episode, [np.zeros(0)] * self.env.lanes)

    def reopen(self, step: int, episode: npt.NDArray[np.int64]) -> None:
        """Continue at transition `step` of every lane with new episodes of these numbers, [N]."""
        self.step = step
        self.account.open(np.ones(self.env.lanes, bool), episode, step)
        self._history = History()
        self.state = self.policy.initial_state(self.lanes, self.device)
        self._row = self._open()

    def state_dict(self) -> Saved:
        """Everything the next `collect` depends on but the policy, copied."""
        if self._row is None:
            return {}
        return {
            "step": self.step,
            "state": tree_map(torch.clone, self.state),
            **self.account.state_dict(),
            "row": tree_map(torch.clone, dict(vars(self._row))),
            "snapshot": self.env.snapshot() if self.env.exact == "snapshot" else None,
            "log": self._history.state_dict(),
        }

    def load_state_dict(self, state: Saved) -> str | None:
        """Rebuild the environments and continue. Returns a warning if they did not come back as they were."""
        if not state:
            return None
        if len(state["episode"]) != self.env.lanes:
            raise ValueError(
                f"env.lanes={self.env.lanes}, but the checkpoint has {len(state['episode'])} lanes; "
                f"set env.lanes={len(state['episode'])} in the run's config.yaml"
            )
        self.step = state["step"]
        memory = tree_map(lambda x: x.to(self.device), state["state"])
        # runs of version 0.1.0 lack what a policy keeps behind its network's memory
        self.state = (*memory, *self.state[len(memory) :])
        self.account.load_state_dict(state)
        self._history = History(state["log"])
        self._row = EnvStep(**tree_map(lambda x: x.to(self.device), state["row"]))
        if state["snapshot"] is not None:
            self.env.load_snapshot(state["snapshot"])
            return None
        return self._replay()

    def _replay(self) -> str | None:
        """Bring every lane back by its actions; lanes that are not as they were open new episodes."""
        assert self._row is not None, "nothing to go on from"
        lanes, account = self.env.lanes, self.account
        if self.env.exact == "replay":
            histories = [self._history.of(lane, account.started[lane]) for lane in range(lanes)]
            lost = differing(self.env.restore(account.episode, histories), self._row)  # [N]
            if not lost.any():
                return None
        else:
            histories, lost = [np.zeros(0)] * lanes, np.ones(lanes, bool)
        account.open(lost, account.episode + 1, self.step)
        for lane in np.flatnonzero(lost):
            histories[lane] = histories[lane][:0]
        fresh = self.env.restore(account.episode, histories)
        self._row = EnvStep(**tree_map(lambda x: x.clone().to(self.device), dict(vars(fresh))))
        return (
            f"environment {self.env.spec.id} did not come back as it was from its seed and actions, so "
            f"{int(lost.sum())} of {lanes} lanes open new episodes: the run continues, but not exactly "
            "(is there randomness that reset(seed=...) does not seed?)"
        )


class _Grouped:
    """`decide` for `lanes` lanes, `group` at a time, each in memory of its own (sums may follow its alignment)."""

    def __init__(self, decide: Decide, group: int, lanes: int) -> None:
        self.decide = decide
        self.groups = [slice(start, start + group) for start in range(0, lanes, group)]

    def __call__(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor
    ) -> tuple[Tensor, Tensor, State, dict[str, Tensor]]:
        parts = [
            self.decide(*tree_map(lambda x: x[group].clone(), (obs, first, state, noise)))  # noqa: B023
            for group in self.groups
        ]
        return parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves), *parts)
