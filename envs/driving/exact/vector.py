"""Lanes of rlkit/CarRacing whose pictures are drawn together, by threads, straight into the rows.

A step moves the cars one after the other (Box2D holds Python's lock); each describes its frame in a row of `Scenes`.
Then every thread draws its share of the lanes with the lock released. Rows are those of lanes that draw themselves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from rlkit.envs.aliases import Core, Env, GymSpace, Value
from rlkit.envs.backends.lane import Block, Lane
from rlkit.envs.backends.rows import Check, Rows
from rlkit.envs.config import EnvConfig
from rlkit.envs.driving.exact.canvas import CELLS, Canvas
from rlkit.envs.driving.exact.car_racing import blank, new_canvas, outline
from rlkit.envs.driving.exact.scene import Scenes
from rlkit.envs.labels import LABEL, Labels
from rlkit.envs.labels.wrapper import labelled_space, labels_of
from rlkit.envs.wrappers.frames import Picture
from rlkit.seeding import Seeds
from rlkit.spaces import Array, from_gymnasium


class DrivingBlock(Block):
    """Lanes [start, stop); draws with `threads` threads, this one included."""

    def __init__(
        self, config: EnvConfig, seeds: Seeds, start: int, stop: int, render: bool = False, threads: int = 1
    ) -> None:
        super().__init__(replace(config, gray=False, size=0, labels=()), seeds, start, stop, render)
        count = stop - start
        self.picture: Picture | None = None
        self.space: GymSpace = self.envs[0].observation_space
        if config.gray or config.size:
            self.picture = Picture(self.envs[0], config.gray, config.size, config.channels)
            self.space = self.picture.observation_space
        self.labels: list[Labels | None] = [None] * count
        if config.labels:
            made = [labels_of(env, config, self.space) for env in self.envs]
            self.space, self.labels = labelled_space(self.space, made[0], config), [*made]
        self.observation = from_gymnasium(self.space, config.channels)
        self.scenes = Scenes(count)
        for i, env in enumerate(self.envs):
            core: Core = env.unwrapped
            core.bind(self.scenes, i)
        self.threads = max(1, min(threads, count))
        self.pool = ThreadPoolExecutor(self.threads - 1, "rlkit-draw") if self.threads > 1 else None
        self.canvases = [new_canvas() for _ in range(self.threads)]
        self.frames: Array = np.zeros((count, CELLS, CELLS, 3), np.uint8)

    def attach(self, rows: Rows) -> None:
        """Choose the rows that the lanes write; lane i writes row i."""
        self.rows = rows
        mine = slice(self.start, self.stop)
        views = {name: array[mine] for name, array in rows.obs.items()}
        self.pixels = views[next(iter(views))]
        if self.picture is None:
            self.frames = self.pixels
        self.lanes = [
            DrivingLane(
                env, self.config, self.seeds, self.start + i, rows, self.frames[i], self.space, labels
            )
            for i, (env, labels) in enumerate(zip(self.envs, self.labels, strict=True))
        ]
        self.actions = rows.action[mine]
        rows.cursor[self.start] = self.start
        self.check = Check(
            self.observation,
            self.action,
            views,
            rows.reward[mine],
            rows.last[mine],
            self.config.check,
        )

    def verify(self) -> None:
        """Draw what the lanes described, then look at the rows. Raises EnvFault."""
        cuts = np.linspace(0, len(self.lanes), self.threads + 1).astype(int)
        others = [
            self.pool.submit(self._draw, self.canvases[i], int(cuts[i]), int(cuts[i + 1]))
            for i in range(1, self.threads)
            if self.pool is not None
        ]
        self._draw(self.canvases[0], int(cuts[0]), int(cuts[1]))
        for other in others:
            other.result()
        super().verify()

    def _draw(self, canvas: Canvas, start: int, stop: int) -> None:
        self.scenes.draw(canvas, outline(), self.frames, start, stop)
        if self.picture is not None:
            for i in range(start, stop):
                self.pixels[i] = self.picture.picture(self.frames[i])

    def close(self) -> None:
        """Close every environment and end the threads."""
        if self.pool is not None:
            self.pool.shutdown()
        super().close()


class DrivingLane(Lane):
    """A lane whose picture is drawn by its block."""

    def __init__(
        self,
        env: Env,
        config: EnvConfig,
        seeds: Seeds,
        index: int,
        rows: Rows,
        frame: Array,
        space: GymSpace,
        labels: Labels | None,
    ) -> None:
        super().__init__(env, config, seeds, index, rows, space=space)
        self.frame, self.labels, self.answers = frame, labels, self.leaves[1:]

    def put(self, obs: Value) -> None:
        """Keep a frame that Gymnasium drew; all others are still to be drawn. Labels are of the car as it is now."""
        if obs is not blank():
            self.frame[:] = obs
        if self.labels is not None:
            said = {LABEL: self.labels.read(None)}
            for leaf in self.answers:
                leaf.put(self.index, said, False)
