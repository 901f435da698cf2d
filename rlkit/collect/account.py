"""The account of a rollout's finished episodes"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlkit.contracts import Episodes, Saved
from rlkit.types import Rollout, closings


class Account:
    """Follows every lane's episode: its number, the step at which it began, return and length so far.

    reward_scale: the factor of the environment's rewards, divided out of reported returns.
    """

    def __init__(self, lanes: int, reward_scale: float = 1.0) -> None:
        self.reward_scale = reward_scale
        self.episode = np.zeros(lanes, np.int64)  # number of each lane's current episode
        self.started = np.zeros(lanes, np.int64)  # the step at which it began
        self._return = np.zeros(lanes)
        self._length = np.zeros(lanes, np.int64)

    def take(self, rollout: Rollout, step: int) -> Episodes:
        """The episodes that ended in a rollout that began at `step`."""
        first = rollout.first.cpu().numpy()  # [T+1, N]
        last, reward = rollout.last.cpu().numpy(), rollout.reward.cpu().numpy()
        closes = closings(rollout.last).cpu().numpy()  # [T, N]
        episodes = Episodes()
        # running sums of reward and of valid steps, so that an episode's totals are differences
        total = np.vstack([np.zeros((1, len(self.episode))), np.cumsum(reward, 0, dtype=np.float64)])
        count = np.vstack([np.zeros((1, len(self.episode)), np.int64), np.cumsum(~last[:-1], 0)])
        base_return, base_length = -self._return, -self._length
        for t, n in np.argwhere(first[1:] | closes):  # in time order; few
            row = t + 1
            if closes[t, n]:
                episodes.returns.append(float(total[row, n] - base_return[n]) / self.reward_scale)
                episodes.lengths.append(int(count[row, n] - base_length[n]))
                episodes.lanes.append(int(n))
            if first[row, n]:
                self.episode[n] += 1
                self.started[n] = step + row
                base_return[n], base_length[n] = total[row, n], count[row, n]
        self._return, self._length = total[-1] - base_return, count[-1] - base_length
        return episodes

    def open(self, lanes: npt.NDArray[np.bool_], episode: npt.NDArray[np.int64], step: int) -> None:
        """The lanes marked in `lanes` [N] begin episode [N] at `step`; what they were in is forgotten."""
        self.episode = np.where(lanes, episode, self.episode)
        self.started[lanes] = step
        self._return[lanes], self._length[lanes] = 0.0, 0

    def state_dict(self) -> Saved:
        """The account of every lane's running episode, copied."""
        return {
            "episode": self.episode.copy(),
            "started": self.started.copy(),
            "return": self._return.copy(),
            "length": self._length.copy(),
        }

    def load_state_dict(self, state: Saved) -> None:
        """Continue from the entries that `state_dict` made."""
        self.episode, self.started = state["episode"].copy(), state["started"].copy()
        self._return, self._length = state["return"].copy(), state["length"].copy()
