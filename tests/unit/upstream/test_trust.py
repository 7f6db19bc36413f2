"""TLS towards the upstream: always verified, pinned when asked, mutual when asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Authority, server_context
from cbk_gateway.upstream import Cause, Outcome, RetryOptions, StreamBroken, UpstreamFault
from cbk_gateway.upstream.trust import public_key_pin

ONCE = RetryOptions(max_attempts=1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()


async def test_a_verified_connection_serves_and_is_used_again(kit: Any, authority: Authority) -> None:
    file, certificate = authority.issue("127.0.0.1")
    pins = ("A" * 43 + "=", "sha256/" + public_key_pin(certificate.public_bytes(Encoding.DER)))
    async with (
        kit.tls_server(server_context(file), answer_ok) as port,
        kit.running(f"https://127.0.0.1:{port}", ca_file=authority.ca_file, pins=pins) as upstream,
    ):
        for number in range(3):
            async with await upstream.send(kit.call()) as answer:
                assert await answer.read(10) == b"{}"
                assert (answer.connect_s > 0) is (number == 0)
        assert await upstream.probe()


@pytest.mark.parametrize(
    ("host", "days", "trusted", "pins"),
    [
        ("127.0.0.1", 1, False, ()),
        ("127.0.0.1", -1, True, ()),
        ("elsewhere.test", 1, True, ()),
        ("127.0.0.1", 1, True, ("A" * 43 + "=",)),
    ],
    ids=["unknown authority", "expired", "other name", "other pin"],
)
async def test_an_upstream_that_is_not_who_it_should_be_gets_no_request(
    kit: Any, authority: Authority, host: str, days: int, trusted: bool, pins: tuple[str, ...]
) -> None:
    file, _ = authority.issue(host, days=days)
    heard = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    ca_file = authority.ca_file if trusted else None
    async with (
        kit.tls_server(server_context(file), listen) as port,
        kit.running(f"https://127.0.0.1:{port}", ca_file=ca_file, pins=pins, retry=ONCE) as upstream,
    ):
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert (fault.value.cause, fault.value.outcome) == (Cause.TLS, Outcome.NOT_SENT)
    assert not any(heard)


async def test_a_client_certificate_is_shown(kit: Any, authority: Authority) -> None:
    file, _ = authority.issue("127.0.0.1")
    mine, _ = authority.issue("gateway.test")
    url = "https://127.0.0.1:{}"
    async with kit.tls_server(server_context(file, authority.ca_file), answer_ok) as port:
        async with (
            kit.running(url.format(port), ca_file=authority.ca_file, client_cert=mine) as upstream,
            await upstream.send(kit.call()) as answer,
        ):
            assert answer.status == 200
        async with kit.running(url.format(port), ca_file=authority.ca_file, retry=ONCE) as upstream:
            with pytest.raises(UpstreamFault):
                await upstream.send(kit.create())


async def test_an_address_may_be_fixed_and_the_name_is_still_checked(kit: Any, authority: Authority) -> None:
    file, _ = authority.issue("api.upstream.test")
    async with (
        kit.tls_server(server_context(file), answer_ok) as port,
        kit.running(
            "https://api.upstream.test", ca_file=authority.ca_file, addresses=(f"127.0.0.1:{port}",)
        ) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("politely", [True, False])
async def test_a_body_that_ends_with_the_connection_must_end_politely(
    kit: Any, authority: Authority, politely: bool
) -> None:
    """Without TLS's own farewell anybody on the way could have cut the body short (RFC 8446 6.1)."""
    file, _ = authority.issue("127.0.0.1")

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        if not politely:
            for _ in range(3):
                # Some event loops write at the end of their turn.
                await asyncio.sleep(0)
            writer.transport.abort()

    async with (
        kit.tls_server(server_context(file), answer_and_close) as port,
        kit.running(f"https://127.0.0.1:{port}", ca_file=authority.ca_file) as upstream,
        await upstream.send(kit.call()) as answer,
    ):
        if politely:
            assert await answer.read(100) == b"all of it"
        else:
            with pytest.raises(StreamBroken):
                await answer.read(100)


async def test_a_request_that_may_have_arrived_over_tls_is_unknown(kit: Any, authority: Authority) -> None:
    file, _ = authority.issue("127.0.0.1")

    async def read_and_close(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with (
        kit.tls_server(server_context(file), read_and_close) as port,
        kit.running(f"https://127.0.0.1:{port}", ca_file=authority.ca_file) as upstream,
    ):
        with pytest.raises(UpstreamFault) as fault:
            await upstream.send(kit.create())
        assert (fault.value.outcome, fault.value.attempts) == (Outcome.UNKNOWN, 1)


def test_a_missing_certificate_file_is_an_error_at_start(kit: Any) -> None:
    async def start() -> None:
        async with kit.running("https://127.0.0.1", ca_file="/nowhere.pem"):
            pass

    with pytest.raises(FileNotFoundError):
        asyncio.run(start())
