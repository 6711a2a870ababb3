"""Options that several commands share.

Every option says what it is, and gives an example or its choices. A name means the same in all commands.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from muvera_adapters.databases import LOCAL, forms, is_target, specs, with_store_options
from muvera_adapters.errors import InvalidInput, WrongUsage
from muvera_adapters.progress import tell
from muvera_adapters.stores.database import DatabaseSpec
from muvera_adapters.stores.sizes import AUTO
from muvera_core import Encoder, FDEConfig, FDEEncoder, QueryFit, load_encoder

T = TypeVar("T")

#: default of --fde-dim: the size of FDEConfig(dim)
FDE_DIM = 2560

_EXAMPLE_WIDTH = 74

#: target for examples
EXAMPLE = f"{LOCAL}:data"

#: panels of the help
READING, ENCODING, CHECKING, OUTPUT = "Reading DATA", "Encoder", "Comparison with the source", "Output"


def option(*names: str, metavar: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """An option that takes a value."""
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, **more)


def flag(*names: str, help: str, panel: str | None = None) -> Any:
    """An option without a value."""
    return typer.Option(*names, metavar="", help=help, rich_help_panel=panel)


def argument(metavar: str, help: str, **more: Any) -> Any:
    """An argument."""
    return typer.Argument(metavar=metavar, help=help, **more)


def examples(*commands: str) -> str:
    """Examples for the end of a command's help."""
    # \b keeps the lines as they are
    return "\b\nExamples:\n" + "\n".join(f"  {_in_lines(command)}" for command in commands)


def _in_lines(command: str) -> str:
    """A shell command, broken into lines for a terminal of 80 columns."""
    if len(command) <= _EXAMPLE_WIDTH:
        return command
    cut = command.rindex(" --", 0, _EXAMPLE_WIDTH)
    return f"{command[:cut]} \\\n      {command[cut + 1 :]}"


def _quiet_specs() -> list[DatabaseSpec]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # databases that cannot be loaded do not matter for help texts
        return specs()


def databases_with_tenants() -> str:
    """Names of the databases whose collections may have tenants, for help texts."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if "tenant" in spec.store_options)


def databases_with(option: str) -> str:
    """Names of the databases whose ``backfill`` takes an option, for help texts and errors."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if option in spec.backfill_options)


def databases_to_repair() -> str:
    """Names of the databases whose stores have ``repair``, for help texts and errors."""
    return ", ".join(spec.scheme for spec in _quiet_specs() if spec.repairs) or "none"


def secrets() -> str:
    """Environment variables with the secrets of all databases, for help texts."""
    return ", ".join(spec.secret for spec in _quiet_specs() if spec.secret)


def quantizations() -> str:
    """Quantization presets of all databases, for help texts."""
    return _presets(lambda spec: tuple(spec.quantizations))


def token_presets() -> str:
    """Presets for storing tokens in all databases, for help texts."""
    return _presets(lambda spec: spec.token_presets)


def _presets(of: Callable[[DatabaseSpec], tuple[str, ...]]) -> str:
    shared: dict[tuple[str, ...], list[str]] = {}
    for spec in _quiet_specs():
        shared.setdefault(of(spec), []).append(spec.scheme)
    return "; ".join(f"{', '.join(schemes)}: {', '.join(presets)}" for presets, schemes in shared.items())


class Word(str, Enum):
    """A choice of an option that can be repeated."""

    __str__ = str.__str__


def _choices(of: Callable[[DatabaseSpec], tuple[str, ...]]) -> tuple[str, ...]:
    """Presets of all databases, each once, after ``auto``."""
    return tuple(dict.fromkeys([AUTO, *(word for spec in _quiet_specs() for word in of(spec))]))


if TYPE_CHECKING:
    QuantizationName = str
    TokenPresetName = str
else:  # choices that the command line checks, lists and completes
    QuantizationName = Literal[_choices(lambda spec: tuple(spec.quantizations))]
    TokenPresetName = Literal[_choices(lambda spec: spec.token_presets)]

Rerank = Literal["auto", "native", "client", "none", "native_muvera"]

Json = Annotated[bool, flag("--json", help="Print one JSON object instead of text.", panel=OUTPUT)]

Target = Annotated[str, argument("TARGET", f"Database: {forms()}. For example {EXAMPLE}.")]
Data = Annotated[
    str,
    argument(
        "DATA",
        "Token embeddings: a PLAID index, a .npz, .npy, .safetensors, .pt or Parquet file, a saved dataset, or a "
        f"database ({forms()}). For example index/ or {EXAMPLE}.",
    ),
]
CollectionName = Annotated[
    str, option("--collection", metavar="NAME", help="Name of the collection, for example passages.")
]
Tenant = Annotated[
    str | None,
    option(
        metavar="NAME",
        help=f"Tenant of the collection, for example acme. Only {databases_with_tenants()}. Default: no tenant.",
    ),
]
FromCollection = Annotated[
    str | None,
    option(
        "--from-collection",
        metavar="NAME",
        help="Collection to read, for example pages. Required if DATA is a database.",
        panel=READING,
    ),
]
FromTenant = Annotated[
    str | None,
    option(
        "--from-tenant",
        metavar="NAME",
        help=f"Tenant of --from-collection, for example acme. Only {databases_with_tenants()}. Default: no tenant.",
        panel=READING,
    ),
]
DataCollection = Annotated[
    str | None,
    option(
        "--collection",
        metavar="NAME",
        help="Collection to read, for example pages. Required if DATA is a database.",
        panel=READING,
    ),
]
DataTenant = Annotated[
    str | None,
    option(
        "--tenant",
        metavar="NAME",
        help=f"Tenant of the collection, for example acme. Only {databases_with_tenants()}. Default: no tenant.",
        panel=READING,
    ),
]
TokensVector = Annotated[
    str | None,
    option(
        "--tokens-vector",
        metavar="NAME",
        help="Multivector to read, for example colbert. Required if muvera did not create the collection.",
        panel=READING,
    ),
]
Ids = Annotated[
    str | None,
    option(
        metavar="COLUMN|FILE",
        help="Array or column with the ids, or a file with one id a line or a .json list, for example ids.txt. "
        "'none': positions are the ids. Default: found by name.",
        panel=READING,
    ),
]
Texts = Annotated[
    Path | None,
    option(
        metavar="FILE",
        help="Texts of the documents of a PLAID index, for example collection.tsv or texts.jsonl. Default: none.",
        panel=READING,
    ),
]
Tokens = Annotated[
    str | None,
    option(
        metavar="COLUMN",
        help="Array or column with the token vectors, for example doc_tokens. Default: found by name and shape.",
        panel=READING,
    ),
]
Lengths = Annotated[
    str | None,
    option(
        metavar="ARRAY|FILE",
        help="Array, or .npy file, that divides the token vectors into documents: lengths, offsets, the document of "
        "each token, or a mask. For example doc_lengths. Default: found by name and shape.",
        panel=READING,
    ),
]
Drop = Annotated[
    list[str] | None,
    option(
        metavar="COLUMN",
        help="Column, or payload key, to leave out, for example image. Can be repeated. Default: none.",
        panel=READING,
    ),
]
Queries = Annotated[
    Path | None,
    option(
        "--queries",
        metavar="FILE",
        help="Token vectors of queries: .npz, .npy, .safetensors or .pt, for example queries.npz. Default: queries "
        "are made from tokens of documents.",
    ),
]
Filter = Annotated[
    list[str] | None,
    option(
        "--filter",
        metavar="KEY=VALUE",
        help="Condition on the payload, with =, !=, <, <=, > or >=, for example 'year>=2020'. Can be repeated: all "
        "conditions must hold. Default: all documents.",
    ),
]
EncoderFile = Annotated[
    Path | None,
    option(
        "--encoder",
        metavar="FILE",
        help="File that encoder.save() wrote, for example encoder.npz. It replaces --fde-dim, --fde-tokens and "
        "--seed. Default: an FDE encoder with these options.",
        panel=ENCODING,
    ),
]
FdeDim = Annotated[
    int,
    option(
        metavar="N",
        help="Maximum number of dimensions of an FDE, for example 1280. FDEConfig.of_size() chooses repetitions and "
        "partitions.",
        panel=ENCODING,
    ),
]
FdeTokens = Annotated[
    float | None,
    option(
        metavar="N",
        help="Typical number of tokens of a document, for example 300, for the choice of repetitions and partitions. "
        "Default: unknown.",
        panel=ENCODING,
    ),
]
EncoderSeed = Annotated[
    int, option("--seed", metavar="N", help="Seed of the random projections of the FDEs.", panel=ENCODING)
]
Quantization = Annotated[
    QuantizationName,
    option(
        "--quantization",
        metavar="PRESET",
        help=f"Quantization of the FDEs in the index: auto, or a preset of the database ({quantizations()}).",
        panel=ENCODING,
    ),
]
Model = Annotated[
    str | None,
    option(
        "--model",
        metavar="NAME",
        help="Model of the token vectors, for example org/model@revision. It is compared with the model that is "
        "stored with the collection. Default: not compared.",
    ),
]
QueryFitFile = Annotated[
    Path | None,
    option(
        "--query-fit",
        metavar="FILE",
        help="File that muvera fit-queries wrote, with a correction of query FDEs, for example fit.npz. Default: none.",
    ),
]
Prefetch = Annotated[int, option(metavar="N", min=1, help="Number of candidates of the first stage, for example 500.")]
Seed = Annotated[int, option("--seed", metavar="N", min=0, help="Seed of all random choices.")]


def console() -> Console:
    """Console for tables: as wide as the terminal, or 80 columns without one. Lines of text are not wrapped."""
    return Console(highlight=False)


def table(*columns: str, title: str | None = None, left: int = 1, caption: str | None = None) -> Table:
    """A table without vertical lines, which fits into narrow terminals.

    Args:
        columns: titles of the columns.
        title: title above the table.
        left: number of text columns, which come first and are left-aligned; the others have numbers.
        caption: text below the table.
    """
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, name in enumerate(columns):
        made.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return made


def of_tenant(target: str, tenant: str | None) -> str:
    """The target, with a tenant if one is given.

    Raises:
        WrongUsage: a tenant is given, and the database has no tenants.
    """
    return with_store_options(target, tenant=tenant)


def check_collection(data: str, collection: str | None, option: str = "--collection") -> None:
    """Raises WrongUsage unless a collection is named exactly if DATA is a database."""
    if is_target(data) and collection is None:
        raise WrongUsage(f"{data}: name the collection to read ({option})")
    if not is_target(data) and collection is not None:
        raise WrongUsage(f"{data} is not a database: leave {option} out")


def make_encoder(dim: int, file: Path | None, fde_dim: int, fde_tokens: float | None, seed: int) -> Encoder:
    """The encoder that the options describe, for tokens of width ``dim``.

    Raises:
        InvalidInput: the file is not an encoder, or is one for another width.
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
    """The query fit in the file; None without a file.

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
    """Prints log records as lines on the standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message of a record, without its traceback."""
        tell(f"muvera: {record.getMessage()}")


@contextmanager
def shown_warnings() -> Iterator[list[str]]:
    """Prints each warning once, as a line on the standard error; yields the list of their texts."""
    texts: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # deprecations and unclosed resources concern the developers of libraries, not users
        text = " ".join(str(message).split())
        if text not in texts and not issubclass(category, DeprecationWarning | ResourceWarning):
            texts.append(text)
            tell(f"muvera: warning: {text}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield texts


def readable(n_bytes: float) -> str:
    """A number of bytes as text: 4.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" or n_bytes >= 99.5 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """A duration as text: 3 s, 12 min, 5.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
