"""The state of this library in a collection: the encoder, the names of its vectors, and the token model if named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvera_adapters.errors import CollectionNotFound, EncoderMismatch, MuveraError
from muvera_adapters.stores.checks import check_encoder_type
from muvera_adapters.stores.token_model import TokenModel, check_model
from muvera_core import Encoder, encoder_from_dict

_VERSION = 1


def new_state(encoder: Encoder, fde: str, tokens: str | None, model: TokenModel | None) -> dict[str, Any]:
    """The state to keep with a collection, as JSON values."""
    return _with_model({"version": _VERSION, "encoder": encoder.to_dict(), "fde": fde, "tokens": tokens}, model)


def kept_model(state: Mapping[str, Any]) -> TokenModel | None:
    """The token model in a state; None if it has none."""
    model = state.get("model")
    return None if model is None else TokenModel(model["name"], model.get("prompts") or {})


def adopted_model(
    name: str, state: Mapping[str, Any] | None, given: TokenModel | None
) -> tuple[TokenModel | None, dict[str, Any] | None]:
    """The token model of an adopted collection, and a state to write if it lacks the model (None: write nothing).

    Args:
        name: name of the collection.
        state: stored state of the collection; None: there is none.
        given: model that was given to ``adopt``.

    Raises:
        ModelMismatch: the collection has another model.
    """
    kept = None if state is None else kept_model(state)
    check_model(name, kept, given)
    if state is None or kept is not None or given is None:
        return kept or given, None
    return given, _with_model(state, given)


def _with_model(state: Mapping[str, Any], model: TokenModel | None) -> dict[str, Any]:
    return {**state, **({} if model is None else {"model": {"name": model.name, "prompts": dict(model.prompts)}})}


def read_state(name: str, state: Any) -> Mapping[str, Any]:
    """Checks the stored state of a collection and returns it.

    Raises:
        CollectionNotFound: the collection has no state of this library.
        MuveraError: another version of this library wrote the state.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("encoder"), Mapping):
        raise CollectionNotFound(f"{name} was not created by this library: use adopt() to take it over")
    if state.get("version") != _VERSION:
        raise MuveraError(f"{name} was written by another version of this library (state {state.get('version')!r})")
    return state


def differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The fields in which two encoders differ, from their ``to_dict()``."""
    ours, theirs = _fields(kept), _fields(given)
    different = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    named = [f"{key}={_short(ours.get(key))} there, {_short(theirs.get(key))} given" for key in different]
    return "; ".join(named) or "they were fitted on other data"


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name; those of a nested mapping are named by their own keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(_fields(value))
        elif key != "fingerprint":
            flat[key] = value
    return flat


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def choose_encoder(name: str, kept: Mapping[str, Any], given: Encoder | None) -> Encoder:
    """The given encoder, which must equal the stored one; without a given encoder, the stored one is rebuilt.

    Raises:
        InvalidInput: ``given`` is not an encoder.
        EncoderMismatch: the encoders differ (the message has the fields), or the stored one must be loaded from a file.
    """
    fingerprint = kept.get("fingerprint")
    if given is not None:
        check_encoder_type(given)
        if given.fingerprint != fingerprint:
            raise EncoderMismatch(
                f"{name} was filled by encoder {fingerprint}, but the given encoder is {given.fingerprint}: "
                f"{differences(kept, given.to_dict())}; their vectors cannot be compared"
            )
        return given
    try:
        return encoder_from_dict(kept)
    except (ValueError, KeyError) as error:
        raise EncoderMismatch(
            f"the encoder {fingerprint} of {name} cannot be rebuilt from the collection ({error}): "
            "load it with muvera_core.load_encoder(path) and pass it"
        ) from error
