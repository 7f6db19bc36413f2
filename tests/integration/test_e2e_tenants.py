"""Tenants made, stopped and re-keyed while the gateway runs, as the API behind it sees them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cbk_gateway.store import Store
from cbk_gateway.tenancy.credentials import REFUSED_CODE
from harness import KEYS, Stage
from integration.e2e_calls import arrived, change, get, look, made, post, running_with

MASTER = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(range(32))).decode()}
FIRST = "sk-first-" + "0123456789abcdef" * 3
SECOND = "sk-second-" + "0123456789abcdef" * 3
REVOKED = "sk-revoked-" + "0123456789abcdef" * 3
LIST = "/api/v1/bot/list"
RUN_AS = ("x-runas-user-id", "x-runas-userid", "x-runas-child-user-email")


@pytest.fixture
async def sealing(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A stage that seals keys and tries next keys on all safe GETs; the API knows two keys of one account."""
    keys = {FIRST: "fresh", SECOND: "fresh"}
    tenancy = {"canary_share": 1.0}
    async with running_with(tmp_path, valkey_url, MASTER, keys=keys, tenancy=tenancy) as stage:
        yield stage


async def created(stage: Stage, key: str = FIRST, **more: object) -> None:
    definition = {"id": "fresh", "account": "fresh", "scopes": ["*"], **more}
    said = await change(stage, "/admin/tenants", {"definition": definition, "key": key})
    assert said.status == 200, said.body
    assert (said.json["id"], said.json["origin"]) == ("fresh", "store")


def keys_seen(stage: Stage) -> list[str]:
    """The keys of the requests that arrived, in order."""
    return [one.headers["authorization"].partition(" ")[2] for one in arrived(stage)]


async def test_a_tenant_lives_stops_goes_on_and_is_gone(sealing: Stage, store: Store) -> None:
    await created(sealing)
    headers = sealing.bearer("fresh")
    bot = await made(sealing, "bot", "Ada", headers)
    fetch = f"/api/v1/bot/{bot}/fetch"
    await get(sealing, fetch, headers)
    assert (await get(sealing, fetch, headers)).is_hit
    assert keys_seen(sealing) == [FIRST, FIRST]
    for key in await store.client.keys("*"):
        if await store.client.type(key) == b"hash":
            assert FIRST.encode() not in repr(await store.client.hgetall(key)).encode()

    assert (await change(sealing, "/admin/tenants/fresh/disable")).json["disabled"] is True
    said = await get(sealing, fetch, headers)
    assert (said.status, said.code) == (403, "NOT_AUTHORIZED")
    assert (await change(sealing, "/admin/tenants/fresh/enable")).json["disabled"] is False
    assert (await get(sealing, fetch, headers)).status == 200
    assert (await change(sealing, "/admin/tenants/fresh/delete")).status == 200
    assert (await get(sealing, fetch, headers)).status == 401
    assert (await look(sealing, "/admin/tenants/fresh")).status == 404


async def test_a_stored_tenant_outlives_the_process_and_another_master_key_does_not_open_it(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    keys = {FIRST: "fresh"}
    async with running_with(tmp_path, valkey_url, MASTER, keys=keys) as stage:
        await created(stage)
    async with running_with(tmp_path, valkey_url, MASTER, keys=keys) as stage:
        assert (await get(stage, LIST, "fresh")).status == 200
        assert keys_seen(stage) == [FIRST]
    other = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(32)).decode()}
    async with running_with(tmp_path, valkey_url, other, keys=keys) as stage:
        assert (await get(stage, LIST, "fresh")).status == 401
        assert arrived(stage) == []


async def test_a_key_is_rotated_without_a_gap(sealing: Stage) -> None:
    await created(sealing)
    headers = sealing.bearer("fresh")
    shown = (await change(sealing, "/admin/tenants/fresh/key/rotate", {"key": SECOND})).json
    assert shown["nextKey"] is not None
    assert SECOND not in str(shown)
    bot = await made(sealing, "bot", "Ada", headers)
    assert (await get(sealing, f"/api/v1/bot/{bot}/fetch", headers)).status == 200
    assert keys_seen(sealing) == [FIRST, SECOND]
    assert (await change(sealing, "/admin/tenants/fresh/key/promote")).json["nextKey"] is None
    await made(sealing, "bot", "Bea", headers)
    assert keys_seen(sealing)[-1] == SECOND


async def test_a_next_key_that_is_refused_costs_the_client_nothing_and_is_dropped(sealing: Stage) -> None:
    await created(sealing)
    await change(sealing, "/admin/tenants/fresh/key/rotate", {"key": REVOKED})
    headers = sealing.bearer("fresh")
    assert (await get(sealing, LIST, headers)).status == 200
    assert keys_seen(sealing) == [REVOKED, FIRST]
    assert (await change(sealing, "/admin/tenants/fresh/key/drop")).json["nextKey"] is None
    assert (await get(sealing, "/api/v1/dataset/list", headers)).status == 200
    assert keys_seen(sealing)[2:] == [FIRST]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_key_of_the_gateway_is_a_502_with_a_clear_code(sealing: Stage, method: str) -> None:
    await created(sealing, REVOKED)
    headers = sealing.bearer("fresh")
    if method == "GET":
        said = await get(sealing, LIST, headers)
    else:
        said = await post(sealing, "/api/v1/bot/create", {"name": "x"}, headers)
    assert (said.status, said.code) == (502, REFUSED_CODE)
    assert REVOKED.encode() not in said.body
    ready = (await look(sealing, "/readyz")).json
    assert ready["keys_refused"] == ["fresh"]
    # A key that works again is noticed by itself.
    await change(sealing, "/admin/tenants/fresh/key/rotate", {"key": SECOND})
    await change(sealing, "/admin/tenants/fresh/key/promote")
    assert (await get(sealing, LIST, headers)).status == 200


async def test_disabling_ends_what_waits_and_no_write_slips_through(stage: Stage) -> None:
    headers = stage.bearer("acme")
    await change(stage, "/admin/tenants/acme/disable")
    said = await post(stage, "/api/v1/bot/create", {"name": "late"}, headers)
    assert said.status == 403
    assert [one for one in arrived(stage) if one.method == "POST"] == []


@pytest.mark.parametrize(
    ("tenant", "header", "child"),
    [
        ("partner-one", {"x-runas-user-id": "user_child1"}, "user_child1"),
        ("partner-two", {"x-runas-child-user-email": "two@example.com"}, "user_child2"),
    ],
)
async def test_a_forced_child_is_what_arrives_and_nothing_of_it_comes_back(
    stage: Stage, tenant: str, header: dict[str, str], child: str
) -> None:
    bot = await made(stage, "bot", "Ada", tenant)
    said = await get(stage, f"/api/v1/bot/{bot}/fetch", tenant)
    for record in arrived(stage):
        assert {name: record.headers[name] for name in RUN_AS if name in record.headers} == header
        assert (record.run_as, record.headers["authorization"]) == (child, f"Bearer {KEYS['partner']}")
    shown = (str(dict(said.headers)) + said.body.decode()).lower()
    for word in (child, *header.values(), KEYS["partner"]):
        assert word not in shown


@pytest.mark.parametrize(
    "tried",
    [
        {"X-RunAs-User-ID": "user_child2"},
        {"X-RunAs-UserId": "user_child2"},
        {"x-runas-child-user-email": "two@example.com"},
        {"X-RUNAS-USER-ID": "user_child1"},
        {"X-RunAs-User_ID": "user_child2"},
        {"X_RunAs_User_ID": "user_child2"},
    ],
)
async def test_no_client_header_changes_who_a_forced_tenant_is(stage: Stage, tried: dict[str, str]) -> None:
    said = await get(stage, LIST, {**stage.bearer("partner-one"), **tried})
    for record in arrived(stage):
        assert record.run_as == "user_child1"
        assert not {name.lower() for name in tried} & (set(record.headers) - {"x-runas-user-id"})
    assert said.status in {200, 400, 403}


async def test_one_key_per_tenant_means_one_account_each(stage: Stage) -> None:
    await asyncio.gather(*(made(stage, "bot", name, name) for name in ("acme", "partner")))
    seen = {one.account: one.headers["authorization"] for one in arrived(stage)}
    assert seen == {"acme-account": f"Bearer {KEYS['acme']}", "partner": f"Bearer {KEYS['partner']}"}
