"""Acting from a rollout's rows into its rows, without a tensor in between.

A rollout's memory is allocated once, so where the engine acts for a policy without memory, every address that it reads
and writes in row t is known beforehand: a table of them, [T, parts], of which the noise alone is new in every rollout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rlkit.collect.storage import Storage
from rlkit.types import tree_leaves

if TYPE_CHECKING:
    from rlkit.engine.program import Program


class Swift:
    """The actions of all rows of a storage, by a program that has acted in one of them before."""

    def __init__(self, program: Program, storage: Storage, noise: Tensor) -> None:
        action, command, extra = storage.action, storage.command, storage.extra
        assert action is not None and command is not None, "the program has acted in no row yet"
        self._program, self._noise = program, noise
        self._commands: list[Tensor] = list(command)
        rows = range(storage.steps)
        given = [[*tree_leaves(storage.rows[t].obs), storage.rows[t].first, noise[t]] for t in rows]
        outputs = [[action[t], command[t], *(x[t] for x in extra.values())] for t in rows]
        self._table: npt.NDArray[np.int64] = program.table(given, outputs)
        self._addresses = [int(self._table[t].ctypes.data) for t in rows]
        self._column = program.given.stop - 1  # of the noise

    def begin(self, noise: Tensor) -> Swift:
        """The same rows again, with new noise [T, N, K]."""
        step = noise.stride(0) * noise.element_size()
        self._noise = noise  # keeps the memory
        self._table[:, self._column] = noise.data_ptr() + np.arange(len(noise)) * step
        return self

    def act(self, t: int) -> Tensor:
        """Choose and store row t's action; what the environment is told."""
        self._program.run(self._addresses[t])
        return self._commands[t]
