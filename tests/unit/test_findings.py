"""What a view proves of a lost write, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from cbk_gateway import findings
from cbk_gateway.audit.tag import KEY
from cbk_gateway.findings import Finding, Likeness
from cbk_gateway.operation import understand


@pytest.mark.parametrize(
    ("sent", "view", "likeness"),
    [
        ({"name": "A"}, {"id": "x", "name": "A", "more": 1}, Likeness.SAME),
        ({"name": "A", "n": 1}, {"name": "A", "n": 2}, Likeness.DIFFERENT),
        ({"name": "A"}, {"name": "B"}, Likeness.DIFFERENT),
        ({"on": True}, {"on": 1}, Likeness.DIFFERENT),
        ({}, {"name": "A"}, Likeness.UNCLEAR),
        ({"value": "secret"}, {"id": "x"}, Likeness.UNCLEAR),
        ({"botId": "@alias"}, {"botId": "bot_1"}, Likeness.UNCLEAR),
        ({"name": " A "}, {"name": "A"}, Likeness.UNCLEAR),
        ({"value": "secret"}, {"value": "********"}, Likeness.UNCLEAR),
        ({"meta": {"a": 1}}, {"meta": {"a": 1, "b": 2}}, Likeness.UNCLEAR),
        ({"meta": {"order": "o-1"}}, {"meta": {"order": "o-2"}}, Likeness.DIFFERENT),
        ({"meta": {"order": "o-1"}}, {"meta": {}}, Likeness.DIFFERENT),
        ({"meta": {"order": "o-1"}}, {"meta": {"order": "o-1", KEY: "t"}}, Likeness.SAME),
        ({"meta": {"deep": {"a": 1}}}, {"meta": {"deep": {"a": 2}}}, Likeness.UNCLEAR),
        ({"meta": {"order": "o-1"}}, {"meta": None}, Likeness.UNCLEAR),
    ],
)
def test_an_object_is_like_a_body_only_in_every_field(
    sent: dict[str, Any], view: dict[str, Any], likeness: Likeness
) -> None:
    assert findings.likeness(sent, view) is likeness


def item(name: str, at: int, title: str = "A") -> dict[str, Any]:
    return {"id": name, "createdAt": at, "name": title}


@pytest.mark.parametrize(
    ("page", "known", "finding", "identifier"),
    [
        ([], (), Finding.NOT_DONE, None),
        ([item("a", 150)], (), Finding.DONE, "a"),
        ([item("a", 99)], (), Finding.NOT_DONE, None),
        ([item("a", 150)], ("a",), Finding.NOT_DONE, None),
        ([item("b", 160), item("a", 150)], (), Finding.NOT_KNOWN, None),
        ([item("b", 160, "B"), item("a", 150)], (), Finding.DONE, "a"),
        ([item("b", 160, "B")], (), Finding.NOT_DONE, None),
        ([{"id": "a", "createdAt": 150}], (), Finding.NOT_KNOWN, None),
        ([item("a", 150), item("b", 160)], (), Finding.NOT_KNOWN, None),
        ([{"id": "a", "name": "A"}], (), Finding.NOT_KNOWN, None),
        (["a"], (), Finding.NOT_KNOWN, None),
        ([item(str(at), at, "B") for at in range(200, 150, -1)], (), Finding.NOT_KNOWN, None),
    ],
)
def test_a_create_is_found_only_where_one_new_object_fits(
    page: list[Any], known: tuple[str, ...], finding: Finding, identifier: str | None
) -> None:
    verdict = findings.on_create(page, {"name": "A"}, 100, known)
    assert (verdict.finding, verdict.identifier) == (finding, identifier)


@pytest.mark.parametrize(
    ("page", "finding", "identifier"),
    [
        ([], Finding.NOT_DONE, None),
        ([{"id": "a", "meta": {KEY: "t"}}], Finding.DONE, "a"),
        ([{"id": "a", "meta": {KEY: "t"}}, {"id": "copy", "meta": {KEY: "t"}}], Finding.DONE, "a"),
        ([{"id": "a", "meta": {KEY: "other"}}], Finding.NOT_KNOWN, None),
        ([{"id": "a"}], Finding.NOT_KNOWN, None),
        (["a"], Finding.NOT_KNOWN, None),
    ],
)
def test_a_tagged_create_is_found_by_its_tag_alone(
    page: list[Any], finding: Finding, identifier: str | None
) -> None:
    verdict = findings.on_tagged(page, "t")
    assert (verdict.finding, verdict.identifier) == (finding, identifier)


@pytest.mark.parametrize(
    ("status", "name", "finding"),
    [
        (404, "bot_1", Finding.DONE),
        (404, "@alias", Finding.NOT_KNOWN),
        (200, "bot_1", Finding.NOT_DONE),
        (403, "bot_1", Finding.NOT_KNOWN),
    ],
)
def test_a_delete_is_done_when_its_object_is_gone(status: int, name: str, finding: Finding) -> None:
    assert findings.on_delete(status, name).finding is finding


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/bot/create", "/bot/list"),
        ("/v1/dataset/d/record/create", "/dataset/d/record/list"),
        ("/v1/bot/b/update", "/bot/b/fetch"),
        ("/v1/bot/b/delete", "/bot/b/fetch"),
        ("/v1/task/t/trigger", None),
        ("/v1/bot/b/session/create", None),
    ],
)
def test_the_grammar_says_where_to_look(target: str, path: str | None) -> None:
    view = findings.view_of(understand("POST", target))
    assert (view.path if view is not None else None) == path
