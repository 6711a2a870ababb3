"""Translates errors of weaviate-client and its transports into those of this library."""

from __future__ import annotations

import re
from typing import Any

import grpc
import httpx
from weaviate import exceptions as w

from muvera_adapters.errors import (
    AccessDenied,
    CollectionExists,
    CollectionNotFound,
    InvalidInput,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)

_DOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
# HTTP status codes, and gRPC codes (permission denied, unauthenticated), which the client reports instead
_DENIED_STATUS = (401, 403, 7, 16)
_DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

# texts of a server that accepts no writes at all, in errors that otherwise concern one object
_NO_WRITES = ("read-only", "readonly", "not enough memory", "no space left", "shutting down", "is closed")


def translate(error: Exception, name: str, server: str = "") -> MuveraError:
    """This library's error for an error of the client.

    Args:
        error: error that the client raised.
        name: name of the collection of the call.
        server: URL and gRPC port of the server, for messages.
    """
    at = f" at {server}" if server else ""
    if isinstance(error, w.UnexpectedStatusCodeError):
        return _of_status(error, name)
    if isinstance(error, w.WeaviateUnsupportedFeatureError):
        return Unsupported(f"{name}: {error}")
    if isinstance(error, w.WeaviateInsertManyAllFailedError):
        return refused_write(str(error), name)
    if isinstance(error, w.WeaviateInvalidInputError):
        return InvalidInput(f"{name}: {error}")
    if isinstance(error, w.WeaviateTimeoutError | httpx.TimeoutException):
        return StoreUnavailable(f"Weaviate{at} did not answer within the client's timeout: {error}", transient=True)
    if isinstance(error, w.WeaviateConnectionError | httpx.TransportError):
        return StoreUnavailable(f"Weaviate{at} cannot be reached: {error}", transient=True)
    if isinstance(error, w.AuthenticationFailedError | w.MissingScopeError):
        return AccessDenied(f"Weaviate{at} rejects the credentials: {error}")
    if isinstance(error, w.WeaviateQueryError | grpc.RpcError):
        return _of_grpc(error, name, at)
    if isinstance(error, w.WeaviateClosedClientError):
        return StoreUnavailable(f"the client is closed: {error}")
    if isinstance(error, OSError):
        return StoreUnavailable(f"Weaviate{at} cannot be reached: {error}", transient=True)
    return Rejected(f"Weaviate refused the request on {name}: {error}")


def refused_write(message: str, name: str) -> MuveraError:
    """The error for an object that was not written: Rejected; if no object would be, another one."""
    if "insufficient permissions" in message:
        return AccessDenied(f"Weaviate accepts no writes to {name}: {message}")
    if any(text in message.lower() for text in _NO_WRITES):
        return StoreUnavailable(f"Weaviate accepts no writes to {name}: {message}")
    return Rejected(f"Weaviate rejected it: {message}")


def is_doubtful(error: Exception, problem: MuveraError) -> bool:
    """Whether a collection that was reported missing may exist after all.

    A starting server answers gRPC before it knows its schema. Its REST interface answers only when it knows it.
    """
    return isinstance(problem, CollectionNotFound) and isinstance(error, w.WeaviateQueryError | grpc.RpcError)


def starting(problem: MuveraError) -> StoreUnavailable:
    """The error for a collection that was reported missing and exists."""
    return StoreUnavailable(f"Weaviate is still starting: {problem}", transient=True)


def _hint(text: str) -> str:
    return "; name the tenant: tenant=..., or --tenant" if "without tenant" in text else ""


def _of_status(error: Any, name: str) -> MuveraError:
    status = error.status_code
    # the client appends the status again, and a reply that may be empty
    message = re.sub(r"[.!]* Unexpected status code: \d+, with response body: None\.?$", "", str(error.message))
    text = f"Weaviate answered {status} for {name}: {message}{_hint(str(error))}"
    if status in _DENIED_STATUS or isinstance(error, w.InsufficientPermissionsError):
        return AccessDenied(text)
    if status == 404:
        return CollectionNotFound(text)
    if status == 422 and "already exists" in text:
        return CollectionExists(text)
    if status in (408, 429) or status in (502, 503, 504):
        return StoreUnavailable(text, transient=True)
    if any(reason in text.lower() for reason in _NO_WRITES):
        return StoreUnavailable(text)
    return Rejected(text)


def _of_grpc(error: Exception, name: str, at: str) -> MuveraError:
    code = _code(error)
    text = f"Weaviate{at} answered {code.name if code else 'an error'} for {name}: {error}{_hint(str(error))}"
    if code in _DOWN:
        return StoreUnavailable(text, transient=True)
    if code in _DENIED:
        return AccessDenied(text)
    if "could not find class" in text or "class not found" in text.lower():
        return CollectionNotFound(text)
    return Rejected(text)


def _code(error: BaseException) -> grpc.StatusCode | None:
    """The gRPC status; only errors that ``error`` was raised from have one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, grpc.RpcError) and hasattr(seen, "code"):
            return seen.code()
        seen = seen.__cause__ or seen.__context__
    return None
