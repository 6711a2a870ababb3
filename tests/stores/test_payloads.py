"""Payloads as plain JSON values."""

import datetime
import json
import uuid

import numpy as np
import pytest

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.payloads import first_difference, to_plain, to_stored


class Point:
    latitude, longitude = 48.1, 11.6


TABLE = [
    (None, None),
    (True, True),
    (7, 7),
    (2.5, 2.5),
    ("straße 😀", "straße 😀"),
    (np.int32(7), 7),
    (np.float32(0.5), 0.5),
    (np.bool_(True), True),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array(["2024-01-02"], "datetime64[D]"), ["2024-01-02"]),
    ((1, ("a",)), [1, ["a"]]),
    ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 1}]}}),
    (datetime.date(2024, 1, 2), "2024-01-02"),
    (datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.timezone.utc), "2024-01-02T03:00:00+00:00"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (Point(), {"lat": 48.1, "lon": 11.6}),
]


@pytest.mark.parametrize(("value", "stored"), TABLE)
def test_what_is_stored(value, stored):
    found = to_stored({"key": value}, "document 0 (id 1)")
    assert found == {"key": stored}
    assert json.loads(json.dumps(found)) == found
    assert to_plain({"key": value}) == found


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "nan"),
        (np.float32("inf"), "inf"),
        (2**63, "outside"),
        (-(2**63) - 1, "outside"),
        (b"x", "bytes.*base64"),
        ("\ud83d", "surrogate"),
        ({3: "x"}, "must be text"),
        ({1, 2}, "set"),
        (np.datetime64("NaT"), "NaT"),
        (datetime.timedelta(1), "timedelta"),
    ],
)
def test_what_is_refused_with_its_key(value, problem):
    with pytest.raises(InvalidInput, match=rf"payload of document 3 \(id 'x'\), key 'a.b\[1\]'.*{problem}"):
        to_stored({"a": {"b": [0, value]}}, "document 3 (id 'x')")
    assert to_plain({"a": value})  # what was read is passed on


def test_a_circle_is_refused():
    payload = {}
    payload["self"] = payload
    with pytest.raises(InvalidInput, match="nested"):
        to_stored(payload, "document 0 (id 1)")


def test_the_range_of_integers_is_the_database_s():
    assert to_stored({"n": 2**63}, "x", (0, 2**64 - 1)) == {"n": 2**63}
    with pytest.raises(InvalidInput, match="key 'n'"):
        to_stored({"n": 2**53 + 1}, "x", (-(2**53), 2**53))


def test_a_payload_is_a_dictionary():
    with pytest.raises(InvalidInput, match="dictionary"):
        to_stored(["a"], "document 0 (id 1)")


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 2}, {"a": 2.0}, None),
        ({"a": 1}, {"a": True}, "key 'a': 1 became True"),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [1, "y"]}}, "key 'a.b[1]': 'x' became 'y'"),
        ({"Title": "x"}, {"title": "x"}, "key 'Title': 'x' became nothing"),
        ({}, {"b": 1}, "key 'b': 1 was added"),
        ({"a": [1]}, {"a": [1, 2]}, "key 'a': [1] became [1, 2]"),
    ],
)
def test_the_first_difference(expected, found, difference):
    assert first_difference(expected, found) == difference
