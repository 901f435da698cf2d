"""Reading and writing at addresses, and calling them, from functions that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Kernel: TypeAlias = Callable[[int, int], None]  # of the addresses of an instruction and of the parts of memory
I64 = ir.IntType(64)
# no flag that assumes that there are no NaNs or infinities
RULES: dict[str, Any] = {
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}
jit: Callable[..., Any] = numba.njit(**RULES)
FEATURES = llvmlite.binding.get_host_cpu_features()


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any) -> Any:
    """An address as the untyped pointer that numba.carray takes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def peek(context: Any, address: Any, index: Any) -> Any:
    """The integer number `index` behind an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load(builder.gep(base, [args[1]]))

    return types.intp(types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def call(context: Any, function: Any, row: Any, bases: Any) -> Any:
    """Call the kernel at address `function` with the addresses of its instruction and of the memory's parts."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


def _same_bits(source: Any, target: Any, kind: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def convert(context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], kind)

        return target(source), generate

    return convert


to_bits = _same_bits(types.float32, types.int32, ir.IntType(32))
from_bits = _same_bits(types.int32, types.float32, ir.FloatType())


@jit
def place(row: int, bases: int, operand: int) -> int:
    """The address at which an operand begins."""
    word = 5 + 6 * operand
    return peek(bases, peek(row, word)) + peek(row, word + 1)


@jit
def stride(row: int, operand: int, axis: int) -> int:
    """Of an operand along a size, in numbers."""
    return peek(row, 7 + 6 * operand + axis)


@jit
def floats(address: int, count: int) -> Any:
    """The float32 numbers from an address on."""
    return numba.carray(pointer(address), (count,), np.float32)


@jit
def shifted(address: int, row: int, operand: int, i: int, j: int, k: int) -> int:
    """The address of an operand's numbers [i, j, k, :]."""
    return address + 4 * (i * stride(row, operand, 0) + j * stride(row, operand, 1) + k * stride(row, operand, 2))
