"""Translates errors of pymilvus and its transport into those of this library."""

from __future__ import annotations

from typing import Any

import grpc
from pymilvus import exceptions as m

from muvera_adapters.errors import (
    AccessDenied,
    CollectionExists,
    CollectionNotFound,
    MuveraError,
    Rejected,
    StoreUnavailable,
    Unsupported,
)

_DOWN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
_DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

# pkg/util/merr/errors.go
_NOT_FOUND = (100,)
_NO_RIGHTS = (1400, 1401)
_REFUSED = ("auth check failure", "privilegepermissiondenied", "permission deny")
# texts of a server that accepts no writes at all
_NO_WRITES = (
    "quota exceeded",
    "quota exhausted",
    "force deny",
    "no space left",
    "read-only",
    "readonly",
    "denied to write",
)
_BUSY = ("rate limit", "not ready", "shutting down", "node not match", "channel not available", "no available")


def translate(error: Exception, name: str, address: str = "") -> MuveraError:
    """The error of this library for one of the client's, in a call on collection ``name`` at ``address``."""
    if isinstance(error, MuveraError):
        return error
    at = f"{name} at {address}" if address else name
    if isinstance(error, grpc.RpcError):
        return _of_status(error.code(), f"{error.details()}", at)
    if isinstance(error, m.MilvusException):
        return _of_milvus(error, name, at)
    if isinstance(error, OSError):
        return StoreUnavailable(f"Milvus cannot be reached for {at}: {error}", transient=True)
    return Rejected(f"Milvus refused the request on {name}: {error}")


def _of_milvus(error: Any, name: str, at: str) -> MuveraError:
    code, message = error.code, str(error.message)
    text = f"Milvus answered {code if isinstance(code, int) else code.name} for {name}: {message}"
    lower = message.lower()
    if isinstance(code, grpc.StatusCode):
        return _of_status(code, message, at)
    if code in _NO_RIGHTS or any(reason in lower for reason in _REFUSED):
        return AccessDenied(f"{text}; check the token or user of the client")
    if "retry timeout" in lower or "retry run out" in lower:
        return StoreUnavailable(f"Milvus did not answer in time for {at}: {message}", transient=True)
    gone = isinstance(error, m.ConnectError | m.ConnectionNotExistException | m.MilvusUnavailableException)
    if gone or "fail connecting to server" in lower:
        return StoreUnavailable(f"Milvus cannot be reached for {at}: {message}", transient=True)
    if isinstance(error, m.ConnectionConfigException) or "should create connection first" in lower:
        return StoreUnavailable(f"Milvus cannot be opened: {message}")
    if code in _NOT_FOUND or "can't find collection" in lower:
        return CollectionNotFound(text)
    if "already exist" in lower or "create duplicate collection" in lower:
        return CollectionExists(text)
    if any(reason in lower for reason in _NO_WRITES):
        return StoreUnavailable(text)
    if "not loaded" in lower or code == 101:
        return StoreUnavailable(f"{text}; load it with client.load_collection()")
    if code == 8 or any(reason in lower for reason in _BUSY):
        return StoreUnavailable(text, transient=True)
    return Rejected(text)


def _of_status(code: Any, message: str, at: str) -> MuveraError:
    text = f"Milvus answered {code.name} for {at}: {message}"
    if code in _DOWN:
        return StoreUnavailable(text, transient=True)
    if code in _DENIED:
        return AccessDenied(f"{text}; check the token or user of the client")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported(text)
    # RESOURCE_EXHAUSTED: the message is over the server's limit; a smaller one may not be
    return Rejected(text)
