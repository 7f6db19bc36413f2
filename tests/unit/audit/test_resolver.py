"""The resolver: asks where the grammar can tell, and never claims more than it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, Outcome, Result
from cbk_gateway.audit.resolver import Evidence, Question, Resolver, Verdict, judge, question_of, unresolved
from cbk_gateway.audit.search import Record, show
from cbk_gateway.audit.tag import KEY, query_for

BEARER = {"id": "b1", "meta": {KEY: "t1"}}
BEGUN_MS = 1_795_366_800_000
UNKNOWN = {
    "kind": "outcome",
    "result": "unknown",
    "tenant": "acme",
    "intended_at": "2026-11-22T17:00:00.000000Z",
}


def unknown(resource: str, action: str, **ids: object) -> Record:
    """An outcome that says unknown."""
    return Record({**UNKNOWN, "resource": resource, "action": action, "ids": ids})


def tagged(resource: str, **ids: object) -> Record:
    """An outcome that says unknown, of a create that bore a tag."""
    return Record({**unknown(resource, "create", **ids).fields, "tag": "t1"})


@pytest.mark.parametrize(
    ("record", "path"),
    [
        (unknown("bot", "delete", botId="b1"), "/bot/b1/fetch"),
        (unknown("bot", "update", botId="b1"), "/bot/b1/fetch"),
        (
            unknown("conversation/message", "delete", conversationId="c1", messageId="m1"),
            "/conversation/c1/message/m1/fetch",
        ),
        (unknown("bot", "create"), None),
        (tagged("bot"), "/bot/list"),
        (tagged("dataset/record", datasetId="d1"), "/dataset/d1/record/list"),
        (tagged("dataset/record"), None),
        (tagged("dataset/record", datasetId="@alias"), None),
        (tagged("bot/session", botId="b1"), None),
        (unknown("conversation", "complete", conversationId="c1"), None),
        (unknown("other", "delete", others=["x"]), None),
        (unknown("bot", "delete"), None),
        (unknown("bot", "delete", botId="@alias"), None),
        (unknown("bot", "delete", botId="../secret/s1"), None),
        (unknown("bot", "delete", botId="b1%2f"), None),
    ],
)
def test_a_question_is_a_fetch_of_the_very_object(record: Record, path: str | None) -> None:
    question = question_of(record)
    assert (question.operation.path if question else None) == path
    assert question is None or (question.operation.method, question.tenant) == ("GET", "acme")
    assert question is None or question.operation.query == (
        query_for("t1") if question.operation.action == "list" else ""
    )


@pytest.mark.parametrize(
    ("action", "evidence", "verdict"),
    [
        ("delete", Evidence(404), Verdict.HAPPENED),
        ("delete", Evidence(200, {"id": "b1"}), Verdict.DID_NOT_HAPPEN),
        ("delete", Evidence(403), Verdict.UNDECIDABLE),
        ("delete", Evidence(500), Verdict.UNDECIDABLE),
        ("delete", Evidence(200, None), Verdict.UNDECIDABLE),
        ("update", Evidence(404), Verdict.UNDECIDABLE),
        ("update", Evidence(200, {"updatedAt": BEGUN_MS - 1}), Verdict.DID_NOT_HAPPEN),
        ("update", Evidence(200, {"updatedAt": BEGUN_MS + 5}), Verdict.UNDECIDABLE),
        ("update", Evidence(200, {"updatedAt": "yesterday"}), Verdict.UNDECIDABLE),
        ("update", Evidence(200, {}), Verdict.UNDECIDABLE),
    ],
)
def test_a_verdict_claims_only_what_the_evidence_shows(
    action: str, evidence: Evidence, verdict: Verdict
) -> None:
    assert judge(unknown("bot", action, botId="b1"), evidence)[0] is verdict


@pytest.mark.parametrize(
    ("evidence", "verdict", "reason", "ids"),
    [
        (Evidence(200, {"items": [BEARER]}), Verdict.HAPPENED, "found", ("b1",)),
        (Evidence(200, {"items": [BEARER, {**BEARER, "id": "copy"}]}), Verdict.HAPPENED, "found", ("b1",)),
        (Evidence(200, {"items": []}), Verdict.DID_NOT_HAPPEN, "not_there", ()),
        (Evidence(200, {"items": [{"id": "b2"}]}), Verdict.UNDECIDABLE, "not_filtered", ()),
        (Evidence(200, {"message": "late failure", "code": "X"}), Verdict.UNDECIDABLE, "no_answer", ()),
        (Evidence(200, None), Verdict.UNDECIDABLE, "no_answer", ()),
        (Evidence(404, {"items": []}), Verdict.UNDECIDABLE, "no_answer", ()),
        (Evidence(0), Verdict.UNDECIDABLE, "no_answer", ()),
    ],
)
def test_a_tagged_create_is_judged_by_what_bears_its_tag(
    evidence: Evidence, verdict: Verdict, reason: str, ids: tuple[str, ...]
) -> None:
    assert judge(tagged("bot"), evidence) == (verdict, reason, ids)


async def leave_unknown(journal: Journal, act: Callable[..., Any], target: str, request_id: str) -> None:
    """A write whose answer never came."""
    intent = await journal.intend(act(request_id, target=target))
    intent.close(Outcome(Result.UNKNOWN))
    await intent.closed_durably()


async def test_each_unknown_outcome_gets_one_verdict(journal: Journal, act: Any) -> None:
    directory = journal.options.directory
    await leave_unknown(journal, act, "/api/v1/bot/b1/delete", "gone")
    await leave_unknown(journal, act, "/api/v1/bot/b2/delete", "there")
    await leave_unknown(journal, act, "/api/v1/bot/create", "new")
    (await journal.intend(act("fine"))).close(Outcome(Result.ANSWERED))
    asked: list[str] = []

    async def ask(question: Question) -> Evidence:
        asked.append(question.operation.path)
        return Evidence(404) if "b1" in question.operation.path else Evidence(200, {"id": "b2"})

    resolver = Resolver(journal, ask, pause_s=0)
    assert await resolver.resolve_open(directory) == 3
    assert await resolver.resolve_open(directory) == 0
    assert asked == ["/bot/b1/fetch", "/bot/b2/fetch"]
    told = {name: show(directory, name)[0].verdict for name in ("gone", "there", "new")}
    assert {name: one.text("result") if one else None for name, one in told.items()} == {
        "gone": "happened",
        "there": "did_not_happen",
        "new": "undecidable",
    }


async def test_an_upstream_that_is_away_ends_the_round_and_nothing_is_claimed(
    journal: Journal, act: Any
) -> None:
    await leave_unknown(journal, act, "/api/v1/bot/b1/delete", "r1")

    async def ask(_: Question) -> None:
        return None

    assert await Resolver(journal, ask, pause_s=0).resolve_open(journal.options.directory) == 0
    assert len(unresolved(journal.options.directory)) == 1


async def test_a_journal_that_is_gone_ends_the_round(journal: Journal, tmp_path: Path) -> None:
    async def ask(_: Question) -> None:
        return None

    assert await Resolver(journal, ask).resolve_open(tmp_path / "nowhere") == 0
