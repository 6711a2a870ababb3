"""LLVM building blocks of the kernels: float32 tiles and loops over vectors, as numba intrinsics.

Everything here works on float32 in rows of ``ROW`` floats and vectors of ``LANES`` lanes, written as LLVM vector
code: LLVM maps it to AVX-512, AVX2 or NEON. Plain numba loops reach a fifth of its speed, because accumulators in
arrays never stay in registers.

Each output element is one chain of multiply-adds in a fixed order, so it does not depend on the tile it was computed
in, on the batch around it or on the number of threads.

Layouts. ``plane``: rows of ROW floats; a matrix wider than ROW is cut into planes, one after the other.
``panel``: LANES columns of a matrix side by side, (d, LANES), so that one row of it is one vector.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from muvera_core._layout import LANES

ROW = 128
# Rows of a register tile: 16 accumulators fill AVX-512's 32 registers well, AVX2 and NEON hold 6 x 16 floats.
_HAS_AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
TALL, SHORT = (16, 8) if _HAS_AVX512 else (6, 6)
# levels of a Walsh-Hadamard transform done in registers
MAX_LEVELS = 4 if _HAS_AVX512 else 2

STEP = 1 << 26  # one Hamming step in the fill's keys; token indices stay below it

VEC_BYTES = 4 * LANES
ROW_BYTES = 4 * ROW
ROW_VECS = ROW // LANES

_F32, _I1, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VEC = ir.VectorType(_F32, LANES)
_IVEC = ir.VectorType(_I32, LANES)
_ZERO = ir.Constant(_VEC, [0.0] * LANES)

Builder = Any  # llvmlite is untyped


# --- LLVM building blocks -------------------------------------------------------------------------------------------


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def _pointer(b: Builder, address: Any, offset: int, kind: Any) -> Any:
    if offset:
        address = b.add(address, _const(offset))
    return b.inttoptr(address, ir.PointerType(kind))


def _at(b: Builder, address: Any, index: Any, size: int) -> Any:
    return b.add(address, b.mul(index, _const(size)))


def _load(b: Builder, address: Any, kind: Any, offset: int = 0, align: int = 4) -> Any:
    return b.load(_pointer(b, address, offset, kind), align=align)


def _store(b: Builder, value: Any, address: Any, offset: int = 0, align: int = 4) -> Any:
    return b.store(value, _pointer(b, address, offset, value.type), align=align)


def _splat(b: Builder, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = b.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return b.shuffle_vector(one, undefined, ir.Constant(_IVEC, [0] * LANES))


def _multiply_add(b: Builder, x: Any, y: Any, z: Any) -> Any:
    # "contract" makes it one fused instruction where the machine has one
    return b.fadd(b.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def _absolute(b: Builder, x: Any) -> Any:
    name = f"llvm.fabs.v{LANES}f32"
    function = b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(_VEC, [_VEC]), name)
    return b.call(function, [x])


def _loop(b: Builder, count: Any, carried: list[Any], body: Any) -> list[Any]:
    """``for i in range(count)`` over values kept in registers: ``body(i, values) -> values``."""
    before = b.block
    head, inside, after = (b.append_basic_block(n) for n in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(_I64)
    i.add_incoming(_const(0), before)
    values = []
    for start in carried:
        value = b.phi(start.type)
        value.add_incoming(start, before)
        values.append(value)
    b.cbranch(b.icmp_signed("<", i, count), inside, after)
    b.position_at_end(inside)
    updated = body(i, values)
    last = b.block
    i.add_incoming(b.add(i, _const(1)), last)
    for value, new in zip(values, updated, strict=True):
        value.add_incoming(new, last)
    b.branch(head)
    b.position_at_end(after)
    return values


def _tile(b: Builder, rows: Any, plane_bytes: Any, panel: Any, d: Any, height: int) -> list[Any]:
    """(height, d) rows times a (d, LANES) panel, as ``height`` vectors in registers."""

    def plane(p: Any, sums: list[Any]) -> list[Any]:
        left = b.sub(d, b.mul(p, _const(ROW)))
        width = b.select(b.icmp_signed("<", left, _const(ROW)), left, _const(ROW))
        row0 = b.add(rows, b.mul(p, plane_bytes))
        panel0 = _at(b, panel, p, ROW * VEC_BYTES)

        def column(j: Any, sums: list[Any]) -> list[Any]:
            x = _at(b, row0, j, 4)
            y = _load(b, _at(b, panel0, j, VEC_BYTES), _VEC)
            return [_multiply_add(b, _splat(b, _load(b, x, _F32, i * ROW_BYTES)), y, s) for i, s in enumerate(sums)]

        return _loop(b, width, sums, column)

    planes = b.sdiv(b.add(d, _const(ROW - 1)), _const(ROW))
    return _loop(b, planes, [_ZERO] * height, plane)


def _narrow_tile(b: Builder, rows: Any, plane_bytes: Any, panel: Any, d: Any, height: int) -> list[Any]:
    """(height, d) rows times a panel of pairs (see ``paired_panels``); the upper half of each vector is zero."""

    def plane(p: Any, sums: list[Any]) -> list[Any]:
        left = b.sub(d, b.mul(p, _const(ROW)))
        width = b.select(b.icmp_signed("<", left, _const(ROW)), left, _const(ROW))
        row0 = b.add(rows, b.mul(p, plane_bytes))
        panel0 = _at(b, panel, p, ROW // 2 * VEC_BYTES)

        def pair(j: Any, sums: list[Any]) -> list[Any]:
            x = _at(b, row0, j, 8)
            y = _load(b, _at(b, panel0, j, VEC_BYTES), _VEC)
            return [_multiply_add(b, _splat_pair(b, x, i * ROW_BYTES), y, s) for i, s in enumerate(sums)]

        # a row's float past an odd width is zero, and so is its partner
        return _loop(b, b.sdiv(b.add(width, _const(1)), _const(2)), sums, pair)

    planes = b.sdiv(b.add(d, _const(ROW - 1)), _const(ROW))
    columns = [2 * lane if lane < LANES // 2 else LANES for lane in range(LANES)]
    even, odd = (ir.Constant(_IVEC, [c + (c < LANES) * i for c in columns]) for i in (0, 1))
    sums = _loop(b, planes, [_ZERO] * height, plane)
    return [b.fadd(b.shuffle_vector(s, _ZERO, even), b.shuffle_vector(s, _ZERO, odd)) for s in sums]


def _splat_pair(b: Builder, address: Any, offset: int) -> Any:
    pairs = ir.VectorType(ir.DoubleType(), LANES // 2)
    undefined = ir.Constant(pairs, ir.Undefined)
    pair = b.insert_element(undefined, _load(b, address, ir.DoubleType(), offset), ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES // 2), [0] * (LANES // 2))
    return b.bitcast(b.shuffle_vector(pair, undefined, zeros), _VEC)


def _void(count: int) -> Any:
    return types.void(*[types.intp] * count)


# --- intrinsics: arguments named like arrays are addresses ----------------------------------------------------------


def _widen(b: Builder, x: Any) -> Any:
    """float32 itself, or the float32 of float16 bits (finite values only); scalar or vector, on any hardware."""
    if x.type in (_F32, _VEC):
        return x
    integer, number = (_I32, _F32) if x.type == _I16 else (_IVEC, _VEC)

    def constant(kind: Any, value: Any) -> Any:
        return ir.Constant(kind, [value] * LANES if kind in (_IVEC, _VEC) else value)

    bits = b.zext(x, integer)
    magnitude = b.shl(b.and_(bits, constant(integer, 0x7FFF)), constant(integer, 13))
    # the exponents differ by 112; multiplying, unlike adding to the exponent, is right for subnormals too
    value = b.fmul(b.bitcast(magnitude, number), constant(number, 2.0**112))
    sign = b.shl(b.and_(bits, constant(integer, 0x8000)), constant(integer, 16))
    return b.bitcast(b.or_(b.bitcast(value, integer), sign), number)


def _element_loader(kind: Any) -> Any:
    @intrinsic
    def load(_: Any, address: Any) -> Any:
        """The element at an address, as float32."""
        return types.float32(types.intp), lambda c, b, sig, args: _widen(b, _load(b, args[0], kind, align=2))

    return load


load_single, load_half = _element_loader(_F32), _element_loader(_I16)


def _vector_packer(kind: Any, size: int, store: bool = True) -> Any:
    vector = ir.VectorType(kind, LANES)

    @intrinsic
    def pack_vectors(_: Any, source: Any, vectors: Any, target: Any, top: Any) -> Any:
        """target = float32 of source (where ``store``); returns the largest of ``top`` and the magnitudes.

        Magnitude: bits of abs(x), an integer that grows with it, NaN above infinity.
        """

        def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
            source, vectors, target, top = args

            def larger(x: Any, y: Any) -> Any:
                return b.select(b.icmp_signed(">", x, y), x, y)

            def step(i: Any, tops: list[Any]) -> list[Any]:
                x = _widen(b, _load(b, _at(b, source, i, size * LANES), vector, align=2))
                if store:
                    _store(b, x, _at(b, target, i, VEC_BYTES))
                magnitude = b.and_(b.bitcast(x, _IVEC), ir.Constant(_IVEC, [0x7FFFFFFF] * LANES))
                return [larger(magnitude, tops[0])]

            (tops,) = _loop(b, vectors, [_splat(b, top)], step)
            for distance in (8, 4, 2, 1):
                swap = ir.Constant(_IVEC, [lane ^ distance for lane in range(LANES)])
                tops = larger(b.shuffle_vector(tops, ir.Constant(_IVEC, ir.Undefined), swap), tops)
            return b.extract_element(tops, ir.Constant(_I32, 0))

        return types.int32(types.intp, types.intp, types.intp, types.int32), generate

    return pack_vectors


pack_singles, pack_halves = _vector_packer(_F32, 4), _vector_packer(_I16, 2)
check_singles = _vector_packer(_F32, 4, store=False)


@intrinsic
def read_code(_: Any, address: Any, shift: Any, mask: Any) -> Any:
    """Bits from ``shift`` (below 8) on, of the four bytes at an address (little-endian, as where numba runs)."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        word = b.zext(_load(b, args[0], _I32, align=1), _I64)
        return b.and_(b.lshr(word, args[1]), args[2])

    # unsigned, here and in the arrays of indices: numba need not look for negative ones, which would count from the end
    return types.uintp(*[types.intp] * 3), generate


@intrinsic
def magnitude(_: Any, x: Any) -> Any:
    """Bits of abs(x), as in ``pack_vectors``."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        return b.and_(b.bitcast(args[0], _I32), ir.Constant(_I32, 0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def from_bits(_: Any, bits: Any) -> Any:
    return types.float32(types.int32), lambda c, b, sig, args: b.bitcast(args[0], _F32)


@intrinsic
def hash_tile(
    _: Any, rows: Any, plane: Any, panel: Any, d: Any, threshold: Any, margin: Any, bits: Any, bits_step: Any, near: Any
) -> Any:
    """bits[i] = rows[i] @ panel > threshold, 16 bits a row; near[i]: closer to it than float32 can tell.

    Returns the union of ``near``.
    """

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        rows, plane, panel, d, threshold, margin, bits, bits_step, near = args
        limit = _load(b, threshold, _VEC)
        union = ir.Constant(_I16, 0)
        for i, dots in enumerate(_tile(b, rows, plane, panel, d, TALL)):
            _store(b, b.bitcast(b.fcmp_ordered(">", dots, limit), _I16), bits, align=1)
            bits = b.add(bits, bits_step)
            distance = _absolute(b, b.fsub(dots, limit))
            close = b.fcmp_ordered("<", distance, _splat(b, _load(b, margin, _F32, 4 * i)))
            close = b.bitcast(close, _I16)
            _store(b, close, near, 2 * i, align=2)
            union = b.or_(union, close)
        return b.zext(union, _I64)

    return types.intp(*[types.intp] * 9), generate


@intrinsic
def transpose_tile(_: Any, rows: Any, target: Any) -> Any:
    """target[j, i] = rows[i, j] of LANES rows (of a plane) and LANES columns."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        rows, target = args
        vectors = [_load(b, rows, _VEC, i * ROW_BYTES) for i in range(LANES)]
        for distance in (8, 4, 2, 1):  # exchanges the off-diagonal quarters of every block of 2 * distance
            low = [lane if not lane & distance else LANES + lane - distance for lane in range(LANES)]
            high = [lane + distance if not lane & distance else LANES + lane for lane in range(LANES)]
            for i in range(LANES):
                if not i & distance:
                    x, y = vectors[i], vectors[i + distance]
                    vectors[i] = b.shuffle_vector(x, y, ir.Constant(_IVEC, low))
                    vectors[i + distance] = b.shuffle_vector(x, y, ir.Constant(_IVEC, high))
        for j, x in enumerate(vectors):
            _store(b, x, target, j * VEC_BYTES)
        return c.get_dummy_value()

    return _void(2), generate


def _butterflies(levels: int, flip: bool = False) -> Any:
    count = 1 << levels

    def transform(b: Builder, vectors: Any, step: Any, signs: Any) -> None:
        addresses = [b.add(vectors, b.mul(step, _const(i))) for i in range(count)]
        values = [_load(b, address, _VEC, align=VEC_BYTES) for address in addresses]
        if flip:
            values = [b.fmul(x, _splat(b, _load(b, signs, _F32, 4 * i))) for i, x in enumerate(values)]
        for level in range(levels):
            distance = 1 << level
            for i in range(count):
                if not i & distance:
                    x, y = values[i], values[i + distance]
                    values[i], values[i + distance] = b.fadd(x, y), b.fsub(x, y)
        for x, address in zip(values, addresses, strict=True):
            _store(b, x, address, align=VEC_BYTES)

    @intrinsic
    def butterflies(_: Any, vectors: Any, step: Any) -> Any:
        """Walsh-Hadamard transform of 2**levels vectors in place, ``step`` bytes apart."""

        def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
            transform(b, *args, None)
            return c.get_dummy_value()

        return _void(2), generate

    @intrinsic
    def flipped_butterflies(_: Any, vectors: Any, signs: Any) -> Any:
        """The same of successive vectors, multiplied by the float32 at ``signs`` before."""

        def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
            transform(b, args[0], _const(VEC_BYTES), args[1])
            return c.get_dummy_value()

        return _void(2), generate

    return flipped_butterflies if flip else butterflies


flipped_butterflies = _butterflies(MAX_LEVELS, flip=True)
butterflies_1, butterflies_2, butterflies_3, butterflies_4 = (_butterflies(levels) for levels in (1, 2, 3, 4))


@intrinsic
def tile_sides(_: Any, dots: Any, limits: Any, margins: Any, bits: Any, bits_step: Any) -> Any:
    """bits[lane] = dots[:, lane] > limits, 16 bits a lane, of LANES vectors ``dots`` and as many ``limits``.

    Returns a bit for each lane, set where a value is not farther from its limit than the lane's margin.
    """

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        dots, limits, margins, bits, bits_step = args
        words = ir.Constant(_IVEC, [0] * LANES)
        nearest = ir.Constant(_VEC, [3e38] * LANES)
        for i in range(LANES):
            x, limit = _load(b, dots, _VEC, i * VEC_BYTES, VEC_BYTES), _splat(b, _load(b, limits, _F32, 4 * i))
            bit = b.or_(words, ir.Constant(_IVEC, [1 << i] * LANES))
            words = b.select(b.fcmp_ordered(">", x, limit), bit, words)
            distance = _absolute(b, b.fsub(x, limit))
            nearest = b.select(b.fcmp_ordered("<", distance, nearest), distance, nearest)
        for lane in range(LANES):
            word = b.trunc(b.extract_element(words, ir.Constant(_I32, lane)), _I16)
            _store(b, word, b.add(bits, b.mul(bits_step, _const(lane))), align=1)
        close = b.fcmp_ordered("<=", nearest, _load(b, margins, _VEC))
        return b.zext(b.bitcast(close, _I16), _I64)

    return types.intp(*[types.intp] * 5), generate


@intrinsic
def segment_sums(_: Any, source: Any, order: Any, sizes: Any, count: Any, sums: Any) -> Any:
    """sums[s] = sum of the next sizes[s] rows source[order[i]], in order."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, order, sizes, count, sums = args

        def segment(s: Any, carried: list[Any]) -> list[Any]:
            (start,) = carried
            size = b.zext(_load(b, _at(b, sizes, s, 4), _I32), _I64)

            def add(i: Any, running: list[Any]) -> list[Any]:
                t = b.zext(_load(b, _at(b, start, i, 4), _I32), _I64)
                row = _at(b, source, t, ROW_BYTES)
                return [b.fadd(x, _load(b, row, _VEC, VEC_BYTES * j)) for j, x in enumerate(running)]

            target = _at(b, sums, s, ROW_BYTES)
            for j, x in enumerate(_loop(b, size, [_ZERO] * ROW_VECS, add)):
                _store(b, x, target, VEC_BYTES * j)
            return [_at(b, start, size, 4)]

        _loop(b, count, [order], segment)
        return c.get_dummy_value()

    return _void(5), generate


@intrinsic
def cube_sweep(_: Any, keys: Any, vectors: Any) -> Any:
    """The Hamming fill's first four sweeps: keys[c] = min(keys[c], keys[c ^ 1 << j] + STEP), j = 0..3."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        keys, vectors = args
        step = ir.Constant(_IVEC, [STEP] * LANES)

        def vector(i: Any, _: list[Any]) -> list[Any]:
            address = _at(b, keys, i, VEC_BYTES)
            x = _load(b, address, _IVEC)
            for j in range(4):
                swap = ir.Constant(_IVEC, [lane ^ (1 << j) for lane in range(LANES)])
                y = b.add(b.shuffle_vector(x, ir.Constant(_IVEC, ir.Undefined), swap), step)
                x = b.select(b.icmp_signed("<", y, x), y, x)
            _store(b, x, address)
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return _void(2), generate


def _project_tile(height: int, narrow: bool = False) -> Any:
    multiply = _narrow_tile if narrow else _tile

    @intrinsic
    def project(_: Any, rows: Any, plane: Any, panel: Any, d: Any, scales: Any, target: Any, target_step: Any) -> Any:
        """target[i] = scales[i] * (rows[i] @ panel)"""

        def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
            rows, plane, panel, d, scales, target, target_step = args
            for i, dots in enumerate(multiply(b, rows, plane, panel, d, height)):
                _store(b, b.fmul(dots, _splat(b, _load(b, scales, _F32, 4 * i))), target)
                target = b.add(target, target_step)
            return c.get_dummy_value()

        return _void(7), generate

    return project


project_tall, project_short, project_one = _project_tile(TALL), _project_tile(SHORT), _project_tile(1)
project_narrow_tall, project_narrow_short = _project_tile(TALL, narrow=True), _project_tile(SHORT, narrow=True)


@intrinsic
def max_tile(_: Any, rows: Any, plane: Any, panel: Any, d: Any, best: Any) -> Any:
    """best = max(best, max over the tile's rows of rows[i] @ panel)"""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        rows, plane, panel, d, best = args
        top = _load(b, best, _VEC)
        for dots in _tile(b, rows, plane, panel, d, TALL):
            top = b.select(b.fcmp_ordered(">", dots, top), dots, top)
        _store(b, top, best)
        return c.get_dummy_value()

    return _void(5), generate


@intrinsic
def copy_scaled(_: Any, source: Any, vectors: Any, scale: Any, target: Any) -> Any:
    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, target = args
        factor = _splat(b, scale)

        def vector(i: Any, _: list[Any]) -> list[Any]:
            _store(b, b.fmul(_load(b, _at(b, source, i, VEC_BYTES), _VEC), factor), _at(b, target, i, VEC_BYTES))
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp), generate


@intrinsic
def add_signed(_: Any, source: Any, vectors: Any, scale: Any, negative: Any, target: Any) -> Any:
    """target += scale * source, minus where a bit of ``negative`` (16 bits a vector) is set"""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, negative, target = args
        plus, minus = _splat(b, scale), _splat(b, b.fsub(ir.Constant(_F32, -0.0), scale))

        def vector(i: Any, _: list[Any]) -> list[Any]:
            bits = b.bitcast(_load(b, _at(b, negative, i, 2), _I16, align=2), ir.VectorType(_I1, LANES))
            address = _at(b, target, i, VEC_BYTES)
            x = _load(b, _at(b, source, i, VEC_BYTES), _VEC)
            _store(b, _multiply_add(b, x, b.select(bits, minus, plus), _load(b, address, _VEC)), address)
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp, types.intp), generate


@intrinsic
def sum_squares(_: Any, source: Any, vectors: Any) -> Any:
    """Sum of squares of 4 x ``vectors`` vectors, in four chains."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors = args

        def four(i: Any, sums: list[Any]) -> list[Any]:
            base = _at(b, source, i, 4 * VEC_BYTES)
            loaded = [_load(b, base, _VEC, VEC_BYTES * j) for j in range(4)]
            return [_multiply_add(b, x, x, s) for x, s in zip(loaded, sums, strict=True)]

        s = _loop(b, vectors, [_ZERO] * 4, four)
        lanes = b.fadd(b.fadd(s[0], s[1]), b.fadd(s[2], s[3]))
        total = ir.Constant(_F32, 0.0)
        for lane in range(LANES):
            total = b.fadd(total, b.extract_element(lanes, ir.Constant(_I32, lane)))
        return total

    return types.float32(types.intp, types.intp), generate


@intrinsic
def stream_scaled(_: Any, source: Any, vectors: Any, scale: Any, target: Any) -> Any:
    """target = scale * source past the cache; target is aligned to a vector. Halves the memory traffic of a FDE."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, target = args
        factor = _splat(b, scale)
        streaming = b.module.add_metadata([ir.Constant(_I32, 1)])

        def vector(i: Any, _: list[Any]) -> list[Any]:
            x = b.fmul(_load(b, _at(b, source, i, VEC_BYTES), _VEC), factor)
            _store(b, x, _at(b, target, i, VEC_BYTES), align=VEC_BYTES).set_metadata("nontemporal", streaming)
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp), generate
