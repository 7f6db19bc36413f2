"""Requests whose header lines are written by hand: no client tidies them up."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from harness import Stage


async def exchange(stage: Stage, *headers: str, path: str = "/api/v1/bot/list") -> tuple[int, str]:
    """One GET with these raw header lines, over a socket of its own: its status and its whole answer."""
    parts = urlsplit(stage.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        lines = [f"GET {path} HTTP/1.1", "Host: gateway", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode("utf-8", "surrogatepass"))
        answer = (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()
    return int(answer.split(" ", 2)[1]), answer


async def asked(stage: Stage, token: str, path: str = "/api/v1/bot/list") -> int:
    """The status that a bearer of this token gets."""
    return (await exchange(stage, f"Authorization: Bearer {token}", path=path))[0]
