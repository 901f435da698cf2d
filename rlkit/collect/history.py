"""What environments were asked to do since their episodes began: with the episode's seed it brings them back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rlkit.collect.account import Account
from rlkit.contracts import Saved, VecEnv
from rlkit.spaces import Array
from rlkit.types import EnvStep, tree_leaves, tree_map

LONG = (
    4096  # entries beyond which the oldest are joined, so that an episode without end does not make millions
)


class History:
    """The environment actions of all lanes, rollout by rollout; saved: a value of `state_dict`."""

    def __init__(self, saved: Sequence[Saved] = ()) -> None:
        # (first step, actions [T, N, ...]) of each rollout, or of many that follow each other
        self._log: list[tuple[int, Array]] = [(each["start"], each["actions"]) for each in saved]

    def add(self, step: int, actions: Array) -> None:
        """Copy the actions [T, N, ...] of the rollout that began at `step`."""
        self._log.append((step, actions.copy()))
        if len(self._log) > LONG:
            begin = next(
                i for i, (_, each) in enumerate(self._log) if len(each) <= len(actions)
            )  # not yet joined
            oldest = self._log[begin : begin + LONG // 2]
            if len(self._log) - begin > LONG:
                self._log[begin : begin + LONG // 2] = [
                    (oldest[0][0], np.concatenate([each for _, each in oldest]))
                ]

    def forget(self, step: int) -> None:
        """Drop the entries that end before `step`, the oldest one at which an episode goes on."""
        while self._log and self._log[0][0] + len(self._log[0][1]) <= step:
            del self._log[0]

    def of(self, lane: int, begun: int) -> Array:
        """The actions of a lane since step `begun`: [k, ...]."""
        pieces = [actions[max(begun - start, 0) :, lane] for start, actions in self._log]
        return np.concatenate(pieces) if pieces else np.zeros(0)

    def bring_back(
        self, env: VecEnv, account: Account, row: EnvStep, step: int
    ) -> tuple[EnvStep, str | None]:
        """Rebuild the environments of a checkpoint of `step`, in which the lanes showed `row`.

        Lanes that do not come back as they were open new episodes. Returns the row to act on, and a warning.
        """
        lanes = env.lanes
        histories, lost = [np.zeros(0)] * lanes, np.ones(lanes, bool)
        if env.exact == "replay":
            histories = [self.of(lane, account.started[lane]) for lane in range(lanes)]
            lost = differing(env.restore(account.episode, histories), row)  # [N]
            agents = len(env.spec.agents)  # a game begins anew for all of its agents
            lost = lost.reshape(-1, agents).any(1).repeat(agents)
            if not lost.any():
                return row, None
        account.open(lost, account.episode + 1, step)
        for lane in np.flatnonzero(lost):
            histories[lane] = histories[lane][:0]
        fresh = env.restore(account.episode, histories)
        row = EnvStep(**tree_map(lambda x: x.clone().to(row.reward.device), dict(vars(fresh))))
        return row, (
            f"environment {env.spec.id} did not come back as it was from its seed and actions, so "
            f"{int(lost.sum())} of {lanes} lanes open new episodes: the run continues, but not exactly "
            "(is there randomness that reset(seed=...) does not seed?)"
        )

    def state_dict(self) -> list[Saved]:
        """A list entry per rollout; arrays are shared, as nobody writes to them again."""
        return [{"start": start, "actions": actions} for start, actions in self._log]


def differing(a: EnvStep, b: EnvStep) -> npt.NDArray[np.bool_]:
    """[N] lanes whose rows are not equal to the last bit."""
    different = a.last.cpu() != b.last.cpu()
    for x, y in zip(tree_leaves(a.obs), tree_leaves(b.obs), strict=True):
        different |= (x.cpu() != y.cpu()).flatten(1).any(1) if x.dim() > 1 else x.cpu() != y.cpu()
    return different.numpy()
