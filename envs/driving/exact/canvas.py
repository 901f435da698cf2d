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

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

from rlkit.jit import general
from rlkit.spaces import Array

F = TypeVar("F", bound=Callable[..., Any])

WIDTH, HEIGHT = 1000, 800  # of the picture
CELLS = 96  # cells, and pixels of the observation, along either axis
MIXED = np.uint32(0x80000000)  # tag of a cell that has several colours, plus where its pixels are in the pool
ACROSS, DOWN = 12, 10  # most pixels of a cell (1000 / 96 and 800 / 96, cut at both ends)
STRIDE = DOWN  # places of one pixel column of a cell in the pool
LANES = 16  # rows that are reduced at once: a vector; those after the last hold nothing
PLACES = (ACROSS - 1) * STRIDE + LANES + 2  # of a cell in the pool, in whole cache lines
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


def kernel(function: F) -> F:
    """`function` as machine code that allocates no arrays, lets other threads run and counts no references."""
    njit: Any = numba.njit
    made: F = general(njit(nogil=True, _nrt=False)(function))
    return made


class Canvas(NamedTuple):
    """What is drawn on, and its reusable memory."""

    tags: Array  # [CELLS (down), CELLS (across)] uint32, 0xRRGGBB or MIXED + slot
    pool: Array  # [slots, PLACES] uint32, pixels of mixed cells, column by column
    free: Array  # [2 + slots] int64: slots used so far, how many of them are free again, and which
    spans: Array  # [HEIGHT, 4] int64, (first, last) twice: what a polygon covers of each row
    meets: Array  # [HEIGHT, 8] int64, where its edges meet the rows
    pixels: Array  # [2, 3, WIDTH] int64, of both axes
    cells: Array  # [2, 4, CELLS] int64, of both axes
    table: Array  # [2, CELLS, 256] uint8, what the reduction along an axis makes of a cell of one value
    sums: Array  # [3, LANES] uint32
    points: Array  # [3, 8] int64, work space of one polygon
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
    least, most = cells[:, COUNT].min(axis=1), cells[:, COUNT].max(axis=1)
    assert least[X] == ACROSS - 1 and most[X] == ACROSS and most[Y] == DOWN, "cells of another size"
    return Canvas(
        tags=np.zeros((CELLS, CELLS), np.uint32),
        pool=np.zeros((CELLS * CELLS, PLACES), np.uint32),
        free=np.zeros(2 + CELLS * CELLS, np.int64),
        spans=np.zeros((HEIGHT, 4), np.int64),
        meets=np.zeros((HEIGHT, 8), np.int64),
        pixels=pixels,
        cells=cells,
        table=table,
        sums=np.zeros((3, LANES), np.uint32),
        points=np.zeros((3, 8), np.int64),
        shift=shift,
    )


def reduce_axis(values: Array, cells: Array, size: int, shift: int) -> Array:
    """The reduction of values [pixels, ...] along their first axis to the given cells [4, n], an axis of `size` pixels.

    Slow; for what is kept.
    """
    start, count, first, last = cells
    end = start + count - 1
    first, last = (weight.reshape(-1, *[1] * (values.ndim - 1)) for weight in (first, last))
    prefix = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    total = prefix[end] - prefix[start + 1] + (values[start] * first >> shift) + (values[end] * last >> shift)
    reduced: Array = total * ((1 << (shift + 16)) // ((size << shift) // CELLS)) >> 16
    return reduced


@kernel
def clear(tags: Array, free: Array) -> None:
    """Make the canvas black."""
    tags[:] = np.uint32(0)
    free[0] = free[1] = 0


@kernel
def open_cell(tags: Array, pool: Array, free: Array, down: int, across: int) -> int:
    """Let a cell have several colours; returns its slot in the pool."""
    tag = tags[down, across]
    if tag & MIXED:
        return np.int64(tag ^ MIXED)  # type: ignore[return-value]
    if free[1]:  # the slot that was freed last is still in the cache
        slot = free[1 + free[1]]
        free[1] -= 1
    else:
        slot = free[0]
        free[0] += 1
    for i in range(ACROSS * STRIDE):
        pool[slot, i] = tag
    tags[down, across] = MIXED | np.uint32(slot)
    return slot  # type: ignore[no-any-return]


@kernel
def close_cell(tags: Array, free: Array, down: int, across: int, color: np.uint32) -> None:
    """Give a cell one colour."""
    tag = tags[down, across]
    if tag & MIXED:
        free[1] += 1
        free[1 + free[1]] = np.int64(tag ^ MIXED)
    tags[down, across] = color


@kernel
def blend(
    tags: Array, pool: Array, free: Array, pixels: Array, x: int, row: int, color: np.uint32, alpha: int
) -> None:
    """Mix `color` into a pixel of the picture: d + ((color - d) alpha >> 8) per channel; alpha 255 replaces it."""
    across, down = pixels[X, CELL, x], pixels[Y, CELL, row]
    column, line = pixels[X, PLACE, x], pixels[Y, PLACE, row]
    for below in range(pixels[Y, SHARED, row] + 1):
        for right in range(pixels[X, SHARED, x] + 1):
            at = (0 if right else column) * STRIDE + (0 if below else line)
            blend_cell(tags, pool, free, down + below, across + right, at, color, alpha)


@kernel
def blend_cell(
    tags: Array, pool: Array, free: Array, down: int, across: int, at: int, color: np.uint32, alpha: int
) -> None:
    """`blend` in one of the cells that the pixel belongs to; at: its place there."""
    tag = tags[down, across]
    before = pool[tag ^ MIXED, at] if tag & MIXED else tag
    after = color
    if alpha != 255:
        share = np.uint32(alpha)
        rest = np.uint32(256) - share
        low = (((before & LOW) * rest + (color & LOW) * share) >> C8) & LOW
        green = (((before >> C8) & BYTE) * rest + ((color >> C8) & BYTE) * share) >> C8
        after = low | (green << C8)
    if after != before:
        pool[open_cell(tags, pool, free, down, across), at] = after


@kernel
def fill_spans(
    tags: Array, pool: Array, free: Array, pixels: Array, cells: Array, spans: Array,
    top: int, bottom: int, pair: int, color: np.uint32,
) -> None:  # fmt: skip
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
        across, stop_at = pixels[X, CELL, outer_left], pixels[X, CELL, outer_right] + 1
        if stop_at < CELLS and cells[X, START, stop_at] == outer_right:
            stop_at += 1
        inner, inner_stop = stop_at, stop_at  # cells that lie in [left, right]
        if first == start and last == stop and left <= right:
            inner = pixels[X, CELL, left] + (pixels[X, PLACE, left] > 0)
            inner_stop = pixels[X, CELL, right]
            if pixels[X, PLACE, right] == cells[X, COUNT, inner_stop] - 1:
                inner_stop += 1
        if inner < inner_stop:
            fill_cells(
                tags, pool, free, cells, spans, down, across, inner, first, last, left, right, pair, color
            )
            for i in range(inner, inner_stop):
                close_cell(tags, free, down, i, color)
            fill_cells(
                tags,
                pool,
                free,
                cells,
                spans,
                down,
                inner_stop,
                stop_at,
                first,
                last,
                left,
                right,
                pair,
                color,
            )
        else:
            fill_cells(
                tags, pool, free, cells, spans, down, across, stop_at, first, last, left, right, pair, color
            )


@kernel
def fill_cells(
    tags: Array,
    pool: Array,
    free: Array,
    cells: Array,
    spans: Array,
    down: int,
    across: int,
    stop: int,
    first: int,
    last: int,
    left: int,
    right: int,
    pair: int,
    color: np.uint32,
) -> None:
    """Fill the spans of rows first..last, which all cover [left, right], in cells [across, stop) of a row."""
    start = cells[Y, START, down]
    for i in range(across, stop):
        if tags[down, i] == color:
            continue
        cell = pool[open_cell(tags, pool, free, down, i)]
        begin, end = cells[X, START, i], cells[X, COUNT, i] - 1
        if left <= begin and begin + end <= right:
            for px in range(end + 1):
                for line in range(first - start, last - start + 1):
                    cell[px * STRIDE + line] = color
            continue
        for row in range(first, last + 1):
            line = row - start
            for px in range(max(spans[row, pair] - begin, 0), min(spans[row, pair + 1] - begin, end) + 1):
                cell[px * STRIDE + line] = color


@kernel
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
    recip_x = (1 << (shift + 16)) // ((WIDTH << shift) // CELLS)
    recip_y = np.uint32((1 << (shift + 16)) // ((HEIGHT << shift) // CELLS))
    for down in range(CELLS):
        end, first_y, last_y = (
            cells[Y, COUNT, down] - 1,
            np.uint32(cells[Y, FIRST, down]),
            np.uint32(cells[Y, LAST, down]),
        )
        for across in range(CELLS):
            tag = tags[down, across]
            if not tag & MIXED:
                out[down, across, 0] = table[Y, down, table[X, across, tag >> C16]]
                out[down, across, 1] = table[Y, down, table[X, across, (tag >> C8) & BYTE]]
                out[down, across, 2] = table[Y, down, table[X, across, tag & BYTE]]
                continue
            count, left, right = cells[X, COUNT, across], cells[X, FIRST, across], cells[X, LAST, across]
            reduce_rows(pool[tag ^ MIXED], count, left, right, shift, recip_x, sums)
            for channel in range(3):
                sums[channel, 0] = np.uint32(sums[channel, 0] * first_y) >> s
                sums[channel, end] = np.uint32(sums[channel, end] * last_y) >> s
                for row in range(end + 1, DOWN):
                    sums[channel, row] = 0
                total = np.uint32(0)
                for row in range(DOWN):
                    total = np.uint32(total + sums[channel, row])
                out[down, across, channel] = np.uint32(total * recip_y) >> C16


@kernel
def reduce_rows(
    cell: Array, pixels: int, first: int, last: int, shift: int, reciprocal: int, sums: Array
) -> None:
    """Reduce the rows of a mixed cell, all at once, to sums [3 channels, rows]."""
    w0, w1, s, scale = np.uint32(first), np.uint32(last), np.uint32(shift), np.uint32(reciprocal)
    final = (pixels - 1) * STRIDE
    extra = np.uint32(0xFFFFFF if pixels == ACROSS else 0)
    for i in range(LANES):
        # Red and blue are added up in one number: twelve times 255 fits into 16 bits.
        p = cell[(ACROSS - 2) * STRIDE + i] & extra
        low, green = np.uint32(p & LOW), np.uint32((p >> C8) & BYTE)
        for px in range(1, ACROSS - 2):
            p = cell[px * STRIDE + i]
            low = np.uint32(low + (p & LOW))
            green = np.uint32(green + ((p >> C8) & BYTE))
        p, q = cell[i], cell[final + i]
        red = np.uint32((low >> C16) + ends((p >> C16) & BYTE, w0, (q >> C16) & BYTE, w1, s))
        blue = np.uint32((low & np.uint32(0xFFFF)) + ends(p & BYTE, w0, q & BYTE, w1, s))
        green = np.uint32(green + ends((p >> C8) & BYTE, w0, (q >> C8) & BYTE, w1, s))
        sums[0, i] = np.uint32(red * scale) >> C16
        sums[1, i] = np.uint32(green * scale) >> C16
        sums[2, i] = np.uint32(blue * scale) >> C16


@kernel
def ends(p: np.uint32, first: np.uint32, q: np.uint32, last: np.uint32, shift: np.uint32) -> np.uint32:
    """What the two outermost pixels of a cell add to its sum."""
    return np.uint32((np.uint32(p * first) >> shift) + (np.uint32(q * last) >> shift))
