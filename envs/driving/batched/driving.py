"""N cars on N tracks stepped together in machine code: CarRacing-v3 for research at scale, without Box2D.

Tracks are those of CarRacing-v3 for the same seeds (`track.py`), the car is its car with joints that hold exactly
(`tyres.py`, which says what differs), the picture is what `env=carracing` sees, drawn at its size (`paint.py`):

    reward      -0.1 per frame, 1000 / n for every one of the n tiles that a wheel touches first; -100 for the frame
                in which the car leaves the playfield
    terminated  when all tiles were visited, when tile 0 is the next one after 95 %, or beyond the playfield
    truncated   after 1000 frames
    action      steer in [-1, 1] (right is positive), gas and brake in [0, 1], held for `skip` frames

A decision is `skip` frames and one observation. Lanes never see one another, so neither how they are split over
vectors nor the number of threads changes a bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rlkit.contracts import Saved
from rlkit.envs.driving.batched.paint import COLOURS, LUMINANCE, Lens, pictures
from rlkit.envs.driving.batched.sensors import OTHERS, bounds, directions, sense
from rlkit.envs.driving.batched.track import TILES, Floats, Tracks
from rlkit.envs.driving.batched.tyres import CAR, FPS, drive, place
from rlkit.envs.kernels import KernelVec, among, finite, whole
from rlkit.seeding import Seeds
from rlkit.spaces import Array, Box
from rlkit.types import EnvSpec

SHARE = {"picture": 4, "vector": 32}  # the fewest lanes that are worth a thread of their own
LAP_COMPLETE = 0.95
_FILM = Lens.plain(400, 600)


class Driving(KernelVec):
    """N lanes of the batched driving environment; its rows are CPU tensors that every step overwrites.

    observation: "picture", uint8 [size, size], or "vector", float32 [rays + 21] (`sensors.py`). skip: frames per
    decision; frames: after how many an episode is truncated; threads: 0 for as many as torch uses. device: where the
    policy is; rows stay on the CPU and the actor moves them. render_mode: "human" shows lane 0 in a window. Raises
    ValueError for values out of range.
    """

    def __init__(
        self,
        lanes: int,
        seed: int,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        observation: str = "picture",
        skip: int = 4,
        size: int = 64,
        rays: int = 16,
        frames: int = 1000,
        threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        for name, value, low, high in (
            ("skip", skip, 1, 1000),
            ("size", size, 8, 512),
            ("rays", rays, 0, 360),
            ("frames", frames, 1, 10**9),
            ("threads", threads, 0, 256),
        ):
            whole(name, value, low, high)
        among("observation", observation, "picture", "vector")
        among("render_mode", render_mode, None, "rgb_array", "human")
        self.lanes, self.device = lanes, torch.device("cpu")
        self.seeds = Seeds(seed, evaluation, first_lane, lanes)
        self.skip, self.size, self.frames = skip, size, frames
        self.fps = FPS / skip  # of films that show every decision
        self.ray, (self.least, self.most) = directions(rays), bounds(rays)
        self._lens = Lens.shown(size) if observation == "picture" else None
        space = Box((size, size), "uint8", 0.0, 255.0)
        if observation == "vector":
            space = Box((rays + OTHERS,), "float32", self.least, self.most)
        action = Box((3,), "float32", np.array([-1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0]))
        self.spec = EnvSpec("rlkit/Driving", space, action)
        self.tracks, self.cars = Tracks(lanes), np.zeros(lanes, CAR)
        self.marks = np.zeros((lanes, TILES), np.uint8)  # bits of every tile: tyres.VISITED, TOUCHED
        obs = torch.zeros((lanes, *space.shape), dtype=getattr(torch, space.dtype))
        self._obs = obs.numpy()
        self._prepare(obs, threads, SHARE[observation], render_mode)

    def _given(self, action: Array) -> Array:
        return finite(action, np.float64)

    def snapshot(self) -> Saved:
        """The whole state, copied. Tracks and observations follow from it."""
        return {
            "row": self._saved_row(),
            "cars": {name: self.cars[name].copy() for name in CAR.names or ()},
            "marks": self.marks.copy(),
            "episode": self.episode.copy(),
        }

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value."""
        self.episode[:] = state["episode"]
        everyone = np.ones(self.lanes, np.bool_)
        self._parts.each(lambda low, high: self._open(everyone, low, high))
        self._load_row(state["row"])
        for name, value in state["cars"].items():
            self.cars[name] = value
        self.marks[:] = state["marks"]
        self._parts.each(self._see)

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """The lane's window in colour, [400, 600, 3]."""
        film, one = _FILM, slice(lane, lane + 1)
        canvas, tracks = np.zeros(film.canvas, np.uint8), self.tracks
        picture = np.zeros((3, 1, *film.shape), np.uint8)
        for colour in range(3):
            pictures(
                self.cars[one], tracks.edge[one], tracks.kerb[one], tracks.count[one], self.marks[one], 0, 1,
                np.ascontiguousarray(COLOURS[:, colour]), canvas,
                film.row, film.row_weight, film.column, film.column_weight, picture[colour],
            )  # fmt: skip
        return np.ascontiguousarray(picture[:, 0].transpose(1, 2, 0))

    def _open(self, opening: npt.NDArray[np.bool_], low: int, high: int) -> None:
        """Begin the present episodes of the lanes that are `opening` [N]."""
        for lane in np.flatnonzero(opening[low:high]) + low:
            tracks = self.tracks
            tracks.open(int(lane), self.seeds.of(int(lane), int(self.episode[lane])))
            place(self.cars[lane], tracks.path[lane], tracks.edge[lane], self.marks[lane], tracks.count[lane])
            self._reward[lane] = 0.0
            self._terminated[lane] = self._last[lane] = False
            self._first[lane] = True

    def _act(self, action: Floats, acting: npt.NDArray[np.bool_], low: int, high: int) -> None:
        """One decision of the lanes that are `acting` [N]."""
        drive(
            self.cars, self.tracks.edge, self.tracks.count, self.marks, action, acting, low, high, self.skip,
            self.frames, LAP_COMPLETE, self._reward, self._terminated, self._last,
        )  # fmt: skip
        self._first[low:high] &= ~acting[low:high]

    def _look(self, low: int, high: int) -> None:
        """Write what the lanes see."""
        tracks, lens = self.tracks, self._lens
        if lens is None:
            sense(
                self.cars, tracks.path, tracks.edge, tracks.count, low, high, self.ray,
                self.least, self.most, self._obs,
            )  # fmt: skip
            return
        pictures(
            self.cars, tracks.edge, tracks.kerb, tracks.count, self.marks, low, high, LUMINANCE,
            np.empty(lens.canvas, np.uint8),
            lens.row, lens.row_weight, lens.column, lens.column_weight, self._obs,
        )  # fmt: skip
