"""Answering writes: journalled before the upstream sees them, invalidated before the client hears of them.

The order is what makes the promises hold: the intent is durable, the epochs have moved, only then is a
byte sent; the epochs have moved again before the last byte of the answer leaves. Whatever happens in
between, the intent is closed with what is known.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from aiohttp import web

from cbk_gateway import answer_ids, forwarding, recording, repeats, request_body, settling
from cbk_gateway.answer_ids import PassingIds
from cbk_gateway.audit import Intent, Outcome, Result, told_ids
from cbk_gateway.cache import WriteMark
from cbk_gateway.errors import BadGateway, NotFound, Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.forwarding import Pieces
from cbk_gateway.limits.usage import UsageReader
from cbk_gateway.parts import Parts
from cbk_gateway.repeats import Entry
from cbk_gateway.tenancy import object_ids
from cbk_gateway.upstream import (
    REPLAYED_HEADER,
    Answer,
    Cause,
    Ending,
    StoredAnswer,
    StreamBroken,
    UpstreamFault,
)
from cbk_gateway.upstream import Outcome as Sending


class _Write:
    """What is known of one write as it goes on; closes its intent and its invalidation exactly once."""

    __slots__ = (
        "answer",
        "answer_ids",
        "answer_ids_count",
        "ending",
        "entry",
        "fault",
        "intent",
        "is_whole",
        "kept_body",
        "marking",
        "parts",
        "reader",
        "refusal",
        "unmarking",
        "was_asked",
        "x",
    )

    def __init__(
        self, parts: Parts, x: Exchange, entry: Entry | None, marking: asyncio.Task[list[WriteMark]]
    ) -> None:
        self.parts = parts
        self.x = x
        self.entry = entry
        self.intent: Intent | None = None
        self.marking: asyncio.Task[list[WriteMark]] | None = marking
        self.unmarking: list[asyncio.Task[None]] = []
        self.was_asked = False
        self.is_whole = False
        self.kept_body: bytes | None = None
        self.answer: Answer | None = None
        self.reader: UsageReader | None = None
        self.fault: UpstreamFault | None = None
        self.refusal: Refusal | None = None
        self.ending: str | None = None
        self.answer_ids: tuple[str, ...] = ()
        self.answer_ids_count = 0

    def named(self, found: tuple[str, ...]) -> None:
        """Hold on to the ids that the answer names; of very many, to the first."""
        self.answer_ids += found[: answer_ids.MOST_HELD - len(self.answer_ids)]
        self.answer_ids_count += len(found)


async def answer(parts: Parts, x: Exchange) -> web.StreamResponse:
    """Answer a write."""
    if parts.upstream.is_open(x.account):
        # Refused before anything is taken or written: that it was not sent is known for certain.
        raise _held_back(parts, x)
    if x.body is None:
        x.body = await request_body.take(x.request, parts.bounds)
    await forwarding.check_body(parts, x)
    sent = recording.outgoing(parts, x)
    # The caches are told while it is asked whether this is a repetition: for one, in vain.
    marking = parts.background.spawn(repeats.begin_marks(parts, x))
    try:
        entry = await repeats.enter(parts, x)
    except BaseException:
        parts.background.spawn(_taken_back(marking))
        raise
    if isinstance(entry, StoredAnswer):
        parts.background.spawn(_taken_back(marking))
        return _replay(parts, x, entry)
    write = _Write(parts, x, entry, marking)
    x.answer_digest = hashlib.sha256() if parts.journal is not None else None
    try:
        await _prepare(write, sent.tag)
        write.was_asked = True
        write.answer = await forwarding.send(parts, x, sent.body)
        async with write.answer:
            return await _pass_back(write, write.answer)
    except UpstreamFault as fault:
        write.fault = fault
        await _fail(write, fault)
        raise _told(fault) from fault
    except Refusal as refusal:
        write.refusal = refusal
        raise
    finally:
        _close(write)


async def _prepare(write: _Write, tag: str | None) -> None:
    """All that must be done before a byte is sent: the intent on disk, the caches and the shield told.

    The disk and the store do not wait for one another. Where the intent fails, the caches were told for
    nothing, which makes them fetch once more.
    """
    parts, x = write.parts, write.x
    first = write.entry.began(x.request_id, tag) if write.entry is not None else None
    known = [parts.background.spawn(first)] if first is not None else []
    try:
        with x.step("journal"):
            write.intent = await recording.intend(parts, x, tag)
        if write.intent is not None:
            parts.metrics.audit.write_begun()
    finally:
        for telling in (*known, write.marking):
            if telling is not None:
                await asyncio.shield(telling)


async def _taken_back(marking: asyncio.Task[list[WriteMark]]) -> None:
    """Take marks back, once they stand."""
    await asyncio.gather(*[mark.finish() for mark in await marking])


def _held_back(parts: Parts, x: Exchange) -> Refusal:
    fault = UpstreamFault(Cause.BREAKER_OPEN, Sending.NOT_SENT)
    settling.settle_fault(parts, x, fault, None)
    return fault.refusal()


def _told(fault: UpstreamFault) -> Refusal:
    """What the client hears of a fault; after a broken answer it must not simply try again either."""
    refusal = fault.refusal()
    if isinstance(fault, StreamBroken):
        refusal.headers.setdefault(*repeats.SHOULD_NOT_RETRY)
    return refusal


def _replay(parts: Parts, x: Exchange, kept: StoredAnswer) -> web.Response:
    """Give the answer that an earlier attempt had; nothing was done, so nothing is charged."""
    operation, principal, tenant = forwarding.settled(x)
    first = next((value for name, value in kept.headers if name == "X-Request-Id"), None)
    if parts.journal is not None:
        parts.journal.note(
            "replayed",
            {
                "request_id": x.request_id,
                "first_request_id": first,
                "tenant": tenant.id,
                "subject": principal.subject,
                "token_id": principal.token_id,
                "client_address": x.client_address(parts.trusted_proxies),
                "operation": operation.route.audit_name,
                "ids": list(operation.ids),
                "status": kept.status,
                **told_ids(answer_ids.named_in(kept.body)),
            },
        )
    settling.settle(parts, x, None, was_sent=False)
    return x.answer(kept.status, (*kept.headers, REPLAYED_HEADER), kept.body)


async def _pass_back(write: _Write, upstream_answer: Answer) -> web.StreamResponse:
    """Pass the answer back; its end is held until nobody can be served from before the write."""
    parts, x = write.parts, write.x
    operation, _, tenant = forwarding.settled(x)
    status = upstream_answer.status
    write.reader = forwarding.reader_for(operation, upstream_answer)
    if forwarding.form_of(upstream_answer) is not None:
        # Events are not held back: while an open-ended write is open nothing of the account is served
        # from any cache, so its end may trail the last event.
        pieces = _noted(write, upstream_answer.chunks(), _passing(write, is_stream=True))
        write.ending = Ending.CLIENT_ABORT  # until it is known better: whoever leaves cancels this
        write.ending = await forwarding.pass_on(parts, x, upstream_answer, pieces, reader=write.reader)
        await _finish(write, None)
        return forwarding.response_of(x)
    body, rest = await forwarding.gather(upstream_answer, parts.max_whole_bytes)
    passing = _passing(write, is_stream=False) if rest is not None else None
    if rest is None:
        # What follows here does not depend on it.
        _unmark(write)
    if status < 300:
        found: tuple[str, ...] = ()
        if passing is not None:
            found = passing.feed(body)
        elif rest is None:
            found = answer_ids.named_in(body)
        write.named(found)
        if not await parts.ownership.remember(tenant, operation, found):
            await _finish(write, None)
            raise NotFound("There is no such object.", reason="isolation")
    if rest is not None:
        pieces = _ended_by(write, forwarding.chained(body, _noted(write, rest, passing)))
        write.ending = Ending.CLIENT_ABORT
        write.ending = await forwarding.pass_on(parts, x, upstream_answer, pieces, reader=write.reader)
        return forwarding.response_of(x)
    write.is_whole = True
    write.reader.feed(body)
    write.kept_body = body if recording.keeps_answer(x, upstream_answer) else None
    # A failure inside a 200 is as little to be repeated to others as one with a status of its own.
    is_shared = status >= 300 or write.reader.failure is None
    await _finish(write, repeats.stored(x, status, upstream_answer.headers, body) if is_shared else None)
    write.ending = "complete"
    return x.answer(status, upstream_answer.headers, body)


def _passing(write: _Write, *, is_stream: bool) -> PassingIds | None:
    """What finds ids in an answer that is not held, where it matters who made the objects it names."""
    operation, _, tenant = forwarding.settled(write.x)
    is_success = write.answer is not None and write.answer.status < 300
    if not is_success or not write.parts.ownership.watches(tenant) or not object_ids.creates(operation):
        return None
    return PassingIds(is_stream=is_stream)


def _noted(write: _Write, pieces: Pieces, passing: PassingIds | None) -> Pieces:
    """The pieces, each passed on once it is noted who made what it names."""
    return pieces if passing is None else _noting(write, pieces, passing)


async def _noting(write: _Write, pieces: Pieces, passing: PassingIds) -> AsyncIterator[bytes]:
    operation, _, tenant = forwarding.settled(write.x)
    async for piece in pieces:
        found = passing.feed(piece)
        if found:
            write.named(found)
            try:
                is_own = await write.parts.ownership.remember(tenant, operation, found)
            except Refusal as refusal:
                # The head is out: only a break can still say that something went wrong.
                raise StreamBroken(Cause.STOPPED, refusal.message) from refusal
            if not is_own:
                raise StreamBroken(Cause.PROTOCOL, "the answer names an object of another tenant")
        yield piece


async def _ended_by(write: _Write, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, the last one kept back until the invalidation has reached everybody."""
    last = b""
    async for piece in pieces:
        if last:
            yield last
        last = piece
    await _finish(write, None)
    if last:
        yield last


def _unmark(write: _Write) -> None:
    """Begin to take the marks back: the upstream has ended the write, or will never begin it."""
    marking, write.marking = write.marking, None
    if marking is None:
        return
    # In tasks of their own: a client that leaves now must not leave old answers behind.
    if not marking.done():
        write.unmarking = [write.parts.background.spawn(_taken_back(marking))]
    elif not marking.cancelled() and marking.exception() is None:
        write.unmarking = [mark.ending() for mark in marking.result()]


async def _finish(write: _Write, kept: StoredAnswer | None) -> None:
    """Take the marks back and let repetitions know of the answer, before the client can know of it."""
    _unmark(write)
    work, write.unmarking = write.unmarking, []
    entry, write.entry = write.entry, None
    if entry is not None and write.answer is not None:
        answered = entry.answered(write.answer.status, kept, write.answer_ids)
        work.append(write.parts.background.spawn(answered))
    if work:
        await asyncio.wait(work)
        for done in work:
            done.result()


async def _fail(write: _Write, fault: UpstreamFault) -> None:
    entry, write.entry = write.entry, None
    if entry is not None:
        failing = entry.failed(fault.outcome, lingers=repeats.lingers(fault))
        await asyncio.shield(write.parts.background.spawn(failing))


def _close(write: _Write) -> None:
    """Close intent, invalidation and grant; synchronous, so that cancellation cannot interrupt it."""
    parts, x = write.parts, write.x
    _unmark(write)
    entry, write.entry = write.entry, None
    if entry is not None:
        refused = write.refusal is not None or not write.was_asked
        outcome = Sending.NOT_SENT if refused else Sending.UNKNOWN
        parts.background.spawn(entry.failed(outcome, lingers=not refused))
    if write.intent is not None:
        outcome_told = _outcome(write)
        write.intent.close(outcome_told)
        parts.metrics.audit.write_ended(outcome_told.result)
        if outcome_told.result == Result.UNKNOWN:
            parts.doubts.set()
    settling.settle_fault(parts, x, write.fault, write.reader)


def _result(write: _Write) -> str:
    """What became of the write, as far as is known here."""
    if isinstance(write.fault, StreamBroken):
        return Result.UNKNOWN
    if write.fault is not None:
        return str(write.fault.outcome)
    if write.refusal is not None:
        # The upstream answered, and what it said was about the gateway's key or somebody else's object.
        is_about_answer = write.answer is not None or isinstance(write.refusal, BadGateway)
        return Result.ANSWERED if is_about_answer else Result.NOT_SENT
    if not write.was_asked:
        return Result.ABORTED
    if write.answer is None:
        return Result.UNKNOWN
    if write.is_whole:
        return Result.ANSWERED
    return Result.ABORTED if write.ending in {None, Ending.CLIENT_ABORT} else Result.ANSWERED


def _outcome(write: _Write) -> Outcome:
    x, upstream_answer = write.x, write.answer
    operation, _, _ = forwarding.settled(x)
    body, given = x.body, _status_given(write)
    upstream_status = upstream_answer.status if upstream_answer is not None else None
    broke_off = isinstance(write.fault, StreamBroken)
    return Outcome(
        result=_result(write),
        status=given,
        upstream_status=upstream_status if upstream_status != given else None,
        reason=write.refusal.reason if write.refusal is not None else None,
        failure=write.reader.failure if write.reader is not None else None,
        duration_s=x.elapsed_s,
        request_bytes=body.size if body is not None else 0,
        answer_bytes=x.answer_bytes,
        request_sha256=body.sha256 if body is not None else None,
        answer_sha256=x.answer_digest.hexdigest() if x.answer_digest is not None and x.status else None,
        answer_ids=write.answer_ids,
        answer_ids_count=write.answer_ids_count,
        upstream_request_id=recording.upstream_request_id(upstream_answer),
        tokens=write.reader.tokens if write.reader is not None else None,
        body=write.kept_body,
        upstream_attempts=_attempts(write),
        invalidated=tuple(sorted(operation.route.invalidates)),
        stream_end=Ending.TRUNCATED if broke_off else write.ending,
    )


def _attempts(write: _Write) -> int:
    if write.answer is not None:
        return write.answer.attempts
    if write.fault is not None:
        return write.fault.attempts
    return 1 if write.was_asked else 0


def _status_given(write: _Write) -> int | None:
    if write.fault is not None:
        return write.fault.refusal().status
    if write.refusal is not None:
        return write.refusal.status
    return write.answer.status if write.answer is not None else None
