"""The contract that every store keeps, against every engine (``conftest.py`` has the session)."""

from muvera_adapters.testing.contract import *  # noqa: F403
