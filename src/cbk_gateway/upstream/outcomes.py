"""What became of a call that failed: three outcomes, the causes, and whether to try again.

`not_sent`: no byte of the request reached the upstream, so it did nothing. `answered`: it answered with
a final status. `unknown`: it may have done the work. Only `not_sent` allows another attempt at a write.
Pure values and decisions; what actually left a socket is found out in `delivery.py` and `connection.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cbk_gateway.errors import BadGateway, GatewayTimeout, Refusal, ServiceUnavailable, TooManyRequests
from cbk_gateway.operation import Effect
from cbk_gateway.upstream.options import RetryOptions


class Outcome(StrEnum):
    """What is known about a call's effect."""

    NOT_SENT = "not_sent"
    ANSWERED = "answered"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a call failed; bounded, fit for labels."""

    CONNECT = "connect"  # no address took the connection in time
    RESOLVE = "resolve"  # the name has no address
    TLS = "tls"  # handshake, certificate or pin
    CLOSED = "closed"  # the upstream closed or reset the connection
    PROTOCOL = "protocol"  # what it sent is not the HTTP we accept
    HEAD_TOO_LARGE = "head_too_large"
    SEND_TIMEOUT = "send_timeout"  # it stopped taking the request
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    REQUEST_BODY = "request_body"  # the client's body broke off or was refused midway
    POOL_FULL = "pool_full"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    BREAKER_OPEN = "breaker_open"
    SLOWED = "slowed"  # the upstream asked this account to wait
    STOPPED = "stopped"  # the gateway is shutting down


_TIMED_OUT: Final = frozenset(
    {Cause.SEND_TIMEOUT, Cause.FIRST_BYTE_TIMEOUT, Cause.IDLE_TIMEOUT, Cause.TOTAL_TIMEOUT}
)
_NOT_TRIED: Final = frozenset(
    {Cause.POOL_FULL, Cause.QUEUE_FULL, Cause.QUEUE_TIMEOUT, Cause.BREAKER_OPEN, Cause.STOPPED}
)
_DECLINED: Final = {
    Cause.POOL_FULL: "All connections to the upstream API are in use.",
    Cause.QUEUE_FULL: "Too many requests are waiting for the upstream API.",
    Cause.QUEUE_TIMEOUT: "The upstream API is busy; the request waited its turn in vain.",
    Cause.BREAKER_OPEN: "The upstream API is failing; requests are held back until it recovers.",
    Cause.STOPPED: "The gateway is shutting down.",
}
_UNREACHED: Final = frozenset({Cause.CONNECT, Cause.RESOLVE, Cause.TLS, Cause.POOL_FULL})


class UpstreamFault(Exception):  # noqa: N818 - named after whose failing it is
    """A call that has no answer from the upstream.

    Args:
        cause: Why.
        outcome: What is known of its effect.
        detail: For logs and traces; never shown to clients.

    Attributes:
        attempts: How many attempts reached for the upstream.
        effect: Effect of the operation, once known.
        retry_after_s: Seconds a client should wait, when something is known.
        origin: The exception that broke the request body, when it was the body.
    """

    def __init__(self, cause: Cause, outcome: Outcome, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else str(cause))
        self.cause = cause
        self.outcome = outcome
        self.detail = detail
        self.attempts = 0
        self.effect = Effect.WRITE
        self.retry_after_s: float | None = None
        self.origin: BaseException | None = None

    @property
    def timed_out(self) -> bool:
        """Whether it failed by waiting too long for an upstream that had the request."""
        return self.cause in _TIMED_OUT

    @property
    def is_unreachable(self) -> bool:
        """Whether there was no connection to send the request over."""
        return self.cause in _UNREACHED

    def refusal(self) -> Refusal:
        """The answer a client gets for this fault.

        A write whose outcome is unknown carries `x-should-retry: false`, which the SDKs that know it
        obey, because repeating it may create a second object.
        """
        if isinstance(self.origin, Refusal):
            return self.origin
        headers = {}
        if self.outcome is Outcome.UNKNOWN and self.effect is not Effect.READ:
            headers["x-should-retry"] = "false"
        wait_s = max(1, -int(-(self.retry_after_s or 1.0) // 1))
        reason = str(self.cause)
        if self.cause is Cause.SLOWED:
            return TooManyRequests(
                "The upstream API asked this account to slow down.", retry_after_s=wait_s, reason=reason
            )
        if self.cause in _NOT_TRIED:
            headers["Retry-After"] = str(wait_s)
            return ServiceUnavailable(_DECLINED[self.cause], reason=reason, headers=headers)
        if self.cause in _TIMED_OUT:
            return GatewayTimeout(
                "The upstream API did not answer in time." + self._hint(), reason=reason, headers=headers
            )
        shown = "could not be reached" if self.cause in _UNREACHED else "broke off before it answered"
        return BadGateway(f"The upstream API {shown}.{self._hint()}", reason=reason, headers=headers)

    def _hint(self) -> str:
        if self.outcome is Outcome.UNKNOWN and self.effect is Effect.WRITE:
            return " It may have carried out the request."
        return ""


class StreamBroken(UpstreamFault):
    """The answer's head arrived, and its body broke off."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(cause, Outcome.ANSWERED, detail)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, as the retry rule sees it.

    Attributes:
        outcome: What is known of its effect.
        effect: Effect of the operation.
        replayable: Whether the request body can be sent again from its start.
        attempts: Attempts made so far.
        was_reused: Whether it went over a connection that had served before.
        timed_out: Whether it failed by waiting too long: another wait of that length helps nobody.
    """

    outcome: Outcome
    effect: Effect
    replayable: bool
    attempts: int
    was_reused: bool
    timed_out: bool = False


class Verdict(StrEnum):
    """What to do after a failed attempt."""

    GIVE_UP = "give_up"
    AGAIN_NOW = "again_now"  # an idle connection turned out closed: not a failure of the upstream
    AGAIN_LATER = "again_later"  # costs a token of the retry budget


def judge(failure: Failure, options: RetryOptions) -> Verdict:
    """Decide on another attempt.

    Nothing sent: any operation. Something sent: reads only. Answered: never.
    """
    if not failure.replayable or failure.outcome is Outcome.ANSWERED:
        return Verdict.GIVE_UP
    if failure.outcome is Outcome.NOT_SENT and failure.was_reused:
        return Verdict.AGAIN_NOW
    if failure.timed_out or failure.attempts >= options.max_attempts:
        return Verdict.GIVE_UP
    if failure.outcome is Outcome.NOT_SENT or failure.effect is Effect.READ:
        return Verdict.AGAIN_LATER
    return Verdict.GIVE_UP


def wait_before(attempt: int, chance: float, options: RetryOptions) -> float:
    """Seconds before attempt number `attempt` (2 is the first retry); `chance` is uniform in [0, 1).

    Full jitter: clients that failed together do not come back together.
    """
    ceiling: float = min(options.longest_wait_s, options.first_wait_s * 2 ** max(0, attempt - 2))
    return ceiling * chance


class RetryBudget:
    """Retries as a share of calls: each call pays a little in, each retry takes one out.

    Attributes:
        is_full: Whether nothing more can be paid in: calls need not be recorded then.
    """

    __slots__ = ("_options", "_saved", "is_full")

    def __init__(self, options: RetryOptions) -> None:
        self._options = options
        self._saved = options.budget_reserve
        self.is_full = True

    def record_call(self) -> None:
        """A call was made for the first time."""
        if self._saved < self._options.budget_reserve:
            self._saved += self._options.budget_share
        self.is_full = self._saved >= self._options.budget_reserve

    def withdraw(self) -> bool:
        """Take a retry out; False when the budget is used up."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        self.is_full = False
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._saved:.1f}/{self._options.budget_reserve:g}>"
