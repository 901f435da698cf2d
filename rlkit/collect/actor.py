"""The actor: vector environment + policy -> Rollout. The same one in every source, on every machine.

    noise[t, n] ~ U(0, 1)^K           of lane n's own counter-based stream; n / (N - 1) comes after it for a policy that
                                      `knows_lane`
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
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.collect.storage import Storage
from rlkit.compile import Compiled
from rlkit.contracts import Episodes, Policy, Timing, VecEnv
from rlkit.seeding import uniforms
from rlkit.types import EnvStep, Obs, Rollout, State, tree_leaves, tree_map


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
        self.lane_numbers = np.arange(first_lane, first_lane + env.lanes)
        share = self.lane_numbers / max((total or env.lanes) - 1, 1)  # n / (N - 1)
        knows = getattr(policy, "knows_lane", False)
        self._lane_column = (
            share.astype(np.float32)[None, :, None] if knows else np.zeros((1, env.lanes, 0), np.float32)
        )
        self.reward_scale = reward_scale
        self.timing = Timing()
        self.stop = False  # set by another thread: `collect` raises Stopped at its next step
        decide = Compiled(policy, self._act) if compile else self._act  # type: ignore[arg-type]
        self._decide = _Grouped(decide, group, env.lanes) if group else decide
        self._storage = [Storage(env.spec, steps, env.lanes, device) for _ in range(buffers)]
        self._turn = 0
        self.step = 0  # transitions per lane so far: the counter of the noise
        self.state = policy.initial_state(env.lanes, device)
        self.episode = np.zeros(env.lanes, np.int64)  # number of each lane's current episode
        self._started = np.zeros(env.lanes, np.int64)  # the step at which it began
        self._log: deque[tuple[int, npt.NDArray[Any]]] = (
            deque()
        )  # (first step, actions [T, N, ...]) of rollouts
        self._return = np.zeros(env.lanes)
        self._length = np.zeros(env.lanes, np.int64)
        self._row: EnvStep | None = None  # the row to act on next; None until the environments are reset

    @torch.no_grad()
    def collect(self) -> tuple[Rollout, Episodes]:
        """The next `steps` transitions of every lane, and the episodes that ended in them.

        The rollout's tensors are overwritten `buffers` calls later.
        """
        if self._row is None:
            self._row = self.env.restore(self.episode, [np.zeros(0)] * self.env.lanes)
        storage = self._storage[self._turn]
        self._turn = (self._turn + 1) % len(self._storage)
        storage.write(0, self._row)
        noise = torch.from_numpy(self._noise()).to(self.device)  # [T, N, K]
        opening, clock = self.state, time.perf_counter
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
        rollout = storage.rollout(opening)
        self._row = storage.rows[self.steps]
        return rollout, self._account(rollout)

    def _noise(self) -> npt.NDArray[np.float32]:
        """Of the next rollout: [T, N, K], and lanes' shares where the policy knows them [T, N, K + 1]."""
        noise = uniforms(self.seed, self.lane_numbers, self.step, self.steps, self.policy.noise_size)
        column = np.broadcast_to(self._lane_column, (*noise.shape[:2], self._lane_column.shape[2]))
        return np.concatenate([noise, column], 2)

    def _act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor
    ) -> tuple[Tensor, Tensor, State, dict[str, Tensor]]:
        """The policy's action, the same in the environment's units, its memory and what it reports."""
        action, state, extra = self.policy.act(obs, first, state, noise)
        return action, self.policy.to_env(action), state, extra

    def _account(self, rollout: Rollout) -> Episodes:
        """Follow episode numbers, returns and lengths; log the actions for `state_dict`."""
        first, last = rollout.first.cpu().numpy(), rollout.last.cpu().numpy()  # [T+1, N]
        reward = rollout.reward.cpu().numpy()  # [T, N]
        self._log.append((self.step, self.policy.to_env(rollout.action).cpu().numpy().copy()))
        episodes = Episodes()
        # running sums of reward and of valid steps, so that an episode's totals are differences
        total = np.vstack([np.zeros((1, len(self.episode))), np.cumsum(reward, 0, dtype=np.float64)])
        count = np.vstack([np.zeros((1, len(self.episode)), np.int64), np.cumsum(~last[:-1], 0)])
        base_return, base_length = -self._return, -self._length
        for t, n in np.argwhere(first[1:] | last[1:]):  # in time order; few
            row = t + 1
            if last[row, n]:
                episodes.returns.append(float(total[row, n] - base_return[n]) / self.reward_scale)
                episodes.lengths.append(int(count[row, n] - base_length[n]))
            if first[row, n]:
                self.episode[n] += 1
                self._started[n] = self.step + row
                base_return[n], base_length[n] = total[row, n], count[row, n]
        self._return, self._length = total[-1] - base_return, count[-1] - base_length
        self.step += self.steps
        while self._log and self._log[0][0] + len(self._log[0][1]) <= self._started.min():
            self._log.popleft()
        return episodes

    def reopen(self, step: int, episode: npt.NDArray[np.int64]) -> None:
        """Continue at transition `step` of every lane with new episodes of these numbers, [N]."""
        self.step, self.episode = step, episode.copy()
        self._started[:] = step
        self._return[:], self._length[:] = 0.0, 0
        self._log.clear()
        self.state = self.policy.initial_state(self.env.lanes, self.device)
        self._row = self.env.restore(self.episode, [np.zeros(0)] * self.env.lanes)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next `collect` depends on but the policy, copied."""
        if self._row is None:
            return {}
        row = self._row
        snapshot = getattr(self.env, "snapshot", None)
        return {
            "step": self.step,
            "state": tree_map(torch.clone, self.state),
            "episode": self.episode.copy(),
            "started": self._started.copy(),
            "return": self._return.copy(),
            "length": self._length.copy(),
            "row": {
                "obs": tree_map(torch.clone, row.obs),
                "reward": row.reward.clone(),
                "terminated": row.terminated.clone(),
                "first": row.first.clone(),
                "last": row.last.clone(),
            },
            "snapshot": snapshot() if snapshot else None,
            "log": [] if snapshot else [{"start": start, "actions": actions} for start, actions in self._log],
        }

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Rebuild the environments and continue. Returns a warning if they did not come back as they were."""
        if not state:
            return None
        if len(state["episode"]) != self.env.lanes:
            raise ValueError(
                f"env.lanes={self.env.lanes}, but the checkpoint has {len(state['episode'])} lanes; "
                f"set env.lanes={len(state['episode'])} in the run's config.yaml"
            )
        self.step = state["step"]
        self.state = tree_map(lambda x: x.to(self.device), state["state"])
        self.episode, self._started = state["episode"].copy(), state["started"].copy()
        self._return, self._length = state["return"].copy(), state["length"].copy()
        self._log = deque((entry["start"], entry["actions"]) for entry in state["log"])
        self._row = EnvStep(**tree_map(lambda x: x.to(self.device), state["row"]))
        if state["snapshot"] is not None:
            self.env.load_snapshot(state["snapshot"])  # type: ignore[attr-defined]
            return None
        histories = [self._actions_of(lane) for lane in range(self.env.lanes)]
        lost = _differing(self.env.restore(self.episode, histories), self._row)  # [N]
        if not lost.any():
            return None
        for lane in np.flatnonzero(lost):
            self.episode[lane] += 1
            self._started[lane] = self.step
            self._return[lane], self._length[lane] = 0.0, 0
            histories[lane] = histories[lane][:0]
        fresh = self.env.restore(self.episode, histories)
        self._row = EnvStep(
            **{
                name: tree_map(lambda x: x.clone().to(self.device), getattr(fresh, name))
                for name in state["row"]
            }
        )
        return (
            f"environment {self.env.spec.id} did not come back as it was from its seed and actions, so "
            f"{int(lost.sum())} of {self.env.lanes} lanes open new episodes: the run continues, but not exactly "
            "(is there randomness that reset(seed=...) does not seed?)"
        )

    def _actions_of(self, lane: int) -> npt.NDArray[Any]:
        """The environment actions of a lane since its episode began: [k, ...]."""
        begun = self._started[lane]
        pieces = [actions[max(begun - start, 0) :, lane] for start, actions in self._log]
        return np.concatenate(pieces) if pieces else np.zeros(0)


def _differing(a: EnvStep, b: EnvStep) -> npt.NDArray[np.bool_]:
    """[N] lanes whose rows are not equal to the last bit."""
    different = a.last.cpu() != b.last.cpu()
    for x, y in zip(tree_leaves(a.obs), tree_leaves(b.obs), strict=True):
        different |= (x.cpu() != y.cpu()).flatten(1).any(1) if x.dim() > 1 else x.cpu() != y.cpu()
    return different.numpy()


class _Grouped:
    """`decide` for `lanes` lanes, `group` at a time, each in memory of its own (sums may follow its alignment)."""

    def __init__(self, decide: Callable[..., Any], group: int, lanes: int) -> None:
        self.decide = decide
        self.groups = [slice(start, start + group) for start in range(0, lanes, group)]

    def __call__(self, *lanes: Any) -> Any:
        parts = [self.decide(*tree_map(lambda x: x[group].clone(), lanes)) for group in self.groups]  # noqa: B023
        return parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves), *parts)
