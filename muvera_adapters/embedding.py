"""Token vectors of query texts, with the late-interaction models of fastembed."""

from __future__ import annotations

from collections.abc import Sequence

from muvera_adapters.errors import InvalidInput, MissingExtra, MuveraError, WrongUsage
from muvera_adapters.stores.token_model import TokenModel, as_token_model
from muvera_core import TokenBatch

_INSTEAD = "embed the texts with your model (docs/embedding.md), and pass the token vectors with --queries"


def embed_queries(texts: Sequence[str], model: TokenModel | str | None, dim: int) -> TokenBatch:
    """Computes the token matrices of query texts.

    Args:
        texts: at least one text.
        model: model that made the tokens of the documents. fastembed downloads it on its first use.
        dim: width of the token vectors of the documents.

    Raises:
        WrongUsage: no model is named.
        MissingExtra: fastembed is not installed.
        InvalidInput: fastembed does not have the model, or its token vectors have another width.
        MuveraError: fastembed cannot load the model.
    """
    named = as_token_model(model)
    if named is None:
        raise WrongUsage(
            "the collection does not store the name of its token model: give it with --model, for example --model "
            "answerdotai/answerai-colbert-small-v1"
        )
    try:
        from fastembed import LateInteractionTextEmbedding
    except ModuleNotFoundError as error:
        raise MissingExtra("fastembed", "fastembed") from error
    name = named.name.partition("@")[0]
    there = [str(each["model"]) for each in LateInteractionTextEmbedding.list_supported_models()]
    if name.lower() not in map(str.lower, there):
        raise InvalidInput(f"fastembed does not have the model {name!r}, only {', '.join(there)}: {_INSTEAD}")
    if named.prompts.get("query"):
        raise InvalidInput(f"fastembed does not put the prompt {named.prompts['query']!r} before queries: {_INSTEAD}")
    try:
        embedder = LateInteractionTextEmbedding(name)
    except Exception as error:  # the download and onnxruntime raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise MuveraError(f"fastembed cannot load the model {name}: {reason}") from error
    found = TokenBatch.from_list(embedder.query_embed(list(texts)))
    if found.dim != dim:
        raise InvalidInput(
            f"{name} makes token vectors of width {found.dim}, the collection has {dim}: is it the right model?"
        )
    return found
