"""What is known of a table that is a collection of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from muvera_adapters.stores.collection import Seen
from muvera_adapters.stores.keys import Keys
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import Encoder

#: similarity of two tokens
Metric: TypeAlias = Literal["dot", "cosine"]
#: how token matrices are stored
TokenType: TypeAlias = Literal["float32", "float16"]
#: codes of FDEs in the index; ``"auto"`` leaves them to the store
Quantization: TypeAlias = Literal["auto", "rq1", "rq4", "sq8"] | None

#: names of the columns of tables that this library makes
ID, FDE, TOKENS, PAYLOAD = "id", "fde", "tokens", "payload"


@dataclass(frozen=True, slots=True)
class Collection:
    """A table with its encoder.

    Attributes:
        table: the client's table.
        name: name of the table.
        encoder: encoder of the FDEs.
        engine: name and version of the engine, for people.
        fde: name of the column with the FDEs.
        tokens: name of the column with the token matrices, None where none are stored.
        key: name of the column with the ids.
        keys: kind of the keys.
        fields: types of the payload's own columns, by name.
        json: name of the column that has the payload's other keys as JSON; None: there is none.
        strangers: types of the columns with vectors of others, by name.
        fde_type: type of an FDE's values.
        token_type: type of a token's values.
        fde_exists: whether the FDE column is there.
        has_fde: whether FDEs can be searched and written (False: adopted, and not backfilled yet).
        cosine: whether tokens are compared by cosine.
        quantization: codes that an index of the FDEs gets; None: no index is built.
        model: model of the tokens, None where nobody named it.
        seen: what operations have learned of it.
    """

    table: Any
    name: str
    encoder: Encoder
    engine: str
    fde: str = FDE
    tokens: str | None = TOKENS
    key: str = ID
    keys: Keys = "any"
    fields: Mapping[str, pa.DataType] = field(default_factory=dict)
    json: str | None = PAYLOAD
    strangers: Mapping[str, pa.DataType] = field(default_factory=dict)
    fde_type: pa.DataType = field(default_factory=pa.float32)
    token_type: pa.DataType = field(default_factory=pa.float16)
    fde_exists: bool = True
    has_fde: bool = True
    cosine: bool = False
    quantization: str | None = None
    model: TokenModel | None = None
    seen: Seen = field(default_factory=Seen, compare=False, repr=False)

    @property
    def token_error(self) -> float:
        """Typical rounding of a stored token: values of float32 and float16 show it themselves."""
        return 0.0

    @property
    def payload_columns(self) -> list[str]:
        """Names of all columns that payloads are read from."""
        return [*self.fields, *([self.json] if self.json else [])]
