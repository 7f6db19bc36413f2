"""How the whole gateway finds its upstream and whom it takes for it: names, addresses, TLS, pins."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Authority, server_context
from cbk_gateway.store import Store
from cbk_gateway.upstream.trust import public_key_pin
from harness import Stage, free_port, running
from told_api import Asked, told, until

CREATE = "/api/v1/bot/create"
ONCE = {"max_attempts": 1}


async def fine(one: Asked) -> None:
    await one.say(b'{"id":"b1"}')


async def create(client: aiohttp.ClientSession, stage: Stage, name: str = "a") -> tuple[int, bool]:
    """Status of a create, and whether a client may repeat it."""
    async with client.post(stage.url + CREATE, json={"name": name}, headers=stage.bearer()) as given:
        await given.read()
        return given.status, given.headers.get("x-should-retry") != "false"


async def results(stage: Stage) -> list[str]:
    await stage.gateway.stop()
    return [record["result"] for record in stage.journal() if record["kind"] == "outcome"]


def pin(certificate: Any) -> str:
    return public_key_pin(certificate.public_bytes(Encoding.DER))


TRUSTED = [
    pytest.param({}, 200, id="verified"),
    pytest.param({"pins": ["other", "own"]}, 200, id="pinned"),
    pytest.param({"pins": ["other"]}, 502, id="another-pin"),
    pytest.param({"pins": ["authority"]}, 502, id="the-authoritys-pin"),
    pytest.param({"ca_file": None}, 502, id="an-unknown-authority"),
    pytest.param({"host": "localhost"}, 502, id="another-name"),
    pytest.param({"days": -1}, 502, id="expired"),
]


@pytest.mark.parametrize(("changes", "status"), TRUSTED)
async def test_only_the_upstream_itself_is_sent_anything(
    tmp_path: Path,
    valkey_url: str,
    store: Store,
    client: aiohttp.ClientSession,
    changes: dict[str, Any],
    status: int,
) -> None:
    """Pins are of the upstream's own certificate: an authority's is named with `ca_file`, not pinned."""
    authority = Authority(tmp_path)
    file, certificate = authority.issue("127.0.0.1", days=changes.get("days", 1))
    known = {"own": pin(certificate), "authority": pin(authority.certificate), "other": "A" * 43 + "="}
    upstream: dict[str, Any] = {"retry": ONCE, "pins": [known[one] for one in changes.get("pins", ())]}
    if changes.get("ca_file", True) is not None:
        upstream["ca_file"] = authority.ca_file
    async with told(fine, server_context(file)) as api:
        url = api.url.replace("127.0.0.1", changes.get("host", "127.0.0.1"))
        async with running(tmp_path, valkey_url, sandbox_url=url, upstream=upstream) as stage:
            assert await create(client, stage) == (status, True)
            assert len(api.asked) == (status == 200)
            assert await results(stage) == ["answered" if status == 200 else "not_sent"]


@pytest.mark.parametrize("shows", [True, False], ids=["shown", "not-shown"])
async def test_a_certificate_of_the_gateways_own_is_shown_where_it_is_asked_for(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, shows: bool
) -> None:
    authority = Authority(tmp_path)
    file, _ = authority.issue("127.0.0.1")
    own, _ = authority.issue("gateway")
    upstream: dict[str, Any] = {"ca_file": authority.ca_file, "retry": ONCE}
    if shows:
        upstream |= {"client_certificate": own, "client_key": own}
    async with (
        told(fine, server_context(file, authority.ca_file)) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url, upstream=upstream) as stage,
    ):
        status, _ = await create(client, stage)
        assert status == (200 if shows else 502)
        assert len(api.asked) == shows


async def test_a_dead_address_costs_no_call_and_is_tried_last_for_a_while(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    """A write is safe to send to another address when nothing of it was sent to the first."""
    async with told(fine) as one, told(fine) as other:
        addresses = [f"127.0.0.1:{free_port()}", *(api.url.removeprefix("http://") for api in (one, other))]
        upstream = {"addresses": addresses, "retry": ONCE, "address_rest_s": 600, "idle_s": 0.001}
        async with running(tmp_path, valkey_url, sandbox_url="http://api.test", upstream=upstream) as stage:
            for turn in range(12):
                assert await create(client, stage, f"n{turn}") == (200, True)
            # The two that live take turns.
            assert abs(len(one.asked) - len(other.asked)) <= 2
            assert len(one.asked) + len(other.asked) == 12
            assert all(asked.field("Host") == "api.test" for asked in one.asked)


@pytest.fixture
def unanswering() -> Iterator[int]:
    """A port whose backlog is full: connecting to it just hangs."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield int(full.getsockname()[1])


async def test_an_address_that_does_not_answer_is_given_up_in_time_and_nothing_was_sent(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, unanswering: int
) -> None:
    upstream = {"connect_timeout_s": 0.3, "retry": ONCE}
    url = f"http://127.0.0.1:{unanswering}"
    async with running(tmp_path, valkey_url, sandbox_url=url, upstream=upstream) as stage:
        assert await create(client, stage) == (502, True)
        assert await results(stage) == ["not_sent"]


@contextlib.asynccontextmanager
async def named(addresses: list[str]) -> AsyncIterator[list[str]]:
    """A name server for this loop: what `addresses` holds is what the name has, nothing means it is away."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []
    theirs = loop.getaddrinfo

    async def resolve(host: Any, port: Any, **options: Any) -> Any:
        if host != "api.test":
            return await theirs(host, port, **options)
        asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    loop.getaddrinfo = resolve  # type: ignore[method-assign] # the outside world of this test
    try:
        yield asked
    finally:
        loop.getaddrinfo = theirs  # type: ignore[method-assign] # as it was


async def test_a_name_is_asked_for_again_and_its_old_addresses_outlive_a_name_servers_outage(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> None:
    port = free_port()
    served: list[str] = []

    def serving(name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    await reader.readuntil(b"}")
                    served.append(name)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            writer.close()

        return serve

    addresses = ["127.0.0.1"]
    async with named(addresses) as asked, contextlib.AsyncExitStack() as stack:
        for one in ("127.0.0.1", "127.0.0.2"):
            stack.push_async_callback(_closed, await asyncio.start_server(serving(one), one, port))
        upstream = {"dns_ttl_s": 0.05}
        url = f"http://api.test:{port}"
        async with running(tmp_path, valkey_url, sandbox_url=url, upstream=upstream) as stage:
            assert await create(client, stage, "one") == (200, True)
            assert served == ["127.0.0.1"]
            addresses[:] = ["127.0.0.2"]
            for turn in range(1000):
                assert await create(client, stage, f"two {turn}") == (200, True)
                if served[-1] == "127.0.0.2":
                    break
            assert served[-1] == "127.0.0.2"
            addresses.clear()
            seen = len(asked)
            for turn in range(1000):
                assert await create(client, stage, f"three {turn}") == (200, True)
                if len(asked) > seen:
                    break
            await until(lambda: len(asked) > seen)
            assert await create(client, stage, "four") == (200, True)
            assert served[-1] == "127.0.0.2"


async def _closed(server: asyncio.Server) -> None:
    server.close()
