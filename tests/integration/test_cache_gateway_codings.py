"""Compressed variants through whole gateways: the client chooses, tag and `Vary` tell them apart."""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from cbk_gateway.store import Store
from integration.cache_gateway_fleet import Fleet, fleet

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACKED = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@pytest.fixture
async def those(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, valkey_url, 2, cache={"config_s": 600}) as one:
        for number in range(30):
            one.sandbox.world.store.add("acme-account", "bot", {"name": f"Bot {number}"}, parent=None)
        yield one


class Said:
    """An answer as it was sent."""

    def __init__(self, status: int, fields: CIMultiDictProxy[str], body: bytes) -> None:
        self.status, self.fields, self.body = status, fields, body
        self.coding = fields.get("Content-Encoding")
        self.tag = fields.get("ETag", "")


async def get(those: Fleet, client: aiohttp.ClientSession, number: int, **fields: str) -> Said:
    headers = {**those.headers, **{name.replace("_", "-"): value for name, value in fields.items()}}
    url = f"{those.urls[number]}/api/v1/bot/list"
    async with client.get(url, headers=headers, skip_auto_headers=("Accept-Encoding",)) as answer:
        return Said(answer.status, answer.headers, await answer.read())


@pytest.mark.parametrize(
    ("weights", "coding"),
    [
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.9", "gzip"),
        ("gzip, deflate", "gzip"),
        ("zstd;q=0, *;q=0.1", "gzip"),
    ],
)
async def test_the_variant_that_the_client_likes_best_is_sent_once_it_is_there(
    those: Fleet, client: aiohttp.ClientSession, weights: str, coding: str
) -> None:
    plain = await get(those, client, 0)
    assert plain.coding is None
    async with asyncio.timeout(30):
        while (packed := await get(those, client, 0, Accept_Encoding=weights)).coding is None:
            await asyncio.sleep(0.01)
    assert packed.coding == coding
    assert UNPACKED[coding](packed.body) == plain.body
    assert len(packed.body) < len(plain.body)
    assert packed.tag == f'{plain.tag[:-1]}-{coding}"'
    for said in (plain, packed):
        assert "Accept-Encoding" in said.fields["Vary"]
    # Repeated requests take the short way; it must say the same, to this client and to others.
    for _ in range(3):
        again = await get(those, client, 0, Accept_Encoding=weights)
        assert (again.coding, again.body, again.tag) == (coding, packed.body, packed.tag)
        assert (await get(those, client, 0)).body == plain.body


@pytest.mark.parametrize("weights", ["identity", "gzip;q=0, zstd;q=0", "gzip;q=0.5, identity", "br"])
async def test_who_likes_no_coding_better_gets_none(
    those: Fleet, client: aiohttp.ClientSession, weights: str
) -> None:
    async with asyncio.timeout(30):
        while (await get(those, client, 0, Accept_Encoding="gzip")).coding is None:
            await asyncio.sleep(0.01)
    assert (await get(those, client, 0, Accept_Encoding=weights)).coding is None


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
async def test_a_client_keeps_its_variant_at_a_gateway_that_never_made_it(
    those: Fleet, client: aiohttp.ClientSession, coding: str
) -> None:
    async with asyncio.timeout(30):
        while (packed := await get(those, client, 0, Accept_Encoding=coding)).coding is None:
            await asyncio.sleep(0.01)
    kept = await get(those, client, 1, Accept_Encoding=coding, If_None_Match=packed.tag)
    assert (kept.status, kept.tag, kept.body) == (304, packed.tag, b"")
    # Another client behind the same proxy could not unpack it.
    other = await get(those, client, 1, If_None_Match=packed.tag)
    assert (other.status, other.coding) == (200, None)
