"""The description of a collection and its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pymilvus import DataType

from muvera_adapters.milvus.blobs import TokenType
from muvera_adapters.milvus.ids import ID, MAX_KEY, Keys
from muvera_adapters.stores import collection
from muvera_adapters.stores.token_model import TokenModel
from muvera_adapters.stores.token_precision import rounding_error
from muvera_core import Encoder

#: ``struct``: an array of structs, which a server scores; ``blob``: text fields; ``none``: tokens are not stored
TokenStorage: TypeAlias = Literal["struct", "blob", "none"]
#: similarity of two tokens
Metric: TypeAlias = Literal["IP", "COSINE"]

#: names of the fields of collections that this library creates
FDE, TOKENS, SUB = "fde", "muvera_tokens", "vector"

#: maximum number of entries of an array, and so of tokens of a document (array_data_type.md)
MAX_CAPACITY = 4_096

#: field in which Milvus stores undeclared keys of a payload
_DYNAMIC = "$meta"


def mark_of(fde: str) -> str:
    """Name of the mark of an FDE field that was added later. The mark has that field's name, or is empty."""
    return f"muvera_{fde}"


@dataclass(frozen=True, slots=True)
class Server:
    """The server, or milvus-lite.

    Attributes:
        engine: name and version, for messages.
        lite: whether it is milvus-lite, which returns pages in no order.
        known: whether the version is one of Milvus; managed services have their own versions.
        merges: whether an upsert may name single fields, and keeps other fields and other keys of the dynamic field.
        sq8: whether a graph can be built over codes of 8 bits (``HNSW_SQ``).
    """

    engine: str = "Milvus"
    lite: bool = False
    known: bool = True
    merges: bool = False
    sq8: bool = False


@dataclass(slots=True)
class Seen(collection.Seen):
    """What operations learn about a collection while they run.

    Attributes:
        token_bytes: bytes on the wire of the largest token matrix read so far; 0: none was read.
    """

    token_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, as its schema and its kept state describe it.

    Attributes:
        name: name of the collection, or an alias of it.
        encoder: encoder of its FDEs.
        key: name of the primary key's field.
        keys: kind of the primary keys.
        max_key: largest number of bytes of a string key.
        fde: name of the FDE field.
        datatype: data type of the FDE field.
        fde_metric: metric by which FDEs are compared, ``"IP"`` or ``"COSINE"``.
        index: type and parameters of the FDE field's index.
        fde_exists: whether the collection has the FDE field.
        nullable: whether the FDE field may be empty.
        has_fde: whether FDEs can be searched and written; False: adopted, to be backfilled.
        marker: whether FDEs were added later, so that the field ``mark`` tells which documents have one.
        storage: how tokens are stored.
        tokens: name of the struct array, or prefix of the names of the text fields; None without tokens.
        sub: name of the vector within the struct.
        blobs: names of the text fields.
        precision: data type of tokens in text.
        metric: metric by which tokens are compared; under COSINE, queries and FDEs are computed from tokens of unit
            length.
        capacity: largest number of tokens of a document.
        strategy: ``emb_list_strategy`` of the struct's index.
        token_index: type and parameters of the index of the struct's vector; None: there is none.
        fields: declared fields of the payload.
        types: data types of the declared fields.
        optional: declared fields that may be null.
        dynamic: whether the payload may have keys that are not declared.
        strangers: other vectors, which can be written and are not shown in payloads.
        hidden: fields that are not payload and cannot be written: vectors that the server computes, marks of other
            FDEs.
        server: server of the collection.
        consistency: consistency level of searches; None: the collection's own.
        model: model of the tokens; None: unknown.
        seen: what operations have learned about it; copies made by ``dataclasses.replace`` share it.
    """

    name: str
    encoder: Encoder
    key: str = ID
    keys: Keys = "any"
    max_key: int = MAX_KEY
    fde: str = FDE
    datatype: DataType = DataType.FLOAT_VECTOR
    fde_metric: str = "IP"
    index: Mapping[str, Any] = field(default_factory=dict)
    fde_exists: bool = True
    nullable: bool = False
    has_fde: bool = True
    marker: bool = False
    storage: TokenStorage = "blob"
    tokens: str | None = TOKENS
    sub: str = SUB
    blobs: tuple[str, ...] = ()
    precision: TokenType = "float16"
    metric: Metric = "IP"
    capacity: int = MAX_CAPACITY
    strategy: str = "tokenann"
    token_index: Mapping[str, Any] | None = None
    fields: tuple[str, ...] = ()
    types: Mapping[str, DataType] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    dynamic: bool = True
    strangers: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    server: Server = Server()
    consistency: str | None = None
    model: TokenModel | None = None
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)

    @property
    def token_error(self) -> float:
        """Typical length of the rounding error of a stored token, relative to the token's length."""
        return rounding_error(self.precision) if self.storage == "blob" else 0.0

    @property
    def mark(self) -> str:
        """Name of the field that tells which documents have an FDE, if it exists: no filter finds null vectors."""
        return mark_of(self.fde)

    @property
    def cosine(self) -> bool:
        """Whether tokens are compared by cosine."""
        return self.metric == "COSINE"

    @property
    def token_fields(self) -> list[str]:
        """Names of the fields with the tokens."""
        if self.storage == "struct":
            assert self.tokens is not None
            return [self.tokens]
        return list(self.blobs)

    @property
    def payload_fields(self) -> list[str]:
        """Names of the fields with the whole payload."""
        return [*self.fields, *([_DYNAMIC] if self.dynamic else [])]
