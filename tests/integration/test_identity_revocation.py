"""Revocation over a real store: in every process, with and without push, and when the store goes away."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.errors import NotAuthenticated, ServiceUnavailable
from cbk_gateway.identity import (
    Identity,
    IdentityOptions,
    Minter,
    MinterOptions,
    Revocation,
    RevocationKind,
    SigningKey,
)
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreFault, StoreOptions, open_store

SECRET = "a shared secret of more than thirty-two bytes"
MINTER = Minter(MinterOptions("gw", SigningKey("k", "HS256", Secret(SECRET))))
NEVER_S = 3600.0

# A second process: it remembers a token, and tells when that token is refused. Its log goes to stdout.
OTHER_PROCESS = """
import asyncio, sys
from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity import Identity, IdentityOptions, Minter, MinterOptions, SigningKey
from cbk_gateway.secret import Secret
from cbk_gateway.store import StoreOptions, open_store

async def main(url, secret, value, poll_s):
    minter = Minter(MinterOptions("gw", SigningKey("k", "HS256", Secret(secret))))
    async with await open_store(StoreOptions(url=url, call_timeout_s=2.0)) as store:
        options = IdentityOptions((minter.issuer_options("gw"),), revocation_poll_s=float(poll_s))
        identity = Identity(options, store)
        await identity.start()
        revoked = asyncio.Event()
        identity.on_revoked(lambda revocation: revoked.set())
        await identity.identify([value])
        assert identity.identify_now(value) is not None
        print("remembered", file=sys.stderr, flush=True)
        await revoked.wait()
        assert identity.identify_now(value) is None
        try:
            await identity.identify([value])
        except NotAuthenticated as refusal:
            print(refusal.reason, file=sys.stderr, flush=True)
        await identity.stop()

asyncio.run(main(*sys.argv[1:]))
"""

Make = Callable[..., Identity]


@pytest.fixture
async def make(store: Store) -> AsyncIterator[Make]:
    """Makes identities that share a store, as workers do, and stops them."""
    made: list[Identity] = []

    def build(
        at: Store | None = store,
        *,
        poll_s: float = NEVER_S,
        max_age_s: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Identity:
        options = IdentityOptions(
            (MINTER.issuer_options("gw"),), revocation_poll_s=poll_s, max_revocation_age_s=max_age_s
        )
        made.append(Identity(options, at, monotonic=monotonic))
        return made[-1]

    yield build
    for identity in made:
        await identity.stop()
    # Other suites share this server, and what is revoked here would be revoked there.
    await store.client.flushall()


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that the test may kill."""
    server = EmbeddedServer(tmp_path / "valkey")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def own_store(own_server: EmbeddedServer) -> AsyncIterator[Store]:
    options = StoreOptions(
        url=own_server.url, call_timeout_s=2.0, connect_timeout_s=0.5, breaker_pause_s=0.05
    )
    async with await open_store(options) as one:
        yield one


def value(subject: str = "ada", tenant: str = "acme") -> str:
    return "Bearer " + MINTER.mint(tenant, subject, ["*"], 600)


async def refused(identity: Identity, header: str) -> str:
    with pytest.raises((NotAuthenticated, ServiceUnavailable)) as caught:
        await identity.identify([header])
    return caught.value.reason


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_revocation_reaches_another_worker_by_push_alone(make: Make) -> None:
    here, there = make(), make()
    await here.start()
    await there.start()
    header = value()
    principal = await there.identify([header])
    heard: list[Revocation] = []
    there.on_revoked(heard.append)
    revocation = await here.revoke(token_id=principal.token_id, note="lost laptop")
    await until(lambda: bool(heard))
    assert heard == [revocation]
    assert heard[0].matches(principal)
    assert there.is_revoked(principal)
    assert there.identify_now(header) is None
    assert await refused(there, header) == "revoked"


async def test_a_revocation_whose_push_was_lost_is_found_by_looking(make: Make, store: Store) -> None:
    identity = make(poll_s=0.02)
    await identity.start()
    header = value()
    principal = await identity.identify([header])
    revocation = Revocation(RevocationKind.TOKEN, token_id=principal.token_id)
    text = files("cbk_gateway.identity").joinpath("revoke.lua").read_text("utf-8")
    prefix = "cbkgw:{_identity}:revocations"
    await store.script(text)(
        keys=[f"{prefix}:{part}" for part in ("records", "order", "expiries", "state")],
        args=[revocation.id, revocation.as_record(), 0, "a channel nobody hears", "epoch"],
    )
    await until(lambda: identity.is_revoked(principal))
    assert identity.identify_now(header) is None


@pytest.mark.parametrize(
    ("target", "hit", "missed"),
    [
        ({"subject": ("acme", "ada")}, [("ada", "acme")], [("bob", "acme"), ("ada", "globex")]),
        ({"tenant": "acme"}, [("ada", "acme"), ("bob", "acme")], [("ada", "globex")]),
        ({"issued_before": 9_999_999_999}, [("ada", "acme"), ("ada", "globex")], []),
        ({"issued_before": 1}, [], [("ada", "acme")]),
    ],
)
async def test_a_revocation_hits_whom_it_names_and_nobody_else(
    target: dict[str, object], hit: list[tuple[str, str]], missed: list[tuple[str, str]], make: Make
) -> None:
    identity = make()
    await identity.start()
    headers = {party: value(*party) for party in (*hit, *missed)}
    for header in headers.values():
        await identity.identify([header])
    await identity.revoke(**target)  # type: ignore[arg-type]  # a table of keyword arguments
    for party in hit:
        assert identity.identify_now(headers[party]) is None
        assert await refused(identity, headers[party]) == "revoked"
    for party in missed:
        assert identity.identify_now(headers[party]) is not None


async def test_a_lifted_revocation_ends_everywhere(make: Make) -> None:
    here, there = make(), make()
    await here.start()
    await there.start()
    header = value()
    principal = await there.identify([header])
    kept = await here.revoke(tenant="globex")
    revocation = await here.revoke(tenant="acme")
    await until(lambda: there.is_revoked(principal))
    assert {one.id for one in await there.revocations()} == {kept.id, revocation.id}
    assert await here.lift(revocation.id)
    await until(lambda: not there.is_revoked(principal))
    assert (await there.identify([header])).tenant == "acme"
    assert await there.revocations() == (kept,)
    assert not await here.lift(revocation.id)


async def test_repeating_a_revocation_never_narrows_it(make: Make) -> None:
    identity = make()
    wide = await identity.revoke(tenant="acme", issued_before=2_000_000_000)
    again = await identity.revoke(tenant="acme", issued_before=5, expires_at=10)
    assert (again.id, again.issued_before, again.expires_at) == (wide.id, 2_000_000_000, wide.expires_at)
    wider = await identity.revoke(tenant="acme", issued_before=2_000_000_001)
    assert wider.issued_before == 2_000_000_001
    assert len(await identity.revocations()) == 1


async def test_a_worker_that_starts_later_knows_what_was_revoked_before(make: Make) -> None:
    header = value()
    await make().revoke(subject=("acme", "ada"))
    late = make()
    await late.start()
    assert await refused(late, header) == "revoked"


async def test_revocations_leave_the_store_when_their_tokens_have_expired(make: Make, store: Store) -> None:
    identity = make()
    await identity.revoke(token_id="old", expires_at=int(time.time()) - 7200)
    assert await identity.revocations() == ()
    await identity.revoke(token_id="new", expires_at=int(time.time()) + 60)
    key = "cbkgw:{_identity}:revocations:records"
    assert await store.call(lambda client: client.execute_command("HLEN", key)) == 1


async def test_without_ever_having_read_the_list_no_token_is_judged(
    make: Make, own_server: EmbeddedServer, own_store: Store
) -> None:
    header = value()
    await asyncio.to_thread(own_server.kill)
    identity = make(own_store, poll_s=0.02)
    await identity.start()
    assert await refused(identity, header) == "revocations_unknown"
    assert identity.identify_now(header) is None
    await asyncio.to_thread(own_server.start_again)
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await identity.identify([header])).tenant == "acme"
            except ServiceUnavailable:
                await asyncio.sleep(0.01)
            else:
                break


async def test_while_the_store_is_away_the_last_known_list_is_in_force(
    make: Make, own_server: EmbeddedServer, own_store: Store
) -> None:
    identity = make(own_store, poll_s=0.02)
    await identity.start()
    good, bad = value("ada"), value("bob")
    for header in (good, bad):
        await identity.identify([header])
    await identity.revoke(subject=("acme", "bob"))
    await asyncio.to_thread(own_server.kill)
    with pytest.raises(StoreFault):
        await identity.revoke(subject=("acme", "ada"))
    assert identity.identify_now(good) is not None
    assert await refused(identity, bad) == "revoked"


async def test_a_list_unconfirmed_for_too_long_stops_everybody_if_so_configured(
    make: Make, own_server: EmbeddedServer, own_store: Store
) -> None:
    ahead = [0.0]
    identity = make(own_store, poll_s=0.02, max_age_s=60.0, monotonic=lambda: time.monotonic() + ahead[0])
    await identity.start()
    header = value()
    await identity.identify([header])
    await asyncio.to_thread(own_server.kill)
    ahead[0] = 61.0
    await until(lambda: identity.identify_now(header) is None)
    assert await refused(identity, header) == "revocations_unknown"
    await asyncio.to_thread(own_server.start_again)
    await until(lambda: identity.identify_now(header) is not None)


async def test_a_store_that_lost_the_list_gets_it_back(
    make: Make, own_server: EmbeddedServer, own_store: Store
) -> None:
    identity = make(own_store, poll_s=0.02)
    await identity.start()
    header = value("bob")
    revocation = await identity.revoke(subject=("acme", "bob"))
    await asyncio.to_thread(own_server.kill)
    await asyncio.to_thread(own_server.start_again)
    stored: tuple[Revocation, ...] = ()
    async with asyncio.timeout(20):
        while not stored:
            try:
                stored = await identity.revocations()
            except StoreFault:
                await asyncio.sleep(0.01)
    assert stored == (revocation,)
    assert await refused(identity, header) == "revoked"


async def test_a_push_connection_that_breaks_is_made_again(make: Make, store: Store) -> None:
    here, there = make(poll_s=0.05), make(poll_s=0.05)
    await here.start()
    await there.start()
    await until_subscribed(store, 2)
    await store.call(lambda client: client.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB"))
    await until_subscribed(store, 2)
    principal = await there.identify([value()])
    await here.revoke(token_id=principal.token_id)
    await until(lambda: there.is_revoked(principal))


async def until_subscribed(store: Store, count: int) -> None:
    channel = "cbkgw:{_identity}:revocations:changed"
    async with asyncio.timeout(20):
        while await _subscribers(store, channel) < count:
            await asyncio.sleep(0.01)


async def _subscribers(store: Store, channel: str) -> int:
    answer: list[Any] = await store.call(lambda client: client.execute_command("PUBSUB", "NUMSUB", channel))
    return int(dict(zip(answer[::2], answer[1::2], strict=True))[channel.encode()])


@pytest.mark.parametrize("poll_s", [0.5, NEVER_S], ids=["as configured", "push alone"])
async def test_a_remembered_token_is_refused_by_another_process(
    poll_s: float, make: Make, valkey_url: str, store: Store
) -> None:
    header = value()
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, valkey_url, SECRET, header, str(poll_s),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert other.stderr is not None
    try:
        async with asyncio.timeout(60):
            assert await other.stderr.readline() == b"remembered\n"
            await until_subscribed(store, 1)
            await make().revoke(subject=("acme", "ada"))
            assert await other.stderr.readline() == b"revoked\n"
        assert await other.wait() == 0
    finally:
        if other.returncode is None:
            other.kill()
            await other.wait()


async def test_without_a_store_revocation_acts_in_this_process(make: Make) -> None:
    identity = make(None)
    await identity.start()
    header = value()
    principal = await identity.identify([header])
    revocation = await identity.revoke(token_id=principal.token_id)
    assert await refused(identity, header) == "revoked"
    assert await identity.revocations() == (revocation,)
    assert await identity.lift(revocation.id)
    assert (await identity.identify([header])).tenant == "acme"
