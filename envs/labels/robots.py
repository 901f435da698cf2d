"""What `rlkit/Maze` and `rlkit/Nav` can say of themselves, all lanes at once."""

from __future__ import annotations

import numpy as np

from rlkit.envs.aliases import Core
from rlkit.envs.labels.batch import BatchLabels
from rlkit.envs.navigation import planner
from rlkit.envs.navigation.cells import HEADING, HIGHEST, PAD, PLACE, TRIPLE, steps
from rlkit.envs.navigation.robots import THETA, X
from rlkit.spaces import Array, Box, MultiDiscrete


class MazeLabels(BatchLabels):
    """What stands in front of the agent, in MiniGrid's codes, and where that is."""

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """The same of every maze."""
        return ("front", "pose")

    def __init__(self, vector: Core, names: tuple[str, ...]) -> None:
        self.vector = vector
        highest = {"front": HIGHEST, "pose": (vector.size - 1, vector.size - 1, 3)}
        self.spaces = {
            name: MultiDiscrete(tuple(each + 1 for each in highest[name]), (0, 0, 0)) for name in names
        }

    def write(self, rows: dict[str, Array], low: int, high: int) -> None:
        """Write the labels of the lanes low .. high - 1."""
        side, agent = self.vector.side, self.vector.agent[low:high]
        place, heading = agent[:, PLACE], agent[:, HEADING]
        if "front" in rows:
            ahead = place + steps(side)[heading]
            rows["front"][low:high] = TRIPLE[self.vector.cells[np.arange(low, high), ahead]]
        if "pose" in rows:
            rows["pose"][low:high] = np.stack([place % side - PAD, place // side - PAD, heading], 1)


class NavLabels(BatchLabels):
    """Where a robot is, and the command of the planner by hand."""

    expert = "planner"

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """The same of every world."""
        return ("pose", "expert")

    def __init__(self, vector: Core, names: tuple[str, ...]) -> None:
        self.vector, self.seen = vector, vector.row.obs.numpy()
        known: dict[str, Box] = {"pose": Box((3,), "float32"), "expert": vector.spec.action}
        self.spaces = {name: known[name] for name in names}

    def write(self, rows: dict[str, Array], low: int, high: int) -> None:
        """Write the labels of the lanes low .. high - 1."""
        vector = self.vector
        if "pose" in rows:
            rows["pose"][low:high] = vector.robot[low:high, X : THETA + 1]
        if "expert" in rows:
            planner.choose(self.seen[low:high], vector.sensor[0], rows["expert"][low:high])
