"""Which ids a request and an answer speak of."""

from __future__ import annotations

import orjson
import pytest

from cbk_gateway.operation import understand
from cbk_gateway.tenancy import object_ids
from cbk_gateway.tenancy.object_ids import PathIds


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/bot/list", PathIds(None, ())),
        ("GET", "/bot/b1/fetch", PathIds("b1", ())),
        ("GET", "/dataset/d1/record/r1/fetch", PathIds("d1", ("r1",))),
        ("GET", "/dataset/d1/record/list", PathIds("d1", ())),
        ("GET", "/integration/extract/x1/item/i1/fetch", PathIds("x1", ("i1",))),
        ("GET", "/space/s1/storage/download/a/b", PathIds("s1", ())),
        ("GET", "/conversation/c1/attachment/photo.png/download", PathIds("c1", ())),
        ("POST", "/bot/b1/part/p1/frobnicate", PathIds("b1", ("part", "p1"))),
    ],
)
def test_the_ids_of_a_path(method: str, path: str, expected: PathIds) -> None:
    assert object_ids.path_ids(understand(method, "/v1" + path)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", set()),
        ("take=5&order=asc&cursor=b9", set()),
        ("botId=b1", {"b1"}),
        ("botId=b1,b2&take=3", {"b1", "b2"}),
        ("botId%5B%5D=b1", {"b1"}),
        ("meta.k=v&blueprintId=x%20y", {"x y"}),
    ],
)
def test_the_ids_of_a_query(query: str, expected: set[str]) -> None:
    assert object_ids.query_ids(query) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", set()),
        (b"not json", set()),
        (b'{"botId": "b1", "name": "x", "datasetId": null}', {"b1"}),
        (b'{"items": [{"id": "r1"}, {"nested": {"fileIds": ["f1", "f2"]}}]}', {"r1", "f1", "f2"}),
        (b'{"model": "gpt-4/temperature=1"}', set()),
        (b'{"model": "bot/id=b1,x=2"}', {"b1"}),
        (b'{"identity": "x", "valid": "y"}', set()),
    ],
)
def test_the_ids_of_a_body(body: bytes, expected: set[str]) -> None:
    assert object_ids.body_ids(body) == frozenset(expected)


def test_a_body_of_too_many_ids_is_not_looked_through() -> None:
    body = orjson.dumps({"ids": [f"i{number}" for number in range(object_ids.MAX_BODY_IDS + 1)]})
    assert object_ids.body_ids(body) is None


def test_a_deep_body_is_no_danger() -> None:
    body = b'{"a":' * 500 + b'{"botId":"b1"}' + b"}" * 500
    assert object_ids.body_ids(body) == frozenset({"b1"})


PAGE = b'{"items":[{"id":"a"},{"id":"b"},{"name":"no id"}],"cursor":"b"}'
LINES = b'{"type":"item","data":{"id":"a"}}\n{"type":"item","data":{"id":"b"}}\n{"type":"nop","data":{}}\n'


def test_a_page_keeps_its_cursor_and_the_items_asked_for() -> None:
    assert object_ids.listed_ids(PAGE) == ("a", "b")
    assert object_ids.kept_items(PAGE, lambda one: one == "a") == b'{"items":[{"id":"a"}],"cursor":"b"}'


def test_lines_keep_the_items_asked_for_and_every_other_event() -> None:
    assert object_ids.listed_ids(LINES) == ("a", "b")
    kept = object_ids.kept_items(LINES, lambda one: one == "b")
    assert kept == b'{"type":"item","data":{"id":"b"}}\n{"type":"nop","data":{}}\n'
    single = b'{"type":"item","data":{"id":"a"}}\n'
    assert object_ids.kept_items(single, lambda _: False) == b""


@pytest.mark.parametrize("body", [b"id,name\na,x\n", b"event: item\ndata: {}\n\n", b"[1]", b"7"])
def test_a_form_whose_items_cannot_be_told_apart_is_no_list(body: bytes) -> None:
    assert object_ids.listed_ids(body) is None
    assert object_ids.kept_items(body, lambda _: True) is None


@pytest.mark.parametrize(
    ("method", "path", "many", "nested", "makes"),
    [
        ("GET", "/bot/list", True, False, False),
        ("GET", "/dataset/d1/record/list", True, True, False),
        ("GET", "/integration/extract/x/item/list", True, True, False),
        ("POST", "/dataset/d1/search", True, True, False),
        ("GET", "/platform/model/list", False, False, False),
        ("POST", "/bot/create", False, False, True),
        ("POST", "/bot/b1/clone", False, True, True),
        ("POST", "/bot/b1/update", False, True, False),
    ],
)
def test_what_kind_of_answer_an_operation_has(
    *, method: str, path: str, many: bool, nested: bool, makes: bool
) -> None:
    operation = understand(method, "/v1" + path)
    assert object_ids.shows_many(operation) is many
    assert object_ids.is_nested(operation) is nested
    assert object_ids.creates(operation) is makes
