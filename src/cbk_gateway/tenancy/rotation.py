"""Which of two upstream keys a request uses, and what an answer says about them.

Pure: the state of one tenant's keys, the time and the draw come in, the new state and the events go out.

A 401 from the API speaks about the key. A 403 may speak about the key or about the object asked for (the
API answers 403 for another account's id), so it counts against the next key only if the current one then
does better, and never counts against the current one. A 429 or a 5xx says nothing of either: it may come
from something before the API, which never saw the key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cbk_gateway.tenancy.options import RotationOptions


class Which(StrEnum):
    """A key in its role. The `FALLBACK_` roles are second attempts of one request."""

    CURRENT = "current"
    NEXT = "next"
    FALLBACK_CURRENT = "fallback-current"
    FALLBACK_NEXT = "fallback-next"

    @property
    def is_next(self) -> bool:
        """Whether it is the next key."""
        return self in {Which.NEXT, Which.FALLBACK_NEXT}


class Event(StrEnum):
    """What became known about a key."""

    CURRENT_REFUSED = "current_refused"
    CURRENT_ACCEPTED = "current_accepted"
    NEXT_REFUSED = "next_refused"
    NEXT_PASSED = "next_passed"
    NEXT_READY = "next_ready"


@dataclass(frozen=True, slots=True)
class KeyState:
    """What is known about a tenant's keys.

    Attributes:
        current_refused_at: When the current key was last refused, by the caller's clock; None if it works.
        next_refused_at: The same of the next key.
        next_passed: Requests that the next key passed since its last refusal.
    """

    current_refused_at: float | None = None
    next_refused_at: float | None = None
    next_passed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from one answer: the new state, the role of a second attempt or None, and events."""

    state: KeyState
    again_with: Which | None = None
    events: tuple[Event, ...] = ()


FRESH: Final = KeyState()


def choose(
    state: KeyState, options: RotationOptions, *, has_next: bool, is_safe: bool, now: float, draw: float
) -> Which:
    """The key for a request's first attempt.

    `is_safe` says that it is a GET that reads, so that it may be tried twice. `draw` is a random number
    from 0 up to 1; `now` is in seconds of any steady clock.
    """
    if not has_next:
        return Which.CURRENT
    next_rests = state.next_refused_at is not None and now - state.next_refused_at < options.next_pause_s
    if next_rests:
        return Which.CURRENT
    if state.current_refused_at is not None:
        is_due = is_safe and now - state.current_refused_at >= options.current_retry_s
        return Which.CURRENT if is_due else Which.NEXT
    return Which.NEXT if is_safe and draw < options.canary_share else Which.CURRENT


def learn(
    state: KeyState,
    options: RotationOptions,
    which: Which,
    status: int,
    *,
    has_next: bool,
    is_safe: bool,
    now: float,
) -> Outcome:
    """What an answer's status says about the key that was used."""
    if status == 429 or status >= 500:
        return Outcome(state)
    if which is Which.NEXT and status in {401, 403} and is_safe:
        # Judged when the second attempt is back.
        return Outcome(state, Which.FALLBACK_CURRENT)
    if which.is_next:
        return _of_next(state, options, status, now)
    if status == 401:
        return _current_refused(state, which, has_next=has_next, is_safe=is_safe, now=now)
    events = (Event.CURRENT_ACCEPTED,) if state.current_refused_at is not None else ()
    state = replace(state, current_refused_at=None)
    if which is Which.FALLBACK_CURRENT and status != 403:
        state = replace(state, next_refused_at=now, next_passed=0)
        events = (*events, Event.NEXT_REFUSED)
    return Outcome(state, None, events)


def _current_refused(state: KeyState, which: Which, *, has_next: bool, is_safe: bool, now: float) -> Outcome:
    state = replace(state, current_refused_at=now)
    if which is Which.FALLBACK_CURRENT:
        state = replace(state, next_refused_at=now, next_passed=0)
        return Outcome(state, None, (Event.CURRENT_REFUSED, Event.NEXT_REFUSED))
    again = Which.FALLBACK_NEXT if has_next and is_safe else None
    return Outcome(state, again, (Event.CURRENT_REFUSED,))


def _of_next(state: KeyState, options: RotationOptions, status: int, now: float) -> Outcome:
    if status == 401:
        return Outcome(replace(state, next_refused_at=now, next_passed=0), None, (Event.NEXT_REFUSED,))
    if status == 403:
        return Outcome(state)
    passed = state.next_passed + 1
    ready = (Event.NEXT_READY,) if passed == options.promote_after else ()
    state = replace(state, next_refused_at=None, next_passed=passed)
    return Outcome(state, None, (Event.NEXT_PASSED, *ready))
