"""What comes before HTTP on the ports: TLS and its renewal, client certificates, PROXY headers."""

from __future__ import annotations

import asyncio
import re
import ssl
import struct
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
import yaml

from cbk_gateway.assembly import validate
from cbk_gateway.store import Store
from certificates import Authority
from first_steps import asked, connected
from fleet_stage import serving
from harness import SIGNING_KEY, Stage, running, settings_document

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
FROM = bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack("!HH", 50_000, 443)
SECOND = V2 + struct.pack("!BBH", 0x21, 0x11, len(FROM)) + FROM
FIRST = b"PROXY TCP4 203.0.113.9 127.0.0.1 50000 443\r\n"
CREATE = (
    b"POST /api/v1/bot/create HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nAuthorization: Bearer %s\r\n"
    b"X-Forwarded-For: %s\r\nForwarded: for=192.0.2.44\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)
GET = b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"
SUBSCRIBE = (
    b"POST /api/v1/channel/c/subscribe HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %s\r\n"
    b"Accept: application/jsonl\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("server")
    return made


def trusting(authority: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client's TLS; `shown` are its own certificate and key."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


def listening(folder: Path, url: str, **listen: object) -> AbstractAsyncContextManager[Stage]:
    return running(folder, url, listen={"port": 0, "drain_s": 2, "head_timeout_s": 2, **listen})


TLS: Mapping[str, str] = {"certificate": "server.crt", "key": "server.key"}


async def test_a_certificate_is_renewed_without_closing_anything(
    tmp_path: Path, valkey_url: str, store: Store, authority: Authority
) -> None:
    """Relative paths are those of the settings' folder, wherever the process was started."""
    context = trusting(authority)
    async with listening(tmp_path, valkey_url, tls=TLS) as stage:
        assert stage.url.startswith("https://")

        def serial() -> int:
            with connected(stage.url, context) as peer:
                return peer.serial

        def streamed(told: asyncio.Event, loop: asyncio.AbstractEventLoop) -> bytes:
            with connected(stage.url, context) as peer:
                peer.ask(SUBSCRIBE % stage.token().encode())
                heard = peer.read()
                while b"nop" not in heard:
                    heard += peer.read()
                loop.call_soon_threadsafe(told.set)
                while b"late news" not in heard:
                    piece = peer.read()
                    assert piece, heard
                    heard += piece
                return heard

        is_open = asyncio.Event()
        stream = asyncio.create_task(asyncio.to_thread(streamed, is_open, asyncio.get_running_loop()))
        opened = asyncio.create_task(is_open.wait())
        await asyncio.wait({stream, opened}, return_when=asyncio.FIRST_COMPLETED)
        assert not stream.done(), stream.result()
        before = await asyncio.to_thread(serial)

        authority.issue("server")
        await stage.gateway.renew_certificates()
        after = await asyncio.to_thread(serial)
        assert after != before

        # Files that do not belong together change nothing, and are tried again until they do.
        key = (tmp_path / "server.key").read_bytes()
        (tmp_path / "server.key").write_bytes(Authority(tmp_path, "other").issue("else")[1].read_bytes())
        with pytest.raises(OSError, match=r"(?i)mismatch"):
            await stage.gateway.renew_certificates()
        assert await asyncio.to_thread(serial) == after
        (tmp_path / "server.key").write_bytes(key)

        authority.issue("server")
        async with asyncio.timeout(20):
            while await asyncio.to_thread(serial) == after:
                await asyncio.sleep(0.05)

        async with aiohttp.ClientSession() as session:
            url = f"{stage.url}/api/v1/channel/c/publish"
            body = {"message": {"text": "late news"}}
            async with session.post(url, json=body, headers=stage.bearer(), ssl=context) as answer:
                assert answer.status == 200
        assert b"late news" in await stream


@pytest.mark.parametrize("mode", ["required", "optional"])
async def test_clients_show_certificates_of_the_right_authority(
    tmp_path: Path, valkey_url: str, store: Store, authority: Authority, mode: str
) -> None:
    clients = Authority(tmp_path, "clients")
    strangers = Authority(tmp_path, "strangers")
    tls = {**TLS, "client_ca": "clients.crt", "client_certificate": mode}
    async with listening(tmp_path, valkey_url, tls=tls) as stage:

        async def is_let_in(shown: tuple[Path, Path] | None = None) -> bool:
            context = trusting(authority, shown)
            return (await asyncio.to_thread(asked, stage.url, context, GET)).startswith(b"HTTP/1.1 404 ")

        assert await is_let_in(clients.issue("friend"))
        assert not await is_let_in(strangers.issue("stranger"))
        assert await is_let_in() is (mode == "optional")


async def test_old_tls_and_clear_text_are_not_spoken(
    tmp_path: Path, valkey_url: str, store: Store, authority: Authority
) -> None:
    context = trusting(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with listening(tmp_path, valkey_url, tls=TLS) as stage:
        assert await asyncio.to_thread(asked, stage.url, context, GET) == b""
        assert await asyncio.to_thread(asked, stage.url, None, GET) == b""
        metrics, _ = stage.gateway.parts.metrics.exposition()
        assert re.search(rb'refusals_total\{reason="tls_handshake".*\} 2', metrics)


ANNOUNCED = {
    "version 1": (FIRST,),
    "version 2": (SECOND,),
    "version 1, split": (FIRST[:3], FIRST[3:30], FIRST[30:-1], FIRST[-1:]),
    "version 2, split": (SECOND[:5], SECOND[5:17], SECOND[17:]),
}


@pytest.mark.parametrize("is_tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("name", ANNOUNCED)
async def test_a_balancer_says_who_connects(
    tmp_path: Path, valkey_url: str, store: Store, authority: Authority, name: str, *, is_tls: bool
) -> None:
    tls = {"tls": TLS} if is_tls else {}
    context = trusting(authority) if is_tls else None
    async with listening(tmp_path, valkey_url, proxy_protocol=["127.0.0.0/8"], **tls) as stage:
        request = CREATE % (stage.token().encode(), b"192.0.2.44")
        answer = await asyncio.to_thread(asked, stage.url, context, request, *ANNOUNCED[name])
        assert answer.startswith(b"HTTP/1.1 200 ")
        await until_journalled(stage, "203.0.113.9")
        # Its own connections, such as checks of health, come from where they come from.
        local = V2 + b"\x20\x00\x00\x00"
        assert (await asyncio.to_thread(asked, stage.url, context, request, local)).startswith(
            b"HTTP/1.1 200 "
        )
        await until_journalled(stage, "127.0.0.1")
        # Nobody inside that network is heard without a header.
        assert await asyncio.to_thread(asked, stage.url, context, request) == b""
        assert await asyncio.to_thread(asked, stage.url, context, request, FIRST[:20]) == b""
        assert len(stage.sandbox.requests) == 2


async def test_a_header_from_elsewhere_is_no_request(tmp_path: Path, valkey_url: str, store: Store) -> None:
    async with listening(tmp_path, valkey_url, proxy_protocol=["192.0.2.0/24"]) as stage:
        request = CREATE % (stage.token().encode(), b"192.0.2.44")
        answer = await asyncio.to_thread(asked, stage.url, None, request, FIRST)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not stage.sandbox.requests
        assert (await asyncio.to_thread(asked, stage.url, None, request)).startswith(b"HTTP/1.1 200 ")
        await until_journalled(stage, "127.0.0.1")


@pytest.mark.parametrize(
    ("trusted", "address"),
    [(["127.0.0.0/8"], "198.51.100.7"), (["192.0.2.0/24"], "127.0.0.1"), ([], "127.0.0.1")],
)
async def test_a_front_is_believed_only_from_its_own_network(
    tmp_path: Path, valkey_url: str, store: Store, trusted: list[str], address: str
) -> None:
    async with listening(tmp_path, valkey_url, trusted_proxies=trusted) as stage:
        request = CREATE % (stage.token().encode(), b"192.0.2.44, 198.51.100.7")
        assert (await asyncio.to_thread(asked, stage.url, None, request)).startswith(b"HTTP/1.1 200 ")
        await until_journalled(stage, address)


async def until_journalled(stage: Stage, address: str) -> None:
    async with asyncio.timeout(10):
        while address not in {one.get("client") for one in stage.journal()}:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["a key of another", "no certificate", "an encrypted key", "no authority"])
def test_settings_whose_certificates_cannot_be_used_are_refused(
    tmp_path: Path, authority: Authority, name: str
) -> None:
    other = Authority(tmp_path, "other").issue("else")[1].name
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
    tls = {
        "a key of another": {**TLS, "key": other},
        "no certificate": {**TLS, "certificate": "missing.crt"},
        "an encrypted key": {**TLS, "key": "locked.key"},
        "no authority": {**TLS, "client_ca": "missing.crt"},
    }[name]
    (tmp_path / "tenants.yaml").write_text("tenants: []\n")
    file = tmp_path / "gateway.yaml"
    document = settings_document("http://127.0.0.1:1", "embedded", listen={"tls": tls}, admin={"tokens": []})
    file.write_text(yaml.safe_dump(document))
    problems = validate(file, environ={"TEST_SIGNING": SIGNING_KEY}).problems
    assert [problem.key for problem in problems] == ["listen.tls"]


async def test_workers_take_up_a_certificate_on_reload_and_stay(tmp_path: Path, authority: Authority) -> None:
    """Behind a balancer, over TLS, on the loop that production runs on; no worker is replaced for it."""
    context = trusting(authority)
    listen = {"port": 0, "drain_s": 2, "tls": TLS, "proxy_protocol": ["127.0.0.0/8"]}
    async with serving(tmp_path, workers=2, listen=listen) as stage:

        def serials() -> set[int]:
            found: set[int] = set()
            for _ in range(12):
                with connected(stage.url, context, SECOND) as peer:
                    found.add(peer.serial)
                    peer.ask(GET)
                    assert peer.rest().startswith(b"HTTP/1.1 404 ")
            return found

        workers = await stage.workers()
        before = await asyncio.to_thread(serials)
        assert len(before) == 1
        assert await stage.reload() == "unchanged"

        authority.issue("server")
        assert await stage.reload() == "applied"
        after = await asyncio.to_thread(serials)
        assert len(after) == 1
        assert after != before
        assert await stage.workers() == workers

        (tmp_path / "server.key").write_text("not a key")
        assert await stage.reload() == "refused"
        assert await asyncio.to_thread(serials) == after
        assert await stage.stop() == 0
