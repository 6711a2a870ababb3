"""The model that made the tokens: what is the same, and what is not."""

import pytest

from muvera_adapters.errors import InvalidInput, ModelMismatch
from muvera_adapters.stores.token_model import TokenModel, check_model

PROMPTED = TokenModel("org/model@1", {"query": "[Q] ", "document": "[D] "})


@pytest.mark.parametrize(
    "other",
    [
        "org/model",
        "org/model@1",
        TokenModel("org/model", {"query": "[Q] "}),
        TokenModel("org/model@1", {"document": "[D] "}),
        None,
    ],
)
def test_what_one_side_does_not_name_is_not_compared(other):
    check_model("docs", PROMPTED, other)
    check_model("docs", None, other)


@pytest.mark.parametrize(
    "other",
    [
        "org/model@2",
        "model@1",
        "org/Model",
        TokenModel("org/model", {"query": ""}),
        TokenModel("org/model@1", {"document": "x"}),
    ],
)
def test_what_differs_is_an_error_that_shows_both(other):
    with pytest.raises(ModelMismatch) as caught:
        check_model("docs", PROMPTED, other)
    for text in ("docs", str(PROMPTED), str(other)):
        assert text in str(caught.value)


def test_it_is_shown_with_its_prompts():
    assert str(PROMPTED) == "org/model@1 (query prompt '[Q] ', document prompt '[D] ')"
    assert str(TokenModel("org/model")) == "org/model"


@pytest.mark.parametrize("model", ["", " ", 3, ["org/model"]])
def test_a_name_is_a_text(model):
    with pytest.raises(InvalidInput, match="org/model@revision"):
        check_model("docs", None, model)


@pytest.mark.parametrize("prompts", [{"passage": "x"}, {"query": None}, "query: "])
def test_prompts_are_texts_of_two_sides(prompts):
    with pytest.raises(InvalidInput, match="'query' and 'document'"):
        TokenModel("org/model", prompts)


def test_spaces_around_a_name_do_not_count():
    assert TokenModel(" org/model@1\n") == TokenModel("org/model@1")
