"""Translates errors of qdrant-client and its transports into those of this library."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from muvera_adapters.errors import (
    AccessDenied,
    CollectionExists,
    CollectionNotFound,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)


def translate(error: Exception, *, engine: str, name: str, timeout: int | None, address: str = "") -> MuveraError:
    """The error of this library for an error of the client.

    Args:
        error: error that the client raised.
        engine: name and version of the database.
        name: name of the collection.
        timeout: time limit of the request in seconds; None: that of the client.
        address: URL and port of the server, empty in local mode.
    """
    at = f" at {address}" if address else ""
    if isinstance(error, ValidationError | UnicodeError):  # their text may contain any text of the user
        return Rejected(f"{engine} cannot be sent this: {error}")
    if isinstance(error, ResourceExhaustedResponse):
        return StoreUnavailable(
            f"Qdrant is overloaded: {error}", transient=True, retry_after=float(error.retry_after_s)
        )
    if isinstance(error, UnexpectedResponse):
        return _of_status(error.status_code or 0, _reason(error), name, at)
    if isinstance(error, ResponseHandlingException):
        return _of_transport(error.source, timeout, at)
    if isinstance(error, grpc.RpcError):
        return _of_grpc(error, name, at)
    if isinstance(error, NotImplementedError):
        return Unsupported(f"{engine} cannot do this: {error}")
    if isinstance(error, QdrantException):
        return StoreUnavailable(f"Qdrant is overloaded: {error}", transient=True)
    if isinstance(error, ValueError) and "not found" in str(error):
        return CollectionNotFound(f"{name}: {error}")
    if isinstance(error, OSError | RuntimeError):
        return StoreUnavailable(f"{engine} failed: {error}")
    return Rejected(f"{engine} refused the request: {error}")


def _of_status(status: int, reason: str, name: str, at: str) -> MuveraError:
    text = f"Qdrant{at} answered {status} for {name}: {reason}"
    if status in (401, 403):
        return AccessDenied(f"{text}; check the API key, and what it allows")
    if status == 404:
        return CollectionNotFound(text)
    if status == 409:
        return CollectionExists(text)
    if status in (400, 413, 422):
        return Rejected(text)
    if status == 501:
        return Unsupported(text)
    if status == 507:
        return StoreUnavailable(f"{text} (its storage is full)")
    if status in (408, 429) or status >= 500:
        return StoreUnavailable(text, transient=True)
    return MuveraError(text)


def _of_transport(source: Any, timeout: int | None, at: str) -> MuveraError:
    if isinstance(source, httpx.TimeoutException):
        waited = "the client's timeout" if timeout is None else f"{timeout} s (timeout=)"
        return StoreUnavailable(f"Qdrant{at} did not answer within {waited}: {source!r}", transient=True)
    if isinstance(source, httpx.TransportError):
        return StoreUnavailable(f"Qdrant{at} cannot be reached: {source!r}", transient=True)
    return MuveraError(f"the reply of Qdrant{at} was not understood: {source!r}")


_GRPC_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}


def _of_grpc(error: Any, name: str, at: str) -> MuveraError:
    code = error.code() if hasattr(error, "code") else None
    details = error.details() if hasattr(error, "details") else str(error)
    if code in _GRPC_STATUS:
        return _of_status(_GRPC_STATUS[code], details, name, at)
    return StoreUnavailable(f"Qdrant{at} answered {code} for {name}: {details}", transient=True)


def _reason(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return error.content.decode(errors="replace")[:500] or error.reason_phrase
