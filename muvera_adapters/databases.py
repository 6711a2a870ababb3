"""Target URIs (``scheme:http://...``), and the databases behind them: the one place that lists all databases.

Another distribution adds a database by an entry point of the group ``muvera_adapters.databases`` whose name is the
scheme and whose value is ``module:NAME`` of a :class:`~muvera_adapters.stores.database.DatabaseSpec`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlencode

from muvera_adapters.errors import CollectionNotFound, MuveraError, Unsupported, WrongUsage
from muvera_adapters.stores.choosing import EncoderOption
from muvera_adapters.stores.database import DatabaseSpec, Listed, Target
from muvera_adapters.stores.operations import DEFAULT_WRITE_RETRY
from muvera_adapters.stores.protocol import Store
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder

#: entry points of other distributions
GROUP = "muvera_adapters.databases"

_OURS: Mapping[str, str] = {
    "qdrant-edge": "muvera_adapters.qdrant.database:QDRANT_EDGE",
    "qdrant": "muvera_adapters.qdrant.database:QDRANT",
    "weaviate": "muvera_adapters.weaviate.database:WEAVIATE",
    "milvus": "muvera_adapters.milvus.database:MILVUS",
}

#: embedded engine of the quickstart, and of measurements on a sample
LOCAL = "qdrant-edge"

# long commands wait for a restart of the database, when reading too
_PATIENT = DEFAULT_WRITE_RETRY


def schemes() -> list[str]:
    """Names of all databases, those of other distributions last."""
    return [*_OURS, *sorted(_foreign().keys() - _OURS.keys())]


def spec_of(scheme: str) -> DatabaseSpec:
    """The database with this scheme.

    Raises:
        WrongUsage: there is no such database.
        MuveraError: a database of another distribution cannot be loaded, or two distributions have this scheme.
    """
    if scheme in _OURS:
        module, _, name = _OURS[scheme].partition(":")
        found: DatabaseSpec = getattr(importlib.import_module(module), name)
        return found
    points = _foreign().get(scheme, [])
    if not points:
        raise WrongUsage(f"{scheme!r} is not a database; databases are {', '.join(schemes())}")
    if len(points) > 1:
        owners = " and ".join(sorted(_owner(point) for point in points))
        raise MuveraError(f"{owners} both have a database {scheme!r}; uninstall one of them")
    return _load(points[0])


def specs() -> list[DatabaseSpec]:
    """All databases that can be loaded; a warning names each that cannot, or whose name is taken."""
    found = []
    for scheme in schemes():
        try:
            found.append(spec_of(scheme))
        except MuveraError as error:  # noqa: PERF203 (one broken database must not hide the others)
            warnings.warn(str(error), stacklevel=2)
    for scheme in _foreign().keys() & _OURS.keys():
        owners = " and ".join(_owner(point) for point in _foreign()[scheme])
        warnings.warn(f"the database {scheme!r} of {owners} is ignored: the name is taken", stacklevel=2)
    return found


def local_spec() -> DatabaseSpec:
    """The embedded engine of the quickstart, and of measurements on a sample."""
    return spec_of(LOCAL)


def forms() -> str:
    """The forms of targets of all databases, for help texts and errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken database does not matter for a command about another one
        return ", ".join(form for spec in specs() for form in spec.targets)


def is_target(text: str) -> bool:
    """Whether a text begins with a scheme and a colon; write a path that does so as ``./name:x``."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme in schemes()


def with_store_options(text: str, **given: str | None) -> str:
    """The target with options of the store added; options that are None are left out.

    Raises:
        WrongUsage: ``text`` is not a target, or its database has no such option.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return text
    for name in chosen:
        takers = [spec.scheme for spec in specs() if name in spec.store_options]
        if not is_target(text) or text.partition(":")[0] not in takers:
            raise WrongUsage(f"{text}: --{name} applies to {', '.join(takers) or 'no database'}")
    return f"{text}{'&' if '?' in text else '?'}{urlencode(chosen)}"


def parse_target(text: str) -> Target:
    """Parses a target: ``scheme:URL``, ``scheme:DIR`` or ``scheme:FILE``, whichever the database supports.

    Raises:
        WrongUsage: ``text`` is not a valid target.
        MuveraError: a database of another distribution cannot be loaded.
    """
    scheme, colon, location = text.partition(":")
    if not colon or scheme not in schemes():
        url = " (write the database before the URL)" if scheme in ("http", "https") else ""
        raise WrongUsage(f"{text!r} is not a valid target{url}; targets are {forms()}")
    spec = spec_of(scheme)
    if not location:
        wanted = " or ".join(form.location for form in spec.forms)
        raise WrongUsage(f"{text!r} has no location: give {wanted}, as in {spec.targets[0]}")
    return spec.parse(location)


class Database:
    """A database and the stores in it; a context manager that closes what it opened.

    The database is not contacted, and nothing is created on disk, before the first store is created or opened. Secrets
    are read from the environment variable of the database.

    Args:
        target: target of the database, such as ``"scheme:data"``, or a parsed one.

    Raises:
        WrongUsage: ``target`` is not a valid target.
    """

    def __init__(self, target: str | Target) -> None:
        self.target = parse_target(target) if isinstance(target, str) else target
        self.spec = spec_of(self.target.scheme)
        self._exits = ExitStack()
        self._client: Any = None

    def create(self, name: str, encoder: EncoderOption, **options: Any) -> Store:
        """Creates an empty collection.

        Args:
            name: name of the collection.
            encoder: encoder of documents and queries, or ``"auto"`` with the option ``sample``.
            **options: options of the store's ``create``.

        Raises:
            CollectionExists: the name is taken.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: the client is not installed.
        """
        return self._store("create", name, encoder, **options)

    def open(self, name: str, encoder: Encoder | None = None, *, model: TokenModel | str | None = None) -> Store:
        """Opens a collection that this library created, or that was adopted and backfilled.

        Args:
            name: name of the collection.
            encoder: encoder to use, which must be the one that filled the collection; None: it is rebuilt from what the
                collection stores.
            model: model that makes the query tokens; it is compared with the model that the collection stores. None:
                not compared.

        Raises:
            CollectionNotFound: there is no such collection, or this library did not create or adopt it.
            EncoderMismatch: the collection was filled with another encoder, or its encoder cannot be rebuilt and must
                be given.
            ModelMismatch: the collection stores another model.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: the client is not installed.
        """
        return self._store("open", name, encoder, **({} if model is None else {"model": model}))

    def adopt(self, name: str, encoder: Encoder, **options: Any) -> Store:
        """Takes over an existing collection.

        Args:
            name: name of the collection.
            encoder: encoder of the FDEs, existing or future.
            **options: options of the store's ``adopt``.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: vectors are missing or unsuitable.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: the client is not installed.
        """
        return self._store("adopt", name, encoder, **options)

    def token_dim(self, name: str, vector: str) -> int:
        """Width of the token vectors in ``vector`` of a collection, which need not be of this library.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: there is no such vector, or no document that shows its width.
        """
        return self.spec.token_dim(self._connected(creating=False), name, vector, **self.target.store_options)

    def collections(self) -> list[Listed]:
        """All collections of the database, sorted by name.

        Raises:
            Unsupported: the database cannot list them.
            StoreUnavailable: the database cannot be reached.
            MissingExtra: the client is not installed.
        """
        if self.spec.collections is None:
            raise Unsupported(f"{self.spec.title} does not list its collections")
        return sorted(self.spec.collections(self._connected(creating=False)), key=lambda each: each.name)

    def close(self) -> None:
        """Closes the stores and clients that this object opened."""
        self._exits.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store(
        self, method: Literal["create", "open", "adopt"], name: str, encoder: EncoderOption | None, **options: Any
    ) -> Store:
        client = self._connected(creating=method == "create")
        options = {**self.target.store_options, **options}
        if self.spec.retries:
            options = {"retry": _PATIENT, "write_retry": _PATIENT, **options}
        store = getattr(self.spec.store_class(), method)(client, name, encoder, **options)
        if isinstance(store, AbstractContextManager):
            self._exits.enter_context(store)
        return store

    def _connected(self, *, creating: bool) -> Any:
        if self._client is None:
            self.spec.check_installed()
            if not self.target.is_server and not creating and not Path(self.target.location).exists():
                raise CollectionNotFound(f"{self.target}: there is no {self.target.location}")
            self._client = self.spec.connect(self.target)
            self._exits.callback(self.spec.disconnect, self._client)
        return self._client


def _foreign() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _load(point: EntryPoint) -> DatabaseSpec:
    where = f"the database {point.name!r} of {_owner(point)} ({point.value})"
    try:
        spec = point.load()
    except Exception as error:  # a foreign module may raise anything
        raise MuveraError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(spec, DatabaseSpec):
        raise MuveraError(f"{where} must be a DatabaseSpec, got {type(spec).__name__}")
    if spec.scheme != point.name:
        raise MuveraError(f"{where} has the scheme {spec.scheme!r}; the entry point must have the same name")
    return spec


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "another distribution"
