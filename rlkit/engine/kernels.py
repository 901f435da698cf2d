"""What an instruction does: kernels, each a C function of the instruction's address and that of the memory's parts.

An instruction is WORDS integers: the kernel's address, four sizes n, and operands of six words each (the part of memory
that it lies in, the offset there in bytes, and its strides along the four sizes, in numbers). Operand 0 is written, the
others are read. All numbers are float32 in between: truth is 1 or 0, and integers are exact up to 2^24 (`lower` refuses
tables that need more).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numba
import numpy as np
from numba import types

from rlkit.engine.memory import (
    RULES,
    Kernel,
    apply,
    floats,
    get,
    jit,
    peek,
    place,
    pointer,
    put,
    shifted,
    stride,
)
from rlkit.engine.products import descend, matrix
from rlkit.engine.scalars import ARITY, NUMBERS, ONE, ZERO, F, apply1, apply2, apply3, exp, log

WORDS = 32
CHUNK = 256  # numbers
# (addresses of the result and of three operands, how many numbers, their four strides)
Function: TypeAlias = Callable[[int, int, int, int, int, int, int, int, int], None]


def each(salt: int) -> Kernel:
    """A function of numbers (`_map`, word 30) for all [n0, n1, n2, n3]; word 31: how many operands are read.

    An operand that is one number all along n3 is written CHUNK times into the room of word 29, so that the function's
    loop reads vectors.
    """

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a = place(row, bases, 0), place(row, bases, 1)
        b, c = place(row, bases, 2), place(row, bases, 3)
        n, s, t = peek(row, 4), stride(row, 0, 3), stride(row, 1, 3)
        u, v = stride(row, 2, 3), stride(row, 3, 3)
        function, count, room = peek(row, 30), peek(row, 31), peek(bases, 0) + peek(row, 29)
        one, two, three = t == 0 and n > 1, count > 1 and u == 0 and n > 1, count > 2 and v == 0 and n > 1
        piece = min(n, CHUNK) if one or two or three else n
        for i in range(peek(row, 1)):
            for j in range(peek(row, 2)):
                for k in range(peek(row, 3)):
                    x, y = shifted(a, row, 1, i, j, k), shifted(b, row, 2, i, j, k)
                    z, w = shifted(c, row, 3, i, j, k), shifted(o, row, 0, i, j, k)
                    if one:
                        x, t = repeated(x, room, piece), 0
                    if two:
                        y, u = repeated(y, room + 4 * CHUNK, piece), 0
                    if three:
                        z, v = repeated(z, room + 8 * CHUNK, piece), 0
                    for m in range(0, n, piece):
                        apply(
                            function, w + 4 * m * s, x + 4 * m * t, y + 4 * m * u, z + 4 * m * v, min(piece, n - m),
                            s, 1 if one else t, 1 if two else u, 1 if three else v,
                        )  # fmt: skip

    return kernel


@jit
def repeated(source: int, room: int, count: int) -> int:
    """The number at `source` written `count` times into a room, whose address it returns."""
    x, to = floats(source, 1)[0], floats(room, count)
    for m in range(count):
        to[m] = x
    return room


def _map(salt: int, number: int, count: int) -> Function:
    """The function with that number, of `count` numbers: w [m s] = f(x [m t], y [m u], z [m v]) for m < n."""

    def one(w: int, x: int, y: int, z: int, n: int, s: int, t: int, u: int, v: int) -> None:
        if salt == 0:
            return
        for m in range(n):
            put(w, m * s, apply1(number, get(x, m * t)))

    def two(w: int, x: int, y: int, z: int, n: int, s: int, t: int, u: int, v: int) -> None:
        if salt == 0:
            return
        for m in range(n):
            put(w, m * s, apply2(number, get(x, m * t), get(y, m * u)))

    def three(w: int, x: int, y: int, z: int, n: int, s: int, t: int, u: int, v: int) -> None:
        if salt == 0:
            return
        for m in range(n):
            put(w, m * s, apply3(number, get(x, m * t), get(y, m * u), get(z, m * v)))

    return (one, two, three)[count - 1]


def _total(salt: int) -> Kernel:
    """out [n0, n1] = sum over n2 and n3 of a."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a = place(row, bases, 0), place(row, bases, 1)
        rows, n, s, t = peek(row, 2), peek(row, 4), stride(row, 1, 1), stride(row, 1, 3)
        for i in range(peek(row, 1)):
            out = floats(o + 4 * i * stride(row, 0, 0), rows)
            if s == 1 and t != 1:  # columns are summed beside one another
                for j in range(rows):
                    out[j] = ZERO
                for k in range(peek(row, 3)):
                    for m in range(n):
                        x = floats(shifted(a, row, 1, i, 0, k) + 4 * m * t, rows)
                        for j in range(rows):
                            out[j] += x[j]
            else:
                for j in range(rows):
                    sum_ = ZERO
                    for k in range(peek(row, 3)):
                        x = floats(shifted(a, row, 1, i, j, k), n * t)
                        if t == 1:
                            for m in range(n):
                                sum_ += x[m]
                        else:
                            for m in range(n):
                                sum_ += x[m * t]
                    out[j] = sum_

    return kernel


def _best(salt: int, mode: int) -> Kernel:
    """mode 0: the maximum over n2 and n3, 1: the minimum, 2: the number of the first maximum."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a = place(row, bases, 0), place(row, bases, 1)
        n, t = peek(row, 4), stride(row, 1, 3)
        for i in range(peek(row, 1)):
            for j in range(peek(row, 2)):
                out = floats(shifted(o, row, 0, i, j, 0), 1)
                best, at, count = floats(shifted(a, row, 1, i, j, 0), 1)[0], ZERO, ZERO
                for k in range(peek(row, 3)):
                    x = floats(shifted(a, row, 1, i, j, k), n * t)
                    for m in range(n):
                        new = x[m * t]
                        if best == best and (new != new or (new < best if mode == 1 else new > best)):
                            best, at = new, count
                        count += ONE
                out[0] = at if mode == 2 else best

    return kernel


def _along(salt: int, mode: int) -> Kernel:
    """Functions of rows of n3 numbers; 0: log-softmax, 1: softmax, 2, 3: their gradients, 4: sums so far.

    log p = x - max - log sum exp(x - max); its gradient g - p sum g. Softmax's is p (g - sum g p).
    """

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a, b = place(row, bases, 0), place(row, bases, 1), place(row, bases, 2)
        n, s, t, u = peek(row, 4), stride(row, 0, 3), stride(row, 1, 3), stride(row, 2, 3)
        for i in range(peek(row, 1)):
            for j in range(peek(row, 2)):
                for k in range(peek(row, 3)):
                    out = floats(shifted(o, row, 0, i, j, k), n * s)
                    x = floats(shifted(a, row, 1, i, j, k), n * t)
                    sum_ = ZERO
                    if mode < 2:
                        top = x[0]
                        for m in range(n):
                            if x[m * t] > top or x[m * t] != x[m * t]:
                                top = x[m * t]
                        for m in range(n):
                            e = exp(x[m * t] - top)
                            sum_ += e
                            if mode == 1:
                                out[m * s] = e
                        if mode == 0:
                            top += log(sum_)
                            for m in range(n):
                                out[m * s] = x[m * t] - top
                        else:
                            for m in range(n):
                                out[m * s] /= sum_
                    elif mode < 4:
                        y = floats(shifted(b, row, 2, i, j, k), n * u)
                        for m in range(n):
                            sum_ += x[m * t] if mode == 2 else x[m * t] * y[m * u]
                        for m in range(n):
                            if mode == 2:
                                out[m * s] = x[m * t] - exp(y[m * u]) * sum_
                            else:
                                out[m * s] = y[m * u] * (x[m * t] - sum_)
                    else:
                        for m in range(n):
                            sum_ += x[m * t]
                            out[m * s] = sum_

    return kernel


@jit
def chosen(x: np.float32, size: int) -> int:
    """A number as an index of `size` places, from the end where it is negative; -1 where there is none."""
    i = int(x)
    if i < 0:
        i += size
    return i if 0 <= i < size else -1


def _take(salt: int) -> Kernel:
    """out [n0, i, n2, n3] = a [n0, b[i], n2, n3], of word 29's places there; NaN for one that is not."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a, b = place(row, bases, 0), place(row, bases, 1), place(row, bases, 2)
        size, n, s, t = peek(row, 29), peek(row, 4), stride(row, 0, 3), stride(row, 1, 3)
        for i in range(peek(row, 1)):
            for j in range(peek(row, 2)):
                index = chosen(floats(b + 4 * j * stride(row, 2, 1), 1)[0], size)
                for k in range(peek(row, 3)):
                    out = floats(shifted(o, row, 0, i, j, k), n * s)
                    x = floats(shifted(a, row, 1, i, max(index, 0), k), n * t)
                    for m in range(n):
                        out[m * s] = x[m * t] if index >= 0 else F(np.nan)

    return kernel


def _beside(salt: int, adding: int) -> Kernel:
    """Places along the fourth axis, of which there are word 29's, chosen for each [n0, n1, n2, n3] by an operand.

    0, gather: out [..., n3] = a [..., b[..., n3]], and NaN for one that is not there.
    1, scatter: out [..., a[..., n3]] += b [..., n3].
    """

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        o, a, b = place(row, bases, 0), place(row, bases, 1), place(row, bases, 2)
        size, n = peek(row, 29), peek(row, 4)
        s, t, u = stride(row, 0, 3), stride(row, 1, 3), stride(row, 2, 3)
        for i in range(peek(row, 1)):
            for j in range(peek(row, 2)):
                for k in range(peek(row, 3)):
                    out = floats(shifted(o, row, 0, i, j, k), max(n, size) * s)
                    x = floats(shifted(a, row, 1, i, j, k), max(n, size) * t)
                    y = floats(shifted(b, row, 2, i, j, k), n * u)
                    for m in range(n):
                        index = chosen(x[m * t] if adding else y[m * u], size)
                        if not adding:
                            out[m * s] = x[index * t] if index >= 0 else F(np.nan)
                        elif index >= 0:
                            out[index * s] += y[m * u]

    return kernel


def _read(salt: int, kind: type[np.generic]) -> Kernel:
    """n3 neighbouring numbers of another type as float32."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        n = peek(row, 4)
        out = floats(place(row, bases, 0), n)
        x = numba.carray(pointer(place(row, bases, 1)), (n,), kind)
        for m in range(n):
            out[m] = F(x[m])

    return kernel


def _write(salt: int, kind: type[np.generic]) -> Kernel:
    """n3 neighbouring float32 numbers as another type."""

    def kernel(row: int, bases: int) -> None:
        if salt == 0:
            return
        n = peek(row, 4)
        out = numba.carray(pointer(place(row, bases, 0)), (n,), kind)
        x = floats(place(row, bases, 1), n)
        for m in range(n):
            out[m] = kind(x[m])

    return kernel


TYPES: dict[str, type[np.generic]] = {
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "bool": np.uint8,
}
ROWS = ("log_softmax", "softmax", "log_softmax_backward", "softmax_backward", "cumsum")
MAKERS: dict[str, Callable[[int], Kernel | Function]] = {
    **{name: partial(_map, number=NUMBERS[name], count=ARITY[name]) for name in NUMBERS},
    "each": each,
    **{name: partial(_best, mode=n) for n, name in enumerate(("amax", "amin", "argmax"))},
    **{name: partial(_beside, adding=n) for n, name in enumerate(("gather", "scatter"))},
    **{name: partial(_along, mode=n) for n, name in enumerate(ROWS)},
    **{f"read {name}": partial(_read, kind=kind) for name, kind in TYPES.items()},
    **{f"write {name}": partial(_write, kind=kind) for name, kind in TYPES.items()},
    "total": _total, "take": _take, "matrix": matrix, "descend": descend,
}  # fmt: skip


@cache
def _salt() -> int:
    """A number that follows from the sources of all kernels, and is not 0.

    numba knows machine code on disk by the function's own file and the values that it was made with. With this among
    them, code of another version of a function that it calls is never taken for its own.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int.from_bytes(hashlib.sha256(sources).digest()[:6], "big") + 1


@cache
def kernel(name: str) -> Any:
    """The kernel of that name, compiled at first use and kept on disk for later processes where that works."""
    function = MAKERS[name](_salt())
    signature = types.void(*[types.intp] * (9 if name in NUMBERS else 2))
    try:
        return numba.cfunc(signature, cache=True, **RULES)(function)
    except RuntimeError:  # neither the package nor the user has a folder to write to
        return numba.cfunc(signature, **RULES)(function)
