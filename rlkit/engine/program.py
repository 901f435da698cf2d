"""A program: a traced graph as instructions for machine code, its memory, and one call that runs all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from rlkit.engine.kernels import WORDS, kernel
from rlkit.engine.layout import CONSTANTS, INPUTS, WORK, ZEROS, Descent, Instruction, Unsupported, assign
from rlkit.engine.lower import Lowering
from rlkit.engine.memory import FLUSH, call, control, entry, peek, set_control
from rlkit.engine.scalars import ARITY
from rlkit.jit import announced


@entry
def run(rows: int, count: int, bases: int) -> None:
    """Call the kernels of `count` instructions, which begin at address `rows`, in order.

    Numbers below 1.2e-38 are 0 meanwhile: the moments of weights whose gradient has ended shrink for ever, and the
    processor takes a hundred times as long for each of them once it is subnormal.
    """
    before = control()
    set_control(before | FLUSH)
    for i in range(count):
        row = rows + i * 8 * WORDS
        call(peek(row, 0), row, bases)
    set_control(before)


@entry
def run_each(rows: int, count: int, tables: int, times: int, step: int) -> None:
    """`run` for each of `times` tables of addresses, `step` bytes apart."""
    for i in range(times):
        run(rows, count, tables + i * step)


class Program:
    """What `graph` computes of tensors like `inputs`, without torch. Raises Unsupported where no kernel does it.

    own: how many of the inputs are the same memory at every call; the others are given to it.
    descent: the first output is a gradient, with which the program makes a step; a call returns its norm in its place.

    The memory in between is the program's own, so two threads may not call it at once.
    """

    def __init__(
        self, graph: fx.GraphModule, inputs: Sequence[Tensor], own: int = 0, descent: Descent | None = None
    ) -> None:
        if getattr(numba.config, "DISABLE_JIT", False):
            raise Unsupported("a numba that may not compile (NUMBA_DISABLE_JIT)")
        lowered = Lowering(graph, inputs)
        # memory that addresses point to
        self._kept: list[object] = [list(inputs[:own]), lowered.fixed, descent]
        self.outputs = lowered.outputs
        work = np.zeros(assign(lowered.rooms) // 4 + 16, np.float32)
        constants = np.array([*lowered.constants, 0.0], np.float32)
        zeros = np.zeros(lowered.zeros, np.float32)
        with announced("the engine: compiling its kernels, once where a cache can be written"):
            rows = [_words(each) for each in lowered.instructions]
        first = INPUTS + len(inputs) + len(lowered.fixed)  # of the outputs
        bases = np.zeros(first + len(self.outputs) + 1, np.int64)
        bases[[WORK, CONSTANTS, ZEROS]] = [x.ctypes.data for x in (work, constants, zeros)]
        for part, x in enumerate([*inputs[:own], *lowered.fixed]):
            bases[INPUTS + part + (part >= own) * (len(inputs) - own)] = x.data_ptr()
        self.gradient: Tensor | None = None  # of the last call
        if descent is not None:
            self.gradient = torch.empty(self.outputs[0][0])
            bases[first] = self.gradient.data_ptr()
            self.outputs = self.outputs[1:]
            parts = [len(bases) - 1 + k for k in range(1, 4)]
            bases = np.append(bases, [x.data_ptr() for x in (descent.flat, descent.mean, descent.square)])
            rows.append(_descend(descent, [parts[0], first, *parts[1:]], parts[0] - 1))
        self._rows = np.array(rows, np.int64).reshape(-1, WORDS)
        self._bases: npt.NDArray[np.int64] = bases
        self.given = slice(INPUTS + own, INPUTS + len(inputs))
        begin = first + (descent is not None)
        self._returned = slice(begin, begin + len(self.outputs) + (descent is not None))
        self._dense = {i for i, x in enumerate(inputs[own:]) if x.dtype != torch.float32}
        self._kept += [work, constants, zeros]
        self._at = (self._rows.ctypes.data, self._bases.ctypes.data)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        """The graph's outputs, or with a descent the gradient's norm and the outputs behind it."""
        return self._run(given, len(self._rows))

    def each(self, given: Sequence[Tensor], number: int, takes: Sequence[Tensor]) -> list[Tensor]:
        """Calls with each of `takes`, of one layout, in the place of input `number`: outputs [calls, ...].

        Nothing but that is done in between: a pass over a rollout's minibatches is one call of machine code.
        """
        if self._dense:
            given = [x.contiguous() if i in self._dense else x for i, x in enumerate(given)]
            takes = [take.contiguous() for take in takes] if number in self._dense else takes
        outputs = [torch.empty((len(takes), *shape), dtype=dtype) for shape, dtype in self.outputs]
        if self.gradient is not None:
            outputs.append(torch.empty(len(takes)))
        rows = [[*given[:number], take, *given[number + 1 :]] for take in takes]
        table = self.table(rows, list(zip(*outputs, strict=True)))
        run_each(self._at[0], len(self._rows), table.ctypes.data, len(takes), table.strides[0])
        return [outputs[-1], *outputs[:-1]] if self.gradient is not None else outputs

    def table(
        self, given: Sequence[Sequence[Tensor]], outputs: Sequence[Sequence[Tensor]]
    ) -> npt.NDArray[np.int64]:
        """The addresses of all parts of memory for calls with these inputs and outputs: a row each for `run`."""
        found = np.tile(self._bases, (len(given), 1))
        found[:, self.given] = [[x.data_ptr() for x in row] for row in given]
        found[:, self._returned] = [[x.data_ptr() for x in row] for row in outputs]
        return found

    def run(self, addresses: int) -> None:
        """One call with the addresses that lie there."""
        run(self._at[0], len(self._rows), addresses)

    def differentiate(self, *given: Tensor) -> list[Tensor]:
        """The gradient, valid until the next call, and the outputs behind it; nothing is stepped."""
        assert self.gradient is not None, "a program without a descent"
        return [self.gradient, *self._run(given, len(self._rows) - 1)[1:]]

    def _run(self, given: Sequence[Tensor], count: int) -> list[Tensor]:
        outputs = [torch.empty(shape, dtype=dtype) for shape, dtype in self.outputs]
        if self.gradient is not None:
            outputs.append(torch.empty(()))
        if self._dense:  # numbers that are read in their order, as another type
            given = [x.contiguous() if i in self._dense else x for i, x in enumerate(given)]
        self._bases[self.given] = [x.data_ptr() for x in given]
        self._bases[self._returned] = [x.data_ptr() for x in outputs]
        run(self._at[0], count, self._at[1])
        return [outputs[-1], *outputs[:-1]] if self.gradient is not None else outputs


def _descend(descent: Descent, parts: Sequence[int], norm: int) -> list[int]:
    """The instruction that makes a step; parts: of memory, with the parameters, the gradient and the moments."""
    n = descent.flat.numel()
    words = [kernel("descend").address, 1, 1, 1, n]
    for part in parts:
        words += [part, 0, 0, 0, 0, 1]
    return [*words, descent.settings.ctypes.data, descent.count.data_ptr(), norm]


def _words(instruction: Instruction) -> list[int]:
    """An instruction as the kernels read it."""
    name, arity = instruction.kernel, ARITY.get(instruction.kernel, 0)
    words = [kernel("each" if arity else name).address, *instruction.sizes]
    for value, strides in instruction.operands:
        offset = 4 * value.offset + (value.room.offset if value.room else 0)
        words += [value.part, offset, *strides]
    words += [0] * (WORDS - len(words))
    words[29] = instruction.spare.offset if instruction.spare else instruction.extra
    if arity:
        words[30:] = [kernel(name).address, arity]
    return words
