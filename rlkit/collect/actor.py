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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.collect.account import Account
from rlkit.collect.groups import Decide, Grouped
from rlkit.collect.history import History
from rlkit.collect.storage import Storage
from rlkit.collect.swift import Swift
from rlkit.compile import Either
from rlkit.contracts import Episodes, Policy, Saved, Timing, VecEnv
from rlkit.machine import How
from rlkit.seeding import uniforms
from rlkit.types import EnvStep, Lanes, Obs, Rollout, State, tree_leaves, tree_map


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
        compile: How = False,
        group: int = 0,
    ) -> None:
        assert not group or env.lanes % group == 0, f"{env.lanes} lanes are no whole groups of {group}"
        self.env, self.policy, self.steps, self.seed, self.device = env, policy, steps, seed, device
        self.lanes = Lanes(env.lanes, first_lane, total)
        self._numbers = np.arange(first_lane, first_lane + env.lanes)
        self.timing = Timing()
        self.stop = False  # set by another thread: `collect` raises Stopped at its next step
        self._either = Either(policy, self._act, compile)
        self._decide: Decide = Grouped(self._either, group, env.lanes) if group else self._either
        self._swift: dict[int, Swift] = {}  # by the number of the storage
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
            assert storage.command is not None, "no step of the rollout was made"
            self._history.add(self.step, storage.command.cpu().numpy())
            self._history.forget(int(self.account.started.min()))
        self.step += self.steps
        return rollout, episodes

    def _play(self, storage: Storage, noise: Tensor) -> None:
        """Act and step `steps` times: noise [T, N, K]."""
        clock = time.perf_counter
        acting = stepping = 0.0
        swift = self._acting(storage, noise)
        for t in range(self.steps):
            if self.stop:
                raise Stopped
            begin = clock()
            row = storage.rows[t]
            if swift is not None:
                command = swift.act(t)
            else:
                action, command, self.state, extra = self._decide(row.obs, row.first, self.state, noise[t])
                storage.write_action(t, action, command, extra)
                command = command.to(self.env.device)
            middle = clock()
            step = self.env.step(command)
            end = clock()
            storage.write(t + 1, step)
            acting += middle - begin
            stepping += end - middle
        self.timing.policy += acting
        self.timing.environment += stepping

    def _acting(self, storage: Storage, noise: Tensor) -> Swift | None:
        """How the engine acts in all rows of `storage`, once it has acted in one, for a policy without memory."""
        number = self._storage.index(storage)
        if number in self._swift:
            return self._swift[number].begin(noise)
        compiled, row = self._either.compiled, storage.rows[0]
        if self._decide is not self._either or compiled is None or storage.action is None:
            return None
        program = compiled.program(row.obs, row.first, self.state, noise[0])
        if program is None or any(True for _ in tree_leaves(self.state)):
            return None
        self._swift[number] = Swift(program, storage, noise)
        return self._swift[number]

    def _act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor
    ) -> tuple[Tensor, Tensor, State, dict[str, Tensor]]:
        """The policy's action, the same in the environment's units, its memory and what it reports."""
        action, state, extra = self.policy.act(obs, first, state, noise)
        return action, self.policy.to_env(action), state, extra

    def _open(self) -> EnvStep:
        """The rows that open the lanes' present episodes."""
        return self.env.restore(self.account.episode, [np.zeros(0)] * self.env.lanes)

    def report(self) -> dict[str, float]:
        """How many episodes were cut because their environment failed (env.max_failures), once there is one."""
        return {"source/failures": self.env.failures} if self.env.failures else {}

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
        memory = self.env.memory()
        return {
            "step": self.step,
            "state": tree_map(torch.clone, self.state),
            **self.account.state_dict(),
            "row": tree_map(torch.clone, dict(vars(self._row))),
            **({"memory": memory} if memory else {}),
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
        row = EnvStep(**tree_map(lambda x: x.to(self.device), state["row"]))
        if state.get("memory"):
            self.env.load_memory(state["memory"])
        if state["snapshot"] is not None:
            self.env.load_snapshot(state["snapshot"])
            self._row = row
            return None
        self._row, warning = self._history.bring_back(self.env, self.account, row, self.step)
        return warning
