"""Payloads as Weaviate's properties, and back."""

import uuid
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from weaviate.classes.config import DataType

from muvera_adapters.errors import InvalidInput
from muvera_adapters.weaviate.ids import FDE_KEY, JSON_KEY, RESERVED
from muvera_adapters.weaviate.properties import (
    Kind,
    check_keys,
    merged,
    property_name,
    to_payload,
    to_properties,
    to_property,
    undeclared,
)

keys = st.one_of(st.sampled_from(["a", "A", "b", "Title", "title", "id", "file name", "größe"]), st.text(max_size=5))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.just("2024-01-02T00:00:00Z"),
    st.just(str(uuid.UUID(int=7))),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)
payloads = st.dictionaries(keys, values, max_size=4)


def stored(payload, declared):
    """What a server gives back, which has no None and refuses what does not fit."""
    properties = to_properties(payload, declared)
    for name, value in properties.items():
        assert value is not None
        kind = declared[name].type
        if kind == DataType.TEXT:
            assert isinstance(value, str)
        if kind == DataType.INT:
            assert isinstance(value, int)
            assert int(float(value)) == value
        if kind == DataType.INT_ARRAY:
            assert {type(each) for each in value} <= {int}, "the client takes all for the type of the first"
        if kind == DataType.NUMBER_ARRAY:
            assert {type(each) for each in value} <= {float}
    return properties


def can_be_stored(payload):
    try:
        check_keys(payload, "document 0")
    except InvalidInput:
        return False
    return True


class TestRoundTrips:
    @given(payloads.filter(can_be_stored))
    def test_every_payload_comes_back(self, payload):
        declared = undeclared([payload], {})
        assert to_payload(stored(payload, declared)) == payload

    @given(payloads.filter(can_be_stored), payloads.filter(can_be_stored))
    def test_a_merge_sets_what_it_names_and_keeps_the_rest(self, old, new):
        declared = undeclared([old, new], {})
        try:
            before = stored(old, declared)
            after = merged(stored(new, declared), before)
        except (InvalidInput, AssertionError):  # refused here, or by the server as it does not fit the declared type
            return
        patched = {name: value for name, value in {**before, **after}.items() if value is not None}
        assert to_payload(patched) == {**old, **new}

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "2024-01-02T03:04:05Z"),
            (datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2024-01-02T03:00:00+02:00"),
            (uuid.UUID(int=7), str(uuid.UUID(int=7))),
            (SimpleNamespace(latitude=1.5, longitude=2.5), {"lat": 1.5, "lon": 2.5}),
            ([datetime(2024, 1, 2, tzinfo=timezone.utc)], ["2024-01-02T00:00:00Z"]),
            ({"at": datetime(2024, 1, 2, tzinfo=timezone.utc)}, {"at": "2024-01-02T00:00:00Z"}),
        ],
    )
    def test_the_clients_own_types_become_plain_values(self, value, expected):
        assert to_payload({"x": value, FDE_KEY: "fde"}) == {"x": expected}

    def test_a_property_that_others_wrote_wins(self):
        properties = to_properties({"x": None}, {})
        assert to_payload({**properties, "x": 3}) == {"x": 3}
        assert to_payload({JSON_KEY: "broken", "y": 1}) == {"y": 1}


class TestDeclarations:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (["2024-01-02T00:00:00Z", "x"], DataType.TEXT),
            ([7, None], DataType.INT),
            ([7, 7.5], DataType.NUMBER),
            ([[1], [2.5]], DataType.NUMBER_ARRAY),
            ([[1, 2.5]], DataType.NUMBER_ARRAY),
            ([["a"]], DataType.TEXT_ARRAY),
            ([True], DataType.BOOL),
            ([{"a": 1}], DataType.OBJECT),
            ([[{"a": 1}, {"b": "x"}]], DataType.OBJECT_ARRAY),
            ([3, "iv"], DataType.INT),
        ],
    )
    def test_the_type_is_that_of_the_values(self, values, expected):
        assert undeclared([{"x": value} for value in values], {})["x"].type == expected

    @pytest.mark.parametrize("value", [None, [], {}, [[1]], [1, "a"], [None], 2**53 + 1])
    def test_what_has_no_type_is_not_declared(self, value):
        assert set(undeclared([{"x": value}], {})) == {JSON_KEY}

    def test_nested_properties_are_declared_too(self):
        found = undeclared([{"o": {"a": 1, "Cap": {"b": "2024-01-02"}}}, {"o": {"c": True}}], {})["o"]
        made = to_property("o", found)
        nested = {own.name: own.dataType for own in made.nestedProperties}
        assert nested == {"a": DataType.INT, "Cap": DataType.OBJECT, "c": DataType.BOOL}

    def test_what_is_declared_is_not_declared_again(self):
        declared = {"x": Kind(DataType.DATE), "title": Kind(DataType.TEXT), JSON_KEY: Kind(DataType.TEXT)}
        assert undeclared([{"x": "unknown", "Title": "a"}], declared) == {}


class TestDeclaredByTheUser:
    @pytest.mark.parametrize(
        ("value", "kind", "sent"),
        [
            ("2024-01-02", DataType.DATE, "2024-01-02T00:00:00Z"),
            (datetime(2024, 1, 2, 3, 4, 5).isoformat(), DataType.DATE, "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05+02:00", DataType.DATE, "2024-01-02T03:04:05+02:00"),
            ("unknown", DataType.DATE, "unknown"),
            ([date(2024, 1, 2).isoformat()], DataType.DATE_ARRAY, ["2024-01-02T00:00:00Z"]),
            ({"lat": 1.5, "lon": 2}, DataType.GEO_COORDINATES, {"latitude": 1.5, "longitude": 2}),
            ({"latitude": 1.5, "longitude": 2}, DataType.GEO_COORDINATES, {"latitude": 1.5, "longitude": 2}),
            (7.0, DataType.INT, 7),
            ("iv", DataType.INT, "iv"),  # refused by the server, which names the property
            (7.5, DataType.INT, 7.5),
        ],
    )
    def test_values_are_sent_as_the_server_takes_them(self, value, kind, sent):
        found = to_properties({"x": value}, {"x": Kind(kind)})
        assert (found, type(found.get("x"))) == ({"x": sent}, type(sent))


class TestKeys:
    @pytest.mark.parametrize("key", ["id", "Id", "vector", "Vector", "_id", "page-number", "größe", "", "a" * 232])
    def test_names_that_weaviate_does_not_take(self, key):
        assert property_name(key) is None

    @pytest.mark.parametrize("payload", [{"Title": 1, "title": 2}, *({key: 1} for key in RESERVED), {"Muvera_id": 1}])
    def test_two_keys_that_would_become_one_and_reserved_ones_are_refused(self, payload):
        with pytest.raises(InvalidInput, match=f"document 3.*{list(payload)[-1]!r}"):
            check_keys(payload, "document 3")

    def test_a_key_does_not_take_the_place_of_another_document_key(self):
        declared = {"title": Kind(DataType.TEXT), JSON_KEY: Kind(DataType.TEXT)}
        new, old = to_properties({"Title": "x"}, declared), to_properties({"title": "y"}, declared)
        with pytest.raises(InvalidInput, match=r"'Title'.*'title'"):
            merged(new, old)
        assert to_payload(merged(new, new)) == {"Title": "x"}
