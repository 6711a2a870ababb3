"""The choice of encoder and codes from a sample of documents, for ``create(encoder="auto", sample=...)``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.operations import Compute
from muvera_core import Encoder, InvalidTokens

EncoderOption: TypeAlias = Encoder | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The encoder and codes that ``create`` uses.

    Attributes:
        encoder: encoder of the collection.
        quantization: codes of the FDEs, as ``create`` takes them.
    """

    encoder: Encoder
    quantization: Any


async def choose(
    encoder: EncoderOption, sample: Any, quantization: Any, bits: Mapping[str, float], auto: Sequence[str]
) -> Chosen:
    """:func:`chosen`, in a worker thread where the store is asynchronous."""
    return await Compute(partial(chosen, encoder, sample, quantization, bits, auto))


def chosen(
    encoder: EncoderOption, sample: Any, quantization: Any, bits: Mapping[str, float], auto: Sequence[str]
) -> Chosen:
    """The given encoder and codes; for ``"auto"``, those that :func:`muvera_adapters.evidence.recommend` chooses.

    Only encoders that the collection keeps completely are chosen. The target is a recall of .95 with the default number
    of candidates of a search. Codes are measured with those of the embedded engine that have as many bits.

    Args:
        encoder: encoder, or ``"auto"``.
        sample: documents to choose for; None with any other encoder.
        quantization: the argument of ``create``: a preset, ``"auto"``, or another value, which is not measured.
        bits: bits of one dimension by preset of the database.
        auto: presets to choose from if the quantization is ``"auto"``.

    Raises:
        InvalidInput: ``"auto"`` was given without a sample, a sample without ``"auto"``, or the sample is not usable.

    Warns:
        UserWarning: no encoder reaches the target; the one with the highest recall is used.
    """
    if not isinstance(encoder, str):
        if sample is not None:
            raise InvalidInput("sample= is for encoder='auto': leave it out, because an encoder was given")
        return Chosen(encoder, quantization)
    if encoder != "auto":
        raise InvalidInput(f"encoder must be an encoder or 'auto', got {encoder!r}")
    if sample is None:
        raise InvalidInput("encoder='auto' needs sample=: some thousand documents of the collection, as token matrices")
    # imported here, because it is large and itself imports a store to measure with
    from muvera_adapters.databases import local_spec
    from muvera_adapters.evidence import recommend
    from muvera_adapters.evidence.local_index import quantizations

    names = auto if quantization == "auto" else [quantization] if isinstance(quantization, str) else []
    by_bits = {bits[name]: name for name in names if name in bits}
    tried = {name: by_bits[n] for name in quantizations() if (n := local_spec().quantizations[name]) in by_bits}
    try:
        found = recommend(sample, travels=True, quantizations=list(tried))
    except (InvalidInput, InvalidTokens) as error:
        raise InvalidInput(f"sample: {error}") from error
    if not found.reached:
        warnings.warn(
            f"encoder='auto': on the sample, no encoder reaches a recall of {found.target:g} with "
            f"{found.measured_prefetch} candidates; {found.setting.encoder} is used, with a recall of "
            f"{found.recall.mean:.3f}. "
            "muvera_adapters.evidence.recommend() shows the other settings",
            stacklevel=2,
        )
    return Chosen(found.encoder, tried.get(found.quantization or "", quantization))
