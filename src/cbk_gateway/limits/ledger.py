"""The conversation with the store: one question over many limits, one script call, one answer.

Encodes and decodes what `admit.lua` and `roll_call.lua` read and write, and nothing else does. What to do
with an answer, or without one, is the limiter's business.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

from cbk_gateway.limits.bucket import MICRO, Draw
from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.plan import RESETS_KEY, ROLL_CALL_KEY
from cbk_gateway.store import Store

_RESETS_TTL_MS: Final = 600_000


class Kind(StrEnum):
    """Which sort of limit refused."""

    NONE = ""
    RATE = "rate"
    SLOT = "slot"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class BucketQuestion:
    """One bucket in a question.

    Attributes:
        key: Its key.
        draw: What is asked of it.
        known_tokens: This worker's last known state, for a store that lost the key.
        known_at_us: Server time of that; -1 for none.
        ceiling: Most tokens it may hold after an outage; -1 for no ceiling.
    """

    key: str
    draw: Draw
    known_tokens: float = 0.0
    known_at_us: int = -1
    ceiling: float = -1.0


@dataclass(frozen=True, slots=True)
class QuotaQuestion:
    """One quota in a question: add `amount` unless that passes `limit`, if enforced.

    Attributes:
        key: The counter.
        limit: The allowance.
        amount: What is wanted now.
        is_enforced: Whether it refuses.
        floor: The least this worker knows was used already, for a store that lost the counter.
        span: The period.
        correction: Entered whatever becomes of the rest: what was spent beyond what was held, or less.
        want: How much to lease besides.
        top: Up to which count leases are given.
        part: A lease is at most this part of the room left below `top`: 8 for an eighth.
        paid: What the worker's own lease pays besides `amount`; the store is not asked for it.
        is_lost: Whether the store was away, so that it may have forgotten what others told it anew.
    """

    key: str
    limit: int
    amount: int
    is_enforced: bool
    floor: int
    span: Span
    correction: int = 0
    want: int = 0
    top: int = 0
    part: int = 1
    paid: int = 0
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class SlotQuestion:
    """One bound on open requests: this worker keeps `own` and wants one more, or only says so.

    Attributes:
        key: The table of all workers.
        most: The bound.
        own: What this worker keeps: its open requests, and free places it goes on keeping.
        is_wanted: Whether it wants one more.
        number: Rises with every question of this worker, so that one that was overtaken is known as such.
        want: How many free places to keep besides.
        part: Those are at most this part of the room left.
    """

    key: str
    most: int
    own: int
    is_wanted: bool
    number: int = 0
    want: int = 0
    part: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """Everything one decision depends on."""

    buckets: tuple[BucketQuestion, ...] = ()
    quotas: tuple[QuotaQuestion, ...] = ()
    slots: tuple[SlotQuestion, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store decided.

    Attributes:
        is_admitted: Whether everything was taken; otherwise nothing was.
        is_stale: A quota's period is over: nothing was done, ask again with the present one.
        now_us: The server's clock.
        kind: Which sort refused.
        index: Which one of that sort, from 0.
        wait_us: How long until it may succeed.
        tokens: Per bucket, what is left.
        extras: Per bucket, tokens leased.
        missed: Per bucket, whether it could not pay (a shadow's miss refuses nothing).
        used: Per quota, what is used now, leases included.
        allotted: Per quota, what was leased.
        open: Per slot, what is open or kept now over all workers.
        places: Per slot, how many free places this worker may keep.
    """

    is_admitted: bool
    is_stale: bool
    now_us: int
    kind: Kind = Kind.NONE
    index: int = -1
    wait_us: int = 0
    tokens: tuple[float, ...] = ()
    extras: tuple[int, ...] = ()
    missed: tuple[bool, ...] = ()
    used: tuple[int, ...] = ()
    allotted: tuple[int, ...] = ()
    open: tuple[int, ...] = ()
    places: tuple[int, ...] = ()


def script_text(name: str) -> str:
    """A Lua script of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Clock:
    """The server's clock against this process's own, so that calendar periods can be named in advance.

    The script checks the period itself: a wrong guess costs a second call, never a wrong count.
    """

    offset_us: float = 0.0

    def now_us(self, monotonic_s: float) -> int:
        """The server's time, by guess."""
        return int(monotonic_s * MICRO + self.offset_us)


def encode(
    question: Question, worker: str, lease_life_s: float, slot_life_s: float
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of `admit.lua`."""
    keys = [bucket.key for bucket in question.buckets]
    keys += [quota.key for quota in question.quotas]
    keys += [slot.key for slot in question.slots]
    args: list[Any] = [worker, len(question.buckets), len(question.quotas), len(question.slots)]
    args.append(int(lease_life_s * MICRO))
    for bucket in question.buckets:
        draw = bucket.draw
        args += (
            repr(float(draw.rate)),
            repr(float(draw.burst)),
            repr(float(draw.cost)),
            repr(float(draw.want)),
        )
        args += (int(draw.is_shadow), repr(float(draw.given_back)))
        args += (repr(float(draw.closed)), draw.closed_epoch)
        args += (repr(float(bucket.known_tokens)), bucket.known_at_us, repr(float(bucket.ceiling)))
    for quota in question.quotas:
        args += (quota.limit, quota.amount, int(quota.is_enforced), quota.floor)
        args += (quota.span.start_us, quota.span.end_us)
        args += (quota.correction, quota.want, quota.top, quota.part, int(quota.is_lost))
    for slot in question.slots:
        args += (slot.most, slot.own, int(slot_life_s * MICRO), int(slot.is_wanted))
        args += (slot.number, slot.want, slot.part)
    return keys, args


def decode(reply: Sequence[Any], question: Question) -> Answer:
    """The answer in a reply of `admit.lua`."""
    verdict, now_us = int(reply[0]), int(reply[1])
    if verdict < 0:
        return Answer(is_admitted=False, is_stale=True, now_us=now_us)
    start, count = 5, len(question.buckets)
    triples = reply[start : start + 3 * count]
    rest = [int(one) for one in reply[start + 3 * count :]]
    pairs = 2 * len(question.quotas)
    return Answer(
        is_admitted=verdict == 1,
        is_stale=False,
        now_us=now_us,
        kind=Kind(reply[2].decode()),
        index=int(reply[3]) - 1,
        wait_us=int(reply[4]),
        tokens=tuple(float(one) for one in triples[0::3]),
        extras=tuple(int(one) for one in triples[1::3]),
        missed=tuple(one == 1 for one in triples[2::3]),
        used=tuple(rest[0:pairs:2]),
        allotted=tuple(rest[1:pairs:2]),
        open=tuple(rest[pairs::2]),
        places=tuple(rest[pairs + 1 :: 2]),
    )


@dataclass(frozen=True, slots=True)
class Roll:
    """A roll call's outcome.

    Attributes:
        now_us: The server's time in microseconds.
        alive: Workers that gave a sign of life lately.
        back: Those of them that did since the asked instant.
        resets: Another number whenever buckets were filled by hand.
    """

    now_us: int
    alive: int
    back: int
    resets: int


class Ledger:
    """Asks the store. Its methods raise `StoreFault` when there is no answer."""

    _ADMIT: Final = script_text("admit.lua")
    _ROLL_CALL: Final = script_text("roll_call.lua")
    _ADJUST: Final = script_text("adjust.lua")

    def __init__(self, store: Store, worker: str, lease_life_s: float, slot_life_s: float) -> None:
        self._store = store
        self._admit = store.script(self._ADMIT)
        self._roll_call = store.script(self._ROLL_CALL)
        self._adjust = store.script(self._ADJUST)
        self._worker = worker
        self._lease_life_s = lease_life_s
        self._slot_life_s = slot_life_s

    async def ask(self, question: Question) -> Answer:
        """Decide a question in one round trip."""
        keys, args = encode(question, self._worker, self._lease_life_s, self._slot_life_s)
        return decode(await self._admit(keys, args), question)

    async def call_roll(self, dead_after_s: float, since_us: int, *, is_leaving: bool = False) -> Roll:
        """Give a sign of life, and learn who else does; `back` counts signs since `since_us`."""
        args = (self._worker, int(dead_after_s * MICRO), int(is_leaving), since_us)
        return Roll(*map(int, await self._roll_call([ROLL_CALL_KEY, RESETS_KEY], args)))

    async def announce_reset(self) -> None:
        """Have every worker forget its remembered refusals at its next sign of life."""
        # Any other number than before will do, and none is there for good.
        await self._store.ask("SET", RESETS_KEY, secrets.randbits(48), "PX", _RESETS_TTL_MS)

    async def add(self, key: str, amount: int | None, span: Span) -> int:
        """Add to a quota's counter, or set it to 0; returns what is used then."""
        return int(await self._adjust([key], ["reset" if amount is None else amount, span.end_us]))

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        """Counters as they stand, each by itself because on a Cluster they live on different nodes."""
        values: list[bytes | None] = await asyncio.gather(*(self._store.ask("GET", key) for key in keys))
        return [None if raw is None else int(float(raw)) for raw in values]
