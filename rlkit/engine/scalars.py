"""Functions of single numbers in float32, which numba builds into the kernels' loops.

exp, log and tanh are polynomials of arithmetic that every vector unit has, so a loop over them is made of vectors; they
agree with the C library's to a few units in the last place. NaN and infinity pass through as they do there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from rlkit.engine.memory import RULES, from_bits, jit, to_bits

F = np.float32
ZERO, ONE = F(0), F(1)


@jit
def exp(x: np.float32) -> np.float32:
    """e^x: 2^n e^r with |r| <= ln(2) / 2, and e^r by its minimax polynomial (Cephes)."""
    y = x
    if y > F(88.8):
        y = F(88.8)
    if y < F(-87.3):
        y = F(-87.3)
    n = np.floor(y * F(1.44269504088896341) + F(0.5))
    r = y - n * F(0.693359375) + n * F(2.12194440e-4)
    p = (F(1.9875691500e-4) * r + F(1.3981999507e-3)) * r + F(8.3334519073e-3)
    p = ((p * r + F(4.1665795894e-2)) * r + F(1.6666665459e-1)) * r + F(5.0000001201e-1)
    p = p * r * r + r + ONE
    # times 2^n: n more in the exponent
    p = from_bits(to_bits(p) + (np.int32(n) << np.int32(23)))
    if x < F(-87.3):
        p = ZERO
    if x > F(88.72284):
        p = F(np.inf)
    return p if x == x else x


@jit
def log(x: np.float32) -> np.float32:
    """The natural logarithm: x = m 2^e with m in [sqrt(1/2), sqrt(2)), and log m by its polynomial (Cephes)."""
    y = x
    scale = ZERO
    if y < F(1.17549435e-38):  # a subnormal number
        y = y * F(8388608.0)
        scale = F(-23)
    bits = to_bits(y)
    e = F((bits >> np.int32(23)) - np.int32(126)) + scale
    m = from_bits((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000))
    if m < F(0.707106781186547524):
        e = e - ONE
        m = m + m
    m = m - ONE
    z = m * m
    p = ((F(7.0376836292e-2) * m - F(1.1514610310e-1)) * m + F(1.1676998740e-1)) * m - F(1.2420140846e-1)
    p = (((p * m + F(1.4249322787e-1)) * m - F(1.6668057665e-1)) * m + F(2.0000714765e-1)) * m - F(
        2.4999993993e-1
    )
    p = (p * m + F(3.3333331174e-1)) * m * z
    p = p - F(2.12194440e-4) * e - F(0.5) * z
    p = m + p + F(0.693359375) * e
    if x == ZERO:
        p = F(-np.inf)
    if x < ZERO:
        p = F(np.nan)
    return p if x < F(np.inf) else x


@jit
def tanh(x: np.float32) -> np.float32:
    """A rational approximation (Eigen's), exact to float32 where |tanh x| < 1."""
    y = x
    if y > F(7.90531110763549805):
        y = F(7.90531110763549805)
    if y < F(-7.90531110763549805):
        y = F(-7.90531110763549805)
    z = y * y
    p = ((F(-2.76076847742355e-16) * z + F(2.00018790482477e-13)) * z + F(-8.60467152213735e-11)) * z
    p = (((p + F(5.12229709037114e-08)) * z + F(1.48572235717979e-05)) * z + F(6.37261928875436e-04)) * z
    p = (p + F(4.89352455891786e-03)) * y
    q = ((F(1.19825839466702e-06) * z + F(1.18534705686654e-04)) * z + F(2.26843463243900e-03)) * z
    return p / (q + F(4.89352518554385e-03))


@jit
def log1p(x: np.float32) -> np.float32:
    """log(1 + x), exact where x is small: log(u) x / (u - 1) with u = 1 + x rounded (Kahan)."""
    u = ONE + x
    d = u - ONE
    return x if d == ZERO else log(u) * (x / d) if u < F(np.inf) else log(u)


@jit
def erfinv(x: np.float32) -> np.float32:
    """Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2011."""
    w = -log((ONE - x) * (ONE + x))
    if w < F(5):
        w = w - F(2.5)
        p = ((F(2.81022636e-08) * w + F(3.43273939e-07)) * w + F(-3.5233877e-06)) * w + F(-4.39150654e-06)
        p = ((p * w + F(0.00021858087)) * w + F(-0.00125372503)) * w + F(-0.00417768164)
        return ((p * w + F(0.246640727)) * w + F(1.50140941)) * x
    w = np.sqrt(w) - F(3)
    p = ((F(-0.000200214257) * w + F(0.000100950558)) * w + F(0.00134934322)) * w + F(-0.00367342844)
    p = ((p * w + F(0.00573950773)) * w + F(-0.0076224613)) * w + F(0.00943887047)
    return ((p * w + F(1.00167406)) * w + F(2.83297682)) * x


@jit
def erf(x: np.float32) -> np.float32:
    """The error function as the C library has it."""
    return F(math.erf(x))


@jit
def power(x: np.float32, y: np.float32) -> np.float32:
    """x^y as the C library has it."""
    return F(math.pow(x, y))


# what becomes of a number, of two and of three; n is the function's own number
ONE_TO_ONE: dict[str, Callable[..., Any]] = {
    "copy": lambda n, x: x,
    "neg": lambda n, x: -x,
    "abs": lambda n, x: abs(x),
    "exp": lambda n, x: exp(x),
    "log": lambda n, x: log(x),
    "log1p": lambda n, x: log1p(x),
    "sqrt": lambda n, x: np.sqrt(x),
    "tanh": lambda n, x: tanh(x),
    "sigmoid": lambda n, x: ONE / (ONE + exp(-x)),
    "relu": lambda n, x: x if not x <= ZERO else ZERO,
    "sign": lambda n, x: ONE if x > ZERO else (-ONE if x < ZERO else ZERO),
    "floor": lambda n, x: np.floor(x),
    "trunc": lambda n, x: np.trunc(x),
    "truth": lambda n, x: ONE if x != ZERO else ZERO,
    "not": lambda n, x: ONE - x,
    "erf": lambda n, x: erf(x),
    "erfinv": lambda n, x: erfinv(x),
}
TWO_TO_ONE: dict[str, Callable[..., Any]] = {
    "add": lambda n, x, y: x + y,
    "sub": lambda n, x, y: x - y,
    "mul": lambda n, x, y: x * y,
    "div": lambda n, x, y: x / y,
    "minimum": lambda n, x, y: x if (x < y or x != x) else y,
    "maximum": lambda n, x, y: x if (x > y or x != x) else y,
    "lt": lambda n, x, y: ONE if x < y else ZERO,
    "le": lambda n, x, y: ONE if x <= y else ZERO,
    "gt": lambda n, x, y: ONE if x > y else ZERO,
    "ge": lambda n, x, y: ONE if x >= y else ZERO,
    "eq": lambda n, x, y: ONE if x == y else ZERO,
    "ne": lambda n, x, y: ONE if x != y else ZERO,
    "pow": lambda n, x, y: power(x, y),
    "tanh_backward": lambda n, x, y: x * (ONE - y * y),
    "sigmoid_backward": lambda n, x, y: x * (ONE - y) * y,
    "threshold_backward": lambda n, x, y: ZERO if y <= ZERO else x,
}
THREE_TO_ONE: dict[str, Callable[..., Any]] = {
    "where": lambda n, x, y, z: y if x != ZERO else z,
    "addcmul": lambda n, x, y, z: x + y * z,
}
CODES = (*ONE_TO_ONE.values(), *TWO_TO_ONE.values(), *THREE_TO_ONE.values())
NUMBERS = {name: n for n, name in enumerate((*ONE_TO_ONE, *TWO_TO_ONE, *THREE_TO_ONE))}
ARITY = {name: n for n, names in enumerate((ONE_TO_ONE, TWO_TO_ONE, THREE_TO_ONE), 1) for name in names}


def apply1(n: int, x: np.float32) -> np.float32:
    """The function of number n, which numba must know while it compiles."""
    raise NotImplementedError


def apply2(n: int, x: np.float32, y: np.float32) -> np.float32:
    """The same, of two numbers."""
    raise NotImplementedError


def apply3(n: int, x: np.float32, y: np.float32, z: np.float32) -> np.float32:
    """The same, of three."""
    raise NotImplementedError


def _code(n: Any) -> Any:
    return CODES[n.literal_value] if isinstance(n, types.IntegerLiteral) else None


overload(apply1, jit_options=RULES)(lambda n, x: _code(n))
overload(apply2, jit_options=RULES)(lambda n, x, y: _code(n))
overload(apply3, jit_options=RULES)(lambda n, x, y, z: _code(n))
