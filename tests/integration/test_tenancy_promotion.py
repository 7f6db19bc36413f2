"""Rotations that end by themselves, as the API behind two gateways sees them: by the headers that arrived."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cbk_gateway.parties import Tenant
from cbk_gateway.sandbox import Sandbox
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from fleet_stage import serving
from harness import KEYS as ALL_KEYS
from harness import Stage, running, tenant
from integration.e2e_calls import (
    admin_records,
    arrived,
    change,
    get,
    look,
    post,
    running_with,
    without_journal,
)

FIRST = "sk-first-" + "0123456789abcdef" * 3
SECOND = "sk-second-" + "0123456789abcdef" * 3
REVOKED = "sk-revoked-" + "0123456789abcdef" * 3
KEYS = {FIRST: "acme", SECOND: "acme"}
MASTER = {"CBK_GATEWAY_MASTER_KEY": "m1:" + base64.b64encode(bytes(range(32))).decode()}
PROMOTION = {"successes": 6, "min_age_s": 0, "drop_after": 2}
TENANCY = {"canary_share": 1.0, "next_pause_s": 0.001, "promotion": PROMOTION}
NUMBERS = count()


def rotating(next_key: str = SECOND) -> tuple[Tenant, ...]:
    return (tenant("acme", key=Secret(FIRST), next_key=Secret(next_key)),)


@pytest.fixture
async def api() -> AsyncIterator[Sandbox]:
    async with Sandbox(KEYS) as sandbox:
        yield sandbox


@asynccontextmanager
async def gateways(
    folder: Path, store_url: str, api: Sandbox, tenants: tuple[Tenant, ...], number: int = 2
) -> AsyncIterator[list[Stage]]:
    """Several gateways with their own journals: one store, one API."""
    async with AsyncExitStack() as stack:
        stages = []
        for name in range(number):
            (folder / str(name)).mkdir(exist_ok=True)
            stages.append(
                await stack.enter_async_context(
                    running(
                        folder / str(name), store_url, tenants=tenants, sandbox_url=api.url, tenancy=TENANCY
                    )
                )
            )
        yield stages


async def read(stage: Stage, times: int = 1) -> None:
    """Reads that no cache can answer."""
    for _ in range(times):
        said = await get(stage, f"/api/v1/bot/list?take={next(NUMBERS) % 90 + 1}&order=n{next(NUMBERS)}")
        assert said.status == 200, said.body


async def write(stage: Stage) -> None:
    assert (await post(stage, "/api/v1/bot/create", {"name": "x"})).status == 200


def keys_seen(api: Sandbox, method: str) -> list[str]:
    """The keys of the requests that arrived, in order."""
    return [one.headers["authorization"].partition(" ")[2] for one in api.requests if one.method == method]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


async def has_ended(*stages: Stage) -> None:
    """Wait until no gateway has a next key for the tenant."""

    async def ended() -> bool:
        shown = [(await look(one, "/admin/tenants/acme")).json for one in stages]
        return all(one["nextKey"] is None for one in shown)

    await until(ended)


async def has_heard(store: Store, what: bytes) -> None:
    """Wait until the gateways have told the store so much of the next key."""

    async def told() -> bool:
        return what in (await store.client.hget("cbkgw:{tenants}:rotations", "acme") or b"")

    await until(told)


def automatic(*stages: Stage) -> list[tuple[str, str]]:
    records = [one for stage in stages for one in admin_records(stage) if one.get("automatic")]
    assert all((one["operator"], one["tenant"]) == ("gateway", "acme") for one in records)
    return [(one["change"], one["tenant"]) for one in records]


def counted(outcome: str, by: str, *stages: Stage) -> float:
    """Rotations that all these gateways together say have ended so."""
    name = "cbk_gateway_tenant_rotations_total"
    return sum(series(name, stage, tenant="acme", outcome=outcome, by=by) for stage in stages)


def series(name: str, stage: Stage, /, **labels: str) -> float:
    """What a gateway says of one series; 0 while it has none."""
    text = stage.gateway.parts.metrics.exposition("")[0].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )


async def test_a_key_that_passes_in_both_gateways_together_is_promoted_in_both(
    tmp_path: Path, valkey_url: str, store: Store, api: Sandbox
) -> None:
    async with gateways(tmp_path, valkey_url, api, rotating()) as stages:
        one, other = stages
        await read(one, 3)
        await write(one)
        assert (keys_seen(api, "GET"), keys_seen(api, "POST")) == ([SECOND] * 3, [FIRST])
        assert automatic(*stages) == []
        await read(other, 3)
        await has_ended(*stages)
        for stage in stages:
            await write(stage)
            await read(stage)
        assert keys_seen(api, "POST") == [FIRST, SECOND, SECOND]
        assert set(keys_seen(api, "GET")) == {SECOND}
        assert automatic(*stages) == [("key.promote", "acme")]
        assert counted("promoted", "gateway", *stages) == 1
    # The file still names the first key: what was promoted holds for a gateway that starts later.
    async with gateways(tmp_path, valkey_url, api, rotating(), 1) as (later,):
        await write(later)
        assert keys_seen(api, "POST")[-1] == SECOND


async def test_an_edited_file_has_the_last_word_after_a_promotion(
    tmp_path: Path, valkey_url: str, store: Store, api: Sandbox
) -> None:
    async with gateways(tmp_path, valkey_url, api, rotating(), 1) as (stage,):
        await read(stage, 6)
        await has_ended(stage)
    edited = (tenant("acme", key=Secret(FIRST)),)
    async with gateways(tmp_path, valkey_url, api, edited, 1) as (stage,):
        await write(stage)
        assert keys_seen(api, "POST") == [FIRST]


async def test_a_tenant_of_the_store_is_promoted_and_its_key_stays_sealed(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running_with(
        tmp_path, valkey_url, MASTER, tenants=(), keys={FIRST: "x", SECOND: "x"}, tenancy=TENANCY
    ) as stage:
        definition = {"id": "acme", "account": "x", "scopes": ["*"]}
        assert (await change(stage, "/admin/tenants", {"definition": definition, "key": FIRST})).status == 200
        await write(stage)
        await change(stage, "/admin/tenants/acme/key/rotate", {"key": SECOND})
        await read(stage, 6)
        await has_ended(stage)
        await write(stage)
        sent = [one.headers["authorization"] for one in arrived(stage) if one.method == "POST"]
        assert sent == [f"Bearer {FIRST}", f"Bearer {SECOND}"]
        assert automatic(stage) == [("key.promote", "acme")]
        kept = "".join([repr(await store.client.hgetall(f"cbkgw:{{tenants}}:{one}")) for one in KEPT])
        assert "sealed:m1" in kept
        assert FIRST not in kept
        assert SECOND not in kept


KEPT = ("records", "overrides", "rotations")


@pytest.mark.parametrize("status", [401, 403])
async def test_one_refusal_bars_a_key_from_being_promoted_by_itself(
    tmp_path: Path, valkey_url: str, store: Store, api: Sandbox, status: int
) -> None:
    async with gateways(tmp_path, valkey_url, api, rotating()) as stages:
        one, other = stages
        api.add_fault("/api/v1/bot/list", "status", value=status, times=1)
        # The client notices nothing: its read is repeated with the current key.
        await read(one)
        assert keys_seen(api, "GET") == [SECOND, FIRST]
        assert series("cbk_gateway_tenant_key_refusals_total", one, tenant="acme", which="next") == 1
        await read(one, 8)
        await read(other, 8)
        assert set(keys_seen(api, "GET")[2:]) == {SECOND}
        await has_heard(store, b'"passed":16')
        await write(other)
        shown = [(await look(stage, "/admin/tenants/acme")).json for stage in stages]
        assert all(document["nextKey"] is not None for document in shown)
        assert keys_seen(api, "POST") == [FIRST]
        assert automatic(*stages) == []
        # Whoever knows why it was refused still may.
        assert (await change(one, "/admin/tenants/acme/key/promote")).status == 200
        await write(one)
        assert keys_seen(api, "POST") == [FIRST, SECOND]
        assert counted("promoted", "operator", *stages) == 1


async def test_a_key_that_is_refused_again_is_dropped_in_both(
    tmp_path: Path, valkey_url: str, store: Store, api: Sandbox
) -> None:
    async with gateways(tmp_path, valkey_url, api, rotating(REVOKED)) as stages:
        for stage in stages:
            await read(stage)
        await has_ended(*stages)
        seen = len(keys_seen(api, "GET"))
        for stage in stages:
            await read(stage)
            await write(stage)
        assert keys_seen(api, "GET")[seen:] == keys_seen(api, "POST") == [FIRST] * 2
        assert automatic(*stages) == [("key.drop", "acme")]
        assert counted("dropped", "gateway", *stages) == 1


async def test_without_the_journal_no_key_is_promoted(
    tmp_path: Path, valkey_url: str, store: Store, api: Sandbox
) -> None:
    async with gateways(tmp_path, valkey_url, api, rotating(), 1) as (stage,):
        with without_journal(stage):
            await read(stage, 8)
            await has_heard(store, b'"passed":8')
            assert (await look(stage, "/admin/tenants/acme")).json["nextKey"] is not None


@pytest.mark.long
async def test_every_worker_of_a_fleet_takes_part_and_takes_it_over(tmp_path: Path) -> None:
    """Real processes with a file of tenants: what their connections passed counts together."""
    (tmp_path / "tenants.yaml").write_text(
        "tenants: [{id: acme, account: acme, key: env:TEST_KEY_ACME, next_key: env:TEST_KEY_MALLORY, "
        "scopes: ['*']}]\n"
    )
    settings = TENANCY | {"promotion": PROMOTION | {"successes": 40}}
    async with serving(tmp_path, workers=2, tenancy=settings) as stage:
        bearer = stage.bearer()

        async def ask(method: str, path: str) -> None:
            # A connection each time, so that both workers are met.
            body: dict[str, str] | None = {} if method == "POST" else None
            async with aiohttp.request(method, stage.url + path, headers=bearer, json=body) as answer:
                assert answer.status == 200, await answer.read()

        for _ in range(39):
            await ask("GET", f"/api/v1/bot/list?order=n{next(NUMBERS)}")
        await ask("POST", "/api/v1/bot/create")
        assert keys_seen(stage.sandbox, "POST") == [ALL_KEYS["acme"]]
        for _ in range(10):
            await ask("GET", f"/api/v1/bot/list?order=n{next(NUMBERS)}")

        async def is_promoted() -> bool:
            return await stage.metric("cbk_gateway_tenant_rotations_total", outcome="promoted") == 1

        await until(is_promoted)
        both = {one["pid"] for one in (await stage.admin("GET", "/admin/workers"))[1]["items"]}
        assert len(both) == 2
        before = len(keys_seen(stage.sandbox, "POST"))
        for _ in range(20):
            await ask("POST", "/api/v1/bot/create")
        assert set(keys_seen(stage.sandbox, "POST")[before:]) == {ALL_KEYS["mallory"]}
        assert await stage.stop() == 0
        journal = b"".join(file.read_bytes() for file in (tmp_path / "audit").rglob("*.jsonl"))
        assert journal.count(b'"change":"key.promote"') == 1
