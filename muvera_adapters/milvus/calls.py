"""What all calls of a store have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muvera_adapters.milvus.requests import Call
from muvera_adapters.stores.operations import Retry

#: seconds; without a limit the client repeats a failed request 75 times
TIMEOUT = 60.0

#: within its timeout the client repeats requests on its own
DEFAULT_RETRY = Retry(attempts=2)


@dataclass(frozen=True, slots=True)
class Target:
    """Which collection, and how long a request may take."""

    name: str
    timeout: float = TIMEOUT


def arguments_of(call: Call[Any], target: Target) -> dict[str, Any]:
    """Of the client's method."""
    return {**call.arguments, "timeout": target.timeout}
