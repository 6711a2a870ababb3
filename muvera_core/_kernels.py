"""The hot loops: hashing, aggregating and projecting tokens (FDE), and scoring them (MaxSim).

Everything here works on float32 in rows of ``ROW`` floats and vectors of ``LANES`` lanes, written as LLVM vector
code through numba's ``intrinsic``: LLVM maps it to AVX-512, AVX2 or NEON. Plain numba loops reach a fifth of it,
because accumulators in arrays never stay in registers.

Each output element is one chain of multiply-adds in a fixed order, so it does not depend on the tile it was computed
in, on the batch around it or on the number of threads.

Layouts. ``plane``: rows of ROW floats; a matrix wider than ROW is cut into planes, one after the other.
``panel``: LANES columns of a matrix side by side, (d, LANES), so that one row of it is one vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16
ROW = 128
# Rows of a register tile: 16 accumulators fill AVX-512's 32 registers well, AVX2 and NEON hold 6 x 16 floats.
_HAS_AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
TALL, SHORT = (16, 8) if _HAS_AVX512 else (6, 6)

OK, NOT_FINITE, ALL_ZERO = 0, 1, 2
# the smallest magnitudes (see pack_vectors) of what is not finite; float16's infinity is packed as 65536
_NOT_FINITE_SINGLE, _NOT_FINITE_HALF = 0x7F800000, 0x47800000

STEP = 1 << 26  # one Hamming step in the fill's keys; token indices stay below it
FAR = 30 * STEP

_F32, _I1, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VEC = ir.VectorType(_F32, LANES)
_IVEC = ir.VectorType(_I32, LANES)
_ZERO = ir.Constant(_VEC, [0.0] * LANES)
_VEC_BYTES = 4 * LANES
_ROW_BYTES = 4 * ROW
_ROW_VECS = ROW // LANES

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
        panel0 = _at(b, panel, p, ROW * _VEC_BYTES)

        def column(j: Any, sums: list[Any]) -> list[Any]:
            x = _at(b, row0, j, 4)
            y = _load(b, _at(b, panel0, j, _VEC_BYTES), _VEC)
            return [
                _multiply_add(b, _splat(b, _load(b, x, _F32, i * _ROW_BYTES)), y, s) for i, s in enumerate(sums)
            ]

        return _loop(b, width, sums, column)

    planes = b.sdiv(b.add(d, _const(ROW - 1)), _const(ROW))
    return _loop(b, planes, [_ZERO] * height, plane)


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


_load_single, _load_half = _element_loader(_F32), _element_loader(_I16)


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
                    _store(b, x, _at(b, target, i, _VEC_BYTES))
                magnitude = b.and_(b.bitcast(x, _IVEC), ir.Constant(_IVEC, [0x7FFFFFFF] * LANES))
                return [larger(magnitude, tops[0])]

            (tops,) = _loop(b, vectors, [_splat(b, top)], step)
            for distance in (8, 4, 2, 1):
                swap = ir.Constant(_IVEC, [lane ^ distance for lane in range(LANES)])
                tops = larger(b.shuffle_vector(tops, ir.Constant(_IVEC, ir.Undefined), swap), tops)
            return b.extract_element(tops, ir.Constant(_I32, 0))

        return types.int32(types.intp, types.intp, types.intp, types.int32), generate

    return pack_vectors


_pack_singles, _pack_halves = _vector_packer(_F32, 4), _vector_packer(_I16, 2)
_check_singles = _vector_packer(_F32, 4, store=False)


@intrinsic
def _code(_: Any, address: Any, shift: Any, mask: Any) -> Any:
    """Bits from ``shift`` (below 8) on, of the four bytes at an address (little-endian, as where numba runs)."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        word = b.zext(_load(b, args[0], _I32, align=1), _I64)
        return b.and_(b.lshr(word, args[1]), args[2])

    # unsigned, here and in the arrays of indices: numba need not look for negative ones, which would count from the end
    return types.uintp(*[types.intp] * 3), generate


@intrinsic
def _magnitude(_: Any, x: Any) -> Any:
    """Bits of abs(x), as in ``pack_vectors``."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        return b.and_(b.bitcast(args[0], _I32), ir.Constant(_I32, 0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def _from_bits(_: Any, bits: Any) -> Any:
    return types.float32(types.int32), lambda c, b, sig, args: b.bitcast(args[0], _F32)


@intrinsic
def _hash_tile(
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
def _segment_sums(_: Any, source: Any, order: Any, sizes: Any, count: Any, sums: Any) -> Any:
    """sums[s] = sum of the next sizes[s] rows source[order[i]], in order."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, order, sizes, count, sums = args

        def segment(s: Any, carried: list[Any]) -> list[Any]:
            (start,) = carried
            size = b.zext(_load(b, _at(b, sizes, s, 4), _I32), _I64)

            def add(i: Any, running: list[Any]) -> list[Any]:
                t = b.zext(_load(b, _at(b, start, i, 4), _I32), _I64)
                row = _at(b, source, t, _ROW_BYTES)
                return [b.fadd(x, _load(b, row, _VEC, _VEC_BYTES * j)) for j, x in enumerate(running)]

            target = _at(b, sums, s, _ROW_BYTES)
            for j, x in enumerate(_loop(b, size, [_ZERO] * _ROW_VECS, add)):
                _store(b, x, target, _VEC_BYTES * j)
            return [_at(b, start, size, 4)]

        _loop(b, count, [order], segment)
        return c.get_dummy_value()

    return _void(5), generate


@intrinsic
def _cube_sweep(_: Any, keys: Any, vectors: Any) -> Any:
    """The Hamming fill's first four sweeps: keys[c] = min(keys[c], keys[c ^ 1 << j] + STEP), j = 0..3."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        keys, vectors = args
        step = ir.Constant(_IVEC, [STEP] * LANES)

        def vector(i: Any, _: list[Any]) -> list[Any]:
            address = _at(b, keys, i, _VEC_BYTES)
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


def _project_tile(height: int) -> Any:
    @intrinsic
    def project(
        _: Any, rows: Any, plane: Any, panel: Any, d: Any, scales: Any, target: Any, target_step: Any
    ) -> Any:
        """target[i] = scales[i] * (rows[i] @ panel)"""

        def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
            rows, plane, panel, d, scales, target, target_step = args
            for i, dots in enumerate(_tile(b, rows, plane, panel, d, height)):
                _store(b, b.fmul(dots, _splat(b, _load(b, scales, _F32, 4 * i))), target)
                target = b.add(target, target_step)
            return c.get_dummy_value()

        return _void(7), generate

    return project


_project_tall, _project_short = _project_tile(TALL), _project_tile(SHORT)


@intrinsic
def _max_tile(_: Any, rows: Any, plane: Any, panel: Any, d: Any, best: Any) -> Any:
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
def _copy_scaled(_: Any, source: Any, vectors: Any, scale: Any, target: Any) -> Any:
    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, target = args
        factor = _splat(b, scale)

        def vector(i: Any, _: list[Any]) -> list[Any]:
            _store(b, b.fmul(_load(b, _at(b, source, i, _VEC_BYTES), _VEC), factor), _at(b, target, i, _VEC_BYTES))
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp), generate


@intrinsic
def _add_signed(_: Any, source: Any, vectors: Any, scale: Any, negative: Any, target: Any) -> Any:
    """target += scale * source, minus where a bit of ``negative`` (16 bits a vector) is set"""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, negative, target = args
        plus, minus = _splat(b, scale), _splat(b, b.fsub(ir.Constant(_F32, -0.0), scale))

        def vector(i: Any, _: list[Any]) -> list[Any]:
            bits = b.bitcast(_load(b, _at(b, negative, i, 2), _I16, align=2), ir.VectorType(_I1, LANES))
            address = _at(b, target, i, _VEC_BYTES)
            x = _load(b, _at(b, source, i, _VEC_BYTES), _VEC)
            _store(b, _multiply_add(b, x, b.select(bits, minus, plus), _load(b, address, _VEC)), address)
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp, types.intp), generate


@intrinsic
def _sum_squares(_: Any, source: Any, vectors: Any) -> Any:
    """Sum of squares of 4 x ``vectors`` vectors, in four chains."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors = args

        def four(i: Any, sums: list[Any]) -> list[Any]:
            base = _at(b, source, i, 4 * _VEC_BYTES)
            loaded = [_load(b, base, _VEC, _VEC_BYTES * j) for j in range(4)]
            return [_multiply_add(b, x, x, s) for x, s in zip(loaded, sums, strict=True)]

        s = _loop(b, vectors, [_ZERO] * 4, four)
        lanes = b.fadd(b.fadd(s[0], s[1]), b.fadd(s[2], s[3]))
        total = ir.Constant(_F32, 0.0)
        for lane in range(LANES):
            total = b.fadd(total, b.extract_element(lanes, ir.Constant(_I32, lane)))
        return total

    return types.float32(types.intp, types.intp), generate


@intrinsic
def _stream_scaled(_: Any, source: Any, vectors: Any, scale: Any, target: Any) -> Any:
    """target = scale * source past the cache; target is aligned to a vector. Halves the memory traffic of a FDE."""

    def generate(c: Any, b: Builder, sig: Any, args: Any) -> Any:
        source, vectors, scale, target = args
        factor = _splat(b, scale)
        streaming = b.module.add_metadata([ir.Constant(_I32, 1)])

        def vector(i: Any, _: list[Any]) -> list[Any]:
            x = b.fmul(_load(b, _at(b, source, i, _VEC_BYTES), _VEC), factor)
            _store(b, x, _at(b, target, i, _VEC_BYTES), align=_VEC_BYTES).set_metadata("nontemporal", streaming)
            return []

        _loop(b, vectors, [], vector)
        return c.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp), generate


# --- kernels --------------------------------------------------------------------------------------------------------


def _jit(function):
    # "reassoc" lets plain reductions vectorise; the order is fixed when the code is compiled
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no directory that could keep the compiled code: read-only, without a home
        return njit(**options)(function)


@_jit
def _aligned(rows, width):
    """(rows, width) float32 zeros at a cache line: vectors that straddle lines cost twice."""
    size = rows * width
    memory = np.zeros(size + LANES, np.float32)
    skip = (-memory.ctypes.data % _VEC_BYTES) // 4
    return memory[skip : skip + size].reshape(rows, width)


@_jit
def _pack(source, half, d, packed, row, plane_rows):
    """The d floats at ``source`` into row ``row`` of each plane; returns OK or what is wrong, and max abs."""
    size = 2 if half else 4
    top = np.int32(0)
    for start in range(0, d, ROW):
        plane_row = (start // ROW) * plane_rows + row
        target = packed.ctypes.data + plane_row * _ROW_BYTES
        width = min(ROW, d - start)
        vectors = width // LANES
        if half:
            top = _pack_halves(source + start * size, vectors, target, top)
        else:
            top = _pack_singles(source + start * size, vectors, target, top)
        for j in range(vectors * LANES, width):
            at = source + (start + j) * size
            x = _load_half(at) if half else _load_single(at)
            top = max(top, _magnitude(x))
            packed[plane_row, j] = x
    return _state(top, half), _from_bits(top)


@_jit
def _state(top, half):
    """What a token's largest magnitude says of it."""
    if top >= (_NOT_FINITE_HALF if half else _NOT_FINITE_SINGLE):
        return NOT_FINITE
    return ALL_ZERO if top == 0 else OK


class _Sizes(NamedTuple):
    d: int
    planes: int
    reps: int
    k: int
    buckets: int
    block: int  # dimensions of a partition in the FDE
    width: int  # of the FDE
    rows: int  # in a plane of ``rows``, a whole number of tiles


class _Matrices(NamedTuple):
    """An encoder's; fde.py makes them, _draws.py says what they are."""

    hyperplanes: Any  # (reps * k, d + 1) float64, the threshold last
    thresholds: Any  # (panels, LANES)
    panels: Any  # (panels, d, LANES)
    projections: Any  # (reps, panels, d, LANES), no panels: no projection
    shifts: Any  # (reps, buckets), no buckets: no final sketch
    negative: Any  # (reps, buckets, vectors) 16 bits each


class _Partitions(NamedTuple):
    """Of one document, by repetition; a slot is a row of what is projected."""

    codes: Any  # (reps, tokens) partition of a token
    order: Any  # (reps, tokens) tokens by partition
    counts: Any  # (reps, buckets)
    starts: Any  # (reps, buckets) one past a partition's last token in ``order``
    keys: Any  # (reps, buckets) a partition's first token, FAR where it has none
    slot_of: Any  # (reps, buckets)
    fill_slot_of: Any  # (reps, buckets) slot that holds the partition's first token alone, or -1
    empty: Any  # (reps, buckets) the empty partitions
    sizes: Any  # (reps, slots) tokens of a slot
    used: Any  # (reps,) slots


@_jit
def encode(
    addresses, offsets, half, d, hyperplanes, thresholds, panels, margin, slack, k, projections, d_proj, shifts,
    negative, d_final, is_query, fill, fill_by_bucket, normalize, out,
):
    """FDEs of documents into the rows of ``out``.

    Document i has its (offsets[i + 1] - offsets[i], d) tokens at addresses[i], float16 where ``half``, else float32.
    Returns (OK, 0, 0), or what is wrong and with which document and token of it; ``out`` is then incomplete.
    """
    matrices = _Matrices(hyperplanes, thresholds, panels, projections, shifts, negative)
    reps, buckets = shifts.shape[0], 1 << k
    block = d_proj if d_proj > 0 else d
    width = d_final if d_final > 0 else reps * buckets * block
    size = _Sizes(
        d, (d + ROW - 1) // ROW, reps, k, buckets, block, width, (buckets + TALL - 1) // TALL * TALL
    )

    first, tokens = offsets[0], offsets[-1] - offsets[0]
    padded = (tokens + TALL - 1) // TALL * TALL
    packed = _aligned(size.planes * padded, ROW)
    margins = np.full(padded, np.float32(-1))  # no padding is near a hyperplane
    row_bytes = d * (2 if half else 4)
    longest = 0
    for i in range(len(offsets) - 1):
        begin, count = offsets[i] - first, offsets[i + 1] - offsets[i]
        longest = max(longest, count)
        for t in range(count):
            state, largest = _pack(addresses[i] + t * row_bytes, half, d, packed, begin + t, padded)
            if state != OK:
                return state, i, t
            margins[begin + t] = margin * largest + slack
    bits = _hash(packed, padded, margins, matrices, size)

    parts = _new_partitions(size, longest)
    rows = _aligned(size.planes * size.rows, ROW)
    scales = np.ones(size.rows + 1, np.float32)
    fill_tokens = np.zeros(buckets + 1, np.uint32)
    # the last row stays zero: a query's empty partitions
    projected = _aligned(size.rows + 1, max(projections.shape[1], 1) * LANES)
    # blocks are written a whole vector at a time: room for the last one, and for the sketch's wrapped end
    fde_vectors = (width + block + 6 * LANES) // (4 * LANES) * 4
    fde = _aligned(1, fde_vectors * LANES)[0]
    plane_bytes = padded * _ROW_BYTES
    row_plane_bytes = size.rows * _ROW_BYTES
    for i in range(len(offsets) - 1):
        begin, count = offsets[i] - first, offsets[i + 1] - offsets[i]
        source = packed.ctypes.data + begin * _ROW_BYTES
        _partition(bits.ctypes.data + begin * bits.shape[1], bits.shape[1], count, parts, size)
        if d_final > 0:
            fde[:] = 0
        for r in range(reps):
            used = np.intp(parts.used[r])
            for p in range(size.planes):
                _segment_sums(
                    source + p * plane_bytes, parts.order.ctypes.data + r * parts.order.strides[0],
                    parts.sizes.ctypes.data + r * parts.sizes.strides[0], used,
                    rows.ctypes.data + p * row_plane_bytes,
                )
            if not is_query:
                for s in range(used):
                    scales[s] = np.float32(1) / np.float32(parts.sizes[r, s])
            if used < buckets and fill:
                total = _fill(r, parts, fill_by_bucket, fill_tokens, size)
                for s in range(used, total):
                    scales[s] = np.float32(1)
                    for p in range(size.planes):
                        _copy_scaled(
                            source + p * plane_bytes + np.intp(fill_tokens[s]) * _ROW_BYTES, _ROW_VECS, np.float32(1),
                            rows.ctypes.data + p * row_plane_bytes + s * _ROW_BYTES,
                        )
                used = total
            elif used < buckets:
                for e in range(buckets - used):
                    parts.slot_of[r, parts.empty[r, e]] = size.rows
            if projections.shape[1]:
                _project(r, rows, used, scales, matrices, projected, size)
                _write_projected(r, projected, parts.slot_of, matrices, fde, size)
            else:
                _write_unprojected(r, rows, scales, parts.slot_of, matrices, fde, size)
        if d_final > 0:
            for j in range(block):  # the sketch is cyclic: what ran over the end belongs to the start
                fde[j] += fde[width + j]
        fde[width:] = 0
        scale = np.float32(1)
        if normalize:
            squares = _sum_squares(fde.ctypes.data, fde_vectors // 4)
            scale = np.float32(1) / np.sqrt(squares) if squares > 0 else np.float32(0)
        target = out.ctypes.data + 4 * i * width
        if width % LANES == 0 and target % _VEC_BYTES == 0:
            _stream_scaled(fde.ctypes.data, width // LANES, scale, target)
        else:
            for j in range(width):
                out[i, j] = fde[j] * scale
    return OK, 0, 0


@_jit
def _hash(packed, padded, margins, matrices, size):
    """(padded, bytes) sides of all hyperplanes, bit r * k + j of a row for hyperplane j of repetition r."""
    hash_panels = matrices.panels.shape[0]
    step = 2 * hash_panels + 4  # _code reads four bytes
    bits = np.zeros((padded, step), np.uint8)
    near = np.zeros(TALL, np.uint16)
    for t in range(0, padded, TALL):
        for h in range(hash_panels):
            doubtful = _hash_tile(
                packed.ctypes.data + t * _ROW_BYTES, padded * _ROW_BYTES,
                matrices.panels.ctypes.data + h * size.d * _VEC_BYTES, size.d,
                matrices.thresholds.ctypes.data + h * _VEC_BYTES, margins.ctypes.data + 4 * t,
                bits.ctypes.data + t * step + 2 * h, step, near.ctypes.data,
            )
            if doubtful:
                _decide(packed, padded, size.d, matrices.hyperplanes, h, near, bits, t)
    return bits


@_jit
def _decide(packed, plane_rows, d, hyperplanes, panel, near, bits, t):
    """Sets the bits that float32 cannot tell from float64 dot products: the same partitions on every machine."""
    for i in range(TALL):
        for lane in range(LANES):
            if (near[i] >> lane) & 1:
                h = panel * LANES + lane
                dot = -hyperplanes[h, d]
                for j in range(d):
                    dot += np.float64(packed[(j // ROW) * plane_rows + t + i, j % ROW]) * hyperplanes[h, j]
                at = 2 * panel + (lane >> 3)
                bit = np.uint8(1 << (lane & 7))
                if dot > 0:
                    bits[t + i, at] |= bit
                else:
                    bits[t + i, at] &= np.uint8(0xFF) ^ bit


@_jit
def _new_partitions(size, tokens):
    stride = (tokens // LANES | 1) * LANES + LANES  # never a multiple of a page, where rows would evict each other
    return _Partitions(
        np.zeros((size.reps, stride), np.uint32),
        np.zeros((size.reps, stride), np.uint32),
        np.zeros((size.reps, size.buckets), np.uint32),
        np.zeros((size.reps, size.buckets), np.uint32),
        np.zeros((size.reps, max(size.buckets, LANES)), np.int32),
        np.zeros((size.reps, size.buckets), np.uint32),
        np.zeros((size.reps, size.buckets), np.int32),
        np.zeros((size.reps, size.buckets + 1), np.uint32),
        np.zeros((size.reps, size.buckets + 1), np.uint32),
        np.zeros(size.reps, np.uint32),
    )


@_jit
def _partition(bits_at, bits_step, count, parts, size):
    """Sorts a document's tokens by partition, in every repetition.

    The repetition is the inner loop: consecutive tokens often share a partition, whose counter would otherwise be
    loaded before its store is done.
    """
    codes, order, counts, starts = parts.codes, parts.order, parts.counts, parts.starts
    reps, buckets = np.uintp(size.reps), np.uintp(size.buckets)
    counts[:] = 0
    parts.keys[:] = FAR
    for t in range(count - 1, -1, -1):  # backwards, so that a key ends as the first token
        for r in range(reps):
            bit = np.intp(r) * size.k
            c = _code(bits_at + t * bits_step + (bit >> 3), bit & 7, size.buckets - 1)
            codes[r, np.uintp(t)] = c
            counts[r, c] += np.uint32(1)
            parts.keys[r, c] = t
    for r in range(reps):
        total, used, n_empty = np.uint32(0), np.uint32(0), np.uint32(0)
        for c in range(buckets):
            n = counts[r, c]
            starts[r, c] = total
            total = np.uint32(total + n)
            parts.slot_of[r, c] = used
            parts.sizes[r, used] = n
            parts.fill_slot_of[r, c] = np.int32(used) if n == 1 else np.int32(-1)
            parts.empty[r, n_empty] = c
            used = np.uint32(used + np.uint32(n > 0))
            n_empty = np.uint32(n_empty + np.uint32(n == 0))
        parts.used[r] = used
    for t in range(np.uintp(count)):
        for r in range(reps):
            c = codes[r, t]
            at = starts[r, c]
            starts[r, c] = np.uint32(at + np.uint32(1))
            order[r, at] = t


@_jit
def _fill(r, parts, by_bucket, fill_tokens, size):
    """Gives the empty partitions of a repetition a slot; returns the slots used then.

    A token that fills gets a slot of its own (``fill_tokens`` names it), unless it is alone in its partition. The
    nearest one of every partition is found in O(2**k k), by a min-plus transform over the cube of partitions.
    """
    r = np.uintp(r)
    keys = parts.keys
    if by_bucket:
        for c in range(np.uintp(size.buckets)):
            keys[r, c] = np.int32(c) if parts.counts[r, c] else np.int32(FAR)
    _cube_sweep(keys.ctypes.data + np.intp(r) * keys.strides[0], keys.shape[1] // LANES)
    for j in range(4, size.k):
        half = np.uintp(1 << j)
        for base in range(np.uintp(0), np.uintp(size.buckets), 2 * half):
            for c in range(base, base + half):
                x, y = keys[r, c], keys[r, c + half]
                keys[r, c] = min(x, y + np.int32(STEP))
                keys[r, c + half] = min(y, x + np.int32(STEP))
    used = np.uintp(parts.used[r])
    for e in range(np.uintp(size.buckets) - used):
        c = parts.empty[r, e]
        nearest = np.uintp(keys[r, c] & np.int32(STEP - 1))
        s = nearest if by_bucket else np.uintp(parts.codes[r, nearest])
        fill_tokens[used] = parts.order[r, np.uint32(parts.starts[r, s] - parts.counts[r, s])]
        slot = parts.fill_slot_of[r, s]
        new = slot < 0
        slot = np.int32(used) if new else slot
        parts.fill_slot_of[r, s] = slot
        parts.slot_of[r, c] = slot
        used += np.uintp(new)
    return np.intp(used)


@_jit
def _project(r, rows, used, scales, matrices, projected, size):
    panels = matrices.projections.shape[1]
    step = 4 * LANES * panels
    for p in range(panels):
        panel = matrices.projections.ctypes.data + (r * panels + p) * size.d * _VEC_BYTES
        t = 0
        while t < used:
            rows_at, scales_at = rows.ctypes.data + t * _ROW_BYTES, scales.ctypes.data + 4 * t
            target = projected.ctypes.data + t * step + p * _VEC_BYTES
            if used - t > SHORT:
                _project_tall(rows_at, size.rows * _ROW_BYTES, panel, size.d, scales_at, target, step)
                t += TALL
            else:
                _project_short(rows_at, size.rows * _ROW_BYTES, panel, size.d, scales_at, target, step)
                t += SHORT


@_jit
def _write_projected(r, projected, slot_of, matrices, fde, size):
    vectors = projected.shape[1] // LANES
    shifts, negative = matrices.shifts, matrices.negative
    for c in range(size.buckets):
        piece = projected.ctypes.data + 4 * projected.shape[1] * np.intp(slot_of[r, c])
        if negative.shape[1]:
            signs = negative.ctypes.data + 2 * (r * size.buckets + c) * negative.shape[2]
            _add_signed(piece, vectors, np.float32(1), signs, fde.ctypes.data + 4 * shifts[r, c])
        else:
            target = fde.ctypes.data + 4 * (r * size.buckets + c) * size.block
            _copy_scaled(piece, vectors, np.float32(1), target)


@_jit
def _write_unprojected(r, rows, scales, slot_of, matrices, fde, size):
    shifts, negative = matrices.shifts, matrices.negative
    nothing = _aligned(1, ROW)
    for c in range(size.buckets):
        slot = np.intp(slot_of[r, c])
        for p in range(size.planes):
            vectors = (min(ROW, size.d - p * ROW) + LANES - 1) // LANES
            piece = rows.ctypes.data + (p * size.rows + slot) * _ROW_BYTES
            if slot == size.rows:
                piece = nothing.ctypes.data
            at = 4 * p * ROW
            if negative.shape[1]:
                signs = negative.ctypes.data + 2 * ((r * size.buckets + c) * negative.shape[2] + p * _ROW_VECS)
                _add_signed(piece, vectors, scales[slot], signs, fde.ctypes.data + 4 * shifts[r, c] + at)
            else:
                target = fde.ctypes.data + 4 * (r * size.buckets + c) * size.block + at
                _copy_scaled(piece, vectors, scales[slot], target)


@_jit
def maxsim(addresses, offsets, half, panels, d, m, out):
    """out[i] = sum over the m query tokens of the largest dot product with document i; panels (ceil(m/16), d, 16).

    Documents and results as for ``encode``.
    """
    planes = (d + ROW - 1) // ROW
    tile = _aligned(planes * TALL, ROW)
    best = _aligned(panels.shape[0], LANES)
    row_bytes = d * (2 if half else 4)
    in_place = d == ROW and not half  # the rows are a tile as they lie
    for i in range(len(offsets) - 1):
        best[:] = -np.inf
        count = offsets[i + 1] - offsets[i]
        for t in range(0, count, TALL):
            rows = tile.ctypes.data
            if in_place and count - t >= TALL:
                rows = addresses[i] + t * row_bytes
                for row in range(TALL):
                    state = _state(_check_singles(rows + row * row_bytes, ROW // LANES, 0, np.int32(0)), half)
                    if state != OK:
                        return state, i, t + row
            else:
                for row in range(TALL):
                    at = min(t + row, count - 1)  # the last token again: a maximum does not mind
                    state, _ = _pack(addresses[i] + at * row_bytes, half, d, tile, row, TALL)
                    if state != OK:
                        return state, i, at
            for p in range(panels.shape[0]):
                _max_tile(
                    rows, TALL * _ROW_BYTES, panels.ctypes.data + p * d * _VEC_BYTES, d,
                    best.ctypes.data + p * _VEC_BYTES,
                )
        total = 0.0
        for q in range(m):
            total += best[q // LANES, q % LANES]
        out[i] = total
    return OK, 0, 0
