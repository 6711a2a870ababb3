"""Tests that payloads are returned unchanged, or rejected."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.payloads import first_difference
from muvera_adapters.testing import Session
from muvera_adapters.testing.corpus import DOCUMENTS, ENCODER


class TestPayloadsComeOutAsTheyWentIn:
    """Keys and values are returned unchanged, or the document is rejected with an error that names the key."""

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"text": "0b7f6c1e-9d0e-4b1a-8a56-3c5d9f1e2a47"}, {"text": "page 2"}),
            ({"text": "2024-01-02T03:04:05Z"}, {"text": "page 2"}),
            ({"text": "2024-01-02"}, {"text": ""}),
            ({"price": 0.1}, {"price": 1e300}),
            ({"flag": True}, {"flag": False}),
            ({"tags": ["a", "b"]}, {"tags": ["c"]}),
            ({"text": "straße \U0001f600 \u0000 \n"}, {"text": "x" * 3000}),
        ],
    )
    def test_plain_payloads(self, session: Session, first: dict[str, Any], second: dict[str, Any]) -> None:
        """Text, numbers, booleans and lists of text are stored by every store."""
        store = session.create("plain", ENCODER)
        for i, payload in enumerate((first, second)):
            assert store.upsert([i], DOCUMENTS[i : i + 1], [payload]).failed == {}
        found = store.get([0, 1])
        assert [first_difference(p, d.payload) for p, d in zip((first, second), found, strict=True)] == [None, None]

    @pytest.mark.parametrize(
        "payload",
        [
            {"Title": "x"},
            {"Title": "x", "title": "y"},
            {"id": "x"},
            {"vector": "x"},
            {"page-number": 3},
            {"file name": "x"},
            {"größe": 3},
            {"a.b": 1},
            {"_x": 1},
            {"number": 2**53 + 1},
            {"number": 2**63 - 1},
            {"number": -(2**63)},
            {"nested": {"a": {"b": [1, {"c": None}]}}},
            {"nested": {}},
            {"nothing": None},
            {"empty": []},
            {"mixed": [1, "a", None]},
            {"lists": [[1, 2], [3]]},
            {"objects": [{"a": 1}, {"b": "x"}]},
        ],
        ids="-".join,
    )
    def test_unusual_payloads(self, session: Session, payload: dict[str, Any]) -> None:
        """A payload is returned as it was given, or the document is rejected with an error that names the key."""
        self._check(session, payload, payload)

    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            (
                {"day": datetime.date(2024, 1, 2), "at": datetime.datetime(2024, 1, 2, 3, 4, 5)},
                {"day": "2024-01-02", "at": "2024-01-02T03:04:05"},
            ),
            ({"owner": uuid.UUID(int=7)}, {"owner": "00000000-0000-0000-0000-000000000007"}),
            (
                {"array": np.arange(3), "half": np.float16(0.5), "whole": np.int64(7)},
                {"array": [0, 1, 2], "half": 0.5, "whole": 7},
            ),
        ],
        ids=["dates", "uuid", "numpy"],
    )
    def test_payloads_that_are_converted(
        self, session: Session, payload: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        """Values that are not JSON are converted as documented."""
        self._check(session, payload, expected)

    def _check(self, session: Session, payload: dict[str, Any], expected: dict[str, Any]) -> None:
        store = session.create("unusual", ENCODER)
        try:
            report = store.upsert([1, 2], DOCUMENTS[:2], [payload, {"n": 2}])
        except InvalidInput as error:
            refused = str(error)
        else:
            refused = report.failed.get(1, "")
            assert 2 not in report.failed
        if refused:
            assert any(key in refused for key in payload), refused
            return
        found = store.get([1])[0].payload
        assert found == expected
        # compared as text, because 2.0 == 2 and True == 1 in Python
        assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)

    def test_a_second_type_under_the_same_key(self, session: Session) -> None:
        """A key can have a number in one document and text in the next, or the second is rejected and the key named."""
        store = session.create("types", ENCODER)
        assert store.upsert([1], DOCUMENTS[:1], [{"page": 3}]).failed == {}
        try:
            refused = store.upsert([2], DOCUMENTS[1:2], [{"page": "iv"}]).failed.get(2, "")
        except InvalidInput as error:
            refused = str(error)
        if refused:
            assert "page" in refused
        else:
            assert [document.payload for document in store.get([1, 2])] == [{"page": 3}, {"page": "iv"}]

    @pytest.mark.parametrize("value", [b"x", {"a", "b"}, {1: "x"}, datetime.timedelta(1)])
    def test_what_is_no_json_is_refused_before_anything_is_sent(self, session: Session, value: Any) -> None:
        """The error names the document and the path of the key."""
        store = session.create("refused", ENCODER)
        with pytest.raises(InvalidInput, match=r"payload of document 1 \(id 'b'\), key 'a\.b\[1\]'"):
            store.upsert(["a", "b"], DOCUMENTS[:2], [{"n": 1}, {"a": {"b": [0, value]}}])
        assert store.count() == 0

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, "a \ud83d b"])
    def test_a_value_that_cannot_be_stored_is_its_documents_fault(self, session: Session, value: Any) -> None:
        """The document is in ``failed`` with the path of the key, and the others are written."""
        store = session.create("values", ENCODER)
        report = store.upsert(["a", "b", "c"], DOCUMENTS[:3], [{"n": 1}, {"a": {"b": [0, value]}}, {"n": 3}])
        assert report.written == 2
        assert list(report.failed) == ["b"]
        assert "key 'a.b[1]'" in report.failed["b"]
        assert [document and document.payload for document in store.get(["a", "b", "c"])] == [{"n": 1}, None, {"n": 3}]
