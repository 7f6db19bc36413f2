"""Plain HTTP, as curl, Terraform and scripts speak it: methods, forms, redirects, connections."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cbk_gateway.store import Store
from dropin.doors import Door, Way, arrived, key_of
from dropin.wire import dialled, upstream
from harness import Stage, running

pytestmark = pytest.mark.dropin

Session = aiohttp.ClientSession


def _bearer(door: Door, tenant: str = "acme") -> dict[str, str]:
    return {"Authorization": f"Bearer {door.secret(tenant)}"}


async def _post(door: Door, session: Session, path: str, body: object, **headers: str) -> Any:
    async with session.post(f"{door.url}{path}", json=body, headers={**_bearer(door), **headers}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def _some_records(door: Door, session: Session) -> str:
    """A dataset with a few records; the path to them."""
    dataset = await _post(door, session, "/api/v1/dataset/create", {"name": "Facts"})
    path = f"/api/v1/dataset/{dataset['id']}/record"
    for text in ("plain", 'with "quotes", commas\nand lines', "héllo 世界 🌍", "x" * 5000):
        await _post(door, session, f"{path}/create", {"text": text, "meta": {"n": 1}})
    return path


@pytest.mark.parametrize("action", ["list", "export"])
@pytest.mark.parametrize("form", ["application/json", "application/jsonl", "text/event-stream", "text/csv"])
async def test_a_list_is_the_same_bytes_in_every_form(
    stage: Stage, client: Session, form: str, action: str
) -> None:
    direct, gateway = Door(Way.DIRECT, stage), Door(Way.GATEWAY, stage)
    path = await _some_records(direct, client)
    bodies = []
    # Twice through the gateway: the second answer may be a remembered one.
    for door in (direct, gateway, gateway):
        headers = {**_bearer(door), "Accept": form}
        async with client.get(f"{door.url}{path}/{action}?order=asc", headers=headers) as answer:
            assert answer.status == 200
            assert answer.content_type == form
            bodies.append(await answer.read())
    assert bodies[1] == bodies[0]
    assert bodies[2] == bodies[0]
    assert len(bodies[0]) > 5000
    arrived(stage)


async def test_only_the_first_accepted_form_counts(door: Door, client: Session) -> None:
    for accept, status, form in (
        ("text/csv;q=0.1, application/json", 200, "text/csv"),
        ("*/*", 200, "application/json"),
        ("image/png", 400, "application/json"),
    ):
        headers = {**_bearer(door), "Accept": accept}
        async with client.get(f"{door.url}/api/v1/contact/list", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (status, form)


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
async def test_both_prefixes_are_served(door: Door, client: Session, prefix: str) -> None:
    made = await _post(door, client, f"{prefix}/bot/create", {"name": "Ada"})
    async with client.get(f"{door.url}{prefix}/bot/{made['id']}/fetch", headers=_bearer(door)) as answer:
        assert (await answer.json())["name"] == "Ada"
    expected = "/api/v1" if door.is_gateway else prefix
    assert all(record.path.startswith(f"{expected}/") for record in arrived(door.stage))


@pytest.mark.parametrize("path", ["/graphql", "/api/graphql", "/v1/graphql", "/api/v1/graphql"])
async def test_graphql_is_served_where_terraform_looks_for_it(door: Door, client: Session, path: str) -> None:
    make = "mutation($input: BotCreateRequest!) { createBot(input: $input) { id } }"
    body = {"query": make, "variables": {"input": {"name": "Ada", "meta": {"a": 1}}}}
    made = (await _post(door, client, path, body))["data"]["createBot"]
    page = "query($cursor: ID) { bots(first: 1, after: $cursor) { edges { node { id name } } } }"
    found = await _post(door, client, path, {"query": page, "variables": {"cursor": None}})
    assert [edge["node"] for edge in found["data"]["bots"]["edges"]] == [{**made, "name": "Ada"}]
    end = await _post(door, client, path, {"query": page, "variables": {"cursor": made["id"]}})
    assert end["data"]["bots"]["edges"] == []
    wrong = await _post(door, client, path, {"query": "{ nothing }"})
    assert wrong["errors"][0]["message"]
    assert {record.path for record in arrived(door.stage)} == {"/api/v1/graphql" if door.is_gateway else path}


async def test_a_compressed_upload_arrives_as_it_is(door: Door, client: Session) -> None:
    made = await _post(door, client, "/api/v1/file/create", {"name": "File"})
    packed = gzip.compress(b"a" * 10_000)
    headers = {**_bearer(door), "Content-Type": "text/plain", "Content-Encoding": "gzip"}
    url = f"{door.url}/api/v1/file/{made['id']}"
    async with client.post(f"{url}/upload", data=packed, headers=headers) as answer:
        assert answer.status == 200
    record = arrived(door.stage)[-1]
    assert record.headers["content-encoding"] == "gzip"
    assert record.body_size == len(packed)
    async with client.get(f"{url}/download", headers=_bearer(door)) as answer:
        assert await answer.read() == packed


async def test_a_compressed_answer_is_passed_on_as_it_is(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    packed = gzip.compress(b'{"items":[]}' * 100)
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        f"Vary: Accept-Encoding\r\nContent-Length: {len(packed)}\r\nConnection: close\r\n\r\n"
    )
    async with (
        upstream(head.encode(), packed[:7], packed[7:]) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url) as stage,
    ):
        headers = {**stage.bearer(), "Accept-Encoding": "gzip, br"}
        async with client.get(f"{stage.url}/api/v1/contact/export", headers=headers) as answer:
            assert await answer.read() == packed
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "accept-encoding" in answer.headers["Vary"].lower()
        assert b"accept-encoding: gzip, br" in api.heads[-1].lower()


async def test_a_part_of_a_download_is_passed_on(
    tmp_path: Path, valkey_url: str, store: Store, client: Session
) -> None:
    part = (
        b"HTTP/1.1 206 Partial Content\r\nContent-Type: video/mp4\r\nContent-Range: bytes 5-9/100\r\n"
        b"Accept-Ranges: bytes\r\nContent-Length: 5\r\nConnection: close\r\n\r\n\x00\x01\x02\x03\xff"
    )
    async with (
        upstream(part) as api,
        running(tmp_path, valkey_url, sandbox_url=api.url) as stage,
    ):
        headers = {**stage.bearer(), "Range": "bytes=5-9"}
        async with client.get(f"{stage.url}/api/v1/file/file_1/download", headers=headers) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == "bytes 5-9/100"
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert await answer.read() == b"\x00\x01\x02\x03\xff"
        assert b"range: bytes=5-9" in api.heads[-1].lower()


async def test_a_range_that_the_api_ignores_gives_the_whole(door: Door, client: Session) -> None:
    made = await _post(door, client, "/api/v1/file/create", {"name": "File"})
    url = f"{door.url}/api/v1/file/{made['id']}"
    async with client.post(f"{url}/upload", data=b"0123456789", headers=_bearer(door)) as answer:
        assert answer.status == 200
    async with client.get(f"{url}/download", headers={**_bearer(door), "Range": "bytes=0-3"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"0123456789")
        assert answer.headers["Content-Length"] == "10"
    assert arrived(door.stage)[-1].headers["range"] == "bytes=0-3"


async def test_a_redirect_is_passed_on_and_not_followed(door: Door, client: Session) -> None:
    made = await _post(door, client, "/api/v1/conversation/create", {})
    base = f"{door.url}/api/v1/conversation/{made['id']}/attachment"
    form = aiohttp.FormData()
    form.add_field("file", b"\x89PNG\x00", filename="a.png", content_type="image/png")
    async with client.post(f"{base}/upload", data=form, headers=_bearer(door)) as answer:
        attachment = (await answer.json())["id"]
    url = f"{base}/{attachment}/download"
    places = []
    for _ in range(2):
        async with client.get(url, headers=_bearer(door), allow_redirects=False) as answer:
            assert answer.status == 302
            assert await answer.read() == b""
            places.append(answer.headers["Location"])
    assert all(place.startswith(f"{door.stage.sandbox.url}/_sandbox/storage/") for place in places)
    # Presigned places are made anew each time, so nothing was remembered.
    assert places[0] != places[1]
    async with client.get(places[0]) as answer:
        assert (await answer.read(), answer.content_type) == (b"\x89PNG\x00", "image/png")
    # Only the two requests for the place arrived at the API.
    assert [record.status for record in arrived(door.stage)][-2:] == [302, 302]


async def test_a_download_without_content_is_a_204(door: Door, client: Session) -> None:
    made = await _post(door, client, "/api/v1/file/create", {"name": "File"})
    async with client.get(f"{door.url}/api/v1/file/{made['id']}/download", headers=_bearer(door)) as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def test_what_a_third_party_says_is_passed_on_verbatim(door: Door, client: Session) -> None:
    made = await _post(door, client, "/api/v1/secret/create", {"name": "Key", "type": "bearer", "value": "v"})
    url = f"{door.url}/api/v1/secret/{made['id']}/proxy"
    body = {"method": "GET", "url": "https://example.com/"}
    async with client.post(url, json=body, headers=_bearer(door)) as answer:
        assert (answer.status, answer.content_type) == (203, "text/plain")
        assert answer.headers["X-Third-Party"] == "yes"
        assert b"third party saw GET https://example.com/" in await answer.read()


async def test_a_form_is_not_json(door: Door, client: Session) -> None:
    async with client.post(
        f"{door.url}/api/v1/bot/create", data={"name": "Ada"}, headers=_bearer(door)
    ) as answer:
        assert answer.status == 400
        error = await answer.json()
    assert error["code"] == "BAD_REQUEST"
    assert error["error"] == {"message": error["message"], "code": error["code"]}


async def test_a_body_that_waits_to_be_invited_is(door: Door) -> None:
    """As curl does with large bodies: `Expect: 100-continue` (RFC 9110 section 10.1.1)."""
    body = json.dumps({"name": "Ada"})
    async with dialled(door.url) as line:
        line.write(
            "POST /api/v1/bot/create HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
            f"Authorization: Bearer {door.secret()}\nContent-Length: {len(body)}\nExpect: 100-continue\n\n"
        )
        assert (await line.head())[1] == 100
        line.write(body)
        reply = await line.reply()
    assert reply.status == 200
    assert json.loads(reply.body)["id"]


@pytest.mark.parametrize("path", ["/api/v1/bot/list", "/v1/graphql", "/api/v1/bot/bot_1/delete", "/nowhere"])
async def test_options_and_head_are_answered_without_the_api(
    gateway: Door, client: Session, path: str
) -> None:
    """Neither needs a credential: browsers ask without one, and the API itself answers both to anybody."""
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-runas-user-id,x-timezone",
    }
    async with client.options(f"{gateway.url}{path}", headers=preflight) as answer:
        assert answer.status in {200, 204}
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        allowed = {name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
        assert set(preflight["Access-Control-Request-Headers"].split(",")) <= allowed
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    async with client.head(f"{gateway.url}{path}") as answer:
        assert answer.status == (404 if path == "/nowhere" else 200)
        assert await answer.read() == b""
    assert gateway.stage.sandbox.requests == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "PROPFIND"])
async def test_other_methods_are_refused_without_the_api(gateway: Door, client: Session, method: str) -> None:
    async with client.request(method, f"{gateway.url}/api/v1/bot/list", headers=_bearer(gateway)) as answer:
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]
        assert (await answer.json())["code"] == "METHOD_NOT_ALLOWED"
    assert gateway.stage.sandbox.requests == []


async def test_a_browser_is_granted_what_it_may_read(gateway: Door, client: Session) -> None:
    headers = {**_bearer(gateway), "Origin": "https://app.example"}
    async with client.get(f"{gateway.url}/api/v1/bot/list", headers=headers) as answer:
        assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
    assert key_of("acme") not in str(answer.headers)
