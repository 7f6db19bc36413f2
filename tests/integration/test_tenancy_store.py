"""Tenants made and changed at run time: in the store, and from there in every process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
import pytest

import cbk_gateway
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreFault, StoreOptions, open_store
from cbk_gateway.tenancy.cipher import MasterKeys
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.operations import OperationFault, TenantOperations, Why
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.records import CHANGES, OVERRIDES, RECORDS, VERSION
from cbk_gateway.tenancy.registry import Registry

MASTER, NEWER = bytes(range(32)), bytes(range(1, 33))
OF_FILE = Tenant(id="filed", account="f", key=Secret("sk-file"), next_key=Secret("sk-file-next"))
WATCHER = """
import asyncio, sys
from cbk_gateway.store import StoreOptions, open_store
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.cipher import MasterKeys
from cbk_gateway.tenancy.options import TenancyOptions
from cbk_gateway.tenancy.registry import Registry

async def main(url, poll_s):
    async with await open_store(StoreOptions(url=url, call_timeout_s=5.0)) as store:
        keys = KeySource({}, master=MasterKeys({"1": bytes(range(32))}))
        options = TenancyOptions(store_poll_s=float(poll_s))
        directory = Directory(Registry(), keys, store=store, options=options)
        seen = asyncio.Event()
        directory.registry.subscribe(lambda change: seen.set())
        await directory.start()
        seen.clear()
        while True:
            tenant = directory.registry.get("acme")
            state = "absent" if tenant is None else "disabled" if tenant.disabled else "open"
            print("acme is", state, flush=True)
            await seen.wait()
            seen.clear()

asyncio.run(main(*sys.argv[1:]))
"""


def directory_of(store: Store, *, poll_s: float = 60.0, master: MasterKeys | None = None) -> Directory:
    keys = KeySource({"K": "sk-env"}, master=master or MasterKeys({"1": MASTER}))
    options = TenancyOptions(store_poll_s=poll_s, store_timeout_s=5.0)
    return Directory(Registry(), keys, tenants=(OF_FILE,), store=store, options=options)


@pytest.fixture
async def directory(store: Store) -> AsyncIterator[Directory]:
    one = directory_of(store)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def second(store: Store) -> AsyncIterator[Directory]:
    """Another process's view, as far as this one goes: it shares nothing but the store."""
    one = directory_of(store, poll_s=0.02)
    await one.start()
    yield one
    await one.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def seen(directory: Directory, tenant_id: str) -> Tenant:
    tenant = directory.registry.get(tenant_id)
    assert tenant is not None
    return tenant


async def fault_of(work: Awaitable[object]) -> Why:
    with pytest.raises(OperationFault) as caught:
        await work
    return caught.value.why


async def test_a_created_tenant_reaches_every_process(directory: Directory, second: Directory) -> None:
    definition = {"id": "acme", "scopes": ["*:read"], "limits": {"rate": {"per_second": 5}}}
    made = await TenantOperations(directory).create(definition, Secret("sk-secret-1"))
    assert made.limits.rates[0].burst == 10
    await until(lambda: second.registry.get("acme") is not None)
    assert seen(second, "acme") == made
    assert second.origin("acme") == "store"


async def test_a_stored_key_is_nowhere_in_the_store_in_clear(directory: Directory, store: Store) -> None:
    operations = TenantOperations(directory)
    await operations.create({"id": "acme", "scopes": []}, Secret("sk-secret-1"))
    await operations.begin_rotation("acme", Secret("sk-secret-2"))
    for key in (RECORDS, OVERRIDES):
        rows = await store.client.hgetall(key)
        assert "sk-secret" not in repr(rows)
        assert len(rows) == 1
    assert "sk-secret" not in repr(operations.shown(seen(directory, "acme")))


async def test_a_stored_row_copied_to_another_tenant_opens_nothing(
    directory: Directory, store: Store
) -> None:
    await TenantOperations(directory).create({"id": "acme", "scopes": []}, Secret("sk-1"))
    row = orjson.loads(directory.rows.records["acme"])
    await store.client.hset(RECORDS, "thief", orjson.dumps({**row, "id": "thief"}))
    await store.client.hset(RECORDS, "other", orjson.dumps(row))
    await directory.refresh(always=True)
    assert sorted(directory.registry.all()) == ["acme", "filed"]
    assert len(directory.problems()) == 2


async def test_a_reference_is_stored_as_it_is_and_followed(directory: Directory) -> None:
    made = await TenantOperations(directory).create({"id": "acme", "key": "env:K", "scopes": []})
    assert made.key.reveal() == "sk-env"
    assert orjson.loads(directory.rows.records["acme"])["key"] == "env:K"


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ({"id": "Acme", "key": "env:K", "scopes": []}, Why.INVALID),
        ({"id": "acme", "key": "env:K", "scops": []}, Why.INVALID),
        ({"id": "acme", "key": "sk-plain", "scopes": []}, Why.INVALID),
        ({"id": "acme", "key": "inline:sk-plain", "scopes": []}, Why.INVALID),
        ({"id": "filed", "key": "env:K", "scopes": []}, Why.EXISTS),
    ],
)
async def test_a_definition_that_cannot_be_used_is_refused(
    directory: Directory, definition: dict[str, object], why: Why
) -> None:
    with pytest.raises(OperationFault) as caught:
        await TenantOperations(directory).create(definition)
    assert caught.value.why is why
    assert "sk-plain" not in str(caught.value) + repr(caught.value.problems)
    assert list(directory.registry.all()) == ["filed"]


async def test_one_credential_cannot_be_two_accounts(directory: Directory) -> None:
    operations = TenantOperations(directory)
    definition: dict[str, object] = {"id": "acme", "scopes": []}
    assert await fault_of(operations.create(definition, OF_FILE.key)) is Why.INVALID
    assert (await operations.create({**definition, "account": OF_FILE.account}, OF_FILE.key)).account == "f"


async def test_the_file_wins_over_a_row_of_the_same_id(directory: Directory, store: Store) -> None:
    await store.client.hset(RECORDS, "filed", b'{"id": "filed", "key": "env:K", "scopes": []}')
    await directory.refresh(always=True)
    assert seen(directory, "filed").key == OF_FILE.key
    assert [one.message for one in directory.problems()] == ["The file defines this tenant too, and wins."]


async def test_one_tenant_is_created_once(directory: Directory, second: Directory) -> None:
    definition = {"id": "acme", "key": "env:K", "scopes": []}
    outcomes = await asyncio.gather(
        TenantOperations(directory).create(definition),
        TenantOperations(second).create(definition),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Tenant) for one in outcomes) == 1
    assert sum(isinstance(one, OperationFault) and one.why is Why.EXISTS for one in outcomes) == 1


async def test_disabling_and_enabling_acts_on_tenants_of_the_file_too(
    directory: Directory, second: Directory
) -> None:
    operations = TenantOperations(directory)
    await operations.disable("filed")
    assert seen(directory, "filed").disabled
    await until(lambda: seen(second, "filed").disabled)
    assert not (await operations.enable("filed")).disabled
    await until(lambda: not seen(second, "filed").disabled)
    assert await fault_of(operations.disable("nobody")) is Why.UNKNOWN


async def test_tokens_from_before_a_moment_are_refused(directory: Directory) -> None:
    assert (await TenantOperations(directory).refuse_tokens_before("filed", 1700)).token_not_before == 1700


async def test_a_deleted_tenant_is_gone_and_its_id_starts_clean(
    directory: Directory, second: Directory
) -> None:
    operations = TenantOperations(directory)
    await operations.create({"id": "acme", "key": "env:K", "scopes": []})
    await operations.disable("acme")
    await operations.delete("acme")
    assert directory.registry.get("acme") is None
    await until(lambda: second.registry.get("acme") is None)
    assert not (await operations.create({"id": "acme", "key": "env:K", "scopes": []})).disabled
    assert await fault_of(operations.delete("filed")) is Why.IN_FILE


async def test_a_rotation_by_operators(directory: Directory, second: Directory) -> None:
    operations = TenantOperations(directory)
    await operations.create({"id": "acme", "scopes": []}, Secret("sk-1"))
    account = seen(directory, "acme").account
    assert await fault_of(operations.promote("acme")) is Why.NO_NEXT_KEY
    begun = await operations.begin_rotation("acme", Secret("sk-2"))
    assert begun.next_key == Secret("sk-2")
    promoted = await operations.promote("acme")
    assert (promoted.key, promoted.next_key, promoted.account) == (Secret("sk-2"), None, account)
    await until(lambda: seen(second, "acme").key == Secret("sk-2"))
    await operations.begin_rotation("acme", Secret("sk-3"))
    dropped = await operations.drop("acme")
    assert (dropped.key, dropped.next_key) == (Secret("sk-2"), None)


async def test_a_rotation_of_the_file_is_promoted_and_dropped(directory: Directory) -> None:
    operations = TenantOperations(directory)
    assert (await operations.promote("filed")).key == Secret("sk-file-next")
    assert await fault_of(operations.drop("filed")) is Why.NO_NEXT_KEY


async def test_operators_who_act_at_once_overwrite_nothing(directory: Directory, second: Directory) -> None:
    await asyncio.gather(
        TenantOperations(directory).disable("filed"),
        TenantOperations(second).refuse_tokens_before("filed", 1700),
    )
    await directory.refresh(always=True)
    tenant = seen(directory, "filed")
    assert (tenant.disabled, tenant.token_not_before) == (True, 1700)


async def test_keys_are_sealed_again_under_a_newer_master_key(directory: Directory, store: Store) -> None:
    operations = TenantOperations(directory)
    await operations.create({"id": "acme", "scopes": []}, Secret("sk-1"))
    await operations.begin_rotation("acme", Secret("sk-2"))
    both = directory_of(store, master=MasterKeys({"2": NEWER, "1": MASTER}))
    await both.start()
    assert await TenantOperations(both).reseal() == 2
    assert await TenantOperations(both).reseal() == 0
    await both.stop()
    await directory.refresh(always=True)
    assert await fault_of(TenantOperations(directory).reseal()) is Why.NO_MASTER_KEY
    newer = directory_of(store, master=MasterKeys({"2": NEWER}))
    await newer.start()
    tenant = seen(newer, "acme")
    assert (tenant.key, tenant.next_key) == (Secret("sk-1"), Secret("sk-2"))
    await newer.stop()


async def test_without_a_master_key_keys_are_not_stored(store: Store) -> None:
    directory = Directory(Registry(), KeySource({}), store=store)
    await directory.start()
    operations = TenantOperations(directory)
    assert (
        await fault_of(operations.create({"id": "acme", "scopes": []}, Secret("sk-1"))) is Why.NO_MASTER_KEY
    )
    await directory.stop()


async def test_without_a_store_nothing_is_changed_at_run_time() -> None:
    directory = Directory(Registry(), KeySource({}), tenants=(OF_FILE,))
    await directory.start()
    assert await fault_of(TenantOperations(directory).disable("filed")) is Why.NO_STORE
    await directory.stop()


async def test_an_override_that_does_not_open_still_disables(directory: Directory, store: Store) -> None:
    override = orjson.dumps({"disabled": True, "next_key": "sealed:9:AAAA"})
    await store.client.hset(OVERRIDES, "filed", override)
    await directory.refresh(always=True)
    assert seen(directory, "filed").disabled
    await store.client.hset(OVERRIDES, "filed", b"garbage")
    await directory.refresh(always=True)
    assert seen(directory, "filed").disabled


async def test_one_broken_row_leaves_the_others_alone(directory: Directory, store: Store) -> None:
    await TenantOperations(directory).create({"id": "acme", "key": "env:K", "scopes": []})
    await store.client.hset(RECORDS, "broken", b"{")
    await directory.refresh(always=True)
    assert sorted(directory.registry.all()) == ["acme", "filed"]
    assert [one.key for one in directory.problems()] == ["records (broken)"]


async def test_a_change_whose_message_was_lost_is_found_by_looking(second: Directory, store: Store) -> None:
    await store.client.hset(OVERRIDES, "filed", orjson.dumps({"disabled": True}))
    await store.client.incr(VERSION)
    await until(lambda: seen(second, "filed").disabled)


async def test_a_store_that_goes_away_leaves_the_tenants_as_they_were(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.start()
    async with await open_store(StoreOptions(url=server.url, call_timeout_s=2.0)) as store:
        directory = directory_of(store, poll_s=0.02)
        await directory.start()
        await TenantOperations(directory).disable("filed")
        server.stop()
        await until(lambda: bool(directory.problems()))
        assert seen(directory, "filed").disabled
        with pytest.raises(StoreFault):
            await TenantOperations(directory).enable("filed")
        await directory.stop()


async def next_state(output: asyncio.StreamReader) -> str:
    """What the watching process says next of the tenant; its log stands between."""
    while line := await output.readline():
        if line.startswith(b"acme is "):
            return line.decode().split()[-1]
    return "ended"


async def test_a_process_that_cannot_look_is_told_of_a_disabled_tenant(
    directory: Directory, store: Store, valkey_url: str
) -> None:
    """Another process, whose own looks are a minute apart: what it learns, it learns from the message."""
    operations = TenantOperations(directory)
    await operations.create({"id": "acme", "scopes": []}, Secret("sk-1"))
    source = str(Path(cbk_gateway.__file__).parents[1])
    watcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WATCHER, valkey_url, "60"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert watcher.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await next_state(watcher.stdout) == "open"
            while (await store.client.pubsub_numsub(CHANGES))[0][1] < 2:
                await asyncio.sleep(0.01)
            await operations.disable("acme")
            assert await next_state(watcher.stdout) == "disabled"
            await operations.delete("acme")
            assert await next_state(watcher.stdout) == "absent"
    finally:
        watcher.kill()
        await watcher.communicate()
