"""Objects of tenants who share one upstream account, on a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cbk_gateway.errors import NotAuthorized, NotFound, Refusal, ServiceUnavailable
from cbk_gateway.operation import Operation, understand
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from cbk_gateway.tenancy.observer import SilentObserver
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.ownership import Ownership

A = Tenant(id="a", account="shared", key=Secret("sk-1"), isolation="objects")
B = replace(A, id="b")
REPORTING = replace(A, id="r", isolation="report")
FREE = replace(A, id="f", isolation="none")


def op(method: str, path: str) -> Operation:
    return understand(method, "/v1" + path)


CREATE, LIST = op("POST", "/bot/create"), op("GET", "/bot/list")


class Counter(SilentObserver):
    """Counts foreign objects."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def foreign_object(self, tenant: str, *, refused: bool) -> None:
        self.seen.append((tenant, refused))


@pytest.fixture
async def owned(store: Store) -> Ownership:
    """Bot `ba` is A's and bot `bb` is B's."""
    ownership = Ownership(store)
    await ownership.remember(A, CREATE, ["ba"])
    await ownership.remember(B, CREATE, ["bb"])
    return ownership


async def refusal_of(ownership: Ownership, tenant: Tenant, operation: Operation) -> Refusal | None:
    try:
        await ownership.check(tenant, operation)
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/bot/ba/fetch", None),
        ("POST", "/bot/ba/session/create", None),
        ("GET", "/bot/bb/fetch", 404),
        ("POST", "/bot/bb/delete", 404),
        ("GET", "/bot/unknown/fetch", 404),
        ("GET", "/bot/@alias/fetch", 404),
        ("GET", "/bot/(Name)/fetch", 404),
        ("GET", "/bot/list", None),
        ("GET", "/conversation/list?botId=ba", None),
        ("GET", "/conversation/list?botId=bb", 404),
        ("GET", "/conversation/list?botId=ba,bb", 404),
        ("GET", "/conversation/list?botId=@alias", 404),
        ("GET", "/skillset/ba/ability/new/fetch", None),
        ("GET", "/skillset/ba/ability/bb/fetch", 404),
        ("POST", "/bot/bb/frobnicate", 404),
        ("POST", "/bot/ba/frobnicate", None),
        ("POST", "/graphql", 403),
        ("GET", "/event/log/list", 403),
        ("GET", "/partner/user/list", 403),
        ("GET", "/platform/model/m1/fetch", None),
        ("GET", "/spec", None),
    ],
)
async def test_a_tenant_reaches_what_it_owns(
    owned: Ownership, method: str, path: str, status: int | None
) -> None:
    refusal = await refusal_of(owned, A, op(method, path))
    assert (refusal.status if refusal is not None else None) == status


async def test_a_foreign_object_looks_like_none(owned: Ownership) -> None:
    foreign = await refusal_of(owned, A, op("GET", "/bot/bb/fetch"))
    missing = await refusal_of(owned, A, op("GET", "/bot/zz/fetch"))
    assert isinstance(foreign, NotFound)
    assert isinstance(missing, NotFound)
    assert foreign.body() == missing.body()


async def test_owners_are_known_to_every_process(owned: Ownership, store: Store) -> None:
    assert owned.watches(A)
    other = Ownership(store)
    assert await refusal_of(other, A, op("GET", "/bot/ba/fetch")) is None
    assert await refusal_of(other, A, op("GET", "/bot/bb/fetch")) is not None


async def test_accounts_do_not_share_owners(owned: Ownership) -> None:
    elsewhere = replace(A, account="other")
    assert await refusal_of(owned, elsewhere, op("GET", "/bot/ba/fetch")) is not None


async def test_no_isolation_looks_at_nothing(store: Store) -> None:
    ownership = Ownership(store)
    assert await refusal_of(ownership, FREE, op("GET", "/bot/bb/fetch")) is None
    assert await ownership.remember(FREE, CREATE, ["x"])
    assert await ownership.owner_of("shared", "x") is None
    assert not ownership.filters(FREE, LIST)


async def test_report_refuses_nothing_and_counts(store: Store) -> None:
    counter = Counter()
    ownership = Ownership(store, observer=counter)
    await ownership.remember(B, CREATE, ["bb"])
    assert await refusal_of(ownership, REPORTING, op("GET", "/bot/bb/fetch")) is None
    assert await refusal_of(ownership, REPORTING, op("POST", "/graphql")) is None
    assert (
        await ownership.filter_list(REPORTING, LIST, b'{"items":[{"id":"bb"}]}') == b'{"items":[{"id":"bb"}]}'
    )
    assert counter.seen == [("r", False)] * 3
    assert await refusal_of(ownership, A, op("GET", "/bot/bb/fetch")) is not None
    assert counter.seen[-1] == ("a", True)


async def test_the_first_to_make_an_object_keeps_it(owned: Ownership) -> None:
    ensure = op("POST", "/bot/ensure")
    assert await owned.remember(A, ensure, ["ba"])
    assert not await owned.remember(B, ensure, ["ba"])
    assert await owned.owner_of("shared", "ba") == "a"


async def test_a_deleted_object_is_forgotten(owned: Ownership) -> None:
    await owned.remember(A, op("POST", "/bot/ba/delete"), ["ba"])
    assert await owned.owner_of("shared", "ba") is None
    await owned.remember(A, op("POST", "/dataset/ba/record/bb/delete"), [])
    assert await owned.owner_of("shared", "bb") is None


async def test_an_update_claims_nothing(owned: Ownership) -> None:
    await owned.remember(A, op("POST", "/bot/zz/update"), ["zz"])
    assert await owned.owner_of("shared", "zz") is None


async def test_a_channel_belongs_to_the_first_who_uses_its_name(store: Store) -> None:
    ownership = Ownership(store)
    assert await refusal_of(ownership, A, op("POST", "/channel/news/publish")) is None
    assert await refusal_of(ownership, B, op("POST", "/channel/news/subscribe")) is not None
    assert await refusal_of(ownership, A, op("POST", "/channel/news/subscribe")) is None


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        (b'{"botId":"ba"}', True),
        (b'{"botId":"bb"}', False),
        (b'{"botId":"@support"}', False),
        (b'{"datasetId":"never-seen"}', True),
        (b'{"messages":[{"botId":"bb"}]}', False),
        (b'{"model":"bot/id=bb"}', False),
        (b"", True),
        (b"--multipart", True),
    ],
)
async def test_a_body_names_no_foreign_object(owned: Ownership, body: bytes, *, passes: bool) -> None:
    operation = op("POST", "/conversation/create")
    if passes:
        await owned.check_body(A, operation, body)
    else:
        with pytest.raises(NotFound):
            await owned.check_body(A, operation, body)


async def test_a_body_of_too_many_ids_is_refused(owned: Ownership) -> None:
    body = b'{"fileIds":[' + b",".join(b'"f%d"' % number for number in range(1100)) + b"]}"
    with pytest.raises(NotFound):
        await owned.check_body(A, CREATE, body)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/bot/list",
            b'{"items":[{"id":"ba"},{"id":"bb"},{"id":"zz"}],"cursor":"zz"}',
            b'{"items":[{"id":"ba"}],"cursor":"zz"}',
        ),
        ("/bot/list", b'{"items":[{"id":"ba"}]}', b'{"items":[{"id":"ba"}]}'),
        ("/bot/list", b'{"items":[]}', b'{"items":[]}'),
        # Below an own object, what nobody is known to have made is its own.
        ("/dataset/ba/record/list", b'{"items":[{"id":"zz"},{"id":"bb"}]}', b'{"items":[{"id":"zz"}]}'),
        ("/bot/list", b'{"type":"item","data":{"id":"bb"}}\n', b""),
        ("/bot/list", b'{"message":"x","code":"TIMEOUT"}', b'{"message":"x","code":"TIMEOUT"}'),
    ],
)
async def test_a_list_shows_own_items(owned: Ownership, path: str, body: bytes, expected: bytes) -> None:
    operation = op("GET", path)
    assert owned.filters(A, operation)
    assert await owned.filter_list(A, operation, body) == expected


async def test_a_list_that_cannot_be_filtered_is_refused(owned: Ownership) -> None:
    with pytest.raises(NotAuthorized):
        await owned.filter_list(A, LIST, b"id,name\nbb,x\n")


async def test_a_fetch_is_not_filtered(owned: Ownership) -> None:
    assert await owned.filter_list(A, op("GET", "/bot/ba/fetch"), b"anything") == b"anything"


async def test_old_objects_are_given_to_their_owners(owned: Ownership) -> None:
    await owned.assign("shared", "a", ["old1", "bb"])
    await owned.assign("shared", "a", [])
    assert await refusal_of(owned, A, op("GET", "/bot/old1/fetch")) is None
    assert await refusal_of(owned, A, op("GET", "/bot/bb/fetch")) is None
    assert await refusal_of(owned, B, op("GET", "/bot/bb/fetch")) is not None


async def test_remembered_owners_are_bounded(store: Store) -> None:
    ownership = Ownership(store, TenancyOptions(owners_remembered=10))
    await ownership.remember(A, CREATE, [f"b{number}" for number in range(50)])
    assert len(ownership._seen) == 10
    assert await refusal_of(ownership, A, op("GET", "/bot/b0/fetch")) is None


@pytest.fixture
async def lost(tmp_path: Path) -> AsyncIterator[Ownership]:
    """Ownership whose store was there and is gone."""
    server = EmbeddedServer(tmp_path)
    server.start()
    async with await open_store(StoreOptions(url=server.url, call_timeout_s=2.0)) as store:
        ownership = Ownership(store)
        await ownership.remember(A, CREATE, ["ba"])
        server.stop()
        yield ownership


async def test_without_the_store_nothing_unknown_passes(lost: Ownership) -> None:
    assert await refusal_of(lost, A, op("GET", "/bot/ba/fetch")) is None  # seen by this process
    assert isinstance(await refusal_of(lost, A, op("GET", "/bot/bb/fetch")), ServiceUnavailable)
    with pytest.raises(ServiceUnavailable):
        await lost.filter_list(A, LIST, b'{"items":[{"id":"bb"}]}')
    with pytest.raises(ServiceUnavailable):
        await lost.remember(A, CREATE, ["new"])
    assert await lost.remember(A, op("POST", "/bot/ba/delete"), [])


async def test_without_the_store_report_lets_pass(lost: Ownership) -> None:
    assert await refusal_of(lost, REPORTING, op("GET", "/bot/bb/fetch")) is None
    assert await lost.remember(REPORTING, CREATE, ["new"])
