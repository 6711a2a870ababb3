"""Options that several commands have, and what they mean."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from muvera_adapters.databases import forms, specs, with_store_options
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.progress import tell
from muvera_adapters.stores.database import DatabaseSpec
from muvera_core import Encoder, FDEConfig, FDEEncoder, QueryFit, load_encoder

T = TypeVar("T")

#: default of --fde-dim: the size of FDEConfig(dim)
FDE_DIM = 2560

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
CollectionName = Annotated[str, typer.Option("--collection", help="Name of the collection.")]
Ids = Annotated[
    str | None,
    typer.Option(
        help="Array or column with the ids; or a file with them: one a line, or a .json list. 'none': positions."
    ),
]
Texts = Annotated[Path | None, typer.Option(help="Texts of a PLAID index's documents: .tsv or .jsonl.")]
Source = Annotated[
    str,
    typer.Argument(help="PLAID index, .npz, .npy, .safetensors, .pt, Parquet, saved dataset, or a database's target."),
]
FromCollection = Annotated[str | None, typer.Option(help="Collection to read, if the source is a database.")]
TokensVector = Annotated[
    str | None, typer.Option(help="Multivector to read, if muvera did not make the source's collection.")
]
Tokens = Annotated[str | None, typer.Option(help="Array or column with the token vectors.")]
Lengths = Annotated[
    str | None,
    typer.Option(help="Array (or .npy file) that parts the tokens: lengths, offsets, documents of tokens, or a mask."),
]
Drop = Annotated[list[str] | None, typer.Option(help="Column, or key of the payload, to leave out; may be repeated.")]
EncoderFile = Annotated[
    Path | None, typer.Option("--encoder", help="Encoder saved by encoder.save(), instead of the next three options.")
]
FdeDim = Annotated[
    int, typer.Option(help="Most dimensions of an FDE; FDEConfig.of_size() chooses repetitions and partitions.")
]
FdeTokens = Annotated[
    float | None, typer.Option(help="Typical number of tokens of a document, which that choice takes into account.")
]
Seed = Annotated[int, typer.Option(help="Seed of the FDE's randomness.")]
Target = Annotated[str, typer.Argument(help=forms())]
QueryNpy = Annotated[Path | None, typer.Option(help="Token vectors of queries: .npy, .npz, .safetensors, .pt.")]
Model = Annotated[
    str | None,
    typer.Option(help="Model of the token vectors ('org/model@revision'), to compare and keep."),
]
QueryFitFile = Annotated[Path | None, typer.Option(help="Fit of the query FDEs that muvera fit-queries wrote.")]
Prefetch = Annotated[int, typer.Option(min=1, help="Candidates of the first stage.")]


def databases_with_tenants() -> str:
    """Names of the databases whose collections may have tenants, for help texts."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if "tenant" in spec.store_options)


def of_tenant(target: str, tenant: str | None) -> str:
    """The target, of a tenant where one is named.

    Raises:
        WrongUsage: a tenant is named, and the database has none.
    """
    return with_store_options(target, tenant=tenant)


def databases_with(option: str) -> str:
    """Names of the databases whose ``backfill`` takes an option, for help texts and errors."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if option in spec.backfill_options)


def databases_to_repair() -> str:
    """Names of the databases whose stores have ``repair``, for errors."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if spec.repairs) or "none"


def quantizations() -> str:
    """Presets of all databases, for help texts."""
    return _presets(lambda spec: tuple(spec.quantizations))


def token_presets() -> str:
    """Ways of storing tokens of all databases, for help texts."""
    return _presets(lambda spec: spec.token_presets)


def _presets(of: Callable[[DatabaseSpec], tuple[str, ...]]) -> str:
    shared: dict[tuple[str, ...], list[str]] = {}
    for spec in _quiet_specs():
        shared.setdefault(of(spec), []).append(spec.scheme)
    return "; ".join(f"{', '.join(schemes)}: {', '.join(presets)}" for presets, schemes in shared.items())


def secrets() -> str:
    """Environment variables with the secrets of all databases, for help texts."""
    return ", ".join(spec.secret for spec in _quiet_specs() if spec.secret)


def _quiet_specs() -> list[DatabaseSpec]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # help need not say what cannot be loaded
        return specs()


Tenant = Annotated[str | None, typer.Option(help=f"Tenant of the collection ({databases_with_tenants()}).")]
FromTenant = Annotated[str | None, typer.Option(help="Tenant of --from-collection.")]


def make_encoder(dim: int, file: Path | None, fde_dim: int, fde_tokens: float | None, seed: int) -> Encoder:
    """The encoder that the options name, for tokens of width ``dim``.

    Raises:
        InvalidInput: the file is no encoder, or is for another width.
        WrongUsage: the size is out of range.
    """
    if file is None:
        try:
            return FDEEncoder(FDEConfig.of_size(dim, fde_dim, fde_tokens, seed=seed))
        except ValueError as error:
            raise WrongUsage(str(error)) from error
    encoder = _loaded(file, load_encoder)
    if encoder.token_dim != dim:
        raise InvalidInput(f"{file} is an encoder for tokens of width {encoder.token_dim}; these have {dim}")
    return encoder


def load_query_fit(file: Path | None) -> QueryFit | None:
    """The fit in the file; None without a file.

    Raises:
        InvalidInput: there is no such file, or it is not a saved query fit.
    """
    return None if file is None else _loaded(file, QueryFit.load)


def _loaded(file: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(file)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file}: no such file") from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error


class ToTerminal(logging.Handler):
    """Log records of a command, as lines on the standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the message of a record; tracebacks are not shown."""
        tell(f"muvera: {record.getMessage()}")


@contextmanager
def shown_warnings() -> Iterator[list[str]]:
    """Warnings as lines on the standard error, each once; and as a list."""
    texts: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # what libraries say to their own developers
        text = " ".join(str(message).split())
        if text not in texts and not issubclass(category, DeprecationWarning | ResourceWarning):
            texts.append(text)
            tell(f"muvera: warning: {text}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield texts


def readable(n_bytes: float) -> str:
    """4.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" or n_bytes >= 99.5 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """3 s, 12 min, 5.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
