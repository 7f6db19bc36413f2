"""Generated framing: what is right passes byte for byte, and what is bent never becomes another request.

The invariant. Bytes come on one connection; a strict reader of RFC 9112 says which whole requests stand in
them, up to the first doubt. Whatever the upstream is given and answers must be among those, in their order,
with the same target and the same body; where the gateway has doubts that the reader has not, it may be less.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cbk_gateway.errors import Refusal
from cbk_gateway.operation import understand
from cbk_gateway.store import Store
from harness import Stage, running
from reference_framing import Framed, framed

INNER = b"POST /api/v1/bot/smuggled/delete HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\n{}"


SPECIAL = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"-", b"+", b";", b"\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", INNER),
)


@dataclass(frozen=True)
class Sent:
    """One request: its bytes, and the body that they mean."""

    octets: bytes
    body: bytes


@dataclass(frozen=True)
class Scene:
    """A stage that waits for nobody, since a bent request often lacks its end; and what requests hold."""

    stage: Stage
    token: bytes
    file: bytes

    async def exchanged(self, octets: bytes, cuts: list[int]) -> list[int]:
        """Send, and return the statuses of all answers; the upstream has ended all by then."""
        self.stage.sandbox.clear_requests()
        port = int(self.stage.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heard, places = b"", [0, *sorted({min(cut, len(octets)) for cut in cuts}), len(octets)]
        with contextlib.suppress(ConnectionError):
            for begin, end in itertools.pairwise(places):
                writer.write(octets[begin:end])
                await writer.drain()
            async with asyncio.timeout(20):
                while piece := await reader.read(65_536):
                    heard += piece
        writer.close()
        async with asyncio.timeout(20):
            while any(one.outcome == "pending" for one in self.stage.sandbox.requests):
                await asyncio.sleep(0.001)
        return [int(one[:3]) for one in heard.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
async def scene(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession
) -> AsyncIterator[Scene]:
    patience = {"head_timeout_s": 0.05, "body_timeout_s": 0.05, "keepalive_s": 0.05}
    async with running(tmp_path, valkey_url, listen={"port": 0, "drain_s": 1, **patience}) as stage:
        url = f"{stage.url}/api/v1/file/create"
        async with client.post(url, json={"name": "a"}, headers=stage.bearer()) as answer:
            made = await answer.json()
        yield Scene(stage, stage.token().encode(), made["id"].encode())


bodies = st.one_of(
    st.binary(max_size=200),
    # What would be a request if the framing were read otherwise.
    st.builds(lambda before, after: before + INNER + after, st.binary(max_size=20), st.binary(max_size=20)),
    st.just(b"0\r\n\r\n" + INNER),
)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b;c"', b";a=b;c"])


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """An upload in one of the ways HTTP/1.1 has for it. The upstream keeps any bytes as they are."""
    body = draw(bodies)
    name = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
    blank = draw(st.sampled_from([b"", b" ", b"\t", b"  "]))
    head = b"POST /api/v1/file/FILE/upload HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer TOKEN\r\n"
    head += b"Content-Type: application/octet-stream\r\n"
    if draw(st.booleans()):
        return Sent(head + name + b":" + blank + b"%d" % len(body) + blank + b"\r\n\r\n" + body, body)
    pieces, rest = [], body
    while rest:
        size = draw(st.integers(1, len(rest)))
        shown = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])) % size
        pieces.append(shown + draw(extensions) + b"\r\n" + rest[:size] + b"\r\n")
        rest = rest[size:]
    trailers = draw(st.sampled_from([b"", b"X: y\r\n", b"Digest: a=b\r\nX:\r\n"]))
    last = draw(st.sampled_from([b"0", b"000"])) + b"\r\n" + trailers + b"\r\n"
    coding = b"Transfer-Encoding:" + blank + draw(st.sampled_from([b"chunked", b"Chunked"])) + b"\r\n\r\n"
    return Sent(head + coding + b"".join(pieces) + last, body)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """One or two requests with a few octets changed, dropped, doubled or put in."""
    octets = bytearray(b"".join(one.octets for one in draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(octets) - 1))
        end = min(len(octets), place + draw(st.integers(1, 12)))
        special = draw(st.sampled_from(SPECIAL))
        match draw(st.sampled_from(["put in", "change", "drop", "double"])):
            case "put in":
                octets[place:place] = special
            case "change":
                octets[place:end] = special
            case "drop":
                del octets[place:end]
            case _:
                octets[place:place] = octets[place:end]
        if not octets:
            octets += b"\r\n"
    return bytes(octets)


def budget(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


SIZES = [
    pytest.param(60, id="short"),
    pytest.param(1500, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
]


@pytest.mark.parametrize("examples", SIZES)
async def test_right_requests_pass_byte_for_byte_in_order_however_they_are_cut(
    scene: Scene, examples: int
) -> None:
    loop = asyncio.get_running_loop()

    async def try_out(sent: list[Sent], cuts: list[int]) -> None:
        octets = b"".join(one.octets for one in sent).replace(b"TOKEN", scene.token)
        answers = await scene.exchanged(octets.replace(b"FILE", scene.file), cuts)
        # A client that says no more is told so when its bytes do not show that it has finished.
        assert answers in ([200] * len(sent), [*([200] * len(sent)), 408]), octets
        seen = [one.body_sha256 for one in scene.stage.sandbox.requests]
        assert seen == [digest(one.body) for one in sent]

    @given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 2500), max_size=4))
    @budget(examples)
    def check(sent: list[Sent], cuts: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(try_out(sent, cuts), loop).result()

    await asyncio.to_thread(check)


@pytest.mark.parametrize("examples", SIZES)
async def test_a_bent_request_is_never_forwarded_as_another(scene: Scene, examples: int) -> None:
    loop, tally = asyncio.get_running_loop(), Counter[str]()

    async def try_out(bent: bytes, cuts: list[int]) -> None:
        octets = bent.replace(b"TOKEN", scene.token).replace(b"FILE", scene.file)
        answers = await scene.exchanged(octets, cuts)
        there = iter([(one.method, path_of(one), digest(one.body)) for one in framed(octets)])
        for record in scene.stage.sandbox.requests:
            if record.outcome != "answered":
                tally["broken off"] += 1
                continue
            # Each is found behind the one before. What the upstream refuses, it may refuse unread.
            assert any(
                (record.method, record.path) == (method, path)
                and (record.body_sha256 == body or record.status != 200)
                for method, path, body in there
            ), (record, octets)
            tally["forwarded"] += 1
        tally["refused"] += any(status >= 400 for status in answers)

    @given(mutations(), st.lists(st.integers(0, 1500), max_size=3))
    @budget(examples)
    def check(bent: bytes, cuts: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(try_out(bent, cuts), loop).result()

    await asyncio.to_thread(check)
    print(dict(tally))  # noqa: T201
    assert tally["forwarded"] > examples / 20
    assert tally["refused"] > examples / 4


def path_of(one: Framed) -> str:
    """What its target means in the API's grammar; nothing when it means nothing."""
    with contextlib.suppress(Refusal):
        return "/api/v1" + understand(one.method, one.target).path
    return ""


def digest(body: bytes | None) -> str:
    return "" if body is None else hashlib.sha256(body).hexdigest()
