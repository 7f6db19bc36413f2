"""The resolver: asks where the grammar can tell, and never claims more than it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.audit import Journal, Outcome, Result
from cbk_gateway.audit.resolver import Evidence, Question, Resolver, Verdict, judge, question_of, unresolved
from cbk_gateway.audit.search import Record, show

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
