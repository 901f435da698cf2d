"""What `rlkit/Driving` can say of itself, all lanes at once."""

from __future__ import annotations

import numpy as np

from rlkit.envs.aliases import Core
from rlkit.envs.driving.batched.sensors import sense
from rlkit.envs.labels.batch import BatchLabels
from rlkit.envs.labels.road import OFFERED, Road, road_spaces, stand, written
from rlkit.spaces import Array, Box


class DrivingLabels(BatchLabels):
    """The labels of N cars; `vector` is what observation=vector shows of the same state."""

    expert = "pursuit"

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """All that a road can tell, and the other observation."""
        return (*OFFERED, "vector")

    def __init__(self, vector: Core, names: tuple[str, ...]) -> None:
        self.vector = vector
        spaces = road_spaces((vector.size, vector.size), vector.spec.action)
        spaces["vector"] = Box((len(vector.least),), "float32", vector.least, vector.most)
        self.spaces = {name: spaces[name] for name in names}
        self.body, self.motion = np.zeros((vector.lanes, 5, 4)), np.zeros((vector.lanes, 3))

    def write(self, rows: dict[str, Array], low: int, high: int) -> None:
        """Write the labels of the lanes low .. high - 1."""
        vector, tracks = self.vector, self.vector.tracks
        stand(vector.cars, low, high, self.body, self.motion)
        road = Road(tracks.path, tracks.edge, tracks.kerb, tracks.count)
        written(rows, low, high, self.body, self.motion, road)
        if "vector" in rows:
            sense(
                vector.cars, tracks.path, tracks.edge, tracks.count, low, high, vector.ray,
                vector.least, vector.most, rows["vector"],
            )  # fmt: skip
