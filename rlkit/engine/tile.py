"""Matrix products C = A B + C_0 in float32, in tiles that stay in registers (Goto and van de Geijn, 2008).

A tile is MR rows of NV vectors of C. For every k it loads NV vectors of B and MR single numbers of A, and adds their
MR x NV products to sums in registers. Each element's sum runs over k in order, whatever tile it lies in: the bits of a
row do not depend on how many rows there are. The tiles are written as LLVM vector instructions, since no compiler can
be relied on to find them from loops. How large they are follows from the processor's vector registers.

Strides of A are general, so A^T needs no copy. B has rows of neighbouring numbers; B^T is copied into such rows.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils

from rlkit.engine.memory import FEATURES, I64, intrinsic, jit

WIDE, AVX = bool(FEATURES.get("avx512f")), bool(FEATURES.get("avx2") and FEATURES.get("fma"))
WIDTH = 16 if WIDE else 8 if AVX else 4  # float32 numbers in a vector register
ROWS, VECTORS = (
    (8, 3) if WIDE else (4, 2) if not AVX else (6, 2)
)  # of the largest tile, which fits 32 or 16 registers
DEPTH = 128  # rows of B at a time
FUSED = WIDE or AVX or FEATURES.get("neon", False)  # a x b + c is one instruction
Kind: TypeAlias = types.Type  # of an argument, as numba has it
FLOAT, I32 = ir.FloatType(), ir.IntType(32)
VECTOR, LANES = ir.VectorType(FLOAT, WIDTH), ir.VectorType(I32, WIDTH)


def _splat(builder: ir.IRBuilder, x: ir.Value, kind: ir.Type) -> ir.Value:
    """A vector of `kind`, every element x."""
    nothing = ir.Constant(kind, ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(nothing, x, I32(0)), nothing, ir.Constant(LANES, [0] * WIDTH)
    )


def _vector(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, VECTOR.as_pointer())


class _Masked:
    """Loads and stores of the first `count` elements of a vector."""

    def __init__(self, builder: ir.IRBuilder, count: ir.Value) -> None:
        self.builder = builder
        numbers = ir.Constant(LANES, list(range(WIDTH)))
        self.mask = builder.icmp_signed("<", numbers, _splat(builder, builder.trunc(count, I32), LANES))
        bits, at = ir.VectorType(ir.IntType(1), WIDTH), VECTOR.as_pointer()
        name = f"v{WIDTH}f32.p0"
        self.loads = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [at, I32, bits, VECTOR]), f"llvm.masked.load.{name}"
        )
        self.stores = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [VECTOR, at, I32, bits]),
            f"llvm.masked.store.{name}",
        )

    def load(self, address: ir.Value) -> ir.Value:
        zero = ir.Constant(VECTOR, [0.0] * WIDTH)
        return self.builder.call(self.loads, [_vector(self.builder, address), I32(4), self.mask, zero])

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.call(self.stores, [value, _vector(self.builder, address), I32(4), self.mask])


class _Whole:
    """Loads and stores of whole vectors."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def load(self, address: ir.Value) -> ir.Value:
        return self.builder.load(_vector(self.builder, address), align=4)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.store(value, _vector(self.builder, address), align=4)


def _fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a x b + c."""
    if not FUSED:
        return builder.fadd(builder.fmul(a, b), c)
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32"), [a, b, c]
    )


def _tile(rows: int, vectors: int, masked: bool) -> Any:
    """A function of (A, its strides, B, its stride, C_0, its stride, C, its stride, K, columns).

    Addresses in bytes, strides in numbers; masked: only the first `columns` of the last vector are touched.
    """

    @intrinsic
    def tile(context: Any, a: Kind, rs: Kind, cs: Kind, b: Kind, ldb: Kind, z: Kind, ldz: Kind, c: Kind, ldc: Kind,
             k: Kind, columns: Kind) -> Any:  # fmt: skip
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            a, rs, cs, b, ldb, z, ldz, c, ldc, size, columns = args
            last = _Masked(builder, columns) if masked else _Whole(builder)
            access = [_Whole(builder)] * (vectors - 1) + [last]
            rs, cs, ldb, ldz, ldc = (builder.mul(x, I64(4)) for x in (rs, cs, ldb, ldz, ldc))

            def places(base: ir.Value, stride: ir.Value) -> list[list[ir.Value]]:
                lines = [builder.add(base, builder.mul(stride, I64(i))) for i in range(rows)]
                return [[builder.add(line, I64(4 * WIDTH * j)) for j in range(vectors)] for line in lines]

            begin = [[access[j].load(at) for j, at in enumerate(line)] for line in places(z, ldz)]
            entry = builder.basic_block
            head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
            builder.branch(head)
            builder.position_at_end(head)
            moving = [builder.phi(I64) for _ in range(3)]
            sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
            for phi, x in zip(moving, (I64(0), a, b), strict=True):
                phi.add_incoming(x, entry)
            for i in range(rows):
                for j in range(vectors):
                    sums[i][j].add_incoming(begin[i][j], entry)
            count, at, bt = moving
            builder.cbranch(builder.icmp_signed("<", count, size), body, done)
            builder.position_at_end(body)
            right = [access[j].load(builder.add(bt, I64(4 * WIDTH * j))) for j in range(vectors)]
            line = at
            for i in range(rows):
                number = builder.load(builder.inttoptr(line, FLOAT.as_pointer()), align=4)
                left = _splat(builder, number, VECTOR)
                for j in range(vectors):
                    sums[i][j].add_incoming(_fma(builder, left, right[j], sums[i][j]), body)
                line = builder.add(line, rs)
            for phi, step in zip(moving, (I64(1), cs, ldb), strict=True):
                phi.add_incoming(builder.add(phi, step), body)
            builder.branch(head)
            builder.position_at_end(done)
            for i, row in enumerate(places(c, ldc)):
                for j, place in enumerate(row):
                    access[j].store(sums[i][j], place)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 11), generate

    return tile


def _block(vectors: int, masked: bool) -> Any:
    """The function that makes all rows of `vectors` vectors of columns, in tiles of ROWS rows and then of fewer."""
    large, four, two, one = (_tile(rows, vectors, masked) for rows in (ROWS, 4, 2, 1))

    @jit
    def block(a: int, rs: int, cs: int, b: int, ldb: int, z: int, ldz: int, c: int, ldc: int,
              m: int, k: int, columns: int) -> None:  # fmt: skip
        i = 0
        while i + ROWS <= m:
            large(a + 4 * i * rs, rs, cs, b, ldb, z + 4 * i * ldz, ldz, c + 4 * i * ldc, ldc, k, columns)
            i += ROWS
        if i + 4 <= m:
            four(a + 4 * i * rs, rs, cs, b, ldb, z + 4 * i * ldz, ldz, c + 4 * i * ldc, ldc, k, columns)
            i += 4
        if i + 2 <= m:
            two(a + 4 * i * rs, rs, cs, b, ldb, z + 4 * i * ldz, ldz, c + 4 * i * ldc, ldc, k, columns)
            i += 2
        if i < m:
            one(a + 4 * i * rs, rs, cs, b, ldb, z + 4 * i * ldz, ldz, c + 4 * i * ldc, ldc, k, columns)

    return block


_two, _one, _rest = _block(2, False), _block(1, False), _block(1, True)
_three = _block(VECTORS, False)


@jit
def product(
    a: int, rs: int, cs: int, b: int, ldb: int, z: int, ldz: int, c: int, ldc: int, m: int, n: int, k: int
) -> None:
    """C [m, n] = A [m, k] B [k, n] + C_0 [m, n]; addresses in bytes, strides in numbers (rs, cs: of A)."""
    # at most DEPTH rows of B at a time, which stay in the first cache with the columns of A
    for begin in range(0, max(k, 1), DEPTH):
        _slab(
            a + 4 * begin * cs, rs, cs, b + 4 * begin * ldb, ldb, z, ldz, c, ldc, m, n, min(k - begin, DEPTH)
        )
        z, ldz = c, ldc


@jit
def _slab(
    a: int, rs: int, cs: int, b: int, ldb: int, z: int, ldz: int, c: int, ldc: int, m: int, n: int, k: int
) -> None:
    j = 0
    while j < n:
        left = n - j
        # three vectors at a time, but four as two and two
        if left >= 3 * WIDTH and left != 4 * WIDTH:
            _three(a, rs, cs, b + 4 * j, ldb, z + 4 * j, ldz, c + 4 * j, ldc, m, k, 0)
            j += VECTORS * WIDTH
        elif left >= 2 * WIDTH:
            _two(a, rs, cs, b + 4 * j, ldb, z + 4 * j, ldz, c + 4 * j, ldc, m, k, 0)
            j += 2 * WIDTH
        elif left >= WIDTH:
            _one(a, rs, cs, b + 4 * j, ldb, z + 4 * j, ldz, c + 4 * j, ldc, m, k, 0)
            j += WIDTH
        else:
            _rest(a, rs, cs, b + 4 * j, ldb, z + 4 * j, ldz, c + 4 * j, ldc, m, k, left)
            j = n


@intrinsic
def _turn(context: Any, source: Kind, stride: Kind, target: Kind, pitch: Kind) -> Any:
    """target[j, i] = source[i, j] for WIDTH x WIDTH numbers, by log2(WIDTH) rounds of swapped halves in registers."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, stride, target, pitch = args
        stride, pitch = builder.mul(stride, I64(4)), builder.mul(pitch, I64(4))
        whole = _Whole(builder)
        rows = [whole.load(builder.add(source, builder.mul(stride, I64(i)))) for i in range(WIDTH)]
        half = WIDTH // 2
        while half:
            low = ir.Constant(LANES, [WIDTH + j - half if j & half else j for j in range(WIDTH)])
            high = ir.Constant(LANES, [WIDTH + j if j & half else j + half for j in range(WIDTH)])
            turned = list(rows)
            for i in range(WIDTH):
                if not i & half:
                    turned[i] = builder.shuffle_vector(rows[i], rows[i + half], low)
                    turned[i + half] = builder.shuffle_vector(rows[i], rows[i + half], high)
            rows, half = turned, half // 2
        for i, row in enumerate(rows):
            whole.store(row, builder.add(target, builder.mul(pitch, I64(i))))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@jit
def turn(source: int, stride: int, target: int, pitch: int) -> None:
    """target[j, i] = source[i, j] for a square of WIDTH numbers."""
    _turn(source, stride, target, pitch)
