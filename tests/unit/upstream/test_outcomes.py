"""Outcomes, the retry rule and its budget, and what a client is told."""

from __future__ import annotations

import pytest

from cbk_gateway.errors import (
    BadGateway,
    ContentTooLarge,
    GatewayTimeout,
    Refusal,
    ServiceUnavailable,
    TooManyRequests,
)
from cbk_gateway.operation import Effect
from cbk_gateway.upstream import Cause, Outcome, RetryOptions, StreamBroken, UpstreamFault
from cbk_gateway.upstream.outcomes import Failure, RetryBudget, Verdict, judge, wait_before

OPTIONS = RetryOptions()
N, A, U = Outcome.NOT_SENT, Outcome.ANSWERED, Outcome.UNKNOWN
R, W, S = Effect.READ, Effect.WRITE, Effect.STREAM


@pytest.mark.parametrize(
    ("outcome", "effect", "replayable", "attempts", "reused", "timed_out", "verdict"),
    [
        (N, R, True, 1, False, False, Verdict.AGAIN_LATER),
        (N, W, True, 1, False, False, Verdict.AGAIN_LATER),
        (N, S, True, 1, False, False, Verdict.AGAIN_LATER),
        (N, W, True, 1, True, False, Verdict.AGAIN_NOW),
        (N, W, False, 1, True, False, Verdict.GIVE_UP),
        (U, R, True, 1, False, False, Verdict.AGAIN_LATER),
        (U, R, True, 1, True, False, Verdict.AGAIN_LATER),
        (U, R, True, 3, False, False, Verdict.GIVE_UP),
        (U, R, True, 1, False, True, Verdict.GIVE_UP),
        (U, W, True, 1, False, False, Verdict.GIVE_UP),
        (U, W, True, 1, True, False, Verdict.GIVE_UP),
        (U, S, True, 1, False, False, Verdict.GIVE_UP),
        (A, R, True, 1, False, False, Verdict.GIVE_UP),
        (A, W, True, 1, True, False, Verdict.GIVE_UP),
    ],
)
def test_the_retry_rule(
    outcome: Outcome,
    effect: Effect,
    replayable: bool,
    attempts: int,
    reused: bool,
    timed_out: bool,
    verdict: Verdict,
) -> None:
    assert judge(Failure(outcome, effect, replayable, attempts, reused, timed_out), OPTIONS) is verdict


@pytest.mark.parametrize(("attempt", "most"), [(2, 0.1), (3, 0.2), (4, 0.4), (9, 1.0)])
def test_waits_double_up_to_a_bound_and_are_jittered(attempt: int, most: float) -> None:
    assert wait_before(attempt, 0.0, OPTIONS) == 0.0
    assert wait_before(attempt, 0.5, OPTIONS) == pytest.approx(most / 2)


def test_retries_are_a_share_of_calls() -> None:
    budget = RetryBudget(RetryOptions(budget_share=0.25, budget_reserve=2))
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        assert not budget.is_full
        budget.record_call()
    assert [budget.withdraw() for _ in range(2)] == [True, False]
    # Only calls that would pay nothing in may go unrecorded.
    paid = 0
    while not budget.is_full:
        budget.record_call()
        paid += 1
    assert paid == 8
    budget.record_call()
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (Cause.CONNECT, BadGateway),
        (Cause.TLS, BadGateway),
        (Cause.CLOSED, BadGateway),
        (Cause.PROTOCOL, BadGateway),
        (Cause.FIRST_BYTE_TIMEOUT, GatewayTimeout),
        (Cause.TOTAL_TIMEOUT, GatewayTimeout),
        (Cause.BREAKER_OPEN, ServiceUnavailable),
        (Cause.QUEUE_FULL, ServiceUnavailable),
        (Cause.POOL_FULL, ServiceUnavailable),
        (Cause.STOPPED, ServiceUnavailable),
        (Cause.SLOWED, TooManyRequests),
    ],
)
def test_each_cause_has_its_refusal(cause: Cause, kind: type[Refusal]) -> None:
    assert type(UpstreamFault(cause, N).refusal()) is kind


@pytest.mark.parametrize(
    ("outcome", "effect", "told"), [(U, W, True), (U, S, True), (U, R, False), (N, W, False), (A, W, False)]
)
def test_clients_are_asked_not_to_repeat_what_may_have_been_done(
    outcome: Outcome, effect: Effect, told: bool
) -> None:
    fault = UpstreamFault(Cause.CLOSED, outcome)
    fault.effect = effect
    assert ("x-should-retry" in fault.refusal().headers) is told


def test_a_body_that_was_refused_midway_keeps_its_refusal() -> None:
    fault = UpstreamFault(Cause.REQUEST_BODY, U)
    fault.origin = ContentTooLarge("too large")
    assert fault.refusal() is fault.origin


def test_a_held_back_call_says_when_to_come_back() -> None:
    fault = UpstreamFault(Cause.BREAKER_OPEN, N)
    fault.retry_after_s = 2.1
    assert fault.refusal().headers["Retry-After"] == "3"


def test_a_broken_stream_was_answered() -> None:
    assert StreamBroken(Cause.CLOSED).outcome is A
