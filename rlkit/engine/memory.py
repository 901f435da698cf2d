"""Reading and writing at addresses, and calling them, from functions that numba compiles."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, TypeAlias

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from rlkit.jit import general

Code: TypeAlias = Any  # what numba and llvmlite hand on, whose types they do not say
# of the addresses of an instruction and of the parts of memory
Kernel: TypeAlias = Callable[[int, int], None]
I64 = ir.IntType(64)
intrinsic: Code = _intrinsic  # what becomes of a function is none of its stubs' types
# no flag that assumes that there are no NaNs or infinities
RULES: Code = {
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}
X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSH = 0x8040  # the bits of MXCSR by which subnormal numbers are 0
# what numba compiles for: this processor's, or what its environment variable says
TOLD = numba.config.CPU_FEATURES
FEATURES = (
    llvmlite.binding.get_host_cpu_features()
    if TOLD is None
    else {word[1:]: word[0] == "+" for word in TOLD.split(",")}
)


def jit(function: Code) -> Code:
    """A function that kernels call."""
    return general(numba.njit(**RULES)(function))


def entry(function: Code) -> Code:
    """A function that Python calls, while other threads run; kept on disk where that works."""
    try:
        return numba.njit(cache=True, nogil=True, **RULES)(function)
    except RuntimeError:  # neither the package nor the user has a folder to write to
        return numba.njit(nogil=True, **RULES)(function)


@intrinsic
def pointer(context: Code, address: Code) -> Code:
    """An address as the untyped pointer that numba.carray takes."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.intp), generate


@intrinsic
def peek(context: Code, address: Code, index: Code) -> Code:
    """The integer number `index` behind an address."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        base = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load(builder.gep(base, [args[1]]))

    return types.intp(types.intp, types.intp), generate


@intrinsic
def get(context: Code, address: Code, index: Code) -> Code:
    """The float32 number `index` behind an address."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        base = builder.inttoptr(args[0], ir.FloatType().as_pointer())
        return builder.load(builder.gep(base, [args[1]]), align=4)

    return types.float32(types.intp, types.intp), generate


@intrinsic
def put(context: Code, address: Code, index: Code, value: Code) -> Code:
    """Write it."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        base = builder.inttoptr(args[0], ir.FloatType().as_pointer())
        builder.store(args[2], builder.gep(base, [args[1]]), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32), generate


@intrinsic
def apply(
    context: Code,
    function: Code,
    w: Code,
    x: Code,
    y: Code,
    z: Code,
    n: Code,
    s: Code,
    t: Code,
    u: Code,
    v: Code,
) -> Code:
    """Call the function of numbers at an address (`kernels.Function`)."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        kind = ir.FunctionType(ir.VoidType(), [I64] * 9)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), generate


@intrinsic
def call(context: Code, function: Code, row: Code, bases: Code) -> Code:
    """Call the kernel at address `function` with the addresses of its instruction and of the memory's parts."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def control(context: Code) -> Code:
    """The processor's control of float32 arithmetic in this thread (x86's MXCSR; 0 elsewhere)."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        if not X86:
            return ir.IntType(32)(0)
        there = cgutils.alloca_once(builder, ir.IntType(32))
        _control(builder, "stmxcsr", there)
        return builder.load(there)

    return types.int32(), generate


@intrinsic
def set_control(context: Code, value: Code) -> Code:
    """Change it."""

    def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
        if X86:
            there = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(args[0], there)
            _control(builder, "ldmxcsr", there)
        return context.get_dummy_value()

    return types.void(types.int32), generate


def _control(builder: Code, name: str, there: Code) -> None:
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(there, ir.IntType(8).as_pointer())])


def _same_bits(source: Code, target: Code, kind: Code) -> Code:
    @intrinsic
    def convert(context: Code, x: Code) -> Code:
        def generate(context: Code, builder: Code, signature: Code, args: Code) -> Code:
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
def floats(address: int, count: int) -> Code:
    """The float32 numbers from an address on."""
    return numba.carray(pointer(address), (count,), np.float32)


@jit
def shifted(address: int, row: int, operand: int, i: int, j: int, k: int) -> int:
    """The address of an operand's numbers [i, j, k, :]."""
    return address + 4 * (
        i * stride(row, operand, 0) + j * stride(row, operand, 1) + k * stride(row, operand, 2)
    )
