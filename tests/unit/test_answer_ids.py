"""Which ids an answer names, however it is cut on its way."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.answer_ids import PassingIds, named_in

DEEP = {"meta": {"id": "no", "list": [{"id": "no"}]}, "tags": ["id", "no"], "name": 'a "id": "no" \\'}
BODIES = [
    pytest.param({"id": "b1", **DEEP}, ("b1",), id="own"),
    pytest.param({**DEEP, "id": "b1"}, ("b1",), id="own-behind"),
    pytest.param(
        {"items": [{"id": "a", **DEEP}, {**DEEP, "id": "b"}], "cursor": "b"}, ("a", "b"), id="items"
    ),
    pytest.param({"records": [{"id": "a"}]}, ("a",), id="records"),
    pytest.param({"id": 'sl/ash "q" \\ é'}, ('sl/ash "q" \\ é',), id="escaped"),
    pytest.param({"other": [[{"id": "no"}]], "data": {"id": "no"}}, (), id="elsewhere"),
    pytest.param({"id": 5, "items": [{"id": None}, "id", ["id"]]}, (), id="no-texts"),
]


def passing(body: bytes, cuts: list[int], *, is_stream: bool) -> tuple[str, ...]:
    found: list[str] = []
    ids = PassingIds(is_stream=is_stream)
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        found += ids.feed(body[begin:end])
    return tuple(found)


@pytest.mark.parametrize(("document", "expected"), BODIES)
@given(cuts=st.lists(st.integers(0, 500)))
def test_ids_are_found_however_a_body_is_cut(
    document: dict[str, object], expected: tuple[str, ...], cuts: list[int]
) -> None:
    assert passing(orjson.dumps(document), cuts, is_stream=False) == expected
    assert passing(orjson.dumps(document, option=orjson.OPT_INDENT_2), cuts, is_stream=False) == expected


@given(cuts=st.lists(st.integers(0, 500)))
def test_the_ids_of_events_are_found_in_both_forms(cuts: list[int]) -> None:
    events = [{"type": "item", "data": {"id": "a", **DEEP}}, {"type": "nop", "data": {}}, {"id": "b"}]
    lines = b"".join(orjson.dumps(event) + b"\n" for event in events)
    assert passing(lines, cuts, is_stream=True) == ("a", "b")
    sse = b': a "comment\n\nevent: item\ndata: {"id":"a","x":{"id":"no"}}\n\ndata: {"id":"b"}\n\n'
    assert passing(sse, cuts, is_stream=True) == ("a", "b")


def test_an_id_is_found_with_its_last_byte() -> None:
    """So that whoever holds that byte back holds the id back."""
    ids = PassingIds(is_stream=False)
    assert ids.feed(b'{"id":"b1') == ()
    assert ids.feed(b'"') == ("b1",)


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_do_no_harm(pieces: list[bytes]) -> None:
    ids = PassingIds(is_stream=True)
    for piece in pieces:
        assert all(isinstance(one, str) for one in ids.feed(piece))


def test_memory_does_not_grow_with_depth_or_length() -> None:
    ids = PassingIds(is_stream=False)
    ids.feed(b'{"a":' * 100_000 + b'"' + b"x" * 100_000)
    assert len(ids._steps) == 3
    assert ids._text is not None
    assert len(ids._text) < 2000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id": "b1", "name": "x"}', ("b1",)),
        (b'{"id":"a","items":[{"id":"b"}]}', ("a", "b")),
        (b'{"items": [{"id": "a"}, {"id": "b"}]}', ("a", "b")),
        (b'{"items":[{"id":"a"},{"id":1},{"id":""},5]}', ("a",)),
        (b'{"id": "d1", "records": [{"id": "r1"}]}', ("d1", "r1")),
        (b'["a"]', ()),
        (b"[]", ()),
        (b"<html>", ()),
        (b"{", ()),
        (orjson.dumps({"items": [{"id": str(one)} for one in range(5000)]}), tuple(map(str, range(5000)))),
    ],
)
def test_a_whole_body_names_what_it_is_about(body: bytes, expected: tuple[str, ...]) -> None:
    assert named_in(body) == expected


@pytest.mark.parametrize(("document", "expected"), BODIES)
def test_a_body_names_the_same_whole_or_passing(
    document: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert named_in(orjson.dumps(document)) == expected
