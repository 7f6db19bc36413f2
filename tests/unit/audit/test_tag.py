"""Tags: one key spliced into `meta`, every other byte untouched, and nothing done where there is a doubt."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.audit.tag import (
    KEY,
    TAGGED_TYPES,
    bearers,
    fresh,
    is_taggable,
    query_for,
    tagged,
    without,
)
from cbk_gateway.operation import routes, understand

TAG = "0123456789abcdef"
PAIR = f'"{KEY}":"{TAG}"'


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ("{}", '{"meta":{PAIR}}'),
        (" { } ", ' {"meta":{PAIR} } '),
        ('{"name":"Ada"}', '{"meta":{PAIR},"name":"Ada"}'),
        ('{"meta":{}}', '{"meta":{PAIR}}'),
        ('{"meta": { } }', '{"meta": {PAIR } }'),
        ('{"meta":{"a":1},"x":[{"meta":2}]}', '{"meta":{PAIR,"a":1},"x":[{"meta":2}]}'),
        ('{"x":"\\"meta\\":{","meta":{"a":1}}', '{"x":"\\"meta\\":{","meta":{PAIR,"a":1}}'),
        ('{"n":1.0e2,"big":12345678901234567890123,"é":"ü"}',
         '{"meta":{PAIR},"n":1.0e2,"big":12345678901234567890123,"é":"ü"}'),
        ('{\n "a": 1,\n "m\\u0065ta": {"b": 2}\n}', '{\n "a": 1,\n "m\\u0065ta": {PAIR,"b": 2}\n}'),
    ],
)  # fmt: skip
def test_a_tag_is_spliced_in_and_all_else_stays(body: str, sent: str) -> None:
    assert (tagged(body.encode(), TAG) or b"").decode() == sent.replace("PAIR", PAIR)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"not json",
        b'{"meta":null}',
        b'{"meta":"text"}',
        b'{"meta":[]}',
        b'{"meta":{"a":1},"meta":{"b":2}}',
        b'{"meta":{"a":1},"m\\u0065ta":{"b":2}}',
        b'{"meta":{"' + KEY.encode() + b'":"older"}}',
        b'{"name":"\\ud800"}',
        b'{"name":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"\x1f\x8b gzip",
    ],
)
def test_where_there_is_a_doubt_nothing_is_changed(body: bytes) -> None:
    assert tagged(body, TAG) is None


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text() | st.just("meta"), _VALUES, max_size=5),
    st.dictionaries(st.text(), _VALUES, max_size=3) | st.none(),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_the_tagged_body_says_the_same_and_the_tag(
    body: dict[str, Any], meta: dict[str, Any] | None, indent: int | None, ascii_only: bool
) -> None:
    """What any JSON parser reads of it is what the client said, with the one key more."""
    said = body if meta is None else {**body, "meta": meta}
    raw = json.dumps(said, indent=indent, ensure_ascii=ascii_only)
    sent = tagged(raw.encode("utf-8", "surrogatepass"), TAG)
    has_fitting_meta = "meta" not in said or (isinstance(said["meta"], dict) and KEY not in said["meta"])
    if sent is None:
        assert not has_fitting_meta or "\\ud" in raw or _has_surrogate(raw)
        return
    found = orjson.loads(sent)
    assert found["meta"].pop(KEY) == TAG
    if "meta" not in said:
        del found["meta"]
    assert found == said


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def test_tags_are_long_and_never_the_same() -> None:
    assert len({fresh() for _ in range(1000)}) == 1000
    assert all(len(fresh()) == 32 for _ in range(3))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v1/bot/create", True),
        ("/v1/dataset/d1/record/create", True),
        ("/v1/conversation/c1/message/create", True),
        ("/v1/bot/b1/update", False),
        ("/v1/bot/b1/session/create", False),
        ("/v1/partner/user/u1/token/create", False),
        ("/v1/unheard/create", False),
    ],
)
def test_only_creates_of_types_with_metadata_are_tagged(target: str, expected: bool) -> None:
    assert is_taggable(understand("POST", target)) is expected


def test_every_tagged_type_can_be_created_and_listed() -> None:
    known = {(route.resource, route.action) for route in routes()}
    assert {(name, action) for name in TAGGED_TYPES for action in ("create", "list")} <= known


def test_bearers_are_the_items_with_this_very_tag() -> None:
    items = [
        {"id": "a", "meta": {KEY: TAG}},
        {"id": "b", "meta": {KEY: "other"}},
        {"id": "c"},
        {"id": 4, "meta": {KEY: TAG}},
        "text",
        {"id": "d", "meta": {KEY: TAG, "x": 1}},
    ]
    assert bearers(items, TAG) == ["a", "d"]


def test_the_query_is_one_the_grammar_takes() -> None:
    view = understand("GET", f"/v1/bot/list?{query_for(TAG)}")
    assert view.query == query_for(TAG)
    assert without({KEY: TAG, "a": 1}) == {"a": 1}
