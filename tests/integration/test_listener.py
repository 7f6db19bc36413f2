"""Raw bytes on the data port: what is not HTTP/1.1 is refused in the API's shape and nothing is forwarded."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from cbk_gateway.store import Store
from harness import Stage, running

CREATE = b"POST /api/v1/bot/create HTTP/1.1\r\nHost: gw\r\n%s\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n"
LIST = b"GET /api/v1/bot/list HTTP/1.1\r\n%s\r\n"

REFUSED = {
    "both a length and a coding": (CREATE % (CHUNKED + b"Content-Length: 4\r\n") + b"0\r\n\r\n", 400),
    "a length, then a coding": (CREATE % (b"Content-Length: 4\r\n" + CHUNKED) + b"0\r\n\r\n", 400),
    "an unknown coding": (CREATE % (JSON + b"Transfer-Encoding: gzip\r\n") + b"abc", 400),
    "a coding twice": (CREATE % (JSON + b"Transfer-Encoding: chunked, chunked\r\n") + b"0\r\n\r\n", 400),
    "two coding fields": (CREATE % (CHUNKED + b"Transfer-Encoding: identity\r\n") + b"0\r\n\r\n", 400),
    "a disguised coding": (CREATE % (JSON + b"Transfer-Encoding: \x0bchunked\r\n") + b"0\r\n\r\n", 400),
    "a misspelt coding": (CREATE % (JSON + b"Transfer-Encoding: xchunked\r\n") + b"0\r\n\r\n", 400),
    "a coding in HTTP/1.0": (CREATE.replace(b"1.1", b"1.0") % CHUNKED + b"0\r\n\r\n", 400),
    "two equal lengths": (CREATE % (JSON + b"Content-Length: 2\r\n" * 2) + b"{}", 400),
    "two lengths": (CREATE % (JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n") + b"{} ", 400),
    "a list of lengths": (CREATE % (JSON + b"Content-Length: 2, 2\r\n") + b"{}", 400),
    "a signed length": (CREATE % (JSON + b"Content-Length: +2\r\n") + b"{}", 400),
    "a negative length": (CREATE % (JSON + b"Content-Length: -2\r\n") + b"{}", 400),
    "a hexadecimal length": (CREATE % (JSON + b"Content-Length: 0x2\r\n") + b"{}", 400),
    "an endless length": (CREATE % (JSON + b"Content-Length: 99999999999999999999999\r\n") + b"{}", 400),
    "an empty length": (CREATE % (JSON + b"Content-Length:\r\n") + b"{}", 400),
    "a body over the bound": (CREATE % (JSON + b"Content-Length: 7000000\r\n") + b"{", 413),
    "bare line feeds": (b"GET /api/v1/bot/list HTTP/1.1\nHost: gw\n\n", 400),
    "one bare line feed": (b"GET /api/v1/bot/list HTTP/1.1\r\nHost: gw\nX: y\r\n\r\n", 400),
    "a bare carriage return": (b"GET /api/v1/bot/list HTTP/1.1\r\nHost: gw\rX: y\r\n\r\n", 400),
    "a folded field": (LIST % b"Host: gw\r\nX: y\r\n z\r\n", 400),
    "a blank before the colon": (LIST % b"Host: gw\r\nX : y\r\n", 400),
    "a NUL in a value": (LIST % b"Host: gw\r\nX: y\x00z\r\n", 400),
    "a control character in a value": (LIST % b"Host: gw\r\nX: y\x01z\r\n", 400),
    "a field without a colon": (LIST % b"Host: gw\r\nXyz\r\n", 400),
    "a field without a name": (LIST % b"Host: gw\r\n: y\r\n", 400),
    "a name that is no token": (LIST % b"Host: gw\r\nX\xff: y\r\n", 400),
    "no host": (LIST % b"X: y\r\n", 400),
    "two hosts": (LIST % b"Host: gw\r\nHost: other\r\n", 400),
    "a host that is none": (LIST % b"Host: gw/x y\r\n", 400),
    "an empty host": (LIST % b"Host:\r\n", 400),
    "a target of another host": (b"GET http://evil/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "an authority as target": (b"GET gw:80 HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a tunnel": (b"CONNECT gw:80 HTTP/1.1\r\nHost: gw:80\r\n\r\n", 400),
    "a blank in the target": (b"GET /api/v1/bot/li st HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a fragment in the target": (
        b"GET /api/v1/bot/list#x HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n",
        400,
    ),
    "tabs in the request line": (b"GET\t/api/v1/bot/list\tHTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a method that is none": (b"G@T /api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "another major version": (b"GET /api/v1/bot/list HTTP/2.0\r\nHost: gw\r\n\r\n", 505),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a chunk size that is none": (CREATE % CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", 400),
    "a signed chunk size": (CREATE % CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n", 400),
    "a prefixed chunk size": (CREATE % CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", 400),
    "a blank behind a chunk size": (CREATE % CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n", 400),
    "chunks ended by line feeds": (CREATE % CHUNKED + b"2\n{}\n0\n\n", 400),
    "a line feed in a chunk extension": (CREATE % CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk longer than it says": (CREATE % CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", 400),
    "an endless chunk": (CREATE % CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n", 400),
    "a body on a GET": (LIST % b"Host: gw\r\nContent-Length: 3\r\n" + b"abc", 400),
    "a field that is too large": (LIST % (b"Host: gw\r\nX: " + b"a" * 20_000 + b"\r\n"), 431),
    "too many fields": (LIST % (b"Host: gw\r\n" + b"X: a\r\n" * 300), 431),
    "a target that is too long": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", 414),
    "a field name that is too long": (LIST % (b"Host: gw\r\n" + b"X" * 20_000 + b": y\r\n"), 431),
    "a head that is too large in all": (
        LIST % (b"Host: gw\r\n" + (b"X: " + b"a" * 16_000 + b"\r\n") * 40),
        431,
    ),
    "a target that never ends": (b"GET /" + b"a" * 300_000, 414),
    "a field that never ends": (b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000, 431),
    "HTTP/0.9": (b"GET /api/v1/bot/list\r\n\r\n", 505),
    "another minor version": (b"GET /api/v1/bot/list HTTP/1.2\r\nHost: gw\r\n\r\n", 400),
    "a version in small letters": (b"GET /api/v1/bot/list http/1.1\r\nHost: gw\r\n\r\n", 400),
    "a proxy's greeting": (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + LIST % b"Host: gw\r\n", 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 40, 400),
    "a NUL in the target": (b"GET /api/v1/bot\x00/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a NUL in a name": (LIST % b"Host: gw\r\nX\x00: y\r\n", 400),
    "a raw octet in the target": (b"GET /api/v1/bot/\xff/fetch HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a fold before the first field": (b"GET /api/v1/bot/list HTTP/1.1\r\n X: y\r\nHost: gw\r\n\r\n", 400),
    "a folded length": (CREATE % (JSON + b"Content-Length:\r\n 2\r\n") + b"{}", 400),
    "a blank before a coding's colon": (
        CREATE % (JSON + b"Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n",
        400,
    ),
    "a coding behind a form feed": (
        CREATE % (JSON + b"Transfer-Encoding: \x0cchunked\r\n") + b"0\r\n\r\n",
        400,
    ),
    "a coding that is not last": (
        CREATE % (JSON + b"Transfer-Encoding: chunked, gzip\r\n") + b"0\r\n\r\n",
        400,
    ),
    "a coding with a parameter": (
        CREATE % (JSON + b"Transfer-Encoding: chunked;q=1\r\n") + b"0\r\n\r\n",
        400,
    ),
    "an empty coding": (CREATE % (JSON + b"Transfer-Encoding:\r\n") + b"0\r\n\r\n", 400),
    "a length in two words": (CREATE % (JSON + b"Content-Length: 1 2\r\n") + b"{}", 400),
    "a length with a fraction": (CREATE % (JSON + b"Content-Length: 2.0\r\n") + b"{}", 400),
    "no chunk size": (CREATE % CHUNKED + b"\r\n{}\r\n0\r\n\r\n", 400),
    "a negative chunk size": (CREATE % CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk without an end": (CREATE % CHUNKED + b"2\r\n{}0\r\n\r\n", 400),
    "a NUL in a chunk extension": (CREATE % CHUNKED + b"2;a\x00\r\n{}\r\n0\r\n\r\n", 400),
    "a carriage return in a chunk extension": (CREATE % CHUNKED + b"2;a\rb\r\n{}\r\n0\r\n\r\n", 400),
    "a trailer that is none": (CREATE % CHUNKED + b"2\r\n{}\r\n0\r\nX y\r\n\r\n", 400),
    "too many trailers": (CREATE % CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
    "chunks over the bound": (CREATE % CHUNKED + b"7a1200\r\n" + b" " * 8_000_000 + b"\r\n0\r\n\r\n", 413),
    "a host with a user": (LIST % b"Host: user@gw\r\n", 400),
    "a list of hosts": (LIST % b"Host: gw, other\r\n", 400),
    "a target with a user": (b"GET http://user@gw/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a target without a host": (b"GET http:///api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a target with half an address": (b"GET http://[::1/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "a target of another scheme": (b"GET ftp://other/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "an authority as target of a write": (b"POST gw:80 HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    "an expectation nobody knows": (CREATE % (JSON + b"Content-Length: 2\r\nExpect: tea\r\n"), 400),
}


def signed(raw: bytes, token: str) -> bytes:
    """The same bytes with a token behind the Host field, so that only the framing is wrong."""
    return raw.replace(b"Host: gw\r\n", b"Host: gw\r\nAuthorization: Bearer " + token.encode() + b"\r\n", 1)


async def exchanged(stage: Stage, *pieces: bytes) -> bytes:
    """Send pieces on a new connection, and return all that comes back meanwhile, until it is closed."""
    port = int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = asyncio.create_task(read_to_end(reader))
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        async with asyncio.timeout(20):
            return await heard
    finally:
        heard.cancel()
        writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other end closes, in whatever way."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            heard += piece
    return heard


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_not_strict_http_is_refused_and_the_connection_closed(stage: Stage, name: str) -> None:
    raw, status = REFUSED[name]
    answer = await exchanged(stage, signed(raw, stage.token()))

    head, _, body = answer.partition(b"\r\n\r\n")
    version = b"1.0" if b" HTTP/1.0" in raw else b"1.1"
    assert head.startswith(b"HTTP/%s %d " % (version, status))
    document = orjson.loads(body)
    assert document["error"] == {"message": document["message"], "code": document["code"]}
    assert not stage.sandbox.requests


async def test_a_smuggled_request_is_never_seen(stage: Stage) -> None:
    """What follows a request whose end is in doubt is not read as a request."""
    second = LIST % b"Host: gw\r\n"
    raw = signed(CREATE % (CHUNKED + b"Content-Length: 6\r\n"), stage.token()) + b"0\r\n\r\n" + second
    answer = await exchanged(stage, raw)
    assert answer.count(b"Content-Length: ") == 1
    assert not stage.sandbox.requests


async def test_trailers_and_chunk_extensions_do_not_cross(stage: Stage) -> None:
    raw = signed(CREATE % CHUNKED, stage.token()) + b'c;a=b\r\n{"name":"A"}\r\n0\r\nX-Evil: y\r\n\r\n'
    port = int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert b" 200 " in head
    (seen,) = stage.sandbox.requests
    assert seen.body == {"name": "A"}
    assert "x-evil" not in seen.headers


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    one = signed(LIST % b"Host: gw\r\n", stage.token())
    last = one.replace(b"Host: gw\r\n", b"Host: gw\r\nConnection: close\r\n").replace(
        b"bot/list", b"team/list"
    )
    answer = await exchanged(stage, one * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 21


async def test_a_continue_is_sent_only_to_whoever_is_let_in(stage: Stage) -> None:
    waiting = CREATE % (JSON + b"Content-Length: 13\r\nExpect: 100-continue\r\nConnection: close\r\n")
    refused = await exchanged(stage, waiting)
    assert refused.startswith(b"HTTP/1.1 401 ")

    port = int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(signed(waiting, stage.token()))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"name":"Ada"}'[:13])
    rest = await reader.read()
    writer.close()
    # Thirteen bytes of it are no JSON, which is found out before anything is sent.
    assert rest.startswith(b"HTTP/1.1 400 ")
    assert not stage.sandbox.requests


@pytest.fixture
async def hasty(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A stage that loses patience at once, so that tests of patience need none."""
    listen = {"port": 0, "head_timeout_s": 0.2, "body_timeout_s": 0.2, "drain_s": 1}
    async with running(tmp_path, valkey_url, listen=listen) as one:
        yield one


async def test_a_silent_connection_is_closed(hasty: Stage) -> None:
    assert b" 408 " in await exchanged(hasty)


async def test_half_a_head_is_answered_with_408(hasty: Stage) -> None:
    assert b" 408 " in await exchanged(hasty, b"GET /api/v1/bot/list HTTP/1.1\r\nHost:")


async def test_a_dripping_head_is_as_late_as_a_silent_one(hasty: Stage) -> None:
    port = int(hasty.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    closing = asyncio.create_task(reader.read())
    for octet in b"GET /api/v1/bot/list HTTP/1.1\r\n" * 100:
        if closing.done() or writer.is_closing():
            break
        writer.write(bytes([octet]))
        await asyncio.wait({closing}, timeout=0.01)
    assert b" 408 " in await closing
    writer.close()


async def test_a_missing_body_is_answered_with_408(hasty: Stage) -> None:
    raw = signed(CREATE % (JSON + b"Content-Length: 20\r\n"), hasty.token())
    answer = await exchanged(hasty, raw, b'{"na')
    assert b" 408 " in answer
    assert not hasty.sandbox.requests


async def test_the_data_port_serves_the_api_only(stage: Stage) -> None:
    for path in (b"/metrics", b"/healthz", b"/readyz", b"/admin/tenants", b"/_sandbox/requests", b"/"):
        answer = await exchanged(
            stage, b"GET " + path + b" HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 404 "), path


async def test_two_authorization_headers_are_refused(stage: Stage) -> None:
    once = signed(LIST % b"Host: gw\r\nConnection: close\r\n", stage.token())
    line = next(one for one in once.split(b"\r\n") if one.startswith(b"Authorization"))
    answer = await exchanged(
        stage, once.replace(line, line + b"\r\n" + line.lower().replace(b"bearer ", b"Bearer "))
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert not stage.sandbox.requests


ACCEPTED = {
    "an absolute target": b"GET http://gw/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n",
    "an absolute target in other letters": b"GET HTTP://GW/api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n",
    "a host with a port": b"GET /api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n".replace(
        b"Host: gw", b"X: y\r\nHost: gw:80"
    ),
    "a host by address": b"GET /api/v1/bot/list HTTP/1.1\r\nX: y\r\nHost: [::1]:8080\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /api/v1/bot/list HTTP/1.0\r\nX: y\r\n\r\n",
    "empty lines before": b"\r\n\r\nGET /api/v1/bot/list HTTP/1.1\r\nHost: gw\r\n\r\n",
    "a protocol that is not spoken": LIST % b"Host: gw\r\nUpgrade: h2c\r\n",
    "as many fields as are taken": LIST % (b"Host: gw\r\n" + b"X: y\r\n" * 90),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_is_right_passes_in_the_gateways_own_words(stage: Stage, name: str) -> None:
    """And what follows it on the connection is the next request."""
    raw = re.sub(
        rb"(Host: [^\r]*|X: y)\r\n",
        rb"\1\r\nAuthorization: Bearer %s\r\n" % stage.token().encode(),
        ACCEPTED[name],
        count=1,
    )
    last = signed(CREATE % (JSON + b"Content-Length: 2\r\nConnection: close\r\n"), stage.token()) + b"{}"
    is_kept = b"HTTP/1.0" not in raw
    answer = await exchanged(stage, raw + last if is_kept else raw)
    assert answer.count(b" 200 OK\r\n") == (2 if is_kept else 1)
    first = stage.sandbox.requests[0]
    assert (first.method, first.path, first.query) == ("GET", "/api/v1/bot/list", "")
    assert first.headers["host"] == stage.sandbox.url.removeprefix("http://")
    assert not {"upgrade", "sec-websocket-key", "x"} & set(first.headers)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"tea"])
async def test_nothing_comes_after_an_upgrade_that_had_company(stage: Stage, upgrade: bytes) -> None:
    """Where the other protocol would begin is in doubt; alone, it is a request like any other."""
    fields = b"Host: gw\r\nConnection: upgrade\r\nUpgrade: %s\r\n" % upgrade
    alone = signed(LIST % fields, stage.token())
    second = signed(CREATE % (JSON + b"Content-Length: 2\r\n"), stage.token())
    for pieces in ((alone + second, b"{}"), (alone + second + b"{}",)):
        answer = await exchanged(stage, *pieces)
        assert answer.count(b"HTTP/1.1 ") == answer.count(b" 200 OK\r\n") == 1
    assert {one.path for one in stage.sandbox.requests} == {"/api/v1/bot/list"}
    assert "upgrade" not in stage.sandbox.requests[0].headers

    last = LIST % b"Host: gw\r\nConnection: close\r\n"
    port = int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(alone)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
    writer.write(signed(last, stage.token()))
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("target", [b"*", b"/api/v1/bot/list"])
async def test_options_is_answered_here(stage: Stage, target: bytes) -> None:
    answer = await exchanged(stage, b"OPTIONS %s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n" % target)
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert not stage.sandbox.requests


async def test_an_asterisk_is_no_target_of_anything_else(stage: Stage) -> None:
    raw = signed(b"GET * HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n", stage.token())
    assert (await exchanged(stage, raw)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert not stage.sandbox.requests


async def test_an_expectation_is_met_here_and_never_forwarded(stage: Stage) -> None:
    waiting = CREATE % (JSON + b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n")
    answer = await exchanged(stage, signed(waiting, stage.token()), b"{}")
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first == b"HTTP/1.1 100 Continue"
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert "expect" not in stage.sandbox.requests[-1].headers


async def test_one_byte_at_a_time_is_the_same_request(stage: Stage) -> None:
    raw = signed(CREATE % (CHUNKED + b"Connection: close\r\n"), stage.token())
    raw += b'c;a=b\r\n{"name":"A"}\r\n0\r\n\r\n'
    port = int(stage.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for octet in raw:
        writer.write(bytes([octet]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert stage.sandbox.requests[-1].body == {"name": "A"}
