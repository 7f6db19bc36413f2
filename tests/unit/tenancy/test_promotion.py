"""When a rotation ends by itself, and what two processes make of it together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from cbk_gateway.errors import AuditUnavailable
from cbk_gateway.parties import Tenant
from cbk_gateway.secret import Secret
from cbk_gateway.store import Store
from cbk_gateway.tenancy.directory import Directory
from cbk_gateway.tenancy.key_source import KeySource
from cbk_gateway.tenancy.operations import TenantOperations
from cbk_gateway.tenancy.options import PromotionOptions, TenancyOptions
from cbk_gateway.tenancy.overrides import digest
from cbk_gateway.tenancy.promotion import Ending, Promotion, ending
from cbk_gateway.tenancy.records import ROTATIONS, Standing
from cbk_gateway.tenancy.registry import Registry
from cbk_gateway.tenancy.rotation import Event

OLD, NEW = Secret("sk-old"), Secret("sk-new")
TENANT = Tenant(id="acme", account="a", key=OLD, next_key=NEW)
PASSED, REFUSED = Event.NEXT_PASSED, Event.NEXT_REFUSED


@pytest.mark.parametrize(
    ("passed", "refused", "age_s", "how"),
    [
        (0, 0, 0, None),
        (9, 0, 3600, None),
        (10, 0, 59, None),
        (10, 0, 60, Ending.PROMOTE),
        (10**6, 0, 10**6, Ending.PROMOTE),
        (10, 1, 60, None),  # one refusal bars it, however much it passes afterwards
        (10**6, 2, 10**6, None),
        (0, 3, 0, Ending.DROP),
        (10**6, 3, 10**6, Ending.DROP),
    ],
)
def test_how_a_rotation_ends(passed: int, refused: int, age_s: int, how: Ending | None) -> None:
    options = PromotionOptions(successes=10, min_age_s=60, drop_after=3)
    assert ending(Standing(passed, refused, age_s), options) is how


def test_a_key_is_never_given_up_where_operators_want_to_do_it() -> None:
    assert ending(Standing(0, 10**6, 10**6), PromotionOptions(drop_after=0)) is None


@dataclass(slots=True)
class Process:
    """What one gateway process has of this: tenants, and their rotations."""

    directory: Directory
    promotion: Promotion
    written: list[Mapping[str, object]] = field(default_factory=list)

    def hear(self, event: Event, times: int = 1) -> None:
        for _ in range(times):
            tenant = self.directory.registry.get("acme")
            assert tenant is not None
            self.promotion.note(tenant, event)

    @property
    def keys(self) -> tuple[Secret, Secret | None]:
        tenant = self.directory.registry.get("acme")
        assert tenant is not None
        return tenant.key, tenant.next_key


@pytest.fixture
async def processes(store: Store) -> AsyncIterator[tuple[Process, Process]]:
    """Two that share nothing but the store, and promote after ten passes."""
    made = [await started(store) for _ in range(2)]
    yield made[0], made[1]
    for one in made:
        await one.promotion.stop()
        await one.directory.stop()


async def started(store: Store, tenant: Tenant = TENANT, **options: int) -> Process:
    directory = Directory(
        Registry(),
        KeySource({}),
        tenants=(tenant,),
        store=store,
        options=TenancyOptions(store_poll_s=0.02, store_timeout_s=5.0),
    )
    await directory.start()
    written: list[Mapping[str, object]] = []

    async def record(_: str, fields: Mapping[str, object]) -> None:
        written.append(fields)

    chosen = PromotionOptions(**{"successes": 10, "min_age_s": 0, "drop_after": 2} | options)
    process = Process(directory, Promotion(directory, chosen, record), written)
    process.promotion.start()
    return process


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


async def told(store: Store, count: int, what: str = "passed") -> None:
    """Wait until the processes have told the store of so many requests."""
    async with asyncio.timeout(30):
        while f'"{what}":{count}'.encode() not in (await store.client.hget(ROTATIONS, "acme") or b""):
            await asyncio.sleep(0.01)


async def test_passes_of_all_processes_count_and_one_of_them_promotes(
    processes: tuple[Process, Process], store: Store
) -> None:
    one, other = processes
    one.hear(PASSED, 5)
    await told(store, 5)
    other.hear(PASSED, 4)
    await told(store, 9)
    assert one.keys == other.keys == (OLD, NEW)
    other.hear(PASSED)
    await until(lambda: one.keys == other.keys == (NEW, None))
    (record,) = [*one.written, *other.written]
    assert record == {
        "operator": "gateway",
        "change": "key.promote",
        "tenant": "acme",
        "automatic": True,
        "passed": 10,
        "refused": 0,
        "age_s": record["age_s"],
    }
    async with asyncio.timeout(10):
        # Forgotten after the keys were changed.
        while await store.client.hget(ROTATIONS, "acme") is not None:
            await asyncio.sleep(0.01)


async def test_a_refusal_anywhere_keeps_every_process_from_promoting(
    processes: tuple[Process, Process], store: Store
) -> None:
    one, other = processes
    other.hear(REFUSED)
    await told(store, 1, "refused")
    one.hear(PASSED, 50)
    await told(store, 50)
    one.hear(PASSED)
    await told(store, 51)
    assert one.keys == other.keys == (OLD, NEW)
    assert one.written == other.written == []
    # Whoever knows why it was refused can still promote it.
    assert (await TenantOperations(one.directory).promote("acme")).key == NEW


async def test_a_key_refused_again_is_given_up_in_all(processes: tuple[Process, Process]) -> None:
    one, other = processes
    one.hear(REFUSED)
    other.hear(REFUSED)
    await until(lambda: one.keys == other.keys == (OLD, None))
    assert [record["change"] for record in (*one.written, *other.written)] == ["key.drop"]


async def test_a_process_that_stops_still_tells_what_was_refused(store: Store) -> None:
    process = await started(store)
    process.hear(REFUSED)
    await process.promotion.stop()
    await told(store, 1, "refused")
    await process.directory.stop()


async def test_another_next_key_starts_anew(store: Store) -> None:
    first = await started(store)
    first.hear(REFUSED)
    await told(store, 1, "refused")
    await first.promotion.stop()
    await first.directory.stop()
    second = await started(store, Tenant(id="acme", account="a", key=OLD, next_key=Secret("sk-newer")))
    second.hear(PASSED, 10)
    await until(lambda: second.keys == (Secret("sk-newer"), None))
    await second.promotion.stop()
    await second.directory.stop()


async def test_a_promotion_holds_for_a_process_that_starts_later(
    processes: tuple[Process, Process], store: Store
) -> None:
    processes[0].hear(PASSED, 10)
    await until(lambda: processes[0].keys == (NEW, None))
    later = await started(store)
    assert later.keys == (NEW, None)
    await later.promotion.stop()
    await later.directory.stop()


async def test_what_is_not_old_enough_waits(store: Store) -> None:
    process = await started(store, min_age_s=3600)
    process.hear(PASSED, 50)
    await told(store, 50)
    process.hear(PASSED)
    await told(store, 51)
    assert process.keys == (OLD, NEW)
    await process.promotion.stop()
    await process.directory.stop()


async def test_what_cannot_be_journalled_is_not_promoted(store: Store) -> None:
    process = await started(store)
    tried = asyncio.Event()

    async def record(_kind: str, _fields: Mapping[str, object]) -> None:
        tried.set()
        raise AuditUnavailable("The journal is away.")

    await process.promotion.stop()
    promotion = Promotion(process.directory, PromotionOptions(successes=1, min_age_s=0), record)
    promotion.start()
    promotion.note(TENANT, PASSED)
    async with asyncio.timeout(30):
        await tried.wait()
    await promotion.stop()
    assert process.keys == (OLD, NEW)
    await process.directory.stop()


async def test_a_refusal_heard_while_the_journal_wrote_stops_the_promotion(store: Store) -> None:
    process = await started(store)
    records = process.directory.records
    assert records is not None
    written = asyncio.Event()

    async def record(_kind: str, _fields: Mapping[str, object]) -> None:
        # Another process is heard while the disk is slow.
        await records.tally("acme", digest(NEW), 0, 1)
        written.set()

    await process.promotion.stop()
    promotion = Promotion(process.directory, PromotionOptions(successes=1, min_age_s=0), record)
    promotion.start()
    promotion.note(TENANT, PASSED)
    async with asyncio.timeout(30):
        await written.wait()
    promotion.note(TENANT, PASSED)
    await told(store, 2)
    assert process.keys == (OLD, NEW)
    await promotion.stop()
    await process.directory.stop()


async def test_without_a_store_rotations_are_operators_business() -> None:
    directory = Directory(Registry(), KeySource({}), tenants=(TENANT,))
    with pytest.raises(ValueError, match="store"):
        Promotion(directory, PromotionOptions(), None)
