"""The hot loops: hashing, aggregating and projecting tokens (FDE), and scoring them (MaxSim).

They are built on the tiles of ``_simd.py``, which explains planes and panels, and why results do not depend on the
batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from muvera_core._jit import jit
from muvera_core._simd import (
    LANES,
    MAX_LEVELS,
    ROW,
    ROW_BYTES,
    ROW_VECS,
    SHORT,
    STEP,
    TALL,
    VEC_BYTES,
    add_signed,
    butterflies_1,
    butterflies_2,
    butterflies_3,
    butterflies_4,
    check_singles,
    copy_scaled,
    cube_sweep,
    flipped_butterflies,
    from_bits,
    hash_tile,
    load_half,
    load_single,
    magnitude,
    max_tile,
    pack_halves,
    pack_singles,
    project_narrow_short,
    project_narrow_tall,
    project_short,
    project_tall,
    read_code,
    segment_sums,
    stream_scaled,
    sum_squares,
    tile_sides,
    transpose_tile,
)

OK, NOT_FINITE, ALL_ZERO = 0, 1, 2
# squares below it have lost digits
_LEAST_SQUARES = np.float32(1e-30)
# the smallest magnitudes (see pack_vectors) of what is not finite; float16's infinity is packed as 65536
_NOT_FINITE_SINGLE, _NOT_FINITE_HALF = 0x7F800000, 0x47800000

# packed tokens are whole tiles of both kinds of hashing
_PADDING = int(np.lcm(TALL, LANES))

FAR = 30 * STEP  # key of an empty partition: farther away than any other


@jit
def aligned(rows, width):
    """(rows, width) float32 zeros at a cache line: vectors that straddle lines cost twice."""
    size = rows * width
    memory = np.zeros(size + LANES, np.float32)
    skip = (-memory.ctypes.data % VEC_BYTES) // 4
    return memory[skip : skip + size].reshape(rows, width)


@jit
def pack(source, half, d, packed, row, plane_rows):
    """The d floats at ``source`` into row ``row`` of each plane; returns OK or what is wrong, and max abs."""
    size = 2 if half else 4
    top = np.int32(0)
    for start in range(0, d, ROW):
        plane_row = (start // ROW) * plane_rows + row
        target = packed.ctypes.data + plane_row * ROW_BYTES
        width = min(ROW, d - start)
        vectors = width // LANES
        if half:
            top = pack_halves(source + start * size, vectors, target, top)
        else:
            top = pack_singles(source + start * size, vectors, target, top)
        for j in range(vectors * LANES, width):
            at = source + (start + j) * size
            x = load_half(at) if half else load_single(at)
            top = max(top, magnitude(x))
            packed[plane_row, j] = x
    return _state(top, half), from_bits(top)


@jit
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
    thresholds: Any  # (panels * LANES,)
    panels: Any  # (panels, d, LANES); none where the hyperplanes are fast rotations
    flips: Any  # (rotations, rounds, d) of the fast rotations
    projections: Any  # (reps, panels, d, LANES), no panels: no projection; (reps, 1, ceil(d / 2), LANES): paired_panels
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


@jit
def encode(
    addresses, offsets, half, d, hyperplanes, thresholds, panels, flips, margin, slack, k, projections, d_proj, shifts,
    negative, d_final, is_query, fill, fill_by_bucket, normalize, out,
):
    """FDEs of documents into the rows of ``out``.

    Document i has its (offsets[i + 1] - offsets[i], d) tokens at addresses[i], float16 where ``half``, else float32.
    Returns (OK, 0, 0), or what is wrong and with which document and token of it; ``out`` is then incomplete.
    """
    matrices = _Matrices(hyperplanes, thresholds, panels, flips, projections, shifts, negative)
    reps, buckets = shifts.shape[0], 1 << k
    block = d_proj if d_proj > 0 else d
    width = d_final if d_final > 0 else reps * buckets * block
    size = _Sizes(
        d, (d + ROW - 1) // ROW, reps, k, buckets, block, width, (buckets + TALL - 1) // TALL * TALL
    )

    first, tokens = offsets[0], offsets[-1] - offsets[0]
    padded = (tokens + _PADDING - 1) // _PADDING * _PADDING
    packed = aligned(size.planes * padded, ROW)
    margins = np.full(padded, np.float32(-1))  # no padding is near a hyperplane
    row_bytes = d * (2 if half else 4)
    too_large = np.float32(1e37) / np.float32(d * d) if len(flips) else np.float32(np.inf)
    longest = 0
    for i in range(len(offsets) - 1):
        begin, count = offsets[i] - first, offsets[i + 1] - offsets[i]
        longest = max(longest, count)
        for t in range(count):
            state, largest = pack(addresses[i] + t * row_bytes, half, d, packed, begin + t, padded)
            if state != OK:
                return state, i, t
            margins[begin + t] = margin * largest + slack
            if largest > too_large:  # its products may overflow
                margins[begin + t] = np.inf
    if len(flips):
        bits = _hash_by_rotations(packed, padded, margins, matrices, size)
    else:
        bits = _hash(packed, padded, margins, matrices, size)

    parts = _new_partitions(size, longest)
    rows = aligned(size.planes * size.rows, ROW)
    scales = np.ones(size.rows + 1, np.float32)
    fill_tokens = np.zeros(buckets + 1, np.uint32)
    # the last row stays zero: a query's empty partitions
    projected = aligned(size.rows + 1, max(projections.shape[1], 1) * LANES)
    # blocks are written a whole vector at a time: room for the last one, and for the sketch's wrapped end
    fde_vectors = (width + block + 6 * LANES) // (4 * LANES) * 4
    fde = aligned(1, fde_vectors * LANES)[0]
    plane_bytes = padded * ROW_BYTES
    row_plane_bytes = size.rows * ROW_BYTES
    for i in range(len(offsets) - 1):
        begin, count = offsets[i] - first, offsets[i + 1] - offsets[i]
        source = packed.ctypes.data + begin * ROW_BYTES
        _partition(bits.ctypes.data + begin * bits.shape[1], bits.shape[1], count, parts, size)
        if d_final > 0:
            fde[:] = 0
        for r in range(reps):
            used = np.intp(parts.used[r])
            for p in range(size.planes):
                segment_sums(
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
                        copy_scaled(
                            source + p * plane_bytes + np.intp(fill_tokens[s]) * ROW_BYTES, ROW_VECS, np.float32(1),
                            rows.ctypes.data + p * row_plane_bytes + s * ROW_BYTES,
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
            squares = sum_squares(fde.ctypes.data, fde_vectors // 4)
            if not _LEAST_SQUARES < squares < np.inf:  # tokens so short or long that squares leave float32's range
                _divide_by_largest(fde, width)
                squares = sum_squares(fde.ctypes.data, fde_vectors // 4)
            scale = np.float32(1) / np.sqrt(squares) if squares > 0 else np.float32(0)
        target = out.ctypes.data + 4 * i * width
        if width % LANES == 0 and target % VEC_BYTES == 0:
            stream_scaled(fde.ctypes.data, width // LANES, scale, target)
        else:
            for j in range(width):
                out[i, j] = fde[j] * scale
    return OK, 0, 0


@jit
def _divide_by_largest(fde, width):
    largest = np.float32(0)
    for j in range(width):
        largest = max(largest, abs(fde[j]))
    if largest > 0:
        for j in range(width):
            fde[j] /= largest


@jit
def _hash(packed, padded, margins, matrices, size):
    """(padded, bytes) sides of all hyperplanes, bit r * k + j of a row for hyperplane j of repetition r."""
    hash_panels = matrices.panels.shape[0]
    step = 2 * hash_panels + 4  # read_code reads four bytes
    bits = np.zeros((padded, step), np.uint8)
    near = np.zeros(TALL, np.uint16)
    for t in range(0, padded, TALL):
        for h in range(hash_panels):
            doubtful = hash_tile(
                packed.ctypes.data + t * ROW_BYTES, padded * ROW_BYTES,
                matrices.panels.ctypes.data + h * size.d * VEC_BYTES, size.d,
                matrices.thresholds.ctypes.data + h * VEC_BYTES, margins.ctypes.data + 4 * t,
                bits.ctypes.data + t * step + 2 * h, step, near.ctypes.data,
            )
            if doubtful:
                _decide(packed, padded, size.d, matrices.hyperplanes, h, near, bits, t)
    return bits


@jit
def _decide(packed, plane_rows, d, hyperplanes, panel, near, bits, t):
    """Sets the bits that float32 cannot tell from float64 dot products: the same partitions on every machine."""
    for i in range(TALL):
        for lane in range(LANES):
            if (near[i] >> lane) & 1:
                _decide_one(packed, plane_rows, d, hyperplanes, panel * LANES + lane, bits, t + i)


@jit
def _decide_one(packed, plane_rows, d, hyperplanes, h, bits, t):
    dot = -hyperplanes[h, d]
    for j in range(d):
        dot += np.float64(packed[(j // ROW) * plane_rows + t, j % ROW]) * hyperplanes[h, j]
    bit = np.uint8(1 << (h & 7))
    if dot > 0:
        bits[t, h >> 3] |= bit
    else:
        bits[t, h >> 3] &= np.uint8(0xFF) ^ bit


@jit
def _hash_by_rotations(packed, padded, margins, matrices, size):
    """The same as ``_hash``, of hyperplanes that are the rows of fast rotations; LANES tokens at a time."""
    d, count = size.d, size.reps * size.k
    hash_panels = (count + LANES - 1) // LANES
    step = 2 * hash_panels + 4
    bits = np.zeros((padded, step), np.uint8)
    tile = aligned(d, LANES)
    for t in range(0, padded, LANES):
        for rotation in range(len(matrices.flips)):
            for j in range(0, d, LANES):
                rows = packed.ctypes.data + ((j // ROW) * padded + t) * ROW_BYTES + 4 * (j % ROW)
                transpose_tile(rows, tile.ctypes.data + j * VEC_BYTES)
            _rotate(tile, matrices.flips[rotation], d)
            first = rotation * d
            for h in range(first, min(first + d, count), LANES):
                doubtful = tile_sides(
                    tile.ctypes.data + (h - first) * VEC_BYTES, matrices.thresholds.ctypes.data + 4 * h,
                    margins.ctypes.data + 4 * t, bits.ctypes.data + t * step + h // 8, step,
                )
                if doubtful:
                    for lane in range(LANES):
                        if (doubtful >> lane) & 1:
                            for i in range(h, min(h + LANES, count)):
                                distance = abs(tile[i - first, lane] - matrices.thresholds[i])
                                if not distance > margins[t + lane]:
                                    _decide_one(packed, padded, d, matrices.hyperplanes, i, bits, t + lane)
    return bits


@jit
def _rotate(tile, flips, d):
    """Random signs and a Walsh-Hadamard transform of the rows of a (d, LANES) tile, as often as there are flips."""
    base = tile.ctypes.data
    for i in range(len(flips)):
        for v in range(0, d, 1 << MAX_LEVELS):
            flipped_butterflies(base + v * VEC_BYTES, flips.ctypes.data + 4 * (i * d + v))
        apart = 1 << MAX_LEVELS
        while apart < d:
            levels = 1
            while levels < MAX_LEVELS and apart << (levels + 1) <= d:
                levels += 1
            for start in range(0, d, apart << levels):
                for v in range(start, start + apart):
                    vectors = base + v * VEC_BYTES
                    if levels == 4:
                        butterflies_4(vectors, apart * VEC_BYTES)
                    elif levels == 3:
                        butterflies_3(vectors, apart * VEC_BYTES)
                    elif levels == 2:
                        butterflies_2(vectors, apart * VEC_BYTES)
                    else:
                        butterflies_1(vectors, apart * VEC_BYTES)
            apart <<= levels


@jit
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


@jit
def _partition(bits_at, bits_step, count, parts, size):
    """Sorts a document's tokens by partition, in every repetition.

    The repetition is the inner loop: consecutive tokens often share a partition, whose counter would otherwise be
    loaded before its store is done.
    """
    codes, order, counts, starts = parts.codes, parts.order, parts.counts, parts.starts
    reps, buckets = np.uintp(size.reps), np.uintp(size.buckets)
    counts[:] = 0
    for t in range(np.uintp(count)):
        for r in range(reps):
            bit = np.intp(r) * size.k
            c = read_code(bits_at + np.intp(t) * bits_step + (bit >> 3), bit & 7, size.buckets - 1)
            codes[r, t] = c
            counts[r, c] += np.uint32(1)
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


@jit
def _fill(r, parts, by_bucket, fill_tokens, size):
    """Gives the empty partitions of a repetition a slot; returns the slots used then.

    A token that fills gets a slot of its own (``fill_tokens`` names it), unless it is alone in its partition. The
    nearest one of every partition is found in O(2**k k), by a min-plus transform over the cube of partitions.
    """
    r = np.uintp(r)
    keys = parts.keys
    keys[r] = FAR
    for c in range(np.uintp(size.buckets)):
        n = parts.counts[r, c]
        if n:
            keys[r, c] = np.int32(c if by_bucket else parts.order[r, np.uint32(parts.starts[r, c] - n)])
    cube_sweep(keys.ctypes.data + np.intp(r) * keys.strides[0], keys.shape[1] // LANES)
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


@jit
def _project(r, rows, used, scales, matrices, projected, size):
    panels, height = matrices.projections.shape[1], matrices.projections.shape[2]
    narrow = height < size.d
    step = 4 * LANES * panels
    for p in range(panels):
        panel = matrices.projections.ctypes.data + (r * panels + p) * height * VEC_BYTES
        t = 0
        while t < used:
            rows_at, scales_at = rows.ctypes.data + t * ROW_BYTES, scales.ctypes.data + 4 * t
            target = projected.ctypes.data + t * step + p * VEC_BYTES
            if narrow and used - t > SHORT:
                project_narrow_tall(rows_at, size.rows * ROW_BYTES, panel, size.d, scales_at, target, step)
                t += TALL
            elif narrow:
                project_narrow_short(rows_at, size.rows * ROW_BYTES, panel, size.d, scales_at, target, step)
                t += SHORT
            elif used - t > SHORT:
                project_tall(rows_at, size.rows * ROW_BYTES, panel, size.d, scales_at, target, step)
                t += TALL
            else:
                project_short(rows_at, size.rows * ROW_BYTES, panel, size.d, scales_at, target, step)
                t += SHORT


@jit
def _write_projected(r, projected, slot_of, matrices, fde, size):
    vectors = projected.shape[1] // LANES
    shifts, negative = matrices.shifts, matrices.negative
    for c in range(size.buckets):
        piece = projected.ctypes.data + 4 * projected.shape[1] * np.intp(slot_of[r, c])
        if negative.shape[1]:
            signs = negative.ctypes.data + 2 * (r * size.buckets + c) * negative.shape[2]
            add_signed(piece, vectors, np.float32(1), signs, fde.ctypes.data + 4 * shifts[r, c])
        else:
            target = fde.ctypes.data + 4 * (r * size.buckets + c) * size.block
            copy_scaled(piece, vectors, np.float32(1), target)


@jit
def _write_unprojected(r, rows, scales, slot_of, matrices, fde, size):
    shifts, negative = matrices.shifts, matrices.negative
    nothing = aligned(1, ROW)
    for c in range(size.buckets):
        slot = np.intp(slot_of[r, c])
        for p in range(size.planes):
            vectors = (min(ROW, size.d - p * ROW) + LANES - 1) // LANES
            piece = rows.ctypes.data + (p * size.rows + slot) * ROW_BYTES
            if slot == size.rows:
                piece = nothing.ctypes.data
            at = 4 * p * ROW
            if negative.shape[1]:
                signs = negative.ctypes.data + 2 * ((r * size.buckets + c) * negative.shape[2] + p * ROW_VECS)
                add_signed(piece, vectors, scales[slot], signs, fde.ctypes.data + 4 * shifts[r, c] + at)
            else:
                target = fde.ctypes.data + 4 * (r * size.buckets + c) * size.block + at
                copy_scaled(piece, vectors, scales[slot], target)


@jit
def maxsim(addresses, offsets, half, panels, d, m, out):
    """out[i] = sum over the m query tokens of the largest dot product with document i; panels (ceil(m/16), d, 16).

    Documents and results as for ``encode``.
    """
    planes = (d + ROW - 1) // ROW
    tile = aligned(planes * TALL, ROW)
    best = aligned(panels.shape[0], LANES)
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
                    state = _state(check_singles(rows + row * row_bytes, ROW // LANES, 0, np.int32(0)), half)
                    if state != OK:
                        return state, i, t + row
            else:
                for row in range(TALL):
                    at = min(t + row, count - 1)  # the last token again: a maximum does not mind
                    state, _ = pack(addresses[i] + at * row_bytes, half, d, tile, row, TALL)
                    if state != OK:
                        return state, i, at
            for p in range(panels.shape[0]):
                max_tile(
                    rows, TALL * ROW_BYTES, panels.ctypes.data + p * d * VEC_BYTES, d,
                    best.ctypes.data + p * VEC_BYTES,
                )
        total = 0.0
        for q in range(m):
            total += best[q // LANES, q % LANES]
        out[i] = total
    return OK, 0, 0
