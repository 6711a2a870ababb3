"""The logger of this package, ``muvera_adapters``: retries, waits, repairs, guesses and fallbacks.

No vector, payload or secret is logged. A client's error text may quote a request, so it is cut short.
"""

from __future__ import annotations

import logging

LOG = logging.getLogger("muvera_adapters")
LOG.addHandler(logging.NullHandler())

_MOST = 300


def short(text: object) -> str:
    """A text on one line, of at most 300 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MOST else f"{line[: _MOST - 4]} ..."
