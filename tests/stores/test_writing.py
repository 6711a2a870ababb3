"""Writes that all stores share."""

import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.writing import check_named


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ({"ids": None, "chosen": None}, "exactly one"),
        ({"ids": [1], "chosen": "x"}, "exactly one"),
        ({"ids": [1], "chosen": None, "everything": True}, "everything=True"),
        ({"ids": None, "chosen": "x", "matches_all": True}, "matches every document"),
    ],
)
def test_deletes_that_name_nothing_or_too_much(call, problem):
    with pytest.raises(InvalidInput, match=problem):
        check_named(**call)


@pytest.mark.parametrize(
    "call",
    [
        {"ids": [1], "chosen": None},
        {"ids": [], "chosen": None},
        {"ids": None, "chosen": "x"},
        {"ids": None, "chosen": "x", "everything": True, "matches_all": True},
        {"ids": None, "chosen": None, "everything": True},
    ],
)
def test_deletes_that_name_their_documents(call):
    check_named(**call)
