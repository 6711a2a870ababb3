"""The model that made the tokens of a collection, if its user named it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muvera_adapters.errors import InvalidInput, ModelMismatch, WrongUsage

_SIDES = ("query", "document")


@dataclass(frozen=True, slots=True)
class TokenModel:
    """Identity of the model that makes token vectors.

    Args:
        name: name of the model, with ``@`` and its revision if that is known: ``"org/model@revision"``.
        prompts: texts that the model puts before texts, by the names ``"query"`` and ``"document"``; a prompt that is
            missing here is unknown.

    Raises:
        InvalidInput: the name is empty, or the prompts are not texts by these names.
    """

    name: str
    prompts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise WrongUsage(f"the name of a token model must be text such as 'org/model@revision', got {self.name!r}")
        object.__setattr__(self, "name", self.name.strip())
        prompts = self.prompts
        if not isinstance(prompts, Mapping) or not all(k in _SIDES and isinstance(v, str) for k, v in prompts.items()):
            raise InvalidInput(f"prompts must be texts by the names 'query' and 'document', got {prompts!r}")

    def __str__(self) -> str:
        prompts = [f"{side} prompt {self.prompts[side]!r}" for side in _SIDES if side in self.prompts]
        return f"{self.name} ({', '.join(prompts)})" if prompts else self.name

    def agrees(self, other: TokenModel) -> bool:
        """Whether both can be the same model. Revisions and prompts are compared only if both have them."""
        ours, theirs = _parts(self.name), _parts(other.name)
        same_name = ours[0] == theirs[0] and (ours[1] == theirs[1] or not (ours[1] and theirs[1]))
        return same_name and all(self.prompts[k] == other.prompts[k] for k in self.prompts.keys() & other.prompts)


def _parts(name: str) -> tuple[str, str]:
    """Name and revision of a model; the revision is empty if there is none."""
    before, at, revision = name.partition("@")
    return (before, revision) if at and before else (name, "")


def as_token_model(model: TokenModel | str | None) -> TokenModel | None:
    """The model that a user named.

    Raises:
        InvalidInput: it is neither a name nor a :class:`TokenModel`.
    """
    if model is None or isinstance(model, TokenModel):
        return model
    return TokenModel(model)


def check_model(where: str, kept: TokenModel | None, given: TokenModel | str | None) -> None:
    """Checks that tokens of two origins can be compared, if their models are known.

    Args:
        where: name of the collection or file with the stored model, for the message.
        kept: stored model; None: unknown.
        given: model of the caller's tokens; None: unknown.

    Raises:
        ModelMismatch: both models are known, and they differ.
        InvalidInput: ``given`` is not valid.
    """
    model = as_token_model(given)
    if kept is not None and model is not None and not kept.agrees(model):
        raise ModelMismatch(
            f"the token vectors of {where} were made by {kept}, but the given model is {model}: vectors of different "
            "models or prompts cannot be compared"
        )
