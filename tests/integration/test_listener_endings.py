"""What a client hears when: a stream's head before its first event, a defect as a defect."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from cbk_gateway.data_server import GatewayServer
from cbk_gateway.errors import Refusal
from cbk_gateway.identity import Identity
from cbk_gateway.listener import ListenerOptions
from cbk_gateway.pipeline import Pipeline
from cbk_gateway.server import Port, bound_socket
from cbk_gateway.store import Store
from harness import Stage, running, serving


class HeadFirst:
    """An upstream that sends the head of a stream, and the rest when it is told to."""

    def __init__(self, media: str) -> None:
        self.media = media
        self.go_on = asyncio.Event()

    def running(self) -> AbstractAsyncContextManager[str]:
        return serving(self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            fields = f"Content-Type: {self.media}\r\nTransfer-Encoding: chunked\r\nConnection: close"
            writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
            await self.go_on.wait()
            event = b'{"type":"nop","data":{}}\n'
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
        writer.close()


@pytest.mark.parametrize("media", ["application/jsonl", "application/json", "text/event-stream"])
@pytest.mark.parametrize("path", ["channel/c/subscribe", "event/log/subscribe", "task/t/subscribe"])
async def test_the_head_of_a_stream_does_not_wait_for_its_first_event(
    tmp_path: Path, valkey_url: str, store: Store, client: aiohttp.ClientSession, path: str, media: str
) -> None:
    """Whatever was asked for: what decides is what the upstream begins to send."""
    remote = HeadFirst(media)
    async with remote.running() as url, running(tmp_path, valkey_url, sandbox_url=url) as stage:
        headers = stage.bearer() if media == "application/json" else stage.bearer() | {"Accept": media}
        async with client.post(f"{stage.url}/api/v1/{path}", json={}, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == media
            remote.go_on.set()
            assert b'"nop"' in await answer.read()


class Broken:
    """Knows nobody, because something else's connection breaks and nobody said whose."""

    async def identify(self, _: object) -> None:
        raise ConnectionResetError("of another connection")


async def test_a_broken_connection_that_is_not_the_clients_is_a_defect(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    """It must not pass for a client that has left: the client is there, and waits."""
    parts = dataclasses.replace(stage.gateway.parts, identity=cast("Identity", Broken()))
    refused: list[Refusal] = []
    server = GatewayServer(Pipeline(parts).handle, ListenerOptions(), refused.append)
    port = Port(web.ServerRunner(server), bound_socket("127.0.0.1", 0, "listen.port"))
    url = await port.open()
    try:
        async with client.get(f"{url}/api/v1/bot/list", headers=stage.bearer()) as answer:
            document: dict[str, Any] = await answer.json()
        assert (answer.status, document["code"]) == (500, "INTERNAL_SERVER_ERROR")
    finally:
        await client.close()
        await port.close(0.2)


async def test_large_bodies_on_one_connection_are_never_taken_for_heads(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    """The body goes on coming in while its request is being taken up."""
    body = b'{"name":"' + b"x" * 2_000_000 + b'"}'
    async with running(tmp_path, valkey_url) as stage:
        host, port = stage.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /api/v1/bot/create HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {stage.token()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(30):
                for turns in range(8):
                    writer.write(head.encode())
                    for _ in range(turns):
                        # The server is in the same loop: the body comes so many turns after the head.
                        await asyncio.sleep(0)
                    writer.write(body)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    # What the API thinks of such a name is its own business.
                    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
                    length = next(
                        line for line in answer.splitlines() if line.startswith(b"Content-Length: ")
                    )
                    await reader.readexactly(int(length[16:]))
        finally:
            writer.close()
