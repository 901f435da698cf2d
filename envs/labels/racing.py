"""What CarRacing can say of itself: Gymnasium's, and ours that extends it.

Road and kerbs are the polygons that are drawn, found in the environment's own list of them, so colours play no part.
"""

from __future__ import annotations

import numpy as np

from rlkit.envs.aliases import Core, Value
from rlkit.envs.config import EnvConfig
from rlkit.envs.driving.batched.track import WIDTH
from rlkit.envs.gym_spaces import gym_space
from rlkit.envs.labels import Labels
from rlkit.envs.labels.road import OFFERED, Road, road_spaces, written
from rlkit.spaces import Array, Box

ACTION = Box((3,), "float32", np.array([-1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0]))
NOTHING, RIGHT, LEFT, GAS, BRAKE = range(5)  # the actions of continuous=false


class RacingLabels(Labels):
    """The labels of one car."""

    expert = "pursuit"

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        """All that a road can tell."""
        return OFFERED

    def __init__(self, core: Core, names: tuple[str, ...], shape: tuple[int, ...], config: EnvConfig) -> None:
        self.core, self.names = core, names
        self.polygons: Core = None  # the road that `road` was made of
        own = road_spaces(shape[:2], ACTION)
        self.rows = {name: np.zeros((1, *own[name].shape), own[name].dtype) for name in names}
        self.spaces = {name: gym_space(own[name]) for name in names}
        self.discrete = not core.continuous
        if self.discrete and "expert" in names:
            self.spaces["expert"] = core.action_space
        self.body, self.motion = np.zeros((1, 5, 4)), np.zeros((1, 3))

    def read(self, action: Value | None) -> dict[str, Value]:
        """The labels of the present frame."""
        core = self.core
        if core.road_poly is not self.polygons:
            self.polygons, self.road = core.road_poly, road_of(core)
        hull = core.car.hull
        for i, part in enumerate((*core.car.wheels, hull)):
            place, turn = part.transform.position, part.transform.q
            self.body[0, i] = place.x, place.y, turn.s, turn.c
        velocity, sine, cosine = hull.linearVelocity, self.body[0, 4, 2], self.body[0, 4, 3]
        ahead = -sine * velocity.x + cosine * velocity.y
        self.motion[0] = ahead, hull.angularVelocity, core.t
        written(self.rows, 0, 1, self.body, self.motion, self.road)
        found: dict[str, Value] = {name: rows[0].copy() for name, rows in self.rows.items()}
        if self.discrete and "expert" in found:
            found["expert"] = choice(found["expert"])
        return found


def road_of(core: Core) -> Road:
    """The road of a CarRacing environment, of which a polygon in colours that are no array is a kerb."""
    points = np.array(core.track, np.float64)[:, 1:]  # heading, x, y
    across = WIDTH * np.stack([np.cos(points[:, 0]), np.sin(points[:, 0])], axis=1)
    edge = np.stack([points[:, 1:] - across, points[:, 1:] + across], axis=1)
    kerb, tile = np.zeros(len(points), np.int8), -1
    for _, colour in core.road_poly:
        if isinstance(colour, np.ndarray):
            tile += 1
        else:  # beside the tile before it, on the outside of the bend
            kerb[tile] = np.sign(points[tile - 1, 0] - points[tile, 0])
    return Road(points[None], edge[None], kerb[None], np.array([len(points)]))


def choice(action: Array) -> int:
    """The one of five actions that is nearest to steering, gas and brake: bends first."""
    steer, gas, brake = action
    if abs(steer) > 0.3:
        return RIGHT if steer > 0 else LEFT
    return BRAKE if brake > 0.2 else GAS if gas > 0.1 else NOTHING
