"""``DatabaseSpec``, the description of a database for the rest of the package, and the targets of databases."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from muvera_adapters.errors import MissingExtra, MuveraError, SchemaMismatch, StoreUnavailable, WrongUsage
from muvera_adapters.stores.sizes import AUTO, NO_CODES, Part, Place, Planned
from muvera_adapters.stores.times import MeasuredTime
from muvera_adapters.stores.token_precision import TokenPrecision
from muvera_core import Encoder


@dataclass(frozen=True, slots=True)
class Target:
    """A database, given as text such as ``scheme:http://localhost:1234`` or ``scheme:directory``.

    Attributes:
        scheme: name of the database.
        location: URL, directory or file.
        place: kind of the location.
        options: options from the query string of the URL.
        store_options: the options among these that the store's class methods take.
        text: the target as it was written.
    """

    scheme: str
    location: str
    place: Place
    options: Mapping[str, str] = field(default_factory=dict)
    store_options: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def is_server(self) -> bool:
        """Whether the database is a server, which several processes and threads can use at the same time."""
        return self.place == "server"

    def __str__(self) -> str:
        return self.text or f"{self.scheme}:{self.location}"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a target of a database.

    Attributes:
        location: the part after the scheme, for help texts: ``"URL"``, ``"DIR"``, ``"FILE.db"``.
        place: kind of the location.
    """

    location: str
    place: Place


@dataclass(frozen=True, slots=True)
class LocalIndex:
    """Functions of an embedded engine for measurements on a sample.

    Attributes:
        create: creates an empty collection in a directory, from ``(directory, name, encoder, quantization,
            store_tokens)``. Its index is built and used even for few documents. The store is a context manager.
        quantizations: presets to try, those with the most bits first.
        first_stage_bytes: bytes of one document in memory in the first stage, from ``(dim, quantization)``; for the
            quantization None, without an index.
    """

    create: Callable[[str, str, Encoder, str | None, bool], Any]
    quantizations: Sequence[str]
    first_stage_bytes: Callable[[int, str | None], float]


def quantization_option(preset: str) -> dict[str, Any]:
    """Keyword arguments of ``create`` for a preset."""
    return {"quantization": None if preset == NO_CODES else preset}


def close(client: Any) -> None:
    """Closes a client, if it has a method ``close``."""
    client.close()


@dataclass(frozen=True, slots=True)
class Listed:
    """A collection of a database, created by this library or by another program.

    Attributes:
        name: name of the collection.
        documents: number of documents; None: the database does not say.
        has_fde: whether the collection has FDEs and the state of this library.
        multivectors: widths of the token matrices by name; 0: unknown.
    """

    name: str
    documents: int | None
    has_fde: bool
    multivectors: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSpec:
    """The description of a database, for commands, migrations and estimates.

    A module with a spec must import quickly: its functions import the database's client only where they use it.

    Attributes:
        scheme: name of the database, with which its targets begin.
        title: name of the database in sentences.
        forms: ways to write a target; the first stands for the database in estimates.
        package: package of the client on PyPI.
        module: name of the module to import for the client.
        extra: extra of this distribution that installs the package; None: another distribution installs it.
        secret: environment variable with the secret, or None.
        parse: makes a target from a location; raises ``WrongUsage`` for an invalid one.
        connect: makes the client of a target; raises ``StoreUnavailable`` if the database cannot be reached or opened.
            For an engine without a client, it returns the directory. It is called only after ``check_installed``.
        disconnect: closes the client.
        store: class of the store as ``"module:Class"``. Its class methods ``create``, ``open`` and ``adopt`` take
            ``(client, name, encoder)`` and ``model=``. ``create`` also takes ``"auto"`` with ``sample=``, and
            ``quantization=`` (a preset, None for no codes, or ``"auto"``, its default). ``adopt`` also takes
            ``tokens_vector=`` and ``fde_vector=``. A store that is a context manager is closed with its database.
        retries: whether these methods take ``retry=`` and ``write_retry=``.
        store_options: options of a target's URL that these methods and ``token_dim`` take by keyword, as text. Commands
            have an option ``--NAME`` for each.
        token_dim: finds the width of the token vectors in a vector of a collection, from ``(client, collection,
            vector)`` and the store options. The collection may be one that another program created. Raises
            ``CollectionNotFound``, or ``SchemaMismatch`` if there is no such vector, or no document that shows its
            width.
        collections: lists the collections of a client, in any order; raises ``MuveraError``. None: not supported.
        quantizations: bits of one dimension by preset; ``"none"`` has 0.
        auto_quantization: the preset that ``create`` chooses for ``quantization="auto"``, from the dimensions of an
            encoding and the place of the database; for a server, the choice with its newest version.
        token_presets: values that ``create`` takes as ``tokens=``.
        two_stages: parts of a collection that ``create`` makes with the given quantization and way of storing tokens,
            and otherwise with its defaults.
        per_token: parts of a collection with one graph node for each token.
        times: measured times of real collections in two stages, from which others are projected; empty: not measured.
        backfill_options: those of ``into``, ``alias`` and ``leave_out`` that the store's ``backfill`` takes.
        repairs: whether stores have ``repair(progress=...)``, which indexes documents again that are missing from
            indexes after a server crash, and returns their number.
        local_index: functions for measurements on a sample; None: the database is not used for them.
    """

    scheme: str
    title: str
    forms: tuple[Form, ...]
    package: str
    module: str
    extra: str | None = None
    secret: str | None = None
    parse: Callable[[str], Target]
    connect: Callable[[Target], Any]
    disconnect: Callable[[Any], None] = close
    store: str
    retries: bool = True
    store_options: frozenset[str] = frozenset()
    token_dim: Callable[..., int]
    collections: Callable[[Any], list[Listed]] | None = None
    quantizations: Mapping[str, float]
    auto_quantization: Callable[[int, Place], str]
    token_presets: tuple[TokenPrecision, ...] = ("float32",)
    two_stages: Callable[[Planned], list[Part]]
    per_token: Callable[[Planned], list[Part]]
    times: Sequence[MeasuredTime] = ()
    backfill_options: frozenset[str] = frozenset()
    repairs: bool = False
    local_index: LocalIndex | None = None

    @property
    def targets(self) -> list[str]:
        """The forms of targets, for help texts."""
        return [f"{self.scheme}:{form.location}" for form in self.forms]

    def check_installed(self) -> None:
        """Checks that the client can be imported.

        Raises:
            MissingExtra: the client is not installed.
        """
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module.partition(".")[0]:
                raise
            if self.extra is None:
                raise MuveraError(
                    f"{self.package} is not installed; install it with: pip install {self.package}"
                ) from error
            raise MissingExtra(self.package, self.extra) from error

    def store_class(self) -> Any:
        """Class of the store.

        Raises:
            MissingExtra: the client is not installed.
        """
        module, _, name = self.store.partition(":")
        self.check_installed()
        return getattr(importlib.import_module(module), name)

    def quantization(self, preset: str, dim: int, place: Place) -> str:
        """The preset itself, or the one that ``create`` chooses for ``"auto"``.

        Args:
            preset: name of a preset, or ``"auto"``.
            dim: dimensions of an encoding.
            place: where the database keeps its data.

        Raises:
            WrongUsage: there is no such preset.
        """
        if preset == AUTO:
            return self.auto_quantization(dim, place)
        if preset not in self.quantizations:
            there = ", ".join([AUTO, *self.quantizations])
            raise WrongUsage(f"{self.scheme} has no quantization {preset!r}; there are {there}")
        return preset

    def check_token_preset(self, preset: str) -> None:
        """Raises WrongUsage unless the store has this way of storing tokens, or ``"auto"``."""
        if preset not in (AUTO, *self.token_presets):
            there = ", ".join([AUTO, *self.token_presets])
            raise WrongUsage(f"{self.scheme} cannot store tokens as {preset!r}; there are {there}")


def server_target(spec: DatabaseSpec, location: str, options: Sequence[str] = ()) -> Target:
    """Target of a server, from its URL.

    Args:
        spec: database of the server.
        location: URL.
        options: names of options that the query string may have, in addition to the spec's ``store_options``.

    Raises:
        WrongUsage: the URL is not valid, has other options, or has a secret in it.
    """
    text = f"{spec.scheme}:{location}"
    try:
        parts = urlsplit(location)
        given = parse_qs(parts.query, strict_parsing=bool(parts.query))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WrongUsage(f"{text!r} is not a valid URL: {error}") from error
    if parts.password or parts.username:
        where = f"the environment ({spec.secret})" if spec.secret else "the environment"
        raise WrongUsage(f"{parts.hostname}: secrets are read from {where}, not from the URL")
    if not host:
        raise WrongUsage(f"{text!r}: the URL has no host")
    unknown = [name for name in given if name not in options and name not in spec.store_options]
    if unknown:
        raise WrongUsage(f"{text!r}: a {spec.scheme} URL has no option {', '.join(unknown)}")
    bare = parts._replace(query="").geturl()
    values = {name: each[0] for name, each in given.items()}
    of_store = {name: value for name, value in values.items() if name in spec.store_options}
    return Target(spec.scheme, bare, "server", values, of_store, text)


def number_option(target: Target, name: str) -> int | None:
    """The value of a URL option that is a whole number; None if it is not given.

    Raises:
        WrongUsage: the value is not a whole number.
    """
    value = target.options.get(name)
    if value is None:
        return None
    if not value.isdecimal():
        raise WrongUsage(f"{str(target)!r}: {name} must be a number, got {value!r}")
    return int(value)


def unreachable(spec: DatabaseSpec, target: Target, error: Exception, hint: str = "") -> MuveraError:
    """The error to raise for a server that cannot be reached.

    Args:
        spec: database of the server.
        target: target of the server.
        error: exception of the client.
        hint: additional advice for the user.
    """
    advice = [f"a secret is read from {spec.secret}"] if spec.secret else []
    advice += [hint] if hint else []
    reason = " ".join(str(error).split())[:300]
    return StoreUnavailable(
        f"{target} cannot be reached: {' '.join(['is the server running?', '; '.join(advice)]).strip()} ({reason})"
    )


def dim_of(collection: str, vector: str, dims: Mapping[str, int]) -> int:
    """Width of a vector.

    Args:
        collection: name of the collection, for the message.
        vector: name of the vector.
        dims: widths of all vectors of the collection by name.

    Raises:
        SchemaMismatch: there is no such vector.
    """
    if vector not in dims:
        there = ", ".join(repr(name) for name in sorted(dims)) or "none"
        raise SchemaMismatch(f"{collection} has no vector {vector!r}; there are: {there}")
    return dims[vector]
