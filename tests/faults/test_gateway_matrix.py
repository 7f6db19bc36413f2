"""The fault matrix through the whole gateway: what it says of an exchange that broke is what happened.

A break (closed, reset, silent until the timeout) at a byte of the request or of the answer, for reads and
writes, on fresh and on used connections. What happened is known from the relay's byte log and from the
sandbox's objects; what the gateway says of it are its answer, its journal and its metrics. The default form
takes a byte of every kind, the long form every byte.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.store import Store
from faults.breaking_relay import HEAD_END, How, Passed, Plan, Side
from faults.broken_bench import FORMS, STALLED_TOGETHER, Bench, Got, Row, bench, passed_in_silence
from told_api import until


@pytest.mark.parametrize("places", FORMS)
@pytest.mark.parametrize("how", list(How), ids=str)
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_said_of_a_broken_exchange_is_what_happened(
    tmp_path: Path, valkey_url: str, store: Store, method: str, reused: bool, how: How, places: Any
) -> None:
    async with bench(tmp_path, valkey_url, how) as one:
        example = await one.sample(method)
        plans = [Plan(Side.REQUEST, count, how) for count in places(example.request)]
        plans += [Plan(Side.ANSWER, count, how) for count in places(example.answer)]
        rows = [one.row(method, plan) for plan in plans]
        width = STALLED_TOGETHER if how is How.STALL else 1
        for begin in range(0, len(rows), width):
            await one.ask_all(rows[begin : begin + width], reused=reused)
        await check_counters(one, is_stalled=how is How.STALL)
        await one.stage.gateway.stop()
        outcomes = {
            record["request_id"]: record for record in one.stage.journal() if record["kind"] == "outcome"
        }
        objects = one.objects()
        for row in rows:
            # A machine so busy that the relay never looked before the gateway gave up: nothing got through.
            unseen = [Passed(row.request_id, reused, b"unseen")] if how is How.STALL else []
            attempts = one.relay.attempts(row.request_id) or unseen
            assert attempts[0].was_reused == reused, row
            if method == "GET":
                check_read(row, one.got[row.request_id], attempts)
            else:
                check_write(row, one, attempts, outcomes[row.request_id], objects[row.request_id])
        kind = "reused" if reused else "fresh"
        sys.stdout.write(f"\n{len(rows)} exchanges, {method}, {kind}, {how}: all told as they happened\n")


def check_read(row: Row, got: Got, attempts: list[Passed]) -> None:
    """A read is repeated while nothing of an answer is there; half an answer is never given."""
    first, last = attempts[0], attempts[-1]
    is_stalled = passed_in_silence(row)
    if last.is_returned:
        assert (got.status, got.body) == (404, last.answer.partition(HEAD_END)[2]), row
    else:
        assert got.status == (504 if is_stalled else 502), row
    is_final = first.has_returned_head or is_stalled
    assert len(attempts) == (1 if is_final else 2), row
    assert last.is_returned or is_final, row


def check_write(row: Row, one: Bench, attempts: list[Passed], outcome: dict[str, Any], made: int) -> None:
    """A write is sent once; it was done if it arrived whole, and known to be only if its answer did."""
    (passed,) = attempts
    got = one.got[row.request_id]
    assert made == passed.is_delivered, row
    assert (outcome["status"], outcome["upstream_attempts"]) == (got.status, 1), row
    if passed.is_returned:
        assert (got.status, outcome["result"], made) == (200, "answered", 1), row
        assert outcome["answer_ids"] == [orjson.loads(got.body)["id"]], row
    else:
        assert (got.status, got.may_repeat) == (504 if passed_in_silence(row) else 502, False), row
        # Some of it had arrived, or might have: it may have been done, and nobody says that it was not.
        assert outcome["result"] == "unknown", row


async def check_counters(one: Bench, *, is_stalled: bool) -> None:
    """The counters say the same as the relay's log and the clients' answers."""

    def agree() -> bool:
        missed = one.metric("upstream_attempts_total") - len(one.relay.passed)
        return missed == 0 or (is_stalled and 0 < missed < 5)

    await until(agree)
    await until(lambda: one.metric("audit_open_intents") == 0)
    statuses = Counter(got.status for got in one.got.values())
    for status, count in statuses.items():
        assert one.metric("requests_total", status=str(status)) == count
    writes = [got for request_id, got in one.got.items() if is_write(one, request_id)]
    known = sum(got.status == 200 for got in writes)
    assert one.metric("audit_outcomes_total", outcome="answered") == known
    missed = one.metric("audit_outcomes_total", outcome="unknown") - (len(writes) - known)
    assert missed == 0 or is_stalled
    assert one.metric("audit_outcomes_total") == len(writes) + missed


def is_write(one: Bench, request_id: str) -> bool:
    return any(passed.is_write for passed in one.relay.attempts(request_id))


async def test_what_found_nobody_was_not_sent(tmp_path: Path, valkey_url: str, store: Store) -> None:
    async with bench(tmp_path, valkey_url) as one:
        await one.sample("POST")
        one.relay.refuse()
        row = one.row("POST")
        await one.ask(row)
        got = one.got[row.request_id]
        assert (got.status, got.may_repeat) == (502, True)
        assert one.relay.attempts(row.request_id) == []
        await one.stage.gateway.stop()
        *_, outcome = [record for record in one.stage.journal() if record["kind"] == "outcome"]
        assert (outcome["request_id"], outcome["result"]) == (row.request_id, "not_sent")
        assert one.objects()[row.request_id] == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_was_closed_while_idle_is_nobodys_fault(
    tmp_path: Path, valkey_url: str, store: Store, method: str
) -> None:
    async with bench(tmp_path, valkey_url) as one:
        for _ in range(20):
            await one.sample("GET")
            # The event loop sees nothing of the close before the next request is on its way.
            one.relay.close_connections()
            row = one.row(method)
            await one.ask(row)
            (passed,) = one.relay.attempts(row.request_id)
            assert (passed.was_reused, passed.is_returned) == (False, True)
            assert one.got[row.request_id].status == (200 if method == "POST" else 404)
            assert one.objects()[row.request_id] == (method == "POST")
