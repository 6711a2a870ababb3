"""The hot loops of the regression encoder, built on the tiles of ``_simd.py``; the same promises hold.

Results of a row lie in planes of ROW floats, ``(ceil(width / ROW), rows, ROW)``, so that they are a tile's left side
in the next product.
"""

from __future__ import annotations

import numpy as np

from muvera_core._jit import jit
from muvera_core._kernels import OK, aligned, pack
from muvera_core._simd import (
    LANES,
    ROW,
    ROW_BYTES,
    SHORT,
    TALL,
    VEC_BYTES,
    max_tile,
    project_one,
    project_short,
    project_tall,
)

# of documents whose packed tokens stay in a core's L2 cache while the sample passes by
_BLOCK_TOKENS = 1024


@jit
def _pack_rows(address, count, half, d, packed, first, plane_rows, height):
    """Packs ``count`` tokens from row ``first`` on, repeating the last up to a multiple of ``height``."""
    row_bytes = d * (2 if half else 4)
    for t in range(-(-count // height) * height):
        at = min(t, count - 1)
        state, _ = pack(address + at * row_bytes, half, d, packed, first + t, plane_rows)
        if state != OK:
            return state, at
    return OK, 0


@jit
def maxima(addresses, offsets, half, d, panels, centres, out):
    """out[:, i] = largest dot product of each sample token with document i, less ``centres``; in planes.

    Args:
        addresses: (n,) of the documents' first tokens.
        offsets: (n + 1,) running number of tokens.
        half: tokens are float16; else float32.
        d: width of a token.
        panels: (p, d, LANES) sample tokens.
        centres: (p, LANES).
        out: (ceil(p * LANES / ROW), at least n, ROW).

    Returns:
        state, document, token: as of ``encode``.
    """
    planes = (d + ROW - 1) // ROW
    n = len(offsets) - 1
    starts = np.empty(n, np.int64)  # of a document's rows in the block
    best = aligned(1, LANES)
    packed = aligned(1, ROW)
    begin = 0
    while begin < n:
        rows, end = 0, begin
        while end < n and (end == begin or offsets[end + 1] - offsets[begin] <= _BLOCK_TOKENS):
            starts[end] = rows
            rows += -(-(offsets[end + 1] - offsets[end]) // TALL) * TALL
            end += 1
        if packed.shape[0] < planes * rows:
            packed = aligned(planes * rows, ROW)
        for i in range(begin, end):
            state, token = _pack_rows(
                addresses[i], offsets[i + 1] - offsets[i], half, d, packed, starts[i], rows, TALL
            )
            if state != OK:
                return state, i, token
        for p in range(panels.shape[0]):
            panel = panels.ctypes.data + p * d * VEC_BYTES
            column = p * LANES
            for i in range(begin, end):
                best[:] = -np.inf
                last = rows if i + 1 == end else starts[i + 1]
                for row in range(starts[i], last, TALL):
                    max_tile(packed.ctypes.data + row * ROW_BYTES, rows * ROW_BYTES, panel, d, best.ctypes.data)
                for lane in range(LANES):
                    out[column // ROW, i, column % ROW + lane] = best[0, lane] - centres[p, lane]
        begin = end
    return OK, 0, 0


@jit
def features(addresses, offsets, half, d, panels, thresholds, out):
    """out[:, i] = sum over the tokens x of query i of max(x @ weights - thresholds, 0); in planes.

    Arguments and results as for ``maxima``, with weights in ``panels``.
    """
    planes = (d + ROW - 1) // ROW
    dots, ones = aligned(TALL, LANES), np.ones(TALL, np.float32)
    for i in range(len(offsets) - 1):
        count = offsets[i + 1] - offsets[i]
        rows = -(-count // TALL) * TALL
        packed = aligned(planes * rows, ROW)
        state, token = _pack_rows(addresses[i], count, half, d, packed, 0, rows, TALL)
        if state != OK:
            return state, i, token
        for p in range(panels.shape[0]):
            total = np.zeros(LANES, np.float32)
            panel = panels.ctypes.data + p * d * VEC_BYTES
            row = 0
            while row < count:
                source, height = packed.ctypes.data + row * ROW_BYTES, TALL
                if count - row > SHORT:
                    project_tall(source, rows * ROW_BYTES, panel, d, ones.ctypes.data, dots.ctypes.data, VEC_BYTES)
                else:
                    height = SHORT
                    project_short(source, rows * ROW_BYTES, panel, d, ones.ctypes.data, dots.ctypes.data, VEC_BYTES)
                for t in range(min(height, count - row)):
                    for lane in range(LANES):
                        total[lane] += max(dots[t, lane] - thresholds[p, lane], np.float32(0))
                row += height
            column = p * LANES
            out[column // ROW, i, column % ROW : column % ROW + LANES] = total
    return OK, 0, 0


@jit
def products(rows, width, panels, out):
    """out = rows @ matrix: rows in planes, (width, columns) matrix in panels, out (rows, LANES * panels).

    The number of rows is 1 or a multiple of SHORT.
    """
    count = rows.shape[1]
    ones = np.ones(TALL, np.float32)
    step = out.shape[1] * 4
    for p in range(panels.shape[0]):
        panel = panels.ctypes.data + p * width * VEC_BYTES
        row = 0
        while row < count:
            source = rows.ctypes.data + row * ROW_BYTES
            target = out.ctypes.data + row * step + p * VEC_BYTES
            if count == 1:
                project_one(source, count * ROW_BYTES, panel, width, ones.ctypes.data, target, step)
                row += 1
            elif count - row >= TALL:
                project_tall(source, count * ROW_BYTES, panel, width, ones.ctypes.data, target, step)
                row += TALL
            else:
                project_short(source, count * ROW_BYTES, panel, width, ones.ctypes.data, target, step)
                row += SHORT
