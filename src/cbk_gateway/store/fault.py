"""The one failure the store has for its callers.

Nothing here decides what to do about it: each caller has a rule for a store that is away. No exception of
the client library passes the `store` package.
"""

from __future__ import annotations

from enum import StrEnum

from redis.asyncio.sentinel import MasterNotFoundError


class StoreTrouble(StrEnum):
    """Why a call to the store gave no answer; a bounded set, fit for a metric label."""

    TIMEOUT = "timeout"  # no answer within the time bound; the command may still have taken effect
    AWAY = "away"  # no connection, or it broke; the command may have taken effect if it was sent
    OPEN = "open"  # the breaker is open: the store was not asked
    REJECTED = "rejected"  # the store answered with an error: a defect of the caller or of the set-up
    CLOSED = "closed"  # this gateway is shutting the store down


class StoreFault(Exception):  # noqa: N818 - "fault" is the word the whole house uses
    """The store gave no answer.

    Attributes:
        trouble: The kind of failure.
    """

    def __init__(self, message: str, trouble: StoreTrouble) -> None:
        super().__init__(message)
        self.trouble = trouble


def why_of(exc: BaseException) -> str:
    """A failure of the client library in one sentence; what it says of Sentinels would fill a screen."""
    if isinstance(exc, MasterNotFoundError):
        return "no Sentinel answers that names the primary"
    return str(exc)[:200] or "no answer in time"
