"""Token matrices as text, for collections without struct arrays: base64 in VARCHAR fields, split where it is long.

The bytes are: version (1), type (1: float16, 2: float32, 3: int8), dimensions (uint16), tokens (uint32), then the
values row by row, all little-endian. Before values of int8 there is a float32 for each token, by which its values are
multiplied. The base64 text is cut into pieces of 65,532 characters, one per field; unused fields are "".
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_adapters.errors import MuveraError

TokenType: TypeAlias = Literal["float32", "float16", "int8"]

#: largest number of characters of a VARCHAR on a server
FIELD_LENGTH = 65_535
_PIECE = FIELD_LENGTH // 4 * 4
_HEADER = struct.Struct("<BBHI")
_VERSION = 1
_TYPES: dict[str, tuple[int, np.dtype[Any]]] = {
    "float16": (1, np.dtype("<f2")),
    "float32": (2, np.dtype("<f4")),
    "int8": (3, np.dtype("i1")),
}
_SCALE = np.dtype("<f4")
_LARGEST = 127
_BY_CODE = dict(_TYPES.values())


def text_length(tokens: int, dim: int, kind: TokenType) -> int:
    """Number of characters of a matrix as text."""
    return -(-(_HEADER.size + tokens * token_bytes(dim, kind)) // 3) * 4


def token_bytes(dim: int, kind: TokenType) -> int:
    """Number of bytes of one token, before conversion to text."""
    return dim * _TYPES[kind][1].itemsize + (_SCALE.itemsize if kind == "int8" else 0)


def fields_for(tokens: int, dim: int, kind: TokenType) -> int:
    """Number of fields for a matrix."""
    return -(-text_length(tokens, dim, kind) // _PIECE)


def capacity(fields: int, dim: int, kind: TokenType) -> int:
    """Largest number of tokens that fit into this many fields."""
    return (fields * _PIECE // 4 * 3 - _HEADER.size) // token_bytes(dim, kind)


def pack(matrix: npt.NDArray[Any], kind: TokenType, fields: int) -> list[str]:
    """Texts of a matrix (n, dim), one for each field."""
    code, dtype = _TYPES[kind]
    header = _HEADER.pack(_VERSION, code, matrix.shape[1], len(matrix))
    scales = b""
    if kind == "int8":
        each = np.abs(matrix).max(axis=1, keepdims=True).astype(np.float32) / np.float32(_LARGEST)
        each[each == 0] = 1  # an all-zero token
        matrix, scales = np.rint(matrix / each), each.astype(_SCALE).tobytes()
    text = base64.b64encode(header + scales + np.ascontiguousarray(matrix, dtype).tobytes()).decode()
    pieces = [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]
    assert len(pieces) <= fields
    return pieces + [""] * (fields - len(pieces))


def unpack(texts: Sequence[str | None], where: str) -> npt.NDArray[np.float32] | None:
    """The matrix (n, dim) of texts; None if all are empty.

    Raises:
        MuveraError: the texts are not those of a matrix.
    """
    text = "".join(piece or "" for piece in texts)
    if not text:
        return None
    try:
        data = base64.b64decode(text, validate=True)
        version, code, dim, tokens = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise ValueError(f"version {version}")
        start, scales = _HEADER.size, np.ones((1, 1), np.float32)
        if code == _TYPES["int8"][0]:
            scales = np.frombuffer(data, _SCALE, tokens, start).astype(np.float32)[:, None]
            start += tokens * _SCALE.itemsize
        values = np.frombuffer(data, _BY_CODE[code], offset=start)
        return values.reshape(tokens, dim).astype(np.float32) * scales
    except (binascii.Error, struct.error, KeyError, ValueError) as error:
        raise MuveraError(f"{where}: its stored tokens cannot be read ({error})") from error
