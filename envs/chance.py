"""Chance for kernels: number i of a stream is a hash of (its key, i).

All arithmetic is that of non-negative integers below 2^32, held in 64 bits, so that arrays of any library can follow
it. What machine code of other files has of these functions is not renewed when this file changes: they stay as they
are.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]

WORD = 0xFFFFFFFF
QUANTILES = 1024
# what the last ten bits of a word are worth as a normal number: its quantiles, in the middle of equal shares
NORMAL: Floats = np.array([NormalDist().inv_cdf((k + 0.5) / QUANTILES) for k in range(QUANTILES)], np.float32)


@compiled
def mix(x: int) -> int:
    """A permutation of 32-bit words that looks random: lowbias32 (C. Wellons, "Prospecting for hash functions")."""
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


@compiled
def draw(stream: Ints, n: int) -> int:
    """The next number below n of a stream [2]: its key, and how many were drawn."""
    stream[1] += 1
    return mix(stream[0] ^ mix(stream[1])) % n


@compiled
def between(stream: Ints, low: float, high: float) -> float:
    """The next number of a stream as one from low to high, in 2^24 steps."""
    return low + (high - low) * (draw(stream, 1 << 24) / (1 << 24))
