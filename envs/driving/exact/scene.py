"""What one frame shows, as numbers, and its drawing: the field, the road, the car, the indicators, the score.

A point p of the world is seen at rotate(p, -angle of the car) zoom + offset, with y counting upwards, where the
offset puts the car at (500, 200). Wheels and hull are first brought into the world in float32, as Box2D does. All
constants are those of Gymnasium's CarRacing-v3.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from rlkit.envs.driving.exact.canvas import (
    CELLS,
    HEIGHT,
    WIDTH,
    Canvas,
    clear,
    close_cell,
    kernel,
    reduce,
)
from rlkit.envs.driving.exact.polygons import draw_polygon, gfx_polygon
from rlkit.spaces import Array

# Entries of a scene, float64
COS, SIN, ZOOM = 0, 1, 2  # of minus the hull's angle; pixels per unit of length
BODIES = 3  # five times (x, y, sine, cosine): the wheels and the hull
PHASES = 23  # four wheels' angles of rotation
GAUGES = 27  # speed, four wheels' angular velocities, steering angle, angular velocity of the hull
SIZE = 34

QUADS = 1024  # room for the road's quadrilaterals: tiles and kerbs (the longest lap of 20,000 seeds has 389 tiles)

PANEL = 700  # first row of the indicators
SCORE = 12  # the score lies in the first 12 x 12 cells of the panel
REACH = 24.0  # no quadrilateral of the world is larger (units of length)
WHEEL = np.uint32(0x000000)
STRIPE = np.uint32(0x4D4D4D)
HULL = np.uint32(0xCC0000)
WHEEL_W, WHEEL_R, WHEEL_SIZE = 14, 27, 0.02

_edge = 2000 / 6.0  # half the field's width
_field = [(_edge, _edge), (_edge, -_edge), (-_edge, -_edge), (-_edge, _edge)]
_patch = _edge / 20.0
_grass = [
    [
        (_patch * x + _patch, _patch * y + 0),
        (_patch * x + 0, _patch * y + 0),
        (_patch * x + 0, _patch * y + _patch),
        (_patch * x + _patch, _patch * y + _patch),
    ]
    for x in range(-20, 20, 2)
    for y in range(-20, 20, 2)
]
GROUND = np.array([_field, *_grass])  # [401, 4, 2], the field, then its patches of grass


@kernel
def pack(color: Array) -> np.uint32:
    """0xRRGGBB of three numbers, their fractions dropped."""
    return np.uint32((int(color[0]) << 16) | (int(color[1]) << 8) | int(color[2]))


@kernel
def near(view: tuple[float, float, float, float, float], point: Array) -> bool:
    """Whether a shape with this corner can reach the picture."""
    cos, sin, zoom, dx, dy = view
    x = (point[0] * cos - point[1] * sin) * zoom + dx
    y = (point[0] * sin + point[1] * cos) * zoom + dy
    margin = REACH * zoom + 4.0
    return bool(-margin <= x <= WIDTH + margin and HEIGHT - PANEL - margin <= y <= HEIGHT + margin)


@kernel
def corner4(view: tuple[float, float, float, float, float], points: Array, px: Array, py: Array) -> None:
    """The pixels of four points of the world; fractions are dropped."""
    cos, sin, zoom, dx, dy = view
    for k in range(4):
        x, y = points[k, 0], points[k, 1]
        px[k] = int((x * cos - y * sin) * zoom + dx)
        py[k] = int((x * sin + y * cos) * zoom + dy)


@kernel
def body_pixel(
    view: tuple[float, float, float, float, float], body: Array, x: np.float32, y: np.float32
) -> tuple[int, int]:
    """The pixel of a point of a body: body = (x, y, sine, cosine)."""
    cos, sin, zoom, dx, dy = view
    s, c = np.float32(body[2]), np.float32(body[3])
    wx = float((c * x - s * y) + np.float32(body[0]))
    wy = float((s * x + c * y) + np.float32(body[1]))
    return int((wx * cos - wy * sin) * zoom + dx), int((wx * sin + wy * cos) * zoom + dy)


@kernel
def draw_car(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    view: tuple[float, float, float, float, float],
    scene: Array,
    shapes: Array,
    corners: Array,
    points: Array,
) -> None:
    """Four wheels, each with the stripe that shows it turning, then the hull."""
    px, py = points[0], points[1]
    for part in range(8):
        index = min(part, 4)
        body = scene[BODIES + 4 * index : BODIES + 4 * index + 4]
        for stripe in range(2 if part < 4 else 1):
            n, color = 4, STRIPE
            if stripe:
                visible, c1, c2 = stripe_ends(scene[PHASES + part])
                if not visible:
                    continue
                for k in range(4):
                    x = (-WHEEL_W if k in (0, 3) else WHEEL_W) * WHEEL_SIZE
                    y = WHEEL_R * (c1 if k < 2 else c2) * WHEEL_SIZE
                    px[k], py[k] = body_pixel(view, body, np.float32(x), np.float32(y))
            else:
                n, color = corners[part], WHEEL if part < 4 else HULL
                for k in range(n):
                    px[k], py[k] = body_pixel(view, body, shapes[part, k, 0], shapes[part, k, 1])
            draw_polygon(tags, pool, free, pixels, cells, spans, points, n, color, True, PANEL)


@kernel
def stripe_ends(phase: float) -> tuple[bool, float, float]:
    """(whether it is seen, both ends in wheel radii) of the stripe on a wheel that has turned by `phase`."""
    s1, s2, c1, c2 = math.sin(phase), math.sin(phase + 1.2), math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0:
        c1 = np.sign(c1)
    if s2 > 0:
        c2 = np.sign(c2)
    return not (s1 > 0 and s2 > 0), c1, c2


@kernel
def draw_gauges(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    gauges: Array,
    points: Array,
) -> None:
    """The bars of the indicators; those of almost nothing are left out."""
    px, py = points[0], points[1]
    s, h = WIDTH / 40.0, HEIGHT / 40.0
    for k in range(7):
        value = gauges[k]
        if abs(value) <= 1e-4:
            continue
        if k < 5:
            place = 5 if k == 0 else 6 + k
            top = HEIGHT - (h + h * ((0.02 if k == 0 else 0.01) * value))
            left, right, bottom = place * s, (place + 1) * s, HEIGHT - h
            color = np.uint32(0xFFFFFF) if k == 0 else np.uint32(0x0000FF) if k < 3 else np.uint32(0x3300FF)
        else:
            place = 20 if k == 5 else 30
            left, right = place * s, (place + (-10.0 if k == 5 else -0.8) * value) * s
            top, bottom = HEIGHT - 4 * h, HEIGHT - 2 * h
            color = np.uint32(0x00FF00) if k == 5 else np.uint32(0xFF0000)
        for i in range(4):
            px[i] = int(left if i in (0, 3) else right)
            py[i] = int(top if i < 2 else bottom)
        draw_polygon(tags, pool, free, pixels, cells, spans, points, 4, color, False, HEIGHT)


def _entry(version: int) -> Any:
    def draw_scenes(
        tags: Array, pool: Array, free: Array, spans: Array, meets: Array, pixels: Array, cells: Array, table: Array,
        sums: Array, points: Array, shift: int, ground: Array, shapes: Array, corners: Array, numbers: Array,
        paint: Array, road: Array, colors: Array, count: Array, score: Array, wanted: Array, out: Array,
        start: int, stop: int,
    ) -> None:  # fmt: skip
        """Draw lanes [start, stop) that are wanted into out [N, 96, 96, 3]; see Canvas, Outline and Scenes."""
        assert version >= 0  # machine code is kept on disk for this version of the sources
        px, py = points[0], points[1]
        lowest = HEIGHT - PANEL
        for lane in range(start, stop):
            if not wanted[lane]:
                continue
            scene = numbers[lane]
            cos, sin, zoom = scene[COS], scene[SIN], scene[ZOOM]
            x, y = -scene[BODIES + 16] * zoom, -scene[BODIES + 17] * zoom
            view = (cos, sin, zoom, x * cos - y * sin + WIDTH / 2, x * sin + y * cos + HEIGHT / 4)
            clear(tags, free)
            for i in range(len(ground) + count[lane]):
                shape = ground[i] if i < len(ground) else road[lane, i - len(ground)]
                if i == 0 or near(view, shape[0]):
                    color = pack(paint[lane, min(i, 1)] if i < len(ground) else colors[lane, i - len(ground)])
                    corner4(view, shape, px, py)
                    gfx_polygon(tags, pool, free, pixels, cells, spans, meets, px[:4], py[:4], color, lowest)
            draw_car(tags, pool, free, pixels, cells, spans, view, scene, shapes, corners, points)
            for down in range(CELLS - SCORE, CELLS):
                for across in range(CELLS):
                    close_cell(tags, free, down, across, np.uint32(0))
            draw_gauges(tags, pool, free, pixels, cells, spans, scene[GAUGES:], points)
            reduce(tags, pool, cells, table, sums, shift, out[lane])
            for down in range(SCORE):
                for across in range(SCORE):
                    for channel in range(3):
                        out[lane, CELLS - SCORE + down, across, channel] = score[lane, down, across, channel]

    njit: Any = numba.njit
    try:
        return njit(nogil=True, _nrt=False, cache=True)(draw_scenes)
    except RuntimeError:  # neither the package nor the user has a folder to write to
        return njit(nogil=True, _nrt=False)(draw_scenes)


_sources = [Path(__file__).with_name(f"{name}.py") for name in ("canvas", "polygons", "scene")]
_draw_scenes = _entry(zlib.crc32(b"".join(path.read_bytes() for path in _sources if path.exists())))


class Outline(NamedTuple):
    """The parts of a car: four wheels, then the hull's four."""

    shapes: Array  # [8, 8, 2] float32, points in the body's frame
    corners: Array  # [8] int64, how many


class Scenes:
    """What N lanes show, and the drawing of it."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.numbers = np.zeros((lanes, SIZE))
        self.paint = np.zeros((lanes, 2, 3))  # colours of field and grass
        self.road = np.zeros((lanes, QUADS, 4, 2))  # the road's quadrilaterals, in drawing order
        self.colors = np.zeros((lanes, QUADS, 3))
        self.count = np.zeros(lanes, np.int64)  # of the road's quadrilaterals
        self.score = np.zeros((lanes, SCORE, SCORE, 3), np.uint8)
        self.wanted = np.ones(lanes, np.bool_)  # which lanes are drawn

    def draw(self, canvas: Canvas, car: Outline, out: Array, start: int = 0, stop: int | None = None) -> None:
        """Draw lanes [start, stop) into out [N, 96, 96, 3] uint8, without holding Python's lock."""
        _draw_scenes(
            *canvas,
            GROUND,
            *car,
            self.numbers,
            self.paint,
            self.road,
            self.colors,
            self.count,
            self.score,
            self.wanted,
            out,
            start,
            self.lanes if stop is None else stop,
        )
