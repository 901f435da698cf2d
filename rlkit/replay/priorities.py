"""Proportional priorities (Schaul et al., "Prioritized experience replay", ICLR 2016, arXiv:1511.05952).

    p_i  = (|td_i| + 1e-6)^alpha;  what is new gets the largest p so far
    P(i) = p_i / sum_k p_k;        drawn by strata: one uniform draw from each of B equal parts of the total
    w_i  = (1 / (size P(i)))^beta, divided by the largest of the batch

The p_i are the leaves of a complete binary tree whose inner nodes are the sums of their two children: changing or
finding a leaf takes log2(leaves) steps. A sum is always computed from its children, never corrected by a difference,
so the tree is a function of its leaves alone.

Random numbers are SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) of
a counter: what is drawn depends on a key and on how much was drawn before, and both are two integers in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

EPSILON = 1e-6  # keeps what has no error in the draw
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code, made at its first call and kept on disk for later processes where that works."""
    njit: Any = numba.njit
    try:
        kernel: F = njit(cache=True)(function)
    except RuntimeError:  # neither the package nor the user has a folder to write to
        kernel = njit(function)
    return kernel


@compiled
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """A float64 in [0, 1): 53 bits of SplitMix64's output number `counter`."""
    z = key + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


class SumTree:
    """Priorities of `size` items, all 0 at first; `largest` is what new items get."""

    def __init__(self, size: int, alpha: float) -> None:
        self.size, self.alpha = size, alpha
        self.largest = 1.0
        self._leaves = 1 << max(size - 1, 1).bit_length()
        self._tree: Floats = np.zeros(2 * self._leaves)  # node i has the children 2i and 2i+1; the root is 1

    @staticmethod
    def bytes(size: int) -> int:
        """What a tree of `size` items takes."""
        return 16 << max(size - 1, 1).bit_length()

    @property
    def leaves(self) -> Floats:
        """The priorities [size], a view."""
        return self._tree[self._leaves : self._leaves + self.size]

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self._tree[1])

    def put(self, begin: int, priority: Floats) -> None:
        """Set the priorities of the items from `begin` on to `priority` [K]."""
        _put(self._tree, self._leaves, begin, priority)

    def update(self, index: Ints, td: npt.NDArray[Any]) -> None:
        """Set them from TD errors [B]; an error that is no number counts as the largest."""
        self.largest = _update(
            self._tree, self._leaves, index, td.astype(np.float64), self.alpha, self.largest
        )

    def draw(self, key: np.uint64, counter: int, index: Ints) -> None:
        """Fill `index` [B] with items drawn by strata; uses B random numbers from `counter` on. The total is not 0."""
        _draw(self._tree, self._leaves, key, np.uint64(counter), index)

    def weights(self, index: Ints, count: int, beta: float) -> Floats:
        """w [B] of drawn items among `count` that can be drawn."""
        # w_i / max w = (P(i) / min P)^-beta: `count` and the total cancel
        probability = self.leaves[index] / self.total
        weight: Floats = (1 / (count * probability)) ** beta
        weight /= weight.max()
        return weight

    def load(self, leaves: Floats, largest: float) -> None:
        """Take over all priorities [size]."""
        self.largest = largest
        self._tree[:] = 0
        self.leaves[:] = leaves
        level = self._leaves
        while level > 1:
            level //= 2
            children = self._tree[2 * level : 4 * level]
            self._tree[level : 2 * level] = children[0::2] + children[1::2]


@compiled
def _put(tree: Floats, leaves: int, begin: int, priority: Floats) -> None:
    low = leaves + begin
    high = low + len(priority)
    for i in range(len(priority)):  # a slice would take seconds to compile
        tree[low + i] = priority[i]
    while low > 1:
        low, high = low // 2, (high + 1) // 2
        for node in range(low, high):
            tree[node] = tree[2 * node] + tree[2 * node + 1]


@compiled
def _update(tree: Floats, leaves: int, index: Ints, td: Floats, alpha: float, largest: float) -> float:
    for i in range(len(index)):
        # p = (|td| + epsilon)^alpha
        priority = (abs(td[i]) + EPSILON) ** alpha
        if not priority < np.inf:
            priority = largest
        largest = max(largest, priority)
        node = leaves + index[i]
        tree[node] = priority
        while node > 1:
            node //= 2
            tree[node] = tree[2 * node] + tree[2 * node + 1]
    return largest


@compiled
def _draw(tree: Floats, leaves: int, key: np.uint64, counter: np.uint64, index: Ints) -> None:
    for i in range(len(index)):
        mass = (i + uniform(key, counter + np.uint64(i))) / len(index) * tree[1]
        node = 1
        while node < leaves:
            node *= 2
            left = tree[node]
            # to the right where the mass lies there, never into a part that holds nothing; no branch to mispredict
            right = (mass >= left) & (tree[node + 1] > 0)
            mass -= left * right
            node += right
        index[i] = node - leaves
