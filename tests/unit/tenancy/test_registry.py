"""One snapshot of tenants, replaced as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.tenancy.registry import Change, Registry


def tenant(name: str, key: str = "sk-1") -> Tenant:
    return Tenant(id=name, account="a", key=Secret(key))


def test_a_tenant_is_found_by_its_id_and_nothing_else_is() -> None:
    registry = Registry([tenant("a"), tenant("b")])
    found = registry.get("a")
    assert found is not None
    assert found.id == "a"
    assert registry.get("c") is None
    assert list(registry.all()) == ["a", "b"]


def test_a_replacement_says_what_changed() -> None:
    registry = Registry([tenant("a"), tenant("b"), tenant("c")])
    change = registry.replace([tenant("a"), replace(tenant("b"), disabled=True), tenant("d")])
    assert change == Change(2, frozenset("d"), frozenset("b"), frozenset("c"))
    assert registry.version == 2


def test_a_replacement_by_the_same_tenants_is_no_change() -> None:
    registry, heard = Registry([tenant("a")]), list[Change]()
    registry.subscribe(heard.append)
    assert not registry.replace([tenant("a")])
    assert (registry.version, heard) == (1, [])


def test_two_tenants_of_one_id_change_nothing() -> None:
    registry = Registry([tenant("a")])
    with pytest.raises(ValueError, match="two tenants have the id b"):
        registry.replace([tenant("b"), tenant("b", "sk-2")])
    assert list(registry.all()) == ["a"]


def test_subscribers_hear_of_a_change_until_they_leave() -> None:
    registry, heard = Registry(), list[int]()
    leave = registry.subscribe(lambda change: heard.append(change.version))
    registry.replace([tenant("a")])
    leave()
    leave()
    registry.replace([])
    assert heard == [2]


def test_a_subscriber_that_fails_does_not_keep_the_others_from_hearing() -> None:
    registry, heard = Registry(), list[int]()

    def fails(_: Change) -> None:
        raise RuntimeError

    registry.subscribe(fails)
    registry.subscribe(lambda change: heard.append(change.version))
    with capture_logs() as logs:
        registry.replace([tenant("a")])
    assert heard == [2]
    assert logs[0]["event"] == "tenant_subscriber_failed"


def test_tenants_that_share_a_key_know_one_another() -> None:
    registry = Registry([tenant("a"), tenant("b", "sk-2"), tenant("c")])
    assert [one.id for one in registry.sharing_key(tenant("a"))] == ["a", "c"]
    stranger = tenant("z", "sk-9")
    assert registry.sharing_key(stranger) == (stranger,)


def test_a_snapshot_never_changes() -> None:
    registry = Registry([tenant("a")])
    before = registry.all()
    registry.replace([])
    assert list(before) == ["a"]
