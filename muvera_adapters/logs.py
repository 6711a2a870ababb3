"""The logger of this package, ``muvera_adapters``: retries, waits, repairs, guesses and fallbacks.

No vectors, payloads or secrets are logged. Errors of clients may quote a request, so their messages are shortened.
"""

from __future__ import annotations

import logging

LOG = logging.getLogger("muvera_adapters")
LOG.addHandler(logging.NullHandler())

_MOST = 300


def short(text: object) -> str:
    """The text on one line, shortened to at most 300 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MOST else f"{line[: _MOST - 4]} ..."
