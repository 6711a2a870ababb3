"""Targets: databases named by one line of text, and the clients and stores that reach them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs, urlsplit

from muvera_adapters.errors import CollectionNotFound, MissingExtra, MuveraError, StoreUnavailable, WrongUsage
from muvera_adapters.results import Document, DocumentId, Hits, StoreInfo, WriteReport
from muvera_adapters.stores.operations import Retry
from muvera_core import Encoder

Kind = Literal["qdrant-edge", "qdrant", "qdrant-local", "weaviate", "milvus", "milvus-lite"]

_FORMS = "qdrant-edge:DIR, qdrant:URL, qdrant:DIR, weaviate:URL, milvus:URL, milvus:FILE.db"
_SCHEMES = ("qdrant-edge", "qdrant", "weaviate", "milvus")
# the client of a long command waits for a database that restarts
_PATIENT = Retry(attempts=8, first_pause=0.5, max_wait=180.0)
_SECONDS = 120


class Store(Protocol):
    """What the stores of all databases have in common; each takes more, in its database's own words."""

    encoder: Encoder
    name: str

    def upsert(self, ids: Sequence[DocumentId], tokens: Any, payloads: Any = None) -> WriteReport:
        """Writes documents."""
        ...

    def search(self, query_tokens: Any, limit: int = 10, prefetch: int = 200, **options: Any) -> Hits:
        """Two stages."""
        ...

    def exact_search(self, query_tokens: Any, limit: int = 10, **options: Any) -> Hits:
        """MaxSim over everything."""
        ...

    def get(self, ids: Sequence[DocumentId], *, with_tokens: bool = False) -> list[Document | None]:
        """Documents by id."""
        ...

    def scroll(self, *, with_tokens: bool = False, page_size: int = 100) -> Iterator[Document]:
        """All documents, in a fixed order."""
        ...

    def count(self) -> int:
        """Documents stored."""
        ...

    def wait_indexed(self, timeout: float | None = None) -> int | None:
        """Returns when the database indexes no more: the number of documents without index, as ``info().unindexed``."""
        ...

    def info(self) -> StoreInfo:
        """Numbers and sizes."""
        ...

    def drop(self) -> None:
        """Deletes the collection."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes of one dimension, in a collection made with the defaults.

    Attributes:
        fde: of an FDE.
        code: of its quantized code.
        token: of a token vector.
    """

    fde: float
    code: float
    token: float


_LAYOUTS: dict[Kind, Layout] = {
    "qdrant-edge": Layout(2, 1, 2),
    "qdrant": Layout(2, 1, 2),
    "qdrant-local": Layout(2, 1, 2),
    "weaviate": Layout(4, 1, 4),
    "milvus": Layout(4, 0, 4),
    "milvus-lite": Layout(4, 0, 8 / 3),  # float16 as text
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a database is.

    Attributes:
        text: as it was written.
        kind: of the database; servers are ``qdrant``, ``weaviate`` and ``milvus``.
        location: a URL, or a directory or file.
        grpc_port: of a server, where the URL names one (``?grpc_port=``), else None.
    """

    text: str
    kind: Kind
    location: str
    grpc_port: int | None = None

    @property
    def layout(self) -> Layout:
        """What a collection made with the defaults takes."""
        return _LAYOUTS[self.kind]

    @property
    def is_server(self) -> bool:
        """Several processes and threads may use it at a time."""
        return self.kind in ("qdrant", "weaviate", "milvus")

    def __str__(self) -> str:
        return self.text


def is_target(text: str) -> bool:
    """Whether it begins with the name of a database; a path of that look can be written ``./qdrant:x``."""
    return text.partition(":")[0] in _SCHEMES and ":" in text


def parse_target(text: str) -> Target:
    """A target from its text: ``qdrant-edge:DIR``, ``qdrant:URL``, ``weaviate:URL``, ``milvus:FILE.db`` ...

    Raises:
        WrongUsage: it is none; the message shows the forms.
    """
    scheme, colon, location = text.partition(":")
    if scheme not in _SCHEMES or not colon:
        url = " (write the database before the URL)" if scheme in ("http", "https") else ""
        raise WrongUsage(f"{text!r} is no target{url}; targets are {_FORMS}")
    if not location:
        raise WrongUsage(f"{text!r} says no place; targets are {_FORMS}")
    if re.match(r"https?://", location):
        if scheme == "qdrant-edge":
            raise WrongUsage(f"{text!r}: Edge runs in this process on a directory; a server is qdrant:{location}")
        return _server(text, scheme, location)
    if scheme == "weaviate" or re.fullmatch(r"[\w.-]+:\d+(/.*)?", location):
        raise WrongUsage(f"{text!r}: a server is written as a URL: {scheme}:http://{location}")
    if scheme == "milvus" and not location.endswith(".db"):
        raise WrongUsage(
            f"{text!r}: write milvus:http://HOST:19530 for a server, milvus:FILE.db for an embedded Milvus"
        )
    local: dict[str, Kind] = {"qdrant-edge": "qdrant-edge", "qdrant": "qdrant-local", "milvus": "milvus-lite"}
    return Target(text, local[scheme], location)


def _server(text: str, scheme: str, location: str) -> Target:
    try:
        parts = urlsplit(location)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        grpc_port = int(options.pop("grpc_port")[0]) if "grpc_port" in options else None
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WrongUsage(f"{text!r}: no URL: {error}") from error
    if parts.password or parts.username:
        raise WrongUsage(f"{parts.hostname}: secrets come from the environment ({_SECRETS[scheme]}), not from the URL")
    if not host or options or (grpc_port is not None and scheme == "milvus"):
        extra = ", ".join(options) or "grpc_port"
        raise WrongUsage(f"{text!r}: " + (f"a {scheme} URL takes no {extra}" if host else "the URL has no host"))
    kind: dict[str, Kind] = {"qdrant": "qdrant", "weaviate": "weaviate", "milvus": "milvus"}
    return Target(text, kind[scheme], parts._replace(query="").geturl(), grpc_port)


#: environment variables with each database's secret
_SECRETS = {"qdrant": "QDRANT_API_KEY", "weaviate": "WEAVIATE_API_KEY", "milvus": "MILVUS_TOKEN"}


class Database:
    """A database, and the stores in it; a context manager that closes what it opened.

    Nothing is reached, and nothing made on disk, before the first store is asked for. Secrets are read from the
    environment: ``QDRANT_API_KEY``, ``WEAVIATE_API_KEY``, ``MILVUS_TOKEN`` (``user:password`` or an API key).

    Args:
        target: where it is.

    Raises:
        WrongUsage: ``target`` is none.
    """

    def __init__(self, target: str | Target) -> None:
        self.target = parse_target(target) if isinstance(target, str) else target
        self._exits = ExitStack()
        self._made: Any = None

    def create(self, name: str, encoder: Encoder, **options: Any) -> Any:
        """Makes an empty collection; ``options`` are those of the store's ``create``.

        Raises:
            CollectionExists: the name is taken.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: its client is not installed.
        """
        return self._store("create", name, encoder, creating=True, **options)

    def open(self, name: str, encoder: Encoder | None = None) -> Any:
        """Opens a collection of this library.

        Raises:
            CollectionNotFound: there is none, or it is not of this library.
            EncoderMismatch: ``encoder`` is not the one that the collection was filled with.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: its client is not installed.
        """
        return self._store("open", name, encoder, creating=False)

    def adopt(self, name: str, encoder: Encoder, **options: Any) -> Any:
        """Takes over a collection of someone else; ``options`` are those of the store's ``adopt``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unfit.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: its client is not installed.
        """
        return self._store("adopt", name, encoder, creating=False, **options)

    def token_dim(self, name: str, vector: str) -> int:
        """Width of the token vectors that a collection of someone else has in ``vector``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: there is no such vector, or, where the database keeps no sizes, no document has it.
        """
        from muvera_adapters.foreign import token_dim

        place = self.target.location if self.target.kind == "qdrant-edge" else self._client(creating=False)
        return token_dim(self.target.kind, place, name, vector)

    def close(self) -> None:
        """Closes stores and clients that were made here."""
        self._exits.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store(self, method: str, name: str, encoder: Encoder | None, *, creating: bool, **options: Any) -> Any:
        if self.target.kind == "qdrant-edge":
            from muvera_adapters.qdrant import QdrantEdgeMuvera

            make: Callable[..., Any] = getattr(QdrantEdgeMuvera, method)
            return self._exits.enter_context(make(self.target.location, name, encoder, **options))
        client = self._client(creating=creating)
        if self.target.kind in ("qdrant", "qdrant-local"):
            from muvera_adapters.qdrant import QdrantMuvera as Store
        elif self.target.kind == "weaviate":
            from muvera_adapters.weaviate import WeaviateMuvera as Store  # type: ignore[assignment]
        else:
            from muvera_adapters.milvus import MilvusMuvera as Store  # type: ignore
        return getattr(Store, method)(client, name, encoder, retry=_PATIENT, **options)

    def _client(self, *, creating: bool) -> Any:
        if self._made is None:
            target = self.target
            if not target.is_server and not creating and not Path(target.location).exists():
                raise CollectionNotFound(f"{target}: there is no {target.location}")
            self._made = {
                "qdrant": _qdrant,
                "qdrant-local": _qdrant_local,
                "weaviate": _weaviate,
                "milvus": _milvus,
                "milvus-lite": _milvus,
            }[target.kind](target)
            self._exits.callback(self._made.close)
        return self._made


def _qdrant(target: Target) -> Any:
    try:
        from qdrant_client import QdrantClient
    except ModuleNotFoundError as error:
        raise MissingExtra("qdrant-client", "qdrant") from error
    # the client would warn, rather than fail, when the server does not answer
    client = QdrantClient(
        url=target.location,
        api_key=os.environ.get(_SECRETS["qdrant"]),
        grpc_port=target.grpc_port or 6334,
        prefer_grpc=target.grpc_port is not None,
        timeout=_SECONDS,
        check_compatibility=False,
    )
    try:
        client.info()
    except Exception as error:  # the client raises what its transport raises
        client.close()
        raise _unreachable(target, error) from error
    return client


def _qdrant_local(target: Target) -> Any:
    try:
        from qdrant_client import QdrantClient
    except ModuleNotFoundError as error:
        raise MissingExtra("qdrant-client", "qdrant") from error
    try:
        return QdrantClient(path=target.location)
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreUnavailable(f"{target} cannot be opened: {error}") from error


def _weaviate(target: Target) -> Any:
    try:
        import weaviate
    except ModuleNotFoundError as error:
        raise MissingExtra("weaviate-client", "weaviate") from error
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout

    key = os.environ.get(_SECRETS["weaviate"])
    options: dict[str, Any] = {
        "auth_credentials": Auth.api_key(key) if key else None,
        "additional_config": AdditionalConfig(timeout=Timeout(init=10, query=_SECONDS, insert=_SECONDS)),
    }
    parts = urlsplit(target.location)
    host, secure = parts.hostname or "", parts.scheme == "https"
    cloud = host.endswith((".weaviate.cloud", ".weaviate.network"))
    try:
        return weaviate.connect_to_custom(
            http_host=host,
            http_port=parts.port or (443 if secure else 80),
            http_secure=secure,
            # Weaviate Cloud has a host of its own for gRPC
            grpc_host=f"grpc-{host}" if cloud else host,
            grpc_port=target.grpc_port or (443 if cloud else 50051),
            grpc_secure=secure,
            **options,
        )
    except Exception as error:  # the client raises what its transports raise
        raise _unreachable(target, error) from error


def _milvus(target: Target) -> Any:
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        raise MissingExtra("pymilvus", "milvus") from error
    token = os.environ.get(_SECRETS["milvus"], "") if target.is_server else ""
    try:
        return MilvusClient(uri=target.location, token=token, timeout=_SECONDS if target.is_server else None)
    except Exception as error:  # the client raises what its transports raise
        raise _unreachable(target, error) from error


def _unreachable(target: Target, error: Exception) -> MuveraError:
    scheme = target.text.partition(":")[0]
    reason = " ".join(str(error).split())
    hint = f"is the server running? a secret is read from {_SECRETS[scheme]}"
    if target.kind == "weaviate" and target.grpc_port is None:
        hint += "; another gRPC port than 50051 is written ?grpc_port=PORT"
    return StoreUnavailable(f"{target} cannot be reached: {hint} ({reason[:300]})")
