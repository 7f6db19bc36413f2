"""Which limits count an operation, and the keys they have."""

from __future__ import annotations

import pytest

from cbk_gateway.limits.plan import (
    account_bucket,
    counts,
    global_bucket,
    plan_for,
    subject_bucket,
    tenant_bucket,
)
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant, TenantLimits
from cbk_gateway.secret import Secret

RATE = Rate("r", 1, 1)


def tenant(**limits: object) -> Tenant:
    return Tenant("acme", "acct", Secret("k"), limits=TenantLimits(**limits))  # type: ignore[arg-type]  # a table's rows


@pytest.mark.parametrize(
    ("match", "method", "path", "expected"),
    [
        ("*", "GET", "bot/list", True),
        ("*:read", "GET", "bot/list", True),
        ("*:read", "POST", "bot/create", False),
        ("*:write", "POST", "bot/create", True),
        ("bot:list", "GET", "bot/list", True),
        ("bot:*", "GET", "bot/b1/fetch", True),
        ("bot:*", "GET", "dataset/list", False),
        ("conversation:complete", "POST", "conversation/c1/complete", True),
        ("conversation:*", "GET", "conversation/c1/message/list", False),
        ("conversation/**:*", "GET", "conversation/c1/message/list", True),
        ("conversation/message:list", "GET", "conversation/c1/message/list", True),
        ("novel:*", "POST", "novel/x/frobnicate", True),
        ("other:*", "POST", "novel/x/frobnicate", False),
    ],
)
def test_a_pattern_counts_what_a_scope_of_that_text_covers(
    match: str, method: str, path: str, expected: bool
) -> None:
    assert counts(match, understand(method, f"/api/v1/{path}")) is expected


def test_buckets_are_drawn_on_in_a_stated_order() -> None:
    plan = plan_for(
        tenant(rates=(RATE,), subject_rate=RATE),
        "alice",
        understand("GET", "/api/v1/bot/list"),
        is_stream=False,
        global_rate=RATE,
        account_rates={"acct": RATE},
    )
    assert [ref.key.split(":")[1:3] for ref, _ in plan.draws] == [
        ["{acme}", "rate"],
        ["{acme}", "subject"],
        ["{acct}", "account"],
        ["{*}", "rate"],
    ]


def test_no_two_kinds_of_bucket_share_a_key() -> None:
    same = tenant()
    refs = [
        tenant_bucket(same, RATE),
        subject_bucket(same, RATE, "s"),
        account_bucket("acme", RATE),
        global_bucket(RATE),
    ]
    assert len({ref.key for ref in refs}) == 4


def test_a_subject_of_any_length_makes_a_short_key() -> None:
    one, two = (subject_bucket(tenant(), RATE, "}{:" * 10_000 + end) for end in "ab")
    assert one.key != two.key
    assert len(one.key) < 100


def test_a_token_budget_counts_only_what_runs_a_model() -> None:
    budget = Quota("t", Period.DAY, Measure.TOKENS, 5)
    model, read = understand("POST", "/api/v1/conversation/complete"), understand("GET", "/api/v1/bot/list")
    runs, reads = (
        plan_for(tenant(quotas=(budget,)), "s", one, is_stream=False, global_rate=None, account_rates={})
        for one in (model, read)
    )
    assert (runs.quotas, reads.quotas) == ((budget,), ())
    assert reads.is_free
