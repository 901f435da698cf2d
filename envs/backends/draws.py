"""Random numbers of environments that draw them from Python's `random` or from `numpy.random` itself.

These generators belong to the whole process: what a lane draws would depend on which lanes step beside it. So a lane
whose environment draws there has a state of its own, seeded with the episode and put in place around every call. That
costs about 0.1 ms, so the first lanes of a block look for draws in their first calls, the others do as those, and an
environment that has drawn nothing there is called as it is from then on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from rlkit.envs.aliases import Value

TRIAL = 5  # calls of reset and step in which draws are looked for
LEADERS = 8  # lanes of a block that look for them
_lock = threading.RLock()  # one lane's state is in place at a time


class Verdict:
    """What the lanes of a block have found: whether their environments draw."""

    drawn = False


class Draws:
    """The generators of one lane; `settled` once its environment is known not to draw from them."""

    def __init__(self, verdict: Verdict, leads: bool) -> None:
        self.verdict, self.leads, self.calls, self.seed = verdict, leads, 0, 0
        self._python: tuple[Any, ...] | None = None  # None: not seeded since the last reset
        self._numpy: np.random.MT19937 | None = None

    @property
    def settled(self) -> bool:
        return self.calls >= TRIAL and not self.verdict.drawn

    def reset(self, function: Callable[..., Value], seed: int) -> Value:
        """function(seed=seed), with generators that begin anew."""
        self.seed, self._python = seed, None
        return self.call(function, seed=seed)

    def call(self, function: Callable[..., Value], *arguments: Value, **named: Value) -> Value:
        """function(*arguments, **named), with this lane's generators in place where that may matter."""
        self.calls += 1
        if not (self.verdict.drawn or (self.leads and self.calls <= TRIAL)):
            return function(*arguments, **named)
        with _lock:
            python, numpy = self._begin()
            before = random.getstate(), get_bit_generator()
            random.setstate(python)
            set_bit_generator(numpy)
            place = None if self.verdict.drawn else numpy.state["state"]["pos"]
            try:
                return function(*arguments, **named)
            finally:
                self._python = random.getstate()
                if place is not None:
                    moved = self._python != python or numpy.state["state"]["pos"] != place
                    self.verdict.drawn = self.verdict.drawn or moved
                random.setstate(before[0])
                set_bit_generator(before[1])

    def _begin(self) -> tuple[tuple[Any, ...], np.random.MT19937]:
        """The lane's generators, seeded with the episode where it has not used them yet."""
        if self._numpy is None:
            self._numpy = np.random.MT19937(0)
        if self._python is None:
            self._python = random.Random(self.seed).getstate()
            np.random.RandomState(self._numpy).seed(self.seed)
        return self._python, self._numpy


@contextmanager
def apart() -> Iterator[Callable[[int], None]]:
    """Inside, both generators are seeded by the function that this gives; afterwards they are as they were before."""
    with _lock:
        before = random.getstate(), get_bit_generator()
        set_bit_generator(np.random.MT19937(0))
        try:
            yield _seed
        finally:
            random.setstate(before[0])
            set_bit_generator(before[1])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
