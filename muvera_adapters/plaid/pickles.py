"""Reads untrusted pickles.

A pickle is a program. Two checks make it safe: :func:`check_opcodes` allows only the instructions that a kind of file
needs, and :class:`SafeUnpickler` finds only classes that its table names. The first also protects the parser: a
memo index of two billion makes it allocate 32 GB, and hashing a tuple nested a million deep overflows the stack.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from muvera_adapters.plaid.errors import IndexDamaged

_PLAIN = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BININT", "BININT1",
    "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST",
    "APPEND", "APPENDS",
})  # fmt: skip
#: dictionaries and lists of strings and integers
MAPS = _PLAIN | {"EMPTY_DICT", "SETITEM", "SETITEMS"}
#: objects built by calls; no dictionaries, whose keys would be hashed, and which BUILD could put into globals
OBJECTS = _PLAIN | {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "BINBYTES", "BINBYTES8", "SHORT_BINBYTES",
}  # fmt: skip

#: lists and dictionaries of tensors, strings and numbers, for :class:`PlainUnpickler`
LISTS = (OBJECTS - {"BUILD"}) | {"EMPTY_DICT", "SETITEM", "SETITEMS", "BINFLOAT"}

_OPCODES: dict[bytes, Any] = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}

#: errors that a parser can raise for a hostile pickle; all mean the same
PICKLE_ERRORS = (
    pickle.UnpicklingError, EOFError, ArithmeticError, AttributeError, ImportError, LookupError, MemoryError,
    NotImplementedError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class _Bounded:
    """A file that ends at a given byte; it never allocates more than is left, whatever length a pickle gives."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self._file, self._end = file, end

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline(max(0, self._end - self._file.tell()))


def check_opcodes(path: Path, file: IO[bytes], allowed: frozenset[str], limit: int | None = None) -> None:
    """Reads the instructions of the pickle at the file's position, executes none, and goes back to its start.

    Args:
        path: path of the file, for the error.
        file: file, positioned at the start of the pickle.
        allowed: names of the instructions that such a file may have.
        limit: maximum number of bytes of the pickle; None: the rest of the file, which may have holes.

    Raises:
        IndexDamaged: an instruction that is not allowed, a memo index that no writer uses, a frame that is not made
            of whole instructions, or no end within the limit.
    """
    start, name = file.tell(), ""
    size = file.seek(0, io.SEEK_END)
    file.seek(start)
    end = size if limit is None else min(size, start + limit)
    bounded, frame_end = _Bounded(file, end), start
    for count in itertools.count():
        if name == "STOP":
            break
        begin = file.tell()
        opcode = _OPCODES.get(bounded.read(1))
        name = opcode.name if opcode else ""
        if opcode is None or name not in allowed:
            raise IndexDamaged(
                path,
                f"cut short, or refused: the pickle has a {name or 'missing'} instruction, which such a file never has",
            )
        argument: Any = None
        if name == "GLOBAL":  # pickletools would warn of escapes in the names, which SafeUnpickler looks up as they are
            bounded.readline(), bounded.readline()
        elif opcode.arg:
            argument = opcode.arg.reader(bounded)
        if name.endswith("BINPUT") and (argument or 0) > count:
            raise IndexDamaged(path, "refused: the pickle's memo is larger than the pickle")
        # CPython drops the rest of a frame that ends within an instruction, and so meets other instructions than these
        position = file.tell()
        if begin < frame_end < position or (frame_end > position and name in ("FRAME", "STOP")):
            raise IndexDamaged(
                path, "refused: a frame of the pickle ends within an instruction or another frame, or after the pickle"
            )
        if name == "FRAME":
            frame_end = position + argument
            if frame_end > end:
                raise IndexDamaged(path, "cut short, or refused: a frame of the pickle is larger than the file")
    file.seek(start)


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows only the globals of its table; anything else is an error.

    Args:
        path: path of the file, for the error.
        file: file, positioned at the start of a pickle that :func:`check_opcodes` has accepted.
        table: replacements of globals, by (module, name).
    """

    def __init__(self, path: Path, file: IO[bytes], table: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._path, self._table = path, table

    def find_class(self, module: str, name: str) -> Any:
        """The replacement of a global."""
        try:
            return self._table[module, name]
        except KeyError:
            raise IndexDamaged(
                self._path, f"refused: it asks for {module}.{name}, which such a file never has"
            ) from None


class PlainUnpickler(pickle._Unpickler):
    """Like :class:`SafeUnpickler`; dictionaries may have only strings and integers as keys.

    It is based on the parser written in Python, which can check a key before it is hashed.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, path: Path, file: IO[bytes], table: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._path, self._table = path, table

    def find_class(self, module: str, name: str) -> Any:
        """The replacement of a global."""
        return SafeUnpickler.find_class(self, module, name)  # type: ignore[arg-type]

    def _check_keys(self, items: list[Any]) -> None:
        if not all(type(key) in (int, str) for key in items[::2]):
            raise IndexDamaged(self._path, "refused: a dictionary with other keys than strings and integers")

    def load_setitem(self) -> None:
        """SETITEM, after a look at the key."""
        self._check_keys(self.stack[-2:-1])  # type: ignore[attr-defined]
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        """SETITEMS, after a look at the keys."""
        self._check_keys(self.stack)  # type: ignore[attr-defined]
        super().load_setitems()  # type: ignore[misc]

    dispatch[pickle.SETITEM[0]] = load_setitem  # type: ignore[assignment]
    dispatch[pickle.SETITEMS[0]] = load_setitems  # type: ignore[assignment]


def load_plain(path: Path, data: bytes) -> Any:
    """A string, an integer, or a dictionary or list of these, from a pickle.

    Raises:
        IndexDamaged: the data is cut short, not a pickle, or a pickle of anything else, which is not executed.
    """
    try:
        check_opcodes(path, io.BytesIO(data), MAPS)
        return SafeUnpickler(path, io.BytesIO(data), {}).load()
    except PICKLE_ERRORS as error:
        raise IndexDamaged(path, f"cut short, or not a pickle of ids: {type(error).__name__}: {error}") from error
