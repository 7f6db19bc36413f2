from __future__ import annotations

from typing import Any

import pytest

from cbk_gateway.sandbox.answers import ApiError
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.runs import COMPLETE, STATELESS
from cbk_gateway.sandbox.schema import Fields, check_body


def fields_of(kind: str) -> Fields:
    fields = RESOURCES[kind].fields
    assert fields is not None
    return fields


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("bot", {}),
        ("bot", {"name": None, "description": "", "meta": {"a": {"b": [1, None]}}}),
        ("bot", {"name": "é" * 95}),
        ("bot", {"alias": "my-bot_1", "visibility": "public", "privacy": False}),
        ("dataset", {"recordMaxTokens": 10, "searchMinScore": 0.5}),
        ("dataset", {"recordMaxTokens": 10.0}),
        ("dataset/record", {"text": "x"}),
        ("conversation/message", {"type": "user", "text": ""}),
        ("policy", {"type": "retention", "config": {}}),
        ("partner/user", {"email": "a@b.c", "limits": {"tokens": 5, "database": {"files": 1}}}),
    ],
)
def test_a_body_that_fits_is_accepted(kind: str, body: dict[str, Any]) -> None:
    check_body(fields_of(kind), body)


@pytest.mark.parametrize(
    ("kind", "body", "named"),
    [
        ("bot", {"name": 5}, "name"),
        ("bot", {"name": "x" * 192}, "name"),
        ("bot", {"name": "é" * 96}, "name"),
        ("bot", {"colour": "red"}, "colour"),
        ("bot", {"alias": "My Bot"}, "alias"),
        ("bot", {"visibility": "secret"}, "visibility"),
        ("bot", {"visibility": None}, "visibility"),
        ("bot", {"privacy": "yes"}, "privacy"),
        ("bot", {"meta": []}, "meta"),
        ("bot", {"meta": {"_x": 1}}, "meta._x"),
        ("dataset", {"recordMaxTokens": 1.5}, "recordMaxTokens"),
        ("dataset", {"recordMaxTokens": True}, "recordMaxTokens"),
        ("dataset", {"searchMinScore": 2}, "searchMinScore"),
        ("dataset", {"recordMaxTokens": float("inf")}, "recordMaxTokens"),
        ("dataset/record", {}, "text"),
        ("dataset/record", {"text": None}, "text"),
        ("conversation/message", {"text": "x"}, "type"),
        ("conversation/message", {"type": "ghost", "text": "x"}, "type"),
        ("task", {"status": "running"}, "status"),
        ("partner/user", {"email": "nobody"}, "email"),
        ("partner/user", {"limits": {"database": {"planets": 1}}}, "limits.database.planets"),
        ("integration/trigger", {"secret": "x"}, "secret"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_the_name_of_its_field(
    kind: str, body: dict[str, Any], named: str
) -> None:
    with pytest.raises(ApiError) as refused:
        check_body(fields_of(kind), body)
    assert refused.value.status == 400
    assert refused.value.code == "BAD_REQUEST"
    assert refused.value.message.startswith(f'"{named}"')


def test_an_update_may_leave_out_what_a_creation_needs() -> None:
    check_body(fields_of("dataset/record"), {"source": "x"}, partial=True)


@pytest.mark.parametrize(
    ("fields", "body", "named"),
    [
        (COMPLETE, {"text": ""}, "text"),
        (COMPLETE, {"entities": [{"begin": 0}]}, "entities[0].end"),
        (COMPLETE, {"limits": {"iterations": 0}}, "limits.iterations"),
        (STATELESS, {}, "messages"),
        (STATELESS, {"messages": [{"type": "user"}]}, "messages[0].text"),
        (STATELESS, {"messages": [5]}, "messages[0]"),
    ],
)
def test_nested_faults_are_named_by_their_path(fields: Fields, body: dict[str, Any], named: str) -> None:
    with pytest.raises(ApiError, match=r"must|allowed|required") as refused:
        check_body(fields, body)
    assert refused.value.message.startswith(f'"{named}"')
