"""The duplicate shield: a write repeated by an impatient SDK is carried out once.

The official Node SDK repeats a POST up to three times, 250, 500 and 1000 ms after a 429, a 5xx or a
network error. The shield stands in the way only of such repetitions: while an earlier attempt is under way
the later one waits and shares its answer; after one that ended `unknown` or with a 5xx, what it did is
found out first. Two deliberate identical writes, the first of which was answered, both pass. With an
`Idempotency-Key` the answer is given again for as long as it is kept.

How it is used, once the body of a write is whole and the request was admitted:

    decision = await shield.enter(Attempt(...))      # raises Conflict
    if isinstance(decision, Replay):                 # send it with `Idempotent-Replayed: true`
        ...
    try:
        ... journal, forward, answer ...
        await decision.answered(StoredAnswer(...))   # or None for a stream or a large body
    except UpstreamFault as fault:
        await decision.failed(fault.outcome)

Without a store there is no shield: requests pass. State is shared by all workers; bodies are sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from cbk_gateway.errors import Conflict
from cbk_gateway.operation import Operation
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store, StoreFault
from cbk_gateway.upstream.observer import SilentObserver, UpstreamObserver
from cbk_gateway.upstream.outcomes import Outcome
from cbk_gateway.upstream.sealing import NOT_KEPT, StoredAnswer, seal, unseal

REPLAYED_HEADER: Final = ("Idempotent-Replayed", "true")
_FIRST_LOOK_S: Final = 0.02
_SLOWEST_LOOK_S: Final = 0.25
_LONGEST_WRITE_S: Final = 1200.0  # the API itself gives up after 800 s
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ShieldOptions:
    """How long the shield remembers.

    Attributes:
        key: Secret of 32 bytes in hex, the same for all workers: keys fingerprints and seals answers.
        window_s: How long an attempt that failed is remembered after its end: the SDK's last repetition
            comes 1 s after its third failure.
        keyed_s: How long the answer to a request with an Idempotency-Key is kept.
        shared_s: How long an answer is kept for those who waited for it.
        attach_s: Longest wait for an earlier attempt.
        lease_s: An attempt whose worker has not been heard of for so long has an unknown outcome.
        max_body_bytes: Larger answers are not kept.
    """

    key: Secret
    window_s: float = 10.0
    keyed_s: float = 600.0
    shared_s: float = 10.0
    attach_s: float = 300.0
    lease_s: float = 15.0
    max_body_bytes: int = 262_144


@dataclass(frozen=True, slots=True)
class Attempt:
    """A write that is about to be made.

    Attributes:
        tenant: For whom.
        subject: The token's subject; other subjects' writes are never the same.
        operation: What.
        body_sha256: Hex digest of the body.
        idempotency_key: The client's, or None.
    """

    tenant: str
    subject: str
    operation: Operation
    body_sha256: str
    idempotency_key: str | None = None


class Resolution(StrEnum):
    """What is found out about an attempt whose outcome is not known."""

    NOT_DONE = "not_done"
    NOT_KNOWN = "not_known"


Resolver = Callable[[Attempt], Awaitable[StoredAnswer | Resolution]]
"""Finds out, by a fetch or a list of the gateway's own, whether an earlier attempt was carried out; gives
the answer it would have had if it was."""


class Verdict(StrEnum):
    """What is to be remembered of an attempt that ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    DROPPED = "dropped"


def verdict_on(status: int) -> Verdict:
    """What an answer's status means for its repetition.

    A 429 did nothing and its repetition is welcome. A 5xx may hide a write that was carried out.
    """
    if status == 429:
        return Verdict.DROPPED
    return Verdict.FAILED if status >= 500 else Verdict.ANSWERED


def fingerprint(key: bytes, attempt: Attempt) -> str:
    """Name of the write itself: equal for repetitions, keyed so that nobody can guess it."""
    operation = attempt.operation
    parts = (
        attempt.tenant,
        attempt.subject,
        operation.method,
        operation.path,
        operation.query,
        attempt.body_sha256,
    )
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.digest(key, text.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Replay:
    """The earlier attempt's answer, to be given again."""

    answer: StoredAnswer


@dataclass(slots=True)
class Proceed:
    """Leave to carry out the write. Say how it ended, by exactly one of the two methods.

    Attributes:
        is_shielded: False when the store is away, and nothing is remembered.
    """

    _shield: Shield
    _place: str
    _owner: str
    _is_keyed: bool
    is_shielded: bool = True
    _lease: asyncio.Task[None] | None = field(default=None, repr=False)

    async def answered(self, status: int, answer: StoredAnswer | None) -> None:
        """The upstream answered with `status`; `answer` is None when it cannot be given again."""
        await self._shield.settle(self, verdict_on(status), f"answered {status}", answer)

    async def failed(self, outcome: Outcome) -> None:
        """There was no answer."""
        verdict = Verdict.DROPPED if outcome is Outcome.NOT_SENT else Verdict.FAILED
        await self._shield.settle(self, verdict, str(outcome), None)


class Shield:
    """Lets each write through once.

    Args:
        store: Shared state.
        options: See `ShieldOptions`.
        resolve: See `Resolver`.
        observer: Told of decisions.

    Raises:
        ValueError: The key is not 32 bytes in hex.
    """

    def __init__(
        self,
        store: Store,
        options: ShieldOptions,
        resolve: Resolver,
        observer: UpstreamObserver | None = None,
    ) -> None:
        self._options = options
        self._key = bytes.fromhex(options.key.reveal())
        if len(self._key) != 32:
            raise ValueError("the shield's key must be 32 bytes in hex")
        self._resolve = resolve
        self._observer = observer if observer is not None else SilentObserver()
        # Owners whose end somebody in this process waits for: told at once, where others have to look.
        self._awaited: dict[str, asyncio.Event] = {}
        self._enter = store.script((_HERE / "shield_enter.lua").read_text())
        self._settle = store.script((_HERE / "shield_settle.lua").read_text(), is_bulky=True)
        self._look = store.script((_HERE / "shield_look.lua").read_text(), is_bulky=True)

    async def enter(self, attempt: Attempt) -> Proceed | Replay:
        """Decide on an attempt; waits while an earlier one is under way.

        Raises:
            Conflict: The Idempotency-Key was used for another request, or what the earlier attempt did
                cannot be found out or given again.
        """
        name = fingerprint(self._key, attempt)
        place = self._place(attempt, name)
        until = asyncio.get_running_loop().time() + self._options.attach_s
        while True:
            owner = secrets.token_hex(8)
            try:
                word, more = await self._ask(place, owner, name)
                if word == "proceed":
                    return self._proceed(place, owner, attempt)
                if word == "resolve":
                    return await self._find_out(place, owner, attempt)
                if word == "conflict":
                    raise Conflict("This Idempotency-Key was used for another request.", reason="key_reused")
                if word == "running":
                    self._observer.shielded("attach")
                sealed = await self._await_answer(place, more, until)
            except StoreFault:
                return Proceed(self, place, owner, _is_keyed=False, is_shielded=False)
            if word == "answered" and sealed is None:
                sealed = NOT_KEPT
            if sealed is not None:
                return self._replay(place, more, sealed)

    async def settle(self, entry: Proceed, verdict: Verdict, why: str, answer: StoredAnswer | None) -> None:
        """Remember how an attempt ended; called through `Proceed`."""
        lease, entry._lease = entry._lease, None  # noqa: SLF001 - the entry is this class's own
        if lease is not None:
            lease.cancel()
        if not entry.is_shielded:
            return
        place, owner = entry._place, entry._owner  # noqa: SLF001
        options = self._options
        life_s = options.keyed_s if verdict is Verdict.ANSWERED else options.window_s
        answer_s = options.keyed_s if entry._is_keyed else options.shared_s  # noqa: SLF001
        content: bytes | str = why
        if verdict is Verdict.ANSWERED:
            content = NOT_KEPT
            if answer is not None and len(answer.body) <= options.max_body_bytes:
                content = seal(self._key, f"{place}:{owner}", answer)
        args = (owner, verdict, int(entry._is_keyed), _ms(life_s), _ms(answer_s), content)  # noqa: SLF001
        try:
            await self._settle(keys=[place, f"{place}:{owner}"], args=args)
        except StoreFault:
            # The lease runs out, and then the outcome counts as unknown: never as not done.
            return
        finally:
            ended = self._awaited.pop(owner, None)
            if ended is not None:
                ended.set()

    async def _ask(self, place: str, owner: str, name: str) -> tuple[str, str]:
        options = self._options
        life_s = options.lease_s + options.window_s
        reply: list[Any] = await self._enter(
            keys=[place], args=[owner, name, _ms(options.lease_s), _ms(life_s)]
        )
        return reply[0].decode(), reply[1].decode()

    async def _await_answer(self, place: str, owner: str, until: float) -> bytes | None:
        """The sealed answer of the attempt that stands in the way; None when it ended without one."""
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_LOOK_S
        ended = self._awaited.setdefault(owner, asyncio.Event())
        while True:
            word, sealed = await self._look(keys=[place, f"{place}:{owner}"], args=[owner])
            if word != b"running":
                self._awaited.pop(owner, None)
            if word == b"answered":
                return bytes(sealed)
            if word == b"changed":
                return None
            if loop.time() >= until:
                self._awaited.pop(owner, None)
                raise Conflict("The same request is still being carried out.", reason="in_flight")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await ended.wait()
            pause_s = min(pause_s * 2, _SLOWEST_LOOK_S)

    async def _find_out(self, place: str, owner: str, attempt: Attempt) -> Proceed | Replay:
        """An earlier attempt may have been carried out: ask the upstream before doing it again."""
        self._observer.shielded("resolve")
        entry = self._proceed(place, owner, attempt, told=False)
        try:
            found = await self._resolve(attempt)
        except BaseException:
            await entry.failed(Outcome.UNKNOWN)
            raise
        if isinstance(found, StoredAnswer):
            await entry.answered(found.status, found)
            self._observer.shielded("replay")
            return Replay(found)
        if found is Resolution.NOT_DONE:
            self._observer.shielded("proceed")
            return entry
        await entry.failed(Outcome.UNKNOWN)
        self._observer.shielded("refuse")
        raise Conflict(
            "An earlier attempt at this request may have been carried out; look before repeating it.",
            reason="unresolved",
        )

    def _proceed(self, place: str, owner: str, attempt: Attempt, *, told: bool = True) -> Proceed:
        if told:
            self._observer.shielded("proceed")
        entry = Proceed(self, place, owner, attempt.idempotency_key is not None)
        entry._lease = asyncio.get_running_loop().create_task(self._renew(place, owner))  # noqa: SLF001
        return entry

    async def _renew(self, place: str, owner: str) -> None:
        """Keep saying that the attempt runs, for as long as it does."""
        options = self._options
        life_s = options.lease_s + options.window_s
        # Bounded, so that an entry somebody forgot to settle does not stand in the way for ever.
        for _ in range(int(_LONGEST_WRITE_S / options.lease_s * 3)):
            await asyncio.sleep(options.lease_s / 3)
            args = (owner, "running", 0, _ms(life_s), _ms(options.lease_s), "")
            try:
                if not await self._settle(keys=[place, f"{place}:{owner}"], args=args):
                    return
            except StoreFault:
                continue

    def _replay(self, place: str, owner: str, sealed: bytes) -> Replay:
        answer = unseal(self._key, f"{place}:{owner}", sealed)
        if answer is None:
            self._observer.shielded("refuse")
            raise Conflict(
                "This request was carried out before, and its answer was not kept.", reason="not_kept"
            )
        self._observer.shielded("replay")
        return Replay(answer)

    def _place(self, attempt: Attempt, name: str) -> str:
        if attempt.idempotency_key is not None:
            text = f"{attempt.subject}\0{attempt.idempotency_key}"
            name = "k" + hmac.digest(self._key, text.encode(), hashlib.sha256).hex()
        return f"cbkgw:{{{attempt.tenant}}}:shield:{name}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
