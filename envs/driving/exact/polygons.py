"""Polygons as pygame draws them, on a canvas of cells.

Two libraries draw CarRacing: SDL_gfx (through pygame.gfxdraw) the road and the field, with smoothed edges, and
pygame.draw the car and the indicators. Both take integer points. The rules, in the picture's coordinates (x, y):

* gfx fill. An edge from (x1, y1) to (x2, y2), y1 < y2, meets row y if y1 <= y < y2, and on the polygon's lowest row
  also if y = y2, at X = (65536 (y - y1) // (y2 - y1)) (x2 - x1) + 65536 x1. The X of a row are sorted and taken in
  pairs (A, B); pixels round(A + 1) .. round(B - 1) are filled, round(X) = (X >> 16) + bit 15 of X.
* gfx smoothed edge (Wu's line). An edge is first clipped to the picture (Cohen and Sutherland, slopes as float32,
  displacements truncated). Its first point (the clipped one, if its second is inside) is drawn opaque. Horizontal and
  vertical edges are opaque. Others go along their longer axis, n steps for a width of m on the other one, from the
  point with the smaller y: after i steps the position on the other axis is e = i ((65536 m // n) 65536), whole part
  e >> 32, weight w = (e >> 24) & 255; the pixel there is mixed in with 255 - w and the next one with w, of 256.
  Mixing with weight w uses alpha = 255 w >> 8.
* draw fill. Edges meet rows in the same way, at (y - y1) (x2 - x1) / (y2 - y1) + x1, rounded down for every first
  and up for every second edge met (in the order of the edges, the one that ends at point 0 first), then sorted and
  paired, both ends included. An edge that is one row high and neither on the first nor on the last row is drawn as
  a line. A polygon that is one row high is a line from its smallest to its largest x.

Smoothed edges are drawn before the fill of the same polygon and colour, so pixels that the fill will cover are left
out. Source: the behaviour of pygame-ce 2.5 on random polygons; Wu, "An efficient antialiasing technique",
SIGGRAPH 1991.
"""

from __future__ import annotations

import numpy as np

from rlkit.envs.driving.exact.canvas import HEIGHT, WIDTH, blend, fill_spans, kernel
from rlkit.spaces import Array

OPAQUE = 255


@kernel
def gfx_polygon(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    meets: Array,
    px: Array,
    py: Array,
    color: np.uint32,
    lowest: int,
) -> None:
    """Smoothed edges and fill. px, py: [n] int64 points, y counting upwards (row = HEIGHT - 1 - y).

    Nothing is drawn below y = lowest.
    """
    n = len(px)
    (low, high), (left, right) = extent(py, n), extent(px, n)
    if low >= HEIGHT or high < lowest - 1 or right < -1 or left > WIDTH:
        return
    bottom, top = max(low, lowest), min(high, HEIGHT - 1)
    pairs = gfx_spans(spans, meets, px, py, bottom, top, high)
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        gfx_edge(
            tags, pool, free, pixels, spans, px[i], py[i], px[j], py[j], color, lowest, bottom, top, pairs
        )
    if bottom <= top:
        for pair in range(pairs):
            fill_spans(
                tags, pool, free, pixels, cells, spans, HEIGHT - 1 - top, HEIGHT - 1 - bottom, 2 * pair, color
            )


@kernel
def extent(values: Array, count: int) -> tuple[int, int]:
    """(smallest, largest) of the first `count` values."""
    low = high = values[0]
    for i in range(1, count):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


@kernel
def gfx_spans(spans: Array, meets: Array, px: Array, py: Array, bottom: int, top: int, high: int) -> int:
    """Write what the fill of a quadrilateral covers of rows bottom..top; returns spans per row (1 or 2).

    meets: work space.
    """
    n = len(px)
    for y in range(bottom, top + 1):
        row = HEIGHT - 1 - y
        spans[row, 0] = spans[row, 2] = WIDTH + 2
        spans[row, 1] = spans[row, 3] = -3
        meets[y, 0] = 0
    for i in range(n):
        j = i - 1 if i else n - 1
        x1, y1, x2, y2 = px[j], py[j], px[i], py[i]
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        if y1 == y2:
            continue
        end = y2 if y2 == high else y2 - 1
        start = max(y1, bottom)
        size = y2 - y1
        # quotient = 65536 (y - y1) // size, carried from row to row with its remainder
        step, step_rest = 65536 // size, 65536 % size
        quotient, rest = 65536 * (start - y1) // size, 65536 * (start - y1) % size
        for y in range(start, min(end, top) + 1):
            meets[y, 0] += 1
            meets[y, meets[y, 0]] = quotient * (x2 - x1) + 65536 * x1
            quotient += step
            rest += step_rest
            if rest >= size:
                rest -= size
                quotient += 1
    pairs = 1
    for y in range(bottom, top + 1):
        row = HEIGHT - 1 - y
        if meets[y, 0] == 2:
            write_span(spans, row, 0, min(meets[y, 1], meets[y, 2]), max(meets[y, 1], meets[y, 2]))
        elif meets[y, 0] == 4:
            found = meets[y, 1:5]
            sort(found, 4)
            write_span(spans, row, 0, found[0], found[1])
            write_span(spans, row, 2, found[2], found[3])
            pairs = 2
    return pairs


@kernel
def sort(values: Array, count: int) -> None:
    """Sort the first few of some values, by insertion."""
    for i in range(1, count):
        k = i
        while k and values[k - 1] > values[k]:
            values[k - 1], values[k] = values[k], values[k - 1]
            k -= 1


@kernel
def write_span(spans: Array, row: int, at: int, left: int, right: int) -> None:
    """Round two meetings of edges and a row (16 bits of fraction) to the pixels between them."""
    a, b = left + 1, right - 1
    a, b = (a >> 16) + ((a >> 15) & 1), (b >> 16) + ((b >> 15) & 1)
    spans[row, at], spans[row, at + 1] = min(a, b), max(a, b)


@kernel
def side(x: int, y: int) -> int:
    """On which sides of the picture a point lies: 1 left, 2 right, 4 above its last row, 8 below its first."""
    code = 0
    if x < 0:
        code = 1
    elif x >= WIDTH:
        code = 2
    if y >= HEIGHT:
        code += 4
    elif y < 0:
        code += 8
    return code


@kernel
def clip(x1: int, y1: int, x2: int, y2: int) -> tuple[bool, int, int, int, int]:
    """(visible, clipped end points) of an edge."""
    while True:
        a, b = side(x1, y1), side(x2, y2)
        if a == 0 and b == 0:
            return True, x1, y1, x2, y2
        if a & b:
            return False, x1, y1, x2, y2
        if a == 0:
            x1, y1, x2, y2, a = x2, y2, x1, y1, b
        slope = np.float32(y2 - y1) / np.float32(x2 - x1) if x1 != x2 else np.float32(1)
        if a & 3:
            edge = 0 if a & 1 else WIDTH - 1
            y1 += int(np.float32(edge - x1) * slope)
            x1 = edge
        else:
            edge = HEIGHT - 1 if a & 4 else 0
            if x1 != x2:
                x1 += int(np.float32(edge - y1) / slope)
            y1 = edge


@kernel
def gfx_edge(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    spans: Array,
    x1: int,
    y1: int,
    x2: int,
    y2: int,
    color: np.uint32,
    lowest: int,
    bottom: int,
    top: int,
    pairs: int,
) -> None:
    """A smoothed edge, without the pixels that the polygon's fill (rows bottom..top of spans) covers."""
    visible, x1, y1, x2, y2 = clip(x1, y1, x2, y2)
    if not visible or max(y1, y2) < lowest - 1:
        return
    dot(tags, pool, free, pixels, spans, x1, y1, color, OPAQUE, lowest, bottom, top, pairs)
    if y1 > y2:
        x1, y1, x2, y2 = x2, y2, x1, y1
    wide, high = abs(x2 - x1), y2 - y1
    step = 1 if x2 >= x1 else -1
    steep, straight = high > wide, wide == 0 or high == 0
    long, short = (high, wide) if steep else (wide, high)
    slope = 0 if straight else ((short << 16) // long) << 16
    # A straight edge is drawn whole, others without their ends.
    for i in range(max(0 if straight else 1, lowest - y1 if steep else 0), long + 1 if straight else long):
        error = i * slope
        weight = (error >> 24) & 255
        for side_of in range(1 if straight else 2):
            along = (error >> 32) + side_of
            x, y = (x1 + step * along, y1 + i) if steep else (x1 + step * i, y1 + along)
            alpha = OPAQUE if straight else (255 * (weight if side_of else 255 - weight)) >> 8
            dot(tags, pool, free, pixels, spans, x, y, color, alpha, lowest, bottom, top, pairs)


@kernel
def dot(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    spans: Array,
    x: int,
    y: int,
    color: np.uint32,
    alpha: int,
    lowest: int,
    bottom: int,
    top: int,
    pairs: int,
) -> None:
    """Mix a pixel in, unless it is invisible or the fill will cover it."""
    if alpha == 0 or x < 0 or x >= WIDTH or y < lowest or y >= HEIGHT:
        return
    row = HEIGHT - 1 - y
    if bottom <= y <= top and spans[row, 0] <= x <= spans[row, 1]:
        return
    if pairs == 2 and bottom <= y <= top and spans[row, 2] <= x <= spans[row, 3]:
        return
    blend(tags, pool, free, pixels, x, row, color, alpha)


@kernel
def draw_polygon(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    points: Array,
    n: int,
    color: np.uint32,
    flipped: bool,
    limit: int,
) -> None:
    """pygame.draw's filled polygon, of the canvas's rows before `limit`.

    points: [3, 8] int64, x and y of n points and work space; flipped: y counts upwards (row = HEIGHT - 1 - y).
    """
    px, py, found = points[0, :n], points[1, :n], points[2]
    low, high = extent(py, n)
    for y in range(max(low, 0), min(high, HEIGHT - 1) + 1):
        row = HEIGHT - 1 - y if flipped else y
        if row >= limit:
            continue
        count = 0
        spans[row, 0], spans[row, 1] = 1, 0
        for i in range(n):
            j = i - 1 if i else n - 1
            x1, y1, x2, y2 = px[j], py[j], px[i], py[i]
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            if y1 < y2 and (y1 <= y < y2 or (y == high and y2 == high)):
                product = (y - y1) * (x2 - x1)
                found[count] = x1 + (-(-product // (y2 - y1)) if count & 1 else product // (y2 - y1))
                count += 1
        if low == high:
            found[0], found[1] = extent(px, n)
            count = 2
        sort(found, count)
        if count:
            spans[row, 0], spans[row, 1] = found[0], found[1]
        for k in range(2, count + n):
            i = k - count
            j = i - 1 if i > 0 else n - 1
            left, right = 1, 0
            if k < count and k % 2 == 0:  # a second stretch of a crossed polygon
                left, right = found[k], found[k + 1]
            elif k >= count and low < y < high and py[i] == y and py[j] == y:
                left, right = min(px[i], px[j]), max(px[i], px[j])
            if left <= right:
                line(tags, pool, free, pixels, cells, spans, row, left, right, color)
    first, last = max(low, 0), min(high, HEIGHT - 1)
    if flipped:
        first, last = HEIGHT - 1 - last, HEIGHT - 1 - first
    last = min(last, limit - 1)
    if first <= last:
        fill_spans(tags, pool, free, pixels, cells, spans, first, last, 0, color)


@kernel
def line(
    tags: Array,
    pool: Array,
    free: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    row: int,
    left: int,
    right: int,
    color: np.uint32,
) -> None:
    """Fill one row from left to right, both included."""
    spans[row, 2], spans[row, 3] = left, right
    fill_spans(tags, pool, free, pixels, cells, spans, row, row, 2, color)
