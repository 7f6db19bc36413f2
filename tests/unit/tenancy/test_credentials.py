"""The key of each request, and the health of a tenant's keys."""

from __future__ import annotations

from dataclasses import replace

from cbk_gateway.operation import understand
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.credentials import REFUSED_CODE, Credentials
from cbk_gateway.tenancy.observer import SilentObserver
from cbk_gateway.tenancy.options import RotationOptions
from cbk_gateway.tenancy.rotation import Which

GET = understand("GET", "/v1/bot/list")
POST = understand("POST", "/v1/bot/create")
PROXY = understand("POST", "/v1/secret/s1/proxy")
OLD, NEW = Secret("sk-old"), Secret("sk-new")
STEADY = Tenant(id="acme", account="a", key=OLD)
ROTATING = replace(STEADY, next_key=NEW)


class Heard(SilentObserver):
    """Writes events down."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def key_refused(self, tenant: str, which: str) -> None:
        self.events.append(("refused", tenant, which))

    def health_changed(self, tenant: str, *, is_healthy: bool) -> None:
        self.events.append(("healthy", tenant, is_healthy))

    def next_key_ready(self, tenant: str) -> None:
        self.events.append(("ready", tenant))


class Clock:
    """A clock and a die that the test holds."""

    now = 0.0
    die = 0.0


def credentials(clock: Clock, heard: Heard | None = None) -> Credentials:
    options = RotationOptions(canary_share=0.5, promote_after=2)
    return Credentials(options, heard, clock=lambda: clock.now, draw=lambda: clock.die)


def test_a_tenant_without_a_next_key_uses_its_key() -> None:
    chosen = credentials(Clock()).credential_for(STEADY, GET)
    assert (chosen.key, chosen.which) == (OLD, Which.CURRENT)


def test_a_share_of_safe_gets_uses_the_next_key() -> None:
    clock = Clock()
    kept = credentials(clock)
    assert kept.credential_for(ROTATING, GET).key is NEW
    assert kept.credential_for(ROTATING, POST).key is OLD
    clock.die = 0.5
    assert kept.credential_for(ROTATING, GET).key is OLD


def test_a_refused_next_key_falls_back_and_rests() -> None:
    clock, heard = Clock(), Heard()
    kept = credentials(clock, heard)
    again = kept.report(ROTATING, Which.NEXT, 401, GET)
    assert again is not None
    assert again.key is OLD
    assert kept.report(ROTATING, again.which, 200, GET) is None
    assert heard.events == [("refused", "acme", "next")]
    assert kept.is_healthy(ROTATING)
    assert kept.credential_for(ROTATING, GET).key is OLD
    clock.now = 31
    assert kept.credential_for(ROTATING, GET).key is NEW


def test_a_next_key_that_passes_is_reported_ready_once() -> None:
    heard = Heard()
    kept = credentials(Clock(), heard)
    for _ in range(4):
        kept.report(ROTATING, Which.NEXT, 200, GET)
    assert heard.events == [("ready", "acme")]


def test_a_refused_current_key_marks_the_tenant_unhealthy_until_it_is_accepted() -> None:
    heard = Heard()
    kept = credentials(Clock(), heard)
    for _ in range(2):
        assert kept.report(STEADY, Which.CURRENT, 401, POST) is None
    assert not kept.is_healthy(STEADY)
    assert kept.unhealthy() == ("acme",)
    kept.report(STEADY, Which.CURRENT, 404, POST)
    assert kept.is_healthy(STEADY)
    assert heard.events == [
        ("refused", "acme", "current"),
        ("healthy", "acme", False),
        ("refused", "acme", "current"),
        ("healthy", "acme", True),
    ]


def test_a_refused_current_key_is_replaced_by_the_next_one_for_writes_too() -> None:
    kept = credentials(Clock())
    again = kept.report(ROTATING, Which.CURRENT, 401, GET)
    assert again is not None
    assert again.key is NEW
    assert kept.credential_for(ROTATING, POST).key is NEW


def test_another_key_starts_with_a_clean_record() -> None:
    kept = credentials(Clock())
    kept.report(STEADY, Which.CURRENT, 401, GET)
    assert kept.is_healthy(replace(STEADY, key=NEW))
    assert not kept.is_healthy(replace(STEADY, key=Secret("sk-old")))


def test_an_upstream_401_is_never_a_401_for_the_client() -> None:
    refusal = credentials(Clock()).refusal(STEADY, 401, GET)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.reason) == (502, REFUSED_CODE, "upstream_credential")
    assert b"sk-old" not in refusal.body()


def test_other_statuses_are_the_apis_own_business() -> None:
    kept = credentials(Clock())
    assert all(kept.refusal(STEADY, status, GET) is None for status in (200, 400, 403, 404, 500))


def test_a_third_partys_401_says_nothing_of_the_key() -> None:
    kept = credentials(Clock())
    assert kept.report(STEADY, Which.CURRENT, 401, PROXY) is None
    assert kept.refusal(STEADY, 401, PROXY) is None
    assert kept.is_healthy(STEADY)


def test_what_is_known_of_a_tenant_goes_with_it() -> None:
    kept = credentials(Clock())
    kept.report(STEADY, Which.CURRENT, 401, GET)
    kept.forget(frozenset({"acme"}))
    assert kept.unhealthy() == ()
