"""What can be wrong with an index; an index is untrusted input."""

from __future__ import annotations

from pathlib import Path

from muvera_adapters.errors import MuveraError


class UnknownFormat(MuveraError):
    """The directory is no index of a format that can be read."""


class IndexDamaged(MuveraError):
    """A file of the index is missing, cut short, or contradicts another."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
