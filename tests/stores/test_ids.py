"""Ids of databases that take only integers and UUIDs."""

import json
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_adapters.errors import InvalidInput
from muvera_adapters.stores.ids import ID_KEY, from_point_id, to_point_id


@given(st.integers(0, 2**64 - 1) | st.text() | st.uuids() | st.uuids().map(str))
def test_every_id_comes_back(given_id):
    point, kept = to_point_id(given_id, 0)
    payload = json.loads(json.dumps({} if kept is None else {ID_KEY: kept}))
    found = from_point_id(point, payload)
    assert found == given_id
    assert type(found) is type(given_id)


def test_ids_of_the_database_are_used_as_they_are():
    text = str(uuid.UUID(int=7))
    assert to_point_id(7, 0) == (7, None)
    assert to_point_id(np.int64(7), 0) == (7, None)
    assert to_point_id(text, 0) == (text, None)


def test_strings_map_to_the_same_uuid_for_ever():
    assert to_point_id("doc/1", 0) == ("7d98274c-26a1-59e3-8b3d-08e1426bc92e", "doc/1")


def test_points_of_others_keep_their_ids():
    assert from_point_id(7, None) == 7
    assert from_point_id(uuid.UUID(int=7), {"n": 1}) == str(uuid.UUID(int=7))


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, True, None, b"x", "\ud800"])
def test_what_is_not_a_valid_id(bad):
    with pytest.raises(InvalidInput, match="at position 3"):
        to_point_id(bad, 3)


@pytest.mark.parametrize("spell", [lambda u: u.hex, lambda u: str(u).upper(), lambda u: f"{{{u}}}", lambda u: u.urn])
def test_every_spelling_of_a_uuid_names_the_same_point(spell):
    one = uuid.UUID("1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    point, kept = to_point_id(spell(one), 0)
    assert (point, kept) == (str(one), spell(one))
    assert from_point_id(point, {ID_KEY: kept}) == spell(one)


@pytest.mark.parametrize(
    "text", ["1b4e28ba2fa111d2883f0016d3cca42", "1b4e-28ba2fa1-11d2-883f-0016d3cca427", "g" * 32, "٣" * 32]
)
def test_what_only_resembles_a_uuid_is_a_string(text):
    assert to_point_id(text, 0)[1] == text
    assert uuid.UUID(to_point_id(text, 0)[0]).version == 5
