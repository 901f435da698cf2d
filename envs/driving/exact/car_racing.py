"""`rlkit/CarRacing`: Gymnasium's CarRacing-v3, its observation drawn by machine code, bit for bit.

Box2D's world, rewards, tracks, seeds and options are Gymnasium's own (this class extends its class); pictures for
people (`render()`) are drawn by Gymnasium too. Ours are `state_pixels`, which every step returns and machine code draws
(`scene.py`), and the arithmetic of the car's forces (`dynamics.py`). Both are compared with the installed pygame-ce's
and Gymnasium's once per process; where they differ, the installed ones are used, and a warning says so.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import Box2D
import gymnasium
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as stock
from gymnasium.envs.box2d.car_dynamics import Car

from rlkit.envs.aliases import Core, Step, Value
from rlkit.envs.driving.exact.canvas import CELLS, HEIGHT, WIDTH, Canvas, make_canvas, reduce_axis
from rlkit.envs.driving.exact.dynamics import LeanCar
from rlkit.envs.driving.exact.scene import PANEL, QUADS, SCORE, Outline, Scenes
from rlkit.jit import announced
from rlkit.spaces import Array

SPIN, STEER = 30.0, 1.3  # larger values reach into the score: such a frame is left to Gymnasium


class CarRacing(stock.CarRacing):
    """As gymnasium.envs.box2d.car_racing.CarRacing; observation [96, 96, 3] uint8."""

    block: ClassVar[str] = (
        "rlkit.envs.driving.exact.vector:DrivingBlock"  # its lanes under env.backend=threads
    )
    slow_step: ClassVar[float] = 2e-4  # seconds; above it worker processes pay
    car: Core
    road: Core
    score_text: Core

    def __init__(
        self,
        render_mode: str | None = None,
        verbose: bool = False,
        lap_complete_percent: float = 0.95,
        domain_randomize: bool = False,
        continuous: bool = True,
    ) -> None:
        super().__init__(render_mode, verbose, lap_complete_percent, domain_randomize, continuous)
        self.scenes, self.lane = Scenes(1), 0
        self.deferred = False  # whether `scenes` is drawn by its owner, after the step
        self.score_text = score_format()
        self.exact = self.score_text is not None  # else everything is left to the class above

    def bind(self, scenes: Scenes, lane: int) -> None:
        """Describe frames in row `lane` of `scenes` from the next reset on, and leave their drawing to its owner.

        A frame that the machine code cannot draw is drawn at once: then scenes.wanted[lane] is False and the step
        returns the picture.
        """
        self.scenes, self.lane, self.deferred = scenes, lane, True

    def _create_track(self) -> bool:
        if not super()._create_track():  # type: ignore[no-untyped-call]
            return False
        scenes, lane, count = self.scenes, self.lane, len(self.road_poly)
        scenes.count[lane] = min(count, QUADS)
        self.drawable = self.exact and count <= QUADS
        if self.drawable:
            scenes.road[lane, :count] = [points for points, _ in self.road_poly]
            colors = scenes.colors[lane]
            colors[:count] = [color for _, color in self.road_poly]
            # A tile that is driven on changes its colour in place: let that be the row that is drawn from.
            tiles = iter(self.road)
            for i, (points, color) in enumerate(self.road_poly):
                if isinstance(color, np.ndarray):
                    next(tiles).color = colors[i]
                    self.road_poly[i] = (points, colors[i])
        return True

    def step(self, action: Value) -> Step:
        if self.exact and type(self.car) is Car:
            self.car.__class__ = LeanCar
        stepped: Step = super().step(action)
        return stepped

    def _render(self, mode: str) -> Value:
        if mode != "state_pixels" or "t" not in self.__dict__:
            return super()._render(mode)
        wanted = self.drawable and self.describe()
        if not wanted:
            self.scenes.wanted[self.lane] = False
            return super()._render(mode)
        self.scenes.wanted[self.lane] = True
        if self.deferred:
            return blank()
        picture = np.empty((1, CELLS, CELLS, 3), np.uint8)
        self.scenes.draw(own_canvas(), outline(), picture)
        return picture[0]

    def describe(self) -> bool:
        """Write what the present frame shows into the scene; False if the machine code cannot draw it."""
        car = self.car
        hull, wheels = car.hull, car.wheels
        zoom = 0.1 * stock.SCALE * max(1 - self.t, 0) + stock.ZOOM * stock.SCALE * min(self.t, 1)
        spin, steering = hull.angularVelocity, wheels[0].joint.angle
        score = score_picture(self.score_text(self.reward))
        if score is None or not (abs(spin) < SPIN and abs(steering) < STEER):
            return False
        axis = pygame.math.Vector2(1.0, 0.0).rotate_rad(-hull.angle)
        numbers = [axis.x, axis.y, zoom]
        for body in (*wheels, hull):
            transform = body.transform
            position, rotation = transform.position, transform.q
            numbers += (position.x, position.y, rotation.s, rotation.c)
        numbers += [wheel.phase for wheel in wheels]
        velocity = hull.linearVelocity
        vx, vy = velocity.x, velocity.y
        numbers.append((vx * vx + vy * vy) ** 0.5)
        numbers += [wheel.omega for wheel in wheels]
        numbers += (steering, spin)
        scenes, lane = self.scenes, self.lane
        scenes.numbers[lane] = numbers
        scenes.score[lane] = score
        scenes.paint[lane, 0], scenes.paint[lane, 1] = self.bg_color, self.grass_color
        return True


@functools.cache
def own_canvas() -> Canvas:
    """The canvas of everything in this process that is drawn with Python's lock held in between."""
    return new_canvas()


def new_canvas() -> Canvas:
    """A canvas that reduces pictures as this pygame does."""
    return make_canvas(16 if pygame.transform.get_smoothscale_backend() == "GENERIC" else 14)


@functools.cache
def blank() -> Array:
    """What a step returns whose picture comes later."""
    picture = np.zeros((CELLS, CELLS, 3), np.uint8)
    picture.flags.writeable = False
    return picture


@functools.cache
def outline() -> Outline:
    """The parts of a car, as Box2D keeps them."""
    shapes, corners = np.zeros((8, 8, 2), np.float32), np.zeros(8, np.int64)
    make: Callable[..., Core] = Car
    car = make(Box2D.b2World((0, 0)), 0.0, 0.0, 0.0)
    parts = [fixture for body in car.drawlist for fixture in body.fixtures]
    for i, part in enumerate(parts):
        points = part.shape.vertices
        corners[i] = len(points)
        shapes[i, : len(points)] = points
    car.destroy()
    return Outline(shapes, corners)


@functools.lru_cache(maxsize=4096)
def score_picture(score: str) -> Array | None:
    """The score's cells [SCORE, SCORE, 3] uint8 of the reduced picture; None for one that needs more room."""
    pygame.font.init()  # and a new font: whoever closes a window quits pygame, and with it the fonts that there are
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    text = font.render(score, True, (255, 255, 255), (0, 0, 0))
    place = text.get_rect()
    place.center = (60, HEIGHT - HEIGHT * 2.5 / 40.0)
    if place.left < 0 or place.right > 123 or place.top < PANEL:
        return None
    panel = np.zeros((125, HEIGHT - PANEL, 3), np.int64)  # [x, row, channel]
    panel[place.left : place.right, place.top - PANEL : place.bottom - PANEL] = pygame.surfarray.array3d(text)
    canvas = own_canvas()
    narrow = np.zeros((HEIGHT, SCORE, 3), np.int64)
    narrow[PANEL:] = reduce_axis(panel, canvas.cells[0][:, :SCORE], WIDTH, canvas.shift).transpose(1, 0, 2)
    return reduce_axis(narrow, canvas.cells[1][:, -SCORE:], HEIGHT, canvas.shift).astype(np.uint8)


# Gymnasium 1.2 cuts the score's fraction off, 1.4 rounds it.
FORMATS: tuple[Callable[[float], str], ...] = (
    lambda score: f"{int(score):04d}",
    lambda score: f"{score:04.0f}",
)


@functools.cache
def score_format() -> Callable[[float], str] | None:
    """How the installed Gymnasium writes a score, with which the machine code draws what the installed libraries draw.

    A few frames and a ride are compared, once per process; None, and a warning, where they differ.
    """
    why = ""
    with announced("rlkit/CarRacing: compiling what draws it, once where a cache can be written"):
        for score_text in FORMATS:
            found = _Probe(score_text).compare()
            if found is None:
                return score_text
            why = found
    warnings.warn(
        f"rlkit/CarRacing: {why}; everything is left to CarRacing-v3's own code (the same, slower)",
        stacklevel=2,
    )
    return None


def ride(kind: type[Car]) -> list[float]:
    """How a car of this class moves after half a second of gas, bends and brakes, from the road on to the grass."""
    make: Callable[..., Core] = Car
    world = Box2D.b2World((0, 0))
    car = make(world, 0.0, 0.0, 0.0)
    car.__class__ = kind
    for frame in range(25):
        for wheel in car.wheels:
            wheel.tiles = [SimpleNamespace(road_friction=1.0)] if frame < 15 else []
        car.steer(0.4 if frame % 10 < 5 else -0.4)
        car.gas(0.04 * frame)
        car.brake(0.2 * (frame % 6) if frame > 9 else 0.0)
        car.step(1 / stock.FPS)
        world.Step(1 / stock.FPS, 180, 60)
    hull = car.hull
    found = [*hull.position, *hull.linearVelocity, hull.angle, hull.angularVelocity]
    for wheel in car.wheels:
        found += (wheel.gas, wheel.omega, wheel.phase, wheel.joint.angle)
    car.destroy()
    return found


class _Probe(CarRacing):
    """An environment that draws its frames in both ways."""

    def __init__(self, score_text: Callable[[float], str]) -> None:
        stock.CarRacing.__init__(self)
        self.scenes, self.lane, self.deferred, self.exact = Scenes(1), 0, False, True
        self.score_text = score_text

    def compare(self) -> str | None:
        """None, or why the two ways differ."""
        env = self
        if ride(LeanCar) != ride(Car):
            return f"Gymnasium {gymnasium.__version__} computes other forces than rlkit"
        try:
            env.reset(seed=1)
            for frame in range(3):
                env.t = (0.0, 0.4, 2.0)[frame]
                for wheel in env.car.wheels:
                    wheel.omega, wheel.phase = 20.0 * frame, 0.7 * frame
                env.car.hull.angularVelocity = 0.3 - frame
                env.reward = 431.0 * frame - 7.5
                mine, theirs = env._render("state_pixels"), stock.CarRacing._render(env, "state_pixels")
                if not np.array_equal(mine, theirs):
                    return f"pygame-ce {pygame.version.ver} draws other pictures than rlkit's machine code"
                env.car.hull.transform = (env.car.hull.position, 0.4 * frame + 0.3)
        except Exception as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            return f"drawing by machine code fails here ({line})"
        return None
