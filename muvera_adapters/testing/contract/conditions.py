"""Tests of database-independent conditions, compared with the answers of Python on the same payloads."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from muvera_adapters.errors import Unsupported
from muvera_adapters.results import DocumentId
from muvera_adapters.stores.conditions import All, Compare, Condition, Ids, Not, Some, matches
from muvera_adapters.testing import Session
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER, QUERIES

_PAYLOADS: list[dict[str, Any]] = [
    {"page": 1, "price": 0.5, "who": "acme", "draft": True, "tags": ["a", "b"], "day": "2024-01-02T00:00:00Z"},
    {"page": 2, "price": 2.0, "who": "acme corp", "draft": False, "tags": ["b"], "day": "2024-01-02T09:30:00Z"},
    {"page": 3, "price": 3.5, "who": 'O\'Neil "q" \\ é', "draft": False, "tags": ["a b"], "in": {"deep": 1}},
    {"page": -4, "price": -1.5, "who": "ACME", "draft": True, "tags": ["c"], "Name": "x", "page-count": 7},
    {"page": 5, "who": ""},
    {"price": 2.5, "in": {"deep": 2}, "Name": "y", "page-count": 8, "who": None},
    {},
]
_IDS: list[DocumentId] = [10, "b", "c/3", 13, "e", "f", "g"]
_NOON = datetime(2024, 1, 2, 9, 0, tzinfo=timezone.utc)

# every store can express these
_COMMON: list[Condition] = [
    Compare("page", "==", 2),
    Compare("price", "==", 2),
    Compare("price", "==", 2.5),
    Compare("draft", "==", True),
    Compare("who", "==", "acme"),
    Compare("who", "==", 'O\'Neil "q" \\ é'),
    Compare("Name", "==", "x"),
    Compare("nowhere", "==", 1),
    Compare("page", "in", [1, 5, 99]),
    Compare("who", "in", ["acme", "ACME"]),
    Compare("who", "in", []),
    Compare("page", ">", 1),
    Compare("page", ">=", 2),
    Compare("price", "<", 2.5),
    Compare("price", "<=", 2),
    Compare("tags", "contains", "b"),
    Not(Compare("who", "==", "acme")),
    Not(Compare("page", "in", [1, 2])),
    Not(Compare("price", ">", 2)),
    All([Compare("draft", "==", False), Compare("page", ">", 2)]),
    Some([Compare("who", "==", "ACME"), Compare("price", ">=", 3)]),
    Not(All([Compare("draft", "==", True), Compare("page", ">", 0)])),
    Not(Some([Compare("draft", "==", True), Not(Compare("page", ">", 0))])),
    All([]),
    Some([]),
    Ids([10, "c/3", "nobody"]),
    All([Not(Ids(["b"])), Compare("price", ">", 0)]),
]
# a store may reject these with an error that names the operator
_RARE: list[Condition] = [
    Compare("page", "empty"),
    Compare("who", "empty"),
    Compare("nowhere", "empty"),
    Compare("who", "text", "cme"),
    Compare("in.deep", "==", 2),
    Compare("day", ">", _NOON),
    Compare("day", "<=", _NOON.replace(tzinfo=None)),
    Compare("page", "==", 2**60),
    Compare("page-count", "==", 7),
]


def _filled(session: Session) -> Any:
    store = session.create("conditions", ENCODER)
    # a store may index a text property for filters or for keywords, depending on its first values
    store.upsert(_IDS[:1], DOCUMENTS[:1], [{"who": "acme", "tags": ["a"]}])
    report = store.upsert(_IDS, DOCUMENTS[: len(_IDS)], _PAYLOADS)
    assert report.failed == {}
    return store


class TestConditions:
    """Filters of ``filter_of`` pass the same documents as in Python, or an error names the unsupported operator."""

    def test_filters_pass_what_python_passes(self, session: Session) -> None:
        """Every condition and its negation pass the same documents; no store may reject the common conditions."""
        store = _filled(session)
        wrong: list[Any] = []
        for condition in [*_COMMON, *_RARE]:
            for each in (condition, Not(condition)):
                expected = {i for i, payload in zip(_IDS, _PAYLOADS, strict=True) if matches(each, i, payload)}
                try:
                    chosen = store.filter_of(each)
                except Unsupported as error:
                    named = isinstance(condition, Compare) and repr(condition.operator) in str(error)
                    wrong += [] if condition in _RARE and named else [(each, str(error))]
                    continue
                found = {document.id for document in store.scroll(filter=chosen)}
                wrong += [] if found == expected else [(each, found, expected)]
        assert wrong == []

    def test_such_a_filter_serves_searches(self, session: Session) -> None:
        """``search``, ``count`` and ``delete`` take such a filter."""
        store = _filled(session)
        acme = store.filter_of(All([Compare("who", "in", ["acme", "ACME"]), Not(Compare("page", ">", 1))]))
        assert {hit.id for hit in store.search(QUERIES[0], 10, filter=acme)} == {10, 13}
        assert store.count(filter=acme) == 2
        store.delete(filter=acme)
        assert {document.id for document in store.scroll()} == set(_IDS) - {10, 13}

    def test_keys_and_texts_cannot_leave_their_place(self, session: Session) -> None:
        """Texts that contain syntax of the database are compared as text."""
        store = _filled(session)
        for text in ('" or page > 0 or who == "', "acme\\", "' or 1 == 1 --", "%", "acme*"):
            assert store.count(filter=store.filter_of(Compare("who", "==", text))) == 0, text
            try:
                chosen = store.filter_of(Compare('who" or page > 0 or "who', "==", text))
            except (Unsupported, ValueError) as error:
                assert "page > 0" in str(error)  # noqa: PT017
            else:
                assert store.count(filter=chosen) == 0, text
