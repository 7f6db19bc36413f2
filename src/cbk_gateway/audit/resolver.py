"""The resolver: finds out in the background what became of writes whose outcome is unknown.

Where the grammar allows it: after a `delete` or an `update` of an object with an id, a `fetch` of that
object tells; after a `create` that bore a tag (`tag.py`), the `list` of what bears it. What it cannot tell
stays unknown, and the verdict says so. It never writes upstream, and who may ask whom for what is up to the
callable it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from cbk_gateway.audit.journal import Journal
from cbk_gateway.audit.options import JournalFault
from cbk_gateway.audit.search import Query, Record, search
from cbk_gateway.audit.tag import bearers, query_for
from cbk_gateway.errors import AuditUnavailable
from cbk_gateway.operation import Operation, routes

_log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What the upstream shows afterwards."""

    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did_not_happen"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True, slots=True)
class Question:
    """A read that may tell what became of a write.

    Attributes:
        tenant: On whose behalf.
        operation: The read: always a GET of the grammar.
        record: The outcome record that says `unknown`.
    """

    tenant: str
    operation: Operation
    record: Record


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the upstream answered: its status and, for a 200, the decoded object."""

    status: int
    body: Mapping[str, object] | None = None


Ask = Callable[[Question], Awaitable[Evidence | None]]
"""Performs the read upstream; None when it could not be performed now."""


class Judgement(NamedTuple):
    """A verdict, why in a bounded word, and the ids of what a create turns out to have made."""

    verdict: Verdict
    reason: str
    answer_ids: tuple[str, ...] = ()


_FETCHES: Final = {route.resource: route for route in routes() if route.action == "fetch" and route.params}
_LISTS: Final = {route.resource: route for route in routes() if route.action == "list"}


def question_of(record: Record) -> Question | None:
    """The read that may settle an unknown outcome, or None where the grammar has none."""
    action, tag = record.text("action"), record.text("tag")
    route, query = None, ""
    if action in {"delete", "update"}:
        route = _FETCHES.get(record.text("resource"))
    elif action == "create" and tag:
        route, query = _LISTS.get(record.text("resource")), query_for(tag)
    ids = record.fields.get("ids")
    if route is None or not isinstance(ids, Mapping):
        return None
    values = tuple(str(ids[name]) for name in route.params if ids.get(name))
    if len(values) != len(route.params) or not all(_is_plain(value) for value in values):
        return None
    path = route.template
    for name, value in zip(route.params, values, strict=True):
        path = path.replace(f"{{{name}}}", value)
    operation = Operation(route, "GET", path, query, values, route.resource, route.action)
    return Question(record.text("tenant"), operation, record)


def judge(record: Record, evidence: Evidence) -> Judgement:
    """What the evidence says about the write."""
    if record.text("action") == "create":
        return _judge_create(record.text("tag"), evidence)
    deletes = record.text("action") == "delete"
    if evidence.status == 404:
        # After an update it may have been deleted since, by anybody.
        return Judgement(Verdict.HAPPENED if deletes else Verdict.UNDECIDABLE, "gone")
    if evidence.status != 200 or evidence.body is None:
        return Judgement(Verdict.UNDECIDABLE, "no_answer")
    if deletes:
        return Judgement(Verdict.DID_NOT_HAPPEN, "still_there")
    changed_ms = evidence.body.get("updatedAt")
    begun_ms = _epoch_ms(record)
    if not isinstance(changed_ms, int) or begun_ms is None:
        return Judgement(Verdict.UNDECIDABLE, "no_update_time")
    if changed_ms < begun_ms:
        return Judgement(Verdict.DID_NOT_HAPPEN, "older")
    # Somebody else may have changed it in the meantime: newer proves a change, not whose.
    return Judgement(Verdict.UNDECIDABLE, "changed_since")


def _judge_create(tag: str, evidence: Evidence) -> Judgement:
    items = evidence.body.get("items") if evidence.status == 200 and evidence.body is not None else None
    if not isinstance(items, list):
        return Judgement(Verdict.UNDECIDABLE, "no_answer")
    found = bearers(items, tag)
    if found:
        # A copy may bear the tag too; the oldest is what was made.
        return Judgement(Verdict.HAPPENED, "found", (found[0],))
    if items:
        return Judgement(Verdict.UNDECIDABLE, "not_filtered")
    return Judgement(Verdict.DID_NOT_HAPPEN, "not_there")


class Resolver:
    """Asks once about each unknown outcome that has no verdict, and journals what it learns.

    Args:
        journal: Where verdicts go.
        ask: Performs reads upstream.
        pause_s: Seconds between two questions, so that recovery never loads the upstream.
    """

    def __init__(self, journal: Journal, ask: Ask, *, pause_s: float = 0.2) -> None:
        self._journal = journal
        self._ask = ask
        self._pause_s = pause_s

    async def resolve_open(self, directory: Path, *, since: str | None = None) -> int:
        """Settle what can be settled of everything unknown since a time; returns the verdicts written.

        An upstream that is away ends the round; the rest waits for the next.
        """
        try:
            unknown = await asyncio.to_thread(unresolved, directory, since)
        except JournalFault as fault:
            _log.error("audit_resolver_failed", error=str(fault))
            return 0
        settled = 0
        for record in unknown:
            question = question_of(record)
            if question is None:
                why = "no_tag" if record.text("action") == "create" else "no_question"
                judgement = Judgement(Verdict.UNDECIDABLE, why)
            else:
                evidence = await self._ask(question)
                if evidence is None:
                    break
                judgement = judge(record, evidence)
                await asyncio.sleep(self._pause_s)
            self._journal.note("verdict", _fields(record, judgement))
            settled += 1
        with suppress(AuditUnavailable):  # they stay queued
            await self._journal.flushed()
        return settled


def unresolved(directory: Path, since: str | None = None) -> list[Record]:
    """Unknown outcomes without a verdict, oldest first. Blocking."""
    found: dict[str, Record] = {}
    wanted = Query(since=since, kinds=frozenset({"intent", "outcome", "verdict"}))
    begun: dict[str, Record] = {}
    for record in search(directory, wanted):
        name = record.text("intent")
        if record.kind == "intent":
            begun[name] = record
        elif record.kind == "verdict":
            found.pop(name, None)
        else:
            intent = begun.pop(name, record)
            if record.text("result") == "unknown":
                known = {"intended_at": intent.time, "tag": intent.fields.get("tag")}
                found[name] = Record({**record.fields, **known})
    return list(found.values())


def _fields(record: Record, judgement: Judgement) -> dict[str, object]:
    fields = dict(_origin(record), result=judgement.verdict.value, reason=judgement.reason)
    if judgement.answer_ids:
        fields["answer_ids"] = list(judgement.answer_ids)
    return fields


def _origin(record: Record) -> Iterator[tuple[str, object]]:
    for name in ("intent", "request_id", "tenant", "subject", "operation", "resource", "action", "ids"):
        if name in record.fields:
            yield name, record.fields[name]


def _is_plain(value: str) -> bool:
    """Whether an id is a raw one: an alias or a name may mean another object by now."""
    return value.replace("-", "").replace("_", "").isalnum() and value.isascii()


def _epoch_ms(record: Record) -> int | None:
    try:
        return int(datetime.fromisoformat(record.text("intended_at")).timestamp() * 1000)
    except ValueError:
        return None
