"""The kernels of linear layers and of the optimiser: products of matrices, and a step of Adam with clipping."""

from __future__ import annotations

import math

import numba
import numpy as np

from rlkit.engine.memory import Kernel, floats, jit, peek, place, pointer, stride
from rlkit.engine.scalars import ONE, ZERO, F
from rlkit.engine.tile import WIDTH, product, turn

FEW = 2  # rows or columns, of which each number is a product of two vectors


def matrix(salt: int) -> Kernel:
    """out [n0, n1] = a [n0, n2] b [n2, n1] + c; operand strides: (row, column). Word 29: room for turned matrices."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a = place(row, bases, 0), place(row, bases, 1)
        b, c = place(row, bases, 2), place(row, bases, 3)
        m, n, k = peek(row, 1), peek(row, 2), peek(row, 3)
        room = peek(bases, 0) + peek(row, 29)
        ar, ac, br, bc = stride(row, 1, 0), stride(row, 1, 1), stride(row, 2, 0), stride(row, 2, 1)
        ldo, ldc = stride(row, 0, 0), stride(row, 3, 0)
        if (m <= FEW or n <= FEW) and ac == 1 and (br == 1 or k == 1):
            dots(o, ldo, a, ar, b, bc, c, ldc, m, n, k)
            return
        target, add = o, c
        across = n < WIDTH <= m and ar == 1
        if across:
            # few columns leave most of a vector empty: C^T = B^T A^T has few rows instead
            start = floats(room, m)
            for i in range(m):
                start[i] = ZERO
            a, ar, ac, b, br, c, ldc, o, ldo, m, n = b, bc, br, a, ac, room, 0, room + 4 * m, m, n, m
        elif bc != 1 and n > 1:
            turned(b, br, bc, room, n, k)
            b, br = room, n
        product(a, ar, ac, b, br, c, ldc, o, ldo, m, n, k)
        if across:
            ldo, ldc = stride(row, 0, 0), stride(row, 3, 0)
            out, whole = floats(target, n * ldo), floats(o, m * n)
            for i in range(n):
                more = floats(add + 4 * i * ldc, m)
                for j in range(m):
                    out[i * ldo + j] = whole[j * n + i] + more[j]

    return kernel


@jit
def dots(
    o: int, ldo: int, a: int, lda: int, b: int, ldb: int, c: int, ldc: int, m: int, n: int, k: int
) -> None:
    """out [i, j] = a [i, :] . b [:, j] + c, where the numbers of a row of a and of a column of b are neighbours."""
    for i in range(m):
        out, x, add = floats(o + 4 * i * ldo, n), floats(a + 4 * i * lda, k), floats(c + 4 * i * ldc, n)
        for j in range(n):
            y, sum_ = floats(b + 4 * j * ldb, k), ZERO
            for l in range(k):
                sum_ += x[l] * y[l]
            out[j] = sum_ + add[j]


@jit
def turned(source: int, step: int, ld: int, target: int, rows: int, columns: int) -> None:
    """target [columns, rows] = source [rows, columns], whose rows are `ld` and columns `step` numbers apart."""
    x, y = floats(source, rows * ld), floats(target, rows * columns)
    whole = rows // WIDTH * WIDTH if step == 1 else 0
    across = columns // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        for j in range(0, across, WIDTH):
            turn(source + 4 * (i * ld + j), ld, target + 4 * (j * rows + i), rows)
    for i in range(rows):
        for j in range(across if i < whole else 0, columns):
            y[j * rows + i] = x[i * ld + j * step]


def descend(salt: int) -> Kernel:
    """Clip the gradient a and make a step of Adam or AdamW on out: b and c are the moments, n3 numbers each.

    Word 29: the address of the settings (see layout.Descent); word 30: that of the count of steps; word 31: the part of
    memory that gets |a|.
    """

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        n = peek(row, 4)
        x, g = floats(place(row, bases, 0), n), floats(place(row, bases, 1), n)
        mean, square = floats(place(row, bases, 2), n), floats(place(row, bases, 3), n)
        settings = numba.carray(pointer(peek(row, 29)), (7,), np.float64)
        lr, beta1, beta2, eps, decay, apart, limit = settings
        count = floats(peek(row, 30), 1)
        sum_ = ZERO
        for i in range(n):
            sum_ += g[i] * g[i]
        norm = np.sqrt(sum_)
        floats(peek(bases, peek(row, 31)), 1)[0] = norm
        # g / max(1, |g| / limit)
        scale = ONE
        if limit > 0:
            over = (norm + F(1e-6)) / F(limit)
            scale = ONE if over < ONE else ONE / over
        count[0] += ONE
        step = F(lr / (1 - math.pow(beta1, count[0])))
        root = F(1 / math.sqrt(1 - math.pow(beta2, count[0])))
        b1, b2, rest1, rest2 = F(beta1), F(beta2), F(1 - beta1), F(1 - beta2)
        shrink = F(1 - lr * decay) if apart else ONE
        pull, small = ZERO if apart else F(decay), F(eps)
        for i in range(n):
            each = g[i] * scale + pull * x[i]
            mean[i] = b1 * mean[i] + rest1 * each
            square[i] = b2 * square[i] + rest2 * each * each
            x[i] = x[i] * shrink - step * mean[i] / (np.sqrt(square[i]) * root + small)

    return kernel
