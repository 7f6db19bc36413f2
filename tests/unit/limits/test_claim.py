"""A claim says and takes what the limiter itself would."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbk_gateway.limits import Limiter
from cbk_gateway.operation import understand
from cbk_gateway.parties import Measure, Period, Quota, Rate, Tenant
from cbk_gateway.store import Store

LIST = understand("GET", "/api/v1/bot/list")
MakeTenant = Callable[..., Tenant]


def limiter(store: Store) -> Limiter:
    return Limiter(store, clock=lambda: 100.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 60), st.floats(0, 80), st.floats(99, 101), st.booleans())
async def test_a_claim_takes_and_says_what_the_limiter_would(
    closed_store: Store, limited: MakeTenant, lease: float, left: float, until: float, is_shadow: bool
) -> None:
    tenant = limited(rates=(Rate("tenant", 7, 80, shadow=is_shadow),))
    said, leases = [], []
    for is_claim in (True, False):
        one = limiter(closed_store)
        claim = one.claim(tenant, "s", LIST)
        assert claim is not None
        (view,) = one._books.desk.buckets()
        view.learn(left, 1, 99.5)
        view.begin_lease(lease, until, 1)
        if is_claim:
            said.append(claim.draw(100.0))
        else:
            grant = one.admit_now(tenant, "s", LIST)
            lines = None if grant is None else "".join(f"{k}: {v}\r\n" for k, v in grant.headers.items())
            said.append(None if lines is None else lines.encode())
        leases.append(view.lease)
    assert said[0] == said[1]
    assert leases[0] == leases[1]


async def test_what_leases_of_one_bucket_cannot_decide_is_not_claimed(
    closed_store: Store, limited: MakeTenant
) -> None:
    one, rate = limiter(closed_store), Rate("tenant", 7, 80)
    daily = Quota("daily", Period.DAY, Measure.REQUESTS, 10)
    for limits in (
        {"rates": (rate,), "quotas": (daily,)},
        {"rates": (rate,), "max_concurrent": 5},
        {"rates": (rate, Rate("reads", 7, 80, match="*:read"))},
    ):
        assert one.claim(limited(**limits), "s", LIST) is None
    free = one.claim(limited(), "s", LIST)
    assert free is not None
    assert free.draw(100.0) == b""
