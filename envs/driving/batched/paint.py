"""The picture of CarRacing-v3, drawn straight at a small size.

The window of 1000 x 800 (gymnasium/envs/box2d/car_racing.py, O. Klimov) looks down on the car, which stands at its
column 500 and row 600 and points upwards. Z pixels are one world unit, t seconds into the episode:

    Z = 0.6 max(1 - t, 0) + 16.2 min(t, 1)

Drawn in this order: the playfield, every second square of its lawn, tile by tile of the road (three greys in turn;
102 once the car has touched it) with its kerb, the wheels with a stripe that turns with them, the hull, and a black bar
over the lowest eighth: the reward so far in digits, speed, the wheels' speeds, the steering angle and the yaw rate.

Everything is a convex polygon. It is filled where a sample's centre lies inside, on a canvas of two samples by two per
pixel of the 96 x 96 that Gymnasium shows, and the canvas is averaged down with the weights that shrinking to 96 x 96
and from there to `size` (both by area) have together. So a grey picture of 64 x 64 is that of `env=carracing` but for
rounding and the samples' spacing; digits are 5 x 7 cells instead of a font.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.envs.driving.batched.track import GRASS, KERB, PLAYFIELD, STEP, WIDTH, Floats
from rlkit.envs.driving.batched.tyres import (
    ARMS,
    CENTRE,
    DT,
    HULL,
    HULL_ARM,
    OUTLINES,
    TREAD,
    TYRE,
    Car,
    Cars,
)

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

WINDOW_W, WINDOW_H = 1000.0, 800.0
SHOWN = 96  # pixels of Gymnasium's observation, each way
ZOOM_FAR, ZOOM_NEAR = 0.6, 16.2
BAR = 700.0  # the window's row where the bar begins
S, U = WINDOW_W / 40.0, WINDOW_H / 40.0  # the bar's units

(NOTHING, LAWN, SQUARE, ROAD, ROAD_1, ROAD_2, WHITE, RED, HULL_RED, STRIPE, BLUE, VIOLET, GREEN) = range(13)
COLOURS: Bytes = np.array(
    [
        (0, 0, 0), (102, 204, 102), (102, 230, 102), (102, 102, 102), (104, 104, 104), (107, 107, 107),
        (255, 255, 255), (255, 0, 0), (204, 0, 0), (77, 77, 77), (0, 0, 255), (51, 0, 255), (0, 255, 0),
    ],
    np.uint8,
)  # fmt: skip
# As the small picture shows them: pygame's shrinking takes 2 from every channel.
LUMINANCE: Bytes = (np.maximum(COLOURS.astype(int) - 2, 0) @ (0.299, 0.587, 0.114) + 0.5).astype(np.uint8)

# The digits 0 .. 9 and the minus, seven rows of five bits.
GLYPHS: Bytes = np.array([
    (14, 17, 17, 17, 17, 17, 14), (4, 12, 4, 4, 4, 4, 4), (14, 17, 1, 2, 4, 8, 31), (14, 17, 1, 6, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2), (31, 16, 30, 17, 1, 17, 14), (14, 16, 30, 17, 17, 17, 14), (31, 1, 2, 2, 4, 4, 4),
    (14, 17, 17, 14, 17, 17, 14), (14, 17, 17, 17, 15, 1, 14), (0, 0, 0, 0, 14, 0, 0),
], np.uint8)  # fmt: skip
GLYPH_W, GLYPH_H, ADVANCE = 21.0, 31.0, 24.5  # of a digit, in the window's pixels
MINUS_ADVANCE = 14.0
TEXT_X, TEXT_Y = 60.0, 730.0  # the middle and the top of the digits


@dataclass(frozen=True)
class Lens:
    """How a canvas [h, w] is averaged down to a picture [H, W]: per output row and column the first of K samples
    and their weights, in float32.
    """

    canvas: tuple[int, int]
    row: Ints  # [H]
    row_weight: Singles  # [H, K]
    column: Ints  # [W]
    column_weight: Singles  # [W, K']

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.row), len(self.column)

    @staticmethod
    def shown(size: int, samples: int = 2) -> Lens:
        """To size x size by way of 96 x 96, `samples` per pixel of those each way (more where `size` is larger)."""
        shown = SHOWN if size <= SHOWN else size
        start, weight = _band(_area(size, shown) @ _area(shown, shown * samples))
        return Lens((shown * samples, shown * samples), start, weight, start, weight)

    @staticmethod
    def plain(height: int, width: int, samples: int = 2) -> Lens:
        """To height x width, `samples` x `samples` per pixel."""
        rows, columns = (_band(_area(n, n * samples)) for n in (height, width))
        return Lens((height * samples, width * samples), *rows, *columns)


def _area(small: int, large: int) -> Floats:
    """[small, large] weights by which `small` pixels are averages of `large` ones along a line, by overlap."""
    edges = np.arange(small + 1) * (large / small)
    low = np.maximum(edges[:-1, None], np.arange(large)[None, :])
    high = np.minimum(edges[1:, None], np.arange(1, large + 1)[None, :])
    weight: Floats = np.maximum(high - low, 0.0) * (small / large)
    weight[weight < 1e-9] = 0.0
    return weight


def _band(weight: Floats) -> tuple[Ints, Singles]:
    """A matrix whose rows have few neighbouring entries: where they start [n], and the entries [n, K].

    K is a multiple of four, so that they can be added without a loop.
    """
    used = weight > 0
    first, width = used.argmax(1), -(-int(used.sum(1).max()) // 4) * 4
    first = np.minimum(first, weight.shape[1] - width)
    index = first[:, None] + np.arange(width)
    return first.astype(np.int64), np.take_along_axis(weight, index, 1).astype(np.float32)


@compiled
def pictures(
    cars: Cars, edge: Floats, kerb: npt.NDArray[np.int8], count: Ints, marks: Bytes,
    low: int, high: int, shades: Bytes, canvas: Bytes,
    row: Ints, row_weight: Singles, column: Ints, column_weight: Singles, out: Bytes,
) -> None:  # fmt: skip
    """Draw the lanes low .. high - 1 into out [N, H, W], a shade [13] for each colour.

    canvas: scratch of the lens whose rows, columns and weights are given.
    """
    line = np.empty(canvas.shape[1], np.float32)
    for n in range(low, high):
        _paint(cars[n], edge[n], kerb[n], count[n], marks[n], shades, canvas)
        _shrink(canvas, row, row_weight, column, column_weight, line, out[n])


@compiled
def _shrink(
    canvas: Bytes, row: Ints, row_weight: Singles,
    column: Ints, column_weight: Singles, line: Singles, out: Bytes,
) -> None:  # fmt: skip
    for r in range(len(row)):
        line[:] = np.float32(0.5)  # rounds
        for k in range(row_weight.shape[1]):
            weight, source = row_weight[r, k], canvas[row[r] + k]
            for x in range(len(line)):
                line[x] += weight * np.float32(source[x])
        for c in range(len(column)):
            total = np.float32(0.0)
            for k in range(0, column_weight.shape[1], 4):
                at, weight = line[column[c] + k :], column_weight[c, k:]
                total += weight[0] * at[0] + weight[1] * at[1] + weight[2] * at[2] + weight[3] * at[3]
            out[r, c] = np.uint8(np.int32(total))  # by way of int32: one machine instruction


@compiled
def _paint(
    car: Car, edge: Floats, kerb: npt.NDArray[np.int8], count: int, marks: Bytes, shades: Bytes, canvas: Bytes
) -> None:
    """The window on a canvas [h, w] that covers it."""
    height, width = canvas.shape
    sx, sy = width / WINDOW_W, height / WINDOW_H
    cos, sin = math.cos(car.angle), math.sin(car.angle)
    x = car.x - (cos * CENTRE[0] - sin * CENTRE[1])  # the hull's origin
    y = car.y - (sin * CENTRE[0] + cos * CENTRE[1])
    t = DT * car.frame
    zoom = ZOOM_FAR * max(1.0 - t, 0.0) + ZOOM_NEAR * min(t, 1.0)
    # column = a x + b y + c, row = d x + e y + f
    a, b, d, e = zoom * cos * sx, zoom * sin * sx, zoom * sin * sy, -zoom * cos * sy
    view = np.array([a, b, 0.5 * width - a * x - b * y, d, e, 0.75 * height - d * x - e * y])
    rows = math.ceil(BAR * sy)
    visible = canvas[:rows]
    # the farthest corners of the window, seen from the car
    radius = math.sqrt(500.0 * 500.0 + 600.0 * 600.0) / zoom
    left, right = np.empty(height, np.int64), np.empty(height, np.int64)
    _lawn(visible, view, x, y, radius, shades, left, right)
    _road(visible, view, x, y, radius, edge, kerb, count, marks, shades, left, right)
    _car(visible, view, car, x, y, shades, left, right)
    canvas[rows:] = shades[NOTHING]
    _bar(canvas, car, shades)


@compiled
def _lawn(
    canvas: Bytes, view: Floats, x: float, y: float, radius: float, shades: Bytes, left: Ints, right: Ints
) -> None:
    """The playfield and, on it, every second square each way."""
    points = np.empty((4, 2))
    if max(abs(x), abs(y)) + radius < PLAYFIELD:
        canvas[:] = shades[LAWN]
    else:
        canvas[:] = shades[NOTHING]
        _corners(points, view, -PLAYFIELD, -PLAYFIELD, 2.0 * PLAYFIELD)
        fill(canvas, points, 4, shades[LAWN], left, right)
    low_i, high_i = (
        max(math.floor((x - radius) / (2 * GRASS)), -10),
        min(math.floor((x + radius) / (2 * GRASS)), 9),
    )
    low_j, high_j = (
        max(math.floor((y - radius) / (2 * GRASS)), -10),
        min(math.floor((y + radius) / (2 * GRASS)), 9),
    )
    for i in range(low_i, high_i + 1):
        for j in range(low_j, high_j + 1):
            _corners(points, view, 2 * i * GRASS, 2 * j * GRASS, GRASS)
            fill(canvas, points, 4, shades[SQUARE], left, right)


@compiled
def _corners(points: Floats, view: Floats, x: float, y: float, side: float) -> None:
    """A square of the world as canvas points [4, 2]."""
    _see(points, 0, view, x, y)
    _see(points, 1, view, x + side, y)
    _see(points, 2, view, x + side, y + side)
    _see(points, 3, view, x, y + side)


@compiled
def _see(points: Floats, k: int, view: Floats, x: float, y: float) -> None:
    """Point k is where (x, y) of the world lies on the canvas."""
    points[k, 0] = view[0] * x + view[1] * y + view[2]
    points[k, 1] = view[3] * x + view[4] * y + view[5]


@compiled
def _road(
    canvas: Bytes, view: Floats, x: float, y: float, radius: float, edge: Floats, kerb: npt.NDArray[np.int8],
    count: int, marks: Bytes, shades: Bytes, left: Ints, right: Ints,
) -> None:  # fmt: skip
    """Tiles and kerbs, in the order of the track."""
    points = np.empty((4, 2))
    reach = radius + WIDTH + KERB + STEP
    outer = (WIDTH + KERB) / WIDTH
    for i in range(count):
        dx, dy = 0.5 * (edge[i, 0, 0] + edge[i, 1, 0]) - x, 0.5 * (edge[i, 0, 1] + edge[i, 1, 1]) - y
        if dx * dx + dy * dy > reach * reach:
            continue
        j = i - 1 if i else count - 1
        _see(points, 0, view, edge[i, 0, 0], edge[i, 0, 1])
        _see(points, 1, view, edge[i, 1, 0], edge[i, 1, 1])
        _see(points, 2, view, edge[j, 1, 0], edge[j, 1, 1])
        _see(points, 3, view, edge[j, 0, 0], edge[j, 0, 1])
        fill(canvas, points, 4, shades[ROAD if marks[i] else ROAD + i % 3], left, right)
        if kerb[i]:
            side = 1 if kerb[i] > 0 else 0
            for k in range(2):  # from the road's edge outwards
                at = i if k == 0 else j
                ex, ey = edge[at, side, 0], edge[at, side, 1]
                mx, my = 0.5 * (edge[at, 0, 0] + edge[at, 1, 0]), 0.5 * (edge[at, 0, 1] + edge[at, 1, 1])
                _see(points, 3 * k, view, ex, ey)
                _see(points, 1 + k, view, mx + (ex - mx) * outer, my + (ey - my) * outer)
            fill(canvas, points, 4, shades[RED if i % 2 else WHITE], left, right)


@compiled
def _car(
    canvas: Bytes, view: Floats, car: Car, x: float, y: float, shades: Bytes, left: Ints, right: Ints
) -> None:
    """Wheels, their stripes, the hull (its origin at x, y)."""
    points = np.empty((8, 2))
    cos, sin = math.cos(car.angle), math.sin(car.angle)
    for i in range(4):
        wx, wy = car.x + cos * ARMS[i, 0] - sin * ARMS[i, 1], car.y + sin * ARMS[i, 0] + cos * ARMS[i, 1]
        turn_cos, turn_sin = math.cos(car.angle + car.joint[i]), math.sin(car.angle + car.joint[i])
        high, low = TYRE, -TYRE
        for stripe in range(2):
            if stripe:  # the part of the rim between two angles that is not underneath
                one, two = car.phase[i], car.phase[i] + 1.2
                c1, c2 = math.cos(one), math.cos(two)
                hidden = math.sin(one) > 0, math.sin(two) > 0
                if hidden[0] and hidden[1]:
                    continue
                high = TYRE * (np.sign(c1) if hidden[0] else c1)
                low = TYRE * (np.sign(c2) if hidden[1] else c2)
            for k in range(4):
                px, py = TREAD[k, 0], high if k < 2 else low
                _see(points, k, view, wx + turn_cos * px - turn_sin * py, wy + turn_sin * px + turn_cos * py)
            fill(canvas, points, 4, shades[STRIPE if stripe else NOTHING], left, right)
    for part in range(4):
        size = OUTLINES[part + 1] - OUTLINES[part]
        for k in range(size):
            px, py = HULL[OUTLINES[part] + k, 0], HULL[OUTLINES[part] + k, 1]
            _see(points, k, view, x + cos * px - sin * py, y + sin * px + cos * py)
        fill(canvas, points, size, shades[HULL_RED], left, right)


@compiled
def fill(canvas: Bytes, points: Floats, size: int, shade: int, left: Ints, right: Ints) -> None:
    """Fill a convex polygon, points [size, 2] as column and row, where a pixel's centre lies inside.

    left, right [h]: scratch.
    """
    height, width = canvas.shape
    top = bottom = points[0, 1]
    for k in range(1, size):
        top, bottom = min(top, points[k, 1]), max(bottom, points[k, 1])
    first, end = max(math.ceil(top - 0.5), 0), min(math.ceil(bottom - 0.5), height)
    for r in range(first, end):
        left[r], right[r] = width, 0
    for k in range(size):
        j = k + 1 if k + 1 < size else 0
        x0, y0, x1, y1 = points[k, 0], points[k, 1], points[j, 0], points[j, 1]
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        begin, stop = max(math.ceil(y0 - 0.5), 0), min(math.ceil(y1 - 0.5), height)
        if begin >= stop:
            continue
        slope = (x1 - x0) / (y1 - y0)
        for r in range(begin, stop):
            column = math.ceil(x0 + slope * (r + 0.5 - y0) - 0.5)  # the first whose centre is not left of it
            if column < left[r]:
                left[r] = column
            if column > right[r]:
                right[r] = column
    for r in range(first, end):
        begin, stop = max(left[r], 0), min(right[r], width)
        if begin < stop:
            canvas[r, begin:stop] = shade


@compiled
def _bar(canvas: Bytes, car: Car, shades: Bytes) -> None:
    """The indicators."""
    spin = car.spin
    # the hull's own centre of mass moves with V + Omega x r, r as it was before the last turn
    cos, sin = math.cos(car.angle - car.turned), math.sin(car.angle - car.turned)
    vx = car.vx - spin * (sin * HULL_ARM[0] + cos * HULL_ARM[1])
    vy = car.vy + spin * (cos * HULL_ARM[0] - sin * HULL_ARM[1])
    _upright(canvas, 5, 0.02 * math.sqrt(vx * vx + vy * vy), shades[WHITE])
    for i in range(4):
        _upright(canvas, 7 + i, 0.01 * car.omega[i], shades[BLUE if i < 2 else VIOLET])
    _level(canvas, 20, -10.0 * car.joint[0], shades[GREEN])
    _level(canvas, 30, -0.8 * spin, shades[RED])
    _digits(canvas, int(car.total + car.owed), shades[WHITE])


@compiled
def _upright(canvas: Bytes, place: int, value: float, shade: int) -> None:
    if abs(value) > 1e-6:
        base, tip = WINDOW_H - U, WINDOW_H - U - U * value
        _box(canvas, place * S, min(base, tip), (place + 1) * S, max(base, tip), shade)


@compiled
def _level(canvas: Bytes, place: int, value: float, shade: int) -> None:
    if abs(value) > 1e-4:
        base, tip = place * S, (place + value) * S
        _box(canvas, min(base, tip), WINDOW_H - 4 * U, max(base, tip), WINDOW_H - 2 * U, shade)


@compiled
def _box(canvas: Bytes, west: float, north: float, east: float, south: float, shade: int) -> None:
    """A box of the window, in its pixels; the last ones included, as pygame does."""
    height, width = canvas.shape
    sx, sy = width / WINDOW_W, height / WINDOW_H
    for r in range(max(math.ceil(north * sy - 0.5), 0), min(math.ceil((south + 1) * sy - 0.5), height)):
        for x in range(max(math.ceil(west * sx - 0.5), 0), min(math.ceil((east + 1) * sx - 0.5), width)):
            canvas[r, x] = shade


@compiled
def _digits(canvas: Bytes, number: int, shade: int) -> None:
    """A whole number with at least four places (the sign is one), centred on TEXT_X."""
    height, width = canvas.shape
    sx, sy = width / WINDOW_W, height / WINDOW_H
    size = abs(number)
    places = 1
    while 10**places <= size:
        places += 1
    places = max(places, 3 if number < 0 else 4)
    at = TEXT_X - 0.5 * (places * ADVANCE + (MINUS_ADVANCE if number < 0 else 0.0))
    for k in range(-1 if number < 0 else 0, places):
        glyph = 10 if k < 0 else size // 10 ** (places - 1 - k) % 10
        for r in range(int(TEXT_Y * sy), math.ceil((TEXT_Y + GLYPH_H) * sy)):
            for x in range(max(int(at * sx), 0), math.ceil((at + GLYPH_W) * sx)):
                covered = 0  # of 3 x 3 points of the sample: strokes are thinner than samples are apart
                for part in range(9):
                    down = ((r + (part // 3 + 0.5) / 3) / sy - TEXT_Y) / GLYPH_H
                    along = ((x + (part % 3 + 0.5) / 3) / sx - at) / GLYPH_W
                    if 0 <= down < 1 and 0 <= along < 1:
                        covered += GLYPHS[glyph, int(down * 7)] >> (4 - int(along * 5)) & 1
                if covered:
                    canvas[r, x] = shade * min(covered, 7) // 7  # the font is bold
        at += MINUS_ADVANCE if k < 0 else ADVANCE
