"""What the store must still be told: never lost where that would admit more, never told twice otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cbk_gateway.limits.bookkeeping import Bookkeeping
from cbk_gateway.limits.counters import QuotaView
from cbk_gateway.limits.ledger import Answer
from cbk_gateway.parties import Measure, Period, Quota, Tenant
from cbk_gateway.store import StoreFault, StoreTrouble

DAILY = Quota("daily", Period.DAY, Measure.TOKENS, 1000)
Books = Callable[..., Bookkeeping]


def daily(one: Bookkeeping, tenant: Tenant) -> QuotaView:
    return one.desk.quota(tenant, DAILY, one.server_now_us(100.0))


@pytest.mark.parametrize("trouble", StoreTrouble)
@pytest.mark.parametrize("correction", [5, -5])
async def test_what_may_have_been_told_is_owed_again_only_where_that_refuses_more(
    books: Books, limited: Callable[..., Tenant], trouble: StoreTrouble, correction: int
) -> None:
    one = books()
    view = daily(one, limited())
    one.arrears.owe(view, correction)
    question = view.report()
    assert view.pending == 0
    one.arrears.restore(StoreFault("away", trouble), [(view, question)])
    was_surely_not_sent = trouble in {StoreTrouble.OPEN, StoreTrouble.CLOSED}
    assert view.pending == (correction if correction > 0 or was_surely_not_sent else 0)


async def test_corrections_to_a_period_that_is_over_are_void(
    books: Books, limited: Callable[..., Tenant]
) -> None:
    one = books()
    view = daily(one, limited())
    one.arrears.owe(view, 5)
    question = view.report()
    one.arrears.restore_current(Answer(False, True, view.span.end_us), [(view, question)])
    assert view.pending == 0
    one.arrears.restore_current(Answer(False, True, view.span.end_us - 1), [(view, question)])
    assert view.pending == 5


async def test_a_lease_is_owed_back_a_while_after_its_end(
    books: Books, limited: Callable[..., Tenant]
) -> None:
    one = books()
    view = daily(one, limited())
    view.lease, view.lease_until = 9, 105.0
    one.arrears.lease(view)
    one.arrears.end_leases(105.5)
    assert (view.lease, view.pending) == (9, 0)
    one.arrears.end_leases(106.0)
    assert (view.lease, view.pending, view.covers(1, 100.0)) == (0, -9, False)


async def test_a_store_that_does_not_answer_is_told_later(
    books: Books, limited: Callable[..., Tenant]
) -> None:
    one = books()
    view, slot = daily(one, limited()), one.desk.slot("acme", "requests", 5)
    one.arrears.owe(view, 7)
    slot.own, slot.is_stale = 2, True
    for _ in range(2):
        with pytest.raises(StoreFault):
            await one.arrears.flush_all()
        assert (view.pending, slot.own, slot.is_stale) == (7, 2, True)
