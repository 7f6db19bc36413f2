"""Writes that an impatient client repeats: let through once, and looked for when their answer was lost.

Binds the duplicate shield to a request: which writes it stands before, what makes two of them one, and how
the upstream is asked, with the tenant's own credential and past every cache, what a lost attempt did. How
the shield remembers is `upstream/shield.py`'s, what a view proves is `findings.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from cbk_gateway import findings, forwarding
from cbk_gateway.attempts import Attempts, Place, Seen
from cbk_gateway.cache import WriteMark
from cbk_gateway.errors import BadRequest, Conflict, Refusal
from cbk_gateway.exchange import Exchange
from cbk_gateway.findings import Finding, Verdict
from cbk_gateway.operation import ALL_TYPES, Dialect, Operation
from cbk_gateway.parts import Parts
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store, StoreFault
from cbk_gateway.upstream import (
    Answer,
    Attempt,
    Cause,
    Outcome,
    Proceed,
    Replay,
    Resolution,
    Shield,
    ShieldOptions,
    StoredAnswer,
    UpstreamFault,
    UpstreamObserver,
)

KEY_HEADER: Final = "Idempotency-Key"
MAX_KEY_CHARS: Final = 255
SHOULD_NOT_RETRY: Final = ("x-should-retry", "false")

_LOOKS: Final = 4
_FIRST_PAUSE_S: Final = 0.15
_LONGEST_PAUSE_S: Final = 2.0
_MAX_VIEW_BYTES: Final = 4 * 1024**2
# Two of these with one body are two people's, and what the answer holds opens doors.
_PERSONAL: Final = frozenset({"session", "websocket", "token"})
_JSON: Final = ("Content-Type", "application/json")


_KEPT_KEY: Final = "cbkgw:{shield}:key"


async def open_shield(
    store: Store, sealing_key: bytes | None, observer: UpstreamObserver | None = None
) -> tuple[Shield, Attempts]:
    """The shield and its record of attempts, under a key that all workers have.

    With `cache.encryption_key` configured the key is derived from that one, and what is kept cannot be read
    by whoever reads the store. Without it, a random key is kept in the store itself: answers are then bound
    to their places, and no more secret than the rest of the store.

    Raises:
        StoreFault: The store is away.
    """
    if sealing_key is not None:
        key = hmac.digest(sealing_key, b"cbk-gateway duplicate shield", hashlib.sha256)
    else:
        key = await _kept_key(store)
    shield = Shield(store, ShieldOptions(key=Secret(key.hex())), resolve, observer)
    return shield, Attempts(store, key)


async def _kept_key(store: Store) -> bytes:
    """The key in the store, made if there is none."""
    # Looked for first: where there is one, a start needs no store that takes writes.
    kept = await store.call(lambda client: client.get(_KEPT_KEY))
    if kept is None:
        fresh = secrets.token_bytes(32).hex()
        await store.call(lambda client: client.set(_KEPT_KEY, fresh, nx=True))
        kept = await store.call(lambda client: client.get(_KEPT_KEY)) or fresh
    return bytes.fromhex(kept.decode() if isinstance(kept, bytes) else kept)


@dataclass(frozen=True, slots=True)
class KnownAttempt(Attempt):
    """An attempt together with the request that makes it, for finding out what an earlier one did."""

    parts: Parts | None = field(default=None, repr=False, compare=False)
    exchange: Exchange | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class Entry:
    """Leave to carry out a write; told exactly once how it ended."""

    _proceed: Proceed
    _attempts: Attempts
    _place: Place | None

    def began(self, request_id: str, tag: str | None) -> Coroutine[Any, Any, None] | None:
        """Note that it will be sent now, bearing this tag: to be awaited before; None if nobody will ask."""
        return None if self._place is None else self._note(self._place, request_id, tag)

    async def _note(self, place: Place, request_id: str, tag: str | None) -> None:
        with contextlib.suppress(StoreFault):
            await self._attempts.began(place, request_id, tag)

    async def answered(self, status: int, answer: StoredAnswer | None, ids: tuple[str, ...]) -> None:
        """The upstream answered. To be awaited before the client can send the same write again."""
        # Side by side. If the record of the attempt is the later one, it may take away that of a repetition
        # begun in between, of which it can then not be told what it did; nothing worse.
        settling = asyncio.ensure_future(self._proceed.answered(status, answer))
        try:
            await self._noted(status, ids)
        finally:
            await settling

    async def _noted(self, status: int, ids: tuple[str, ...]) -> None:
        if self._place is not None:
            with contextlib.suppress(StoreFault):
                if status == 504:
                    await self._attempts.lingers(self._place)
                elif status < 500:
                    await self._attempts.ended(self._place, ids)

    async def failed(self, outcome: Outcome, *, lingers: bool = False) -> None:
        """There was no answer; `lingers` when the upstream may still be working."""
        if self._place is not None:
            with contextlib.suppress(StoreFault):
                if outcome is Outcome.NOT_SENT:
                    await self._attempts.ended(self._place, ())
                elif lingers:
                    await self._attempts.lingers(self._place)
        await self._proceed.failed(outcome)


async def enter(parts: Parts, x: Exchange) -> Entry | StoredAnswer | None:
    """Take up a write: leave to make it, the answer it already had, or None where nothing is shielded.

    Args:
        parts: What to ask.
        x: The request, its body taken.

    Raises:
        Conflict: What an earlier attempt did cannot be told, or its key was used for something else.
        BadRequest: The Idempotency-Key is none.
    """
    attempt = _attempt(parts, x)
    if attempt is None or parts.shield is None or parts.attempts is None:
        return None
    try:
        decision = await parts.shield.enter(attempt)
    except Conflict as conflict:
        conflict.headers.setdefault(*SHOULD_NOT_RETRY)
        raise
    if isinstance(decision, Replay):
        return decision.answer
    place = _place(parts.attempts, attempt, x) if decision.is_shielded else None
    return Entry(decision, parts.attempts, place)


def lingers(fault: UpstreamFault) -> bool:
    """Whether the upstream may go on with a call that failed here."""
    return fault.timed_out or fault.cause is Cause.STOPPED


async def begin_marks(parts: Parts, x: Exchange) -> list[WriteMark]:
    """Make old what a write may change: on its account, and on those it reaches beside it."""
    operation, _, tenant = forwarding.settled(x)
    route = operation.route
    reached = {x.account: route.invalidates}
    if route.reaches_children or tenant.may_run_as:
        types = frozenset({ALL_TYPES}) if route.reaches_children else route.invalidates
        for other in parts.registry.sharing_key(tenant):
            reached.setdefault(other.account, types)
    marks = [
        parts.cache.begin_write(account, types, is_open_ended=route.runs_model)
        for account, types in reached.items()
    ]
    return [await marks[0]] if len(marks) == 1 else await asyncio.gather(*marks)


async def resolve(attempt: Attempt) -> StoredAnswer | Resolution:
    """Find out what an attempt did whose answer was lost; a `Resolver` of the shield."""
    if not isinstance(attempt, KnownAttempt) or attempt.parts is None or attempt.exchange is None:
        return Resolution.NOT_KNOWN
    parts, x = attempt.parts, attempt.exchange
    request_id: str | None = None
    try:
        verdict, request_id = await _verdict(parts, x, attempt)
        if verdict.finding is Finding.NOT_DONE:
            return Resolution.NOT_DONE
        if verdict.finding is Finding.NOT_KNOWN or verdict.identifier is None:
            return Resolution.NOT_KNOWN
        return await _found(parts, x, attempt, verdict.identifier, request_id)
    except (UpstreamFault, Refusal, StoreFault):
        return Resolution.NOT_KNOWN


def stored(x: Exchange, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> StoredAnswer:
    """An answer in the form in which it can be given again, with the id of the request it was given to."""
    kept = [pair for pair in headers if pair[0].lower() not in {"date", "content-length"}]
    return StoredAnswer(status, (*kept, ("X-Request-Id", x.request_id)), body)


def _attempt(parts: Parts, x: Exchange) -> KnownAttempt | None:
    operation, principal, tenant = forwarding.settled(x)
    key = _idempotency_key(x)
    body = x.body
    if body is None or body.whole is None or (key is None and not _is_watched(operation)):
        return None
    return KnownAttempt(
        tenant=tenant.id,
        # One person acting on two accounts makes two writes.
        subject=f"{principal.subject}\0{x.account}",
        operation=operation,
        body_sha256=body.sha256,
        idempotency_key=key,
        parts=parts,
        exchange=x,
    )


def _is_watched(operation: Operation) -> bool:
    """Whether repetitions are looked out for without an Idempotency-Key.

    Not where a model answers: many ask it the same at the same time, and most of those answers are streams,
    which cannot be shared. Not where nobody knows what the path does.
    """
    route = operation.route
    return (
        operation.method == "POST"
        and route.known
        and route.dialect is Dialect.REST
        and not route.runs_model
        and _PERSONAL.isdisjoint(route.resource.split("/"))
        and route.action not in {"mint", "proxy", "invoke"}
    )


def _idempotency_key(x: Exchange) -> str | None:
    given = x.request.headers.getall(KEY_HEADER, ())
    if not given:
        return None
    key = given[0].strip()
    if len(given) > 1 or not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise BadRequest(
            f"The {KEY_HEADER} must be one printable text of at most {MAX_KEY_CHARS} characters.",
            reason="idempotency_key",
        )
    return key


def _place(attempts: Attempts, attempt: KnownAttempt, x: Exchange) -> Place | None:
    operation = attempt.operation
    if operation.route.action != "create":
        return None
    identity = (
        attempt.tenant,
        attempt.subject,
        operation.path,
        operation.query,
        attempt.body_sha256,
        attempt.idempotency_key or "",
    )
    return attempts.place(x.account, operation.path, identity)


async def _verdict(parts: Parts, x: Exchange, attempt: KnownAttempt) -> tuple[Verdict, str | None]:
    operation = attempt.operation
    unknown = Verdict(Finding.NOT_KNOWN), None
    view = findings.view_of(operation)
    if view is None or x.body is None or parts.attempts is None:
        return unknown
    sent = findings.document_of(x.body.whole or b"{}")
    if sent is None:
        return unknown
    place = _place(parts.attempts, attempt, x)
    if place is None:
        looked = await _look(parts, x, view)
        if looked.status not in {200, 404}:
            return unknown
        document = findings.document_of(looked.body)
        if operation.action == "delete":
            return findings.on_delete(looked.status, operation.ids[-1]), None
        return findings.on_update(looked.status, document, sent), None
    seen = await parts.attempts.seen(place)
    if seen.age_ms is None:
        return unknown
    verdict = await _by_tag(parts, x, operation, seen.tag) if seen.tag is not None else unknown[0]
    if verdict.finding is Finding.NOT_KNOWN:
        verdict = await _by_likeness(parts, x, view, sent, seen)
    if verdict.finding is Finding.NOT_DONE and seen.lingers:
        # It may be done a moment from now.
        return unknown
    return verdict, seen.request_id


async def _by_tag(parts: Parts, x: Exchange, operation: Operation, tag: str) -> Verdict:
    """Whether a create was done, by the tag it bore."""
    view = findings.view_of(operation, tag)
    if view is None:
        return Verdict(Finding.NOT_KNOWN)
    looked = await _look(parts, x, view)
    page = (findings.document_of(looked.body) or {}).get("items")
    if looked.status != 200 or not isinstance(page, list):
        return Verdict(Finding.NOT_KNOWN)
    return findings.on_tagged(page, tag)


async def _by_likeness(
    parts: Parts, x: Exchange, view: Operation, sent: dict[str, Any], seen: Seen
) -> Verdict:
    """Whether a create was done, by the newest objects of its type."""
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    looked = await _look(parts, x, view)
    waited_ms = (loop.time() - asked_at) * 1000
    document = findings.document_of(looked.body)
    now_ms = findings.upstream_clock_ms(looked.headers)
    page = document.get("items") if document is not None else None
    if looked.status != 200 or now_ms is None or seen.age_ms is None or not isinstance(page, list):
        return Verdict(Finding.NOT_KNOWN)
    return findings.on_create(page, sent, now_ms - waited_ms - seen.age_ms, seen.known_ids)


async def _look(parts: Parts, x: Exchange, view: Operation) -> StoredAnswer:
    """A GET of the gateway's own, patient with an upstream that has just failed."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_LOOKS - 1):
        wait_s = pause_s
        try:
            looked = await _ask(parts, x, view)
            if looked.status != 429 and looked.status < 500:
                return looked
        except UpstreamFault as fault:
            wait_s = min(max(pause_s, fault.retry_after_s or 0.0), _LONGEST_PAUSE_S)
        await asyncio.sleep(wait_s)
        pause_s *= 2
    return await _ask(parts, x, view)


async def _ask(parts: Parts, x: Exchange, view: Operation) -> StoredAnswer:
    answer: Answer = await forwarding.look(parts, x, view)
    async with answer:
        body, rest = await forwarding.gather(answer, _MAX_VIEW_BYTES)
        if rest is not None:
            answer.abort()
            return StoredAnswer(200, (), b"")
    return StoredAnswer(answer.status, tuple(answer.headers), body)


async def _found(
    parts: Parts, x: Exchange, attempt: KnownAttempt, identifier: str, request_id: str | None
) -> StoredAnswer | Resolution:
    """Do for a write that turns out done what its answer would have brought about."""
    operation, _, tenant = forwarding.settled(x)
    if not await parts.ownership.remember(tenant, operation, (identifier,)):
        return Resolution.NOT_KNOWN
    place = _place(parts.attempts, attempt, x) if parts.attempts is not None else None
    if place is not None and parts.attempts is not None:
        await parts.attempts.ended(place, (identifier,))
    # It may have been done after its own marks were taken back.
    for mark in await begin_marks(parts, x):
        await mark.finish()
    origin = (("X-Request-Id", request_id),) if request_id else ()
    return StoredAnswer(200, (_JSON, *origin), findings.answer_of(identifier))
