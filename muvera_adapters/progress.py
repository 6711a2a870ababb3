"""Progress of long work: a bar in a terminal or a notebook, and otherwise a line of text every 15 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tqdm import tqdm

T = TypeVar("T")

#: seconds between two lines if there is no terminal; shorter work prints no lines
SECONDS = 15.0

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm


@overload
def progress_bar(
    iterable: Iterable[T],
    *,
    desc: str | None = None,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    disable: bool = False,
) -> tqdm[T]: ...


@overload
def progress_bar(
    iterable: None = None,
    *,
    desc: str | None = None,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    disable: bool = False,
) -> tqdm[Any]: ...


def progress_bar(
    iterable: Iterable[T] | None = None,
    *,
    desc: str | None = None,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    disable: bool = False,
) -> tqdm[Any]:
    """Shows the progress of some work on standard error.

    Args:
        iterable: items of the work; None: the caller counts with ``update(n)`` of the result.
        desc: name of the work.
        total: number of items; None: the length of ``iterable``, if it has one.
        unit: name of one item.
        initial: number of items that were done before.
        disable: whether to show nothing.
    """
    given: dict[str, Any] = {"desc": desc, "total": total, "unit": unit, "initial": initial, "disable": disable}
    if disable or _shows_bars():
        return tqdm(iterable, dynamic_ncols=True, **given)
    return _Lines(iterable, **given)


def tell(line: str) -> None:
    """Writes a line to standard error, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def _shows_bars() -> bool:
    # the stream of a notebook is not a terminal, but can show bars
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


class _Lines(_Tqdm):
    """Writes a whole line of text every :data:`SECONDS`, and a last one if there was one before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._written = time.monotonic()
        self._shown: float | None = None
        super().__init__(*args, **{**kwargs, "mininterval": SECONDS})

    def refresh(self, *_: Any, **__: Any) -> None:
        """Writes a line if the last one was long enough ago; nothing is redrawn."""
        if time.monotonic() - self._written >= SECONDS:
            self._written = time.monotonic()
            self._write()

    def display(self, *_: Any, **__: Any) -> None:
        """Does nothing, because lines cannot be redrawn."""

    def clear(self, *_: Any, **__: Any) -> None:
        """Does nothing, because lines that were written stay."""

    def close(self) -> None:
        """Writes the last line."""
        self.leave = False
        super().close()
        if self._shown not in (None, self.n):
            self._write()

    def _write(self) -> None:
        now = self.format_dict
        total = f" of {self.total:,.0f}" if self.total else ""
        left = (self.total or self.n) - self.n
        more = f", about {tqdm.format_interval(left / now['rate'])} left" if left > 0 and now["rate"] else ""
        unit = "" if self.unit == "it" else f" {self.unit}"
        took = tqdm.format_interval(now["elapsed"])
        self.fp.write(f"{self.desc or 'progress'}: {self.n:,.0f}{total}{unit} in {took}{more}\n")
        sys.stderr.flush()
        self._shown = self.n
