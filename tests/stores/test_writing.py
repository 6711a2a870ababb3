"""Writes that all stores share."""

import pytest

from muvera_adapters.errors import InvalidInput, Rejected
from muvera_adapters.stores.collection import BatchLimit
from muvera_adapters.stores.operations import ONCE, run
from muvera_adapters.stores.writing import check_named, halving


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


def halved(count, refuses, limit=None):
    """Sizes of the requests, and what is rejected."""
    sizes = []

    async def write(items):
        sizes.append(len(items))
        if refuses(items):
            raise Rejected("refused")
        return {}

    return sizes, run(halving(write, range(count), limit=limit), lambda _: None, ONCE)


def test_where_everything_is_rejected_each_document_costs_one_request():
    sizes, rejected = halved(600, lambda items: True)
    assert list(rejected) == list(range(600))
    assert len(sizes) <= 600 + 10


def test_one_rejected_document_costs_a_few_requests():
    sizes, rejected = halved(600, lambda items: 7 in items)
    assert list(rejected) == [7]
    assert len(sizes) <= 2 * 10 + 1


def test_a_limit_of_the_number_of_documents_is_learned_once():
    limit = BatchLimit()
    sizes, rejected = halved(600, lambda items: len(items) > 50, limit)
    assert not rejected
    assert [size for size in sizes if size > 50] == [600, 300, 150, 75]
    sizes, _ = halved(600, lambda items: len(items) > 50, limit)
    assert max(sizes) == limit.most == 37
    assert sum(sizes) == 600
