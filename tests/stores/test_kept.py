"""What the library keeps with a collection."""

import json

import numpy as np
import pytest

from muvera_adapters.errors import CollectionNotFound, EncoderMismatch, InvalidInput, ModelMismatch, MuveraError
from muvera_adapters.stores.kept import adopted_model, choose_encoder, kept_model, new_state, read_state
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import FDEConfig, FDEEncoder, RegressionEncoder
from tests.drawn import gaussian

ENCODER = FDEEncoder(FDEConfig(8, d_proj=None))
OTHER = FDEEncoder(FDEConfig(8, d_proj=None, seed=7))


def kept(encoder, model=None):
    """The state of a collection, as a database returns it."""
    return read_state("docs", json.loads(json.dumps(new_state(encoder, "fde", "tokens", model))))


def test_the_encoder_is_rebuilt():
    state = kept(ENCODER)
    assert (state["fde"], state["tokens"]) == ("fde", "tokens")
    rebuilt = choose_encoder("docs", state["encoder"], None)
    tokens = gaussian(0, 5, 8)
    np.testing.assert_array_equal(rebuilt.encode_document(tokens), ENCODER.encode_document(tokens))


def test_the_same_encoder_is_used_as_it_is():
    assert choose_encoder("docs", kept(ENCODER)["encoder"], ENCODER) is ENCODER


def test_another_encoder_is_an_error_that_shows_both():
    with pytest.raises(EncoderMismatch, match="docs") as caught:
        choose_encoder("docs", kept(ENCODER)["encoder"], OTHER)
    assert ENCODER.fingerprint in str(caught.value)
    assert OTHER.fingerprint in str(caught.value)
    assert "seed=42 there, 7 given" in str(caught.value)
    assert "r_reps" not in str(caught.value)
    assert "fingerprint=" not in str(caught.value)


def test_a_config_is_not_an_encoder():
    with pytest.raises(InvalidInput, match=r"FDEEncoder\(config\)"):
        choose_encoder("docs", kept(ENCODER)["encoder"], ENCODER.config)


def test_an_encoder_that_is_only_in_a_file():
    fitted = RegressionEncoder.fit([gaussian(i, 5, 8) for i in range(20)], dim=4, features=8)
    state = kept(fitted)
    assert choose_encoder("docs", state["encoder"], fitted) is fitted
    with pytest.raises(EncoderMismatch, match=r"load_encoder\(path\)"):
        choose_encoder("docs", state["encoder"], None)


@pytest.mark.parametrize("state", [None, {}, {"version": 1}, {"version": 1, "encoder": "x"}, "text"])
def test_collections_of_others_must_be_adopted(state):
    with pytest.raises(CollectionNotFound, match=r"docs .*adopt"):
        read_state("docs", state)


def test_another_version_is_an_error():
    with pytest.raises(MuveraError, match=r"another version .*2"):
        read_state("docs", {**new_state(ENCODER, "fde", None, None), "version": 2})


@pytest.mark.parametrize("model", [None, TokenModel("org/model@1"), TokenModel("org/model", {"query": "q: "})])
def test_the_token_model_is_read_back(model):
    assert kept_model(kept(ENCODER, model)) == model


def test_a_state_of_an_unnamed_model_is_as_before():
    assert new_state(ENCODER, "fde", None, None) == {
        "version": 1,
        "encoder": ENCODER.to_dict(),
        "fde": "fde",
        "tokens": None,
    }


def test_an_adopted_collection_gets_a_model_once():
    model, other = TokenModel("org/model"), TokenModel("org/other")
    assert adopted_model("docs", None, model) == (model, None)
    unnamed = {**new_state(ENCODER, "fde", None, None), "storage": "blob"}
    assert adopted_model("docs", unnamed, None) == (None, None)
    chosen, state = adopted_model("docs", unnamed, model)
    assert chosen == model
    assert state == {**unnamed, "model": {"name": "org/model", "prompts": {}}}
    assert adopted_model("docs", state, None) == adopted_model("docs", state, model) == (model, None)
    with pytest.raises(ModelMismatch, match=r"docs .*org/model.*org/other"):
        adopted_model("docs", state, other)
