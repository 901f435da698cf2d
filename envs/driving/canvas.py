"""A 1000 x 800 picture that is kept as 96 x 96 cells, and its reduction to 96 x 96 pixels, bit for bit.

The observation is the large picture reduced by `pygame.transform.smoothscale`, first along rows and then along
columns. Along an axis of n pixels and m cells, with unit = 2^14 (pygame's SSE2 and NEON code) or 2^16 (its generic
code), space = unit n // m and reciprocal = 2^16 unit // space, a cell is

    (sum of its whole pixels + first first_weight // unit + last last_weight // unit) reciprocal // 2^16

where neighbouring cells share one pixel, whose weights add up to unit, and the first cell's first pixel is whole.

Nine tenths of the picture are cells of one colour. So a cell is a colour (`tags`) until an edge passes through it;
then its pixels are kept (`pool`), those that it shares with its neighbours in each of them. Cells of one colour are
reduced by a table. Pixels are 0xRRGGBB; rows count from the top of the picture.

The functions take plain arrays, not a tuple of them: reference counts would cost more than the drawing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

WIDTH, HEIGHT = 1000, 800  # of the picture
CELLS = 96  # cells, and pixels of the observation, along either axis
MIXED = np.uint32(0xFFFFFFFF)  # tag of a cell that has several colours
ACROSS, DOWN = 12, 10  # most pixels of a cell (1000 / 96 and 800 / 96, cut at both ends)
STRIDE = 16  # places of one pixel column of a cell in the pool: DOWN, rounded up to a vector
CELL, PLACE, SHARED = (
    0,
    1,
    2,
)  # rows of `pixels`: a pixel's first cell, its place in it, whether the next has it too
START, COUNT, FIRST, LAST = (
    0,
    1,
    2,
    3,
)  # rows of `cells`: first pixel, pixels, weights of the first and the last
X, Y = 0, 1
LOW = np.uint32(0xFF00FF)
BYTE = np.uint32(0xFF)
C8, C16 = np.uint32(8), np.uint32(16)


class Canvas(NamedTuple):
    """What is drawn on, and its reusable memory."""

    tags: Array  # [CELLS (down), CELLS (across)] uint32, 0xRRGGBB or MIXED
    pool: Array  # [CELLS, CELLS, ACROSS * STRIDE] uint32, pixels of mixed cells, column by column
    spans: Array  # [HEIGHT, 4] int64, (first, last) twice: what a polygon covers of each row
    meets: Array  # [HEIGHT, 8] int64, where its edges meet the rows
    pixels: Array  # [2, 3, WIDTH] int64, of both axes
    cells: Array  # [2, 4, CELLS] int64, of both axes
    table: Array  # [2, CELLS, 256] uint8, what the reduction along an axis makes of a cell of one value
    sums: Array  # [3, STRIDE] uint32
    shift: int  # log2 of the unit


def axis(pixels: int, shift: int) -> tuple[Array, Array, Array]:
    """(pixels, cells, table) of one axis; shift: log2 of the unit."""
    unit = 1 << shift
    space = unit * pixels // CELLS
    owner = np.zeros((3, WIDTH), np.int64)
    cells = np.zeros((4, CELLS), np.int64)
    table = np.empty((CELLS, 256), np.uint8)
    value = np.arange(256)
    at, carry = 0, unit  # the pixel that opens the cell and its weight in it
    for cell in range(CELLS):
        left = space - carry  # covered by what follows the first pixel
        whole = -(-left // unit) - 1  # at least a sliver is left for the last pixel
        last = left - whole * unit
        cells[:, cell] = at, whole + 2, carry, last
        new = np.arange(1 if cell else 0, whole + 2)  # the first pixel was the last cell's
        owner[CELL, at + new], owner[PLACE, at + new] = cell, new
        owner[SHARED, at] = cell > 0
        ends = (value * carry >> shift) + (value * last >> shift)
        table[cell] = (ends + whole * value) * ((unit << 16) // space) >> 16
        at, carry = at + whole + 1, unit - last
    return owner, cells, table


def make_canvas(shift: int) -> Canvas:
    """A canvas; shift: 14 or 16, the fixed-point precision of the reduction."""
    pixels, cells, table = (
        np.stack(pair) for pair in zip(axis(WIDTH, shift), axis(HEIGHT, shift), strict=True)
    )
    most = cells[:, COUNT].max(axis=1)
    assert most[X] <= ACROSS and most[Y] <= DOWN, "a cell exceeds its place in the pool"
    return Canvas(
        tags=np.zeros((CELLS, CELLS), np.uint32),
        pool=np.zeros((CELLS, CELLS, ACROSS * STRIDE), np.uint32),
        spans=np.zeros((HEIGHT, 4), np.int64),
        meets=np.zeros((HEIGHT, 8), np.int64),
        pixels=pixels,
        cells=cells,
        table=table,
        sums=np.zeros((3, STRIDE), np.uint32),
        shift=shift,
    )


@njit(nogil=True)
def open_cell(tags: Array, pool: Array, down: int, across: int) -> None:
    """Let a cell have several colours."""
    tag = tags[down, across]
    if tag != MIXED:
        for i in range(ACROSS * STRIDE):
            pool[down, across, i] = tag
        tags[down, across] = MIXED


@njit(nogil=True)
def blend(tags: Array, pool: Array, pixels: Array, x: int, row: int, color: np.uint32, alpha: int) -> None:
    """Mix `color` into a pixel of the picture: d + ((color - d) alpha >> 8) per channel; alpha 255 replaces it."""
    across, down = pixels[X, CELL, x], pixels[Y, CELL, row]
    column, line = pixels[X, PLACE, x], pixels[Y, PLACE, row]
    blend_cell(tags, pool, down, across, column * STRIDE + line, color, alpha)
    if pixels[X, SHARED, x]:
        blend_cell(tags, pool, down, across + 1, line, color, alpha)
    if pixels[Y, SHARED, row]:
        blend_cell(tags, pool, down + 1, across, column * STRIDE, color, alpha)
        if pixels[X, SHARED, x]:
            blend_cell(tags, pool, down + 1, across + 1, 0, color, alpha)


@njit(nogil=True)
def blend_cell(
    tags: Array, pool: Array, down: int, across: int, at: int, color: np.uint32, alpha: int
) -> None:
    """`blend` in one of the cells that the pixel belongs to; at: its place there."""
    tag = tags[down, across]
    before = tag if tag != MIXED else pool[down, across, at]
    after = color
    if alpha != 255:
        share = np.uint32(alpha)
        rest = np.uint32(256) - share
        low = (((before & LOW) * rest + (color & LOW) * share) >> C8) & LOW
        green = (((before >> C8) & BYTE) * rest + ((color >> C8) & BYTE) * share) >> C8
        after = low | (green << C8)
    if after != before:
        if tag != MIXED:
            open_cell(tags, pool, down, across)
        pool[down, across, at] = after


@njit(nogil=True)
def fill_spans(
    tags: Array,
    pool: Array,
    pixels: Array,
    cells: Array,
    spans: Array,
    top: int,
    bottom: int,
    pair: int,
    color: np.uint32,
) -> None:
    """Fill rows top..bottom with `color`, each from spans[row, pair] to spans[row, pair + 1] (inclusive, clipped)."""
    for down in range(pixels[Y, CELL, top], CELLS):
        start = cells[Y, START, down]
        if start > bottom:
            break
        stop = start + cells[Y, COUNT, down] - 1
        first, last = max(top, start), min(bottom, stop)
        # [outer_left, outer_right] is touched by some row, [left, right] is covered in all of them.
        outer_left, left, right, outer_right = WIDTH, 0, WIDTH - 1, -1
        for row in range(first, last + 1):
            a, b = max(spans[row, pair], 0), min(spans[row, pair + 1], WIDTH - 1)
            left, right = max(left, a), min(right, b)
            if a <= b:
                outer_left, outer_right = min(outer_left, a), max(outer_right, b)
        if outer_left > outer_right:
            continue
        whole = first == start and last == stop
        for across in range(pixels[X, CELL, outer_left], CELLS):
            begin = cells[X, START, across]
            if begin > outer_right:
                break
            if tags[down, across] == color:
                continue
            end = begin + cells[X, COUNT, across] - 1
            if left <= begin and end <= right:
                if whole:
                    tags[down, across] = color
                    continue
                open_cell(tags, pool, down, across)
                for px in range(end - begin + 1):
                    for line in range(first - start, last - start + 1):
                        pool[down, across, px * STRIDE + line] = color
                continue
            open_cell(tags, pool, down, across)
            for row in range(first, last + 1):
                a, b = max(spans[row, pair], begin) - begin, min(spans[row, pair + 1], end) - begin
                for px in range(a, b + 1):
                    pool[down, across, px * STRIDE + row - start] = color


@njit(nogil=True)
def reduce(
    tags: Array,
    pool: Array,
    cells: Array,
    table: Array,
    sums: Array,
    shift: int,
    out: Array,
) -> None:
    """The picture's reduction into out [CELLS, CELLS, 3] uint8."""
    s = np.uint32(shift)
    recip_x = np.uint32((1 << (shift + 16)) // ((WIDTH << shift) // CELLS))
    recip_y = np.uint32((1 << (shift + 16)) // ((HEIGHT << shift) // CELLS))
    for down in range(CELLS):
        end, first_y, last_y = (
            cells[Y, COUNT, down] - 1,
            np.uint32(cells[Y, FIRST, down]),
            np.uint32(cells[Y, LAST, down]),
        )
        for across in range(CELLS):
            tag = tags[down, across]
            if tag != MIXED:
                out[down, across, 0] = table[Y, down, table[X, across, tag >> C16]]
                out[down, across, 1] = table[Y, down, table[X, across, (tag >> C8) & BYTE]]
                out[down, across, 2] = table[Y, down, table[X, across, tag & BYTE]]
                continue
            reduce_rows(pool, down, across, cells, s, recip_x, sums)
            for channel in range(3):
                total = ((sums[channel, 0] * first_y) >> s) + ((sums[channel, end] * last_y) >> s)
                for row in range(1, end):
                    total += sums[channel, row]
                out[down, across, channel] = (total * recip_y) >> C16


@njit(nogil=True)
def reduce_rows(
    pool: Array, down: int, across: int, cells: Array, shift: np.uint32, reciprocal: np.uint32, sums: Array
) -> None:
    """Reduce the rows of a mixed cell, all at once, to sums [3 channels, rows]."""
    final = (cells[X, COUNT, across] - 1) * STRIDE
    first, last = np.uint32(cells[X, FIRST, across]), np.uint32(cells[X, LAST, across])
    for i in range(STRIDE):
        sums[0, i] = 0
        sums[1, i] = 0
    for at in range(STRIDE, final, STRIDE):
        for i in range(STRIDE):
            p = pool[down, across, at + i]
            sums[0, i] += p & LOW  # red and blue in one number: twelve times 255 fits into 16 bits
            sums[1, i] += (p >> C8) & BYTE
    for i in range(STRIDE):
        p, q = pool[down, across, i], pool[down, across, final + i]
        low, green = sums[0, i], sums[1, i]
        red = (
            (low >> C16) + ((((p >> C16) & BYTE) * first) >> shift) + ((((q >> C16) & BYTE) * last) >> shift)
        )
        blue = (low & np.uint32(0xFFFF)) + (((p & BYTE) * first) >> shift) + (((q & BYTE) * last) >> shift)
        green += ((((p >> C8) & BYTE) * first) >> shift) + ((((q >> C8) & BYTE) * last) >> shift)
        sums[0, i] = (red * reciprocal) >> C16
        sums[1, i] = (green * reciprocal) >> C16
        sums[2, i] = (blue * reciprocal) >> C16
