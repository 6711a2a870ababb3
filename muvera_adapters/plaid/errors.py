"""Errors of indexes, which are untrusted input."""

from __future__ import annotations

from pathlib import Path

from muvera_adapters.errors import MuveraError


class UnknownFormat(MuveraError):
    """The directory is not an index of a supported format."""


class IndexDamaged(MuveraError):
    """A file of the index is missing, cut short, or contradicts another."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class IndexWarning(UserWarning):
    """The index can be read, but something in it was left out or looks unusual."""
