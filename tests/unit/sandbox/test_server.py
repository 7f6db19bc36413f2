"""The rules of the front door: routes, methods, media types, credentials, errors, the request log."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cbk_gateway.sandbox import Sandbox

from .conftest import KEYS, Api


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_both_prefixes_serve_the_api(api: Api, prefix: str) -> None:
    status, page = await api.get(f"{prefix}/bot/list")
    assert (status, page) == (200, {"items": []})


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/v1/bot/list", {"key": None}, 401, "NOT_AUTHENTICATED"),
        ("GET", "/v1/bot/list", {"key": "sk-wrong"}, 401, "NOT_AUTHENTICATED"),
        (
            "GET",
            "/v1/bot/list",
            {"key": None, "headers": {"Authorization": "sk-acme"}},
            401,
            "NOT_AUTHENTICATED",
        ),
        ("GET", "/v1/bot/list", {"headers": {"X-RunAs-User-ID": "stranger"}}, 401, "NOT_AUTHENTICATED"),
        ("GET", "/v1/bot/list", {"headers": {"X-RunAs-Child-User-Email": "x@y.z"}}, 401, "NOT_AUTHENTICATED"),
        ("GET", "/v1/bot/unknown/fetch", {}, 404, "NOT_FOUND"),
        ("GET", "/v1/bot/x/frobnicate", {}, 404, "NOT_FOUND"),
        ("GET", "/v1/bot/x/sync", {}, 404, "NOT_FOUND"),
        ("GET", "/nowhere", {}, 404, "NOT_FOUND"),
        ("POST", "/v1/bot/list", {"json": {}}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/bot/create", {}, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/bot/x/delete", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/platform/model/create", {"json": {}}, 404, "NOT_FOUND"),
        ("POST", "/v1/bot/create", {"data": b"{}"}, 400, "BAD_REQUEST"),
        ("POST", "/v1/bot/create", {"data": {"name": "form"}}, 400, "BAD_REQUEST"),
        (
            "POST",
            "/v1/bot/create",
            {"data": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "BAD_REQUEST",
        ),
        (
            "POST",
            "/v1/bot/create",
            {"data": b"", "headers": {"Content-Type": "application/json"}},
            400,
            "BAD_REQUEST",
        ),
        ("POST", "/v1/bot/create", {"json": []}, 400, "BAD_REQUEST"),
        ("POST", "/v1/bot/create", {"json": {"name": 1}}, 400, "BAD_REQUEST"),
        ("POST", "/v1/bot/create", {"json": {"datasetId": "unknown"}}, 400, "BAD_REQUEST"),
        ("GET", "/v1/bot/list", {"headers": {"Accept": "image/png"}}, 400, "BAD_REQUEST"),
    ],
)
async def test_a_refusal_has_the_status_and_shape_of_the_api(
    api: Api, *, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answered, headers, body = await api.raw(method, path, **options)
    shape = orjson.loads(body)
    assert answered == status
    assert headers["Content-Type"] == "application/json"
    assert shape["code"] == code
    assert shape["error"] == {"message": shape["message"], "code": code}


async def test_the_scheme_word_is_ignored(api: Api) -> None:
    status, _ = await api.get("/v1/bot/list", key=None, headers={"Authorization": "Whatever sk-acme"})
    assert status == 200


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
async def test_json_may_carry_parameters(api: Api, media_type: str) -> None:
    status, _, _ = await api.raw("POST", "/v1/bot/create", data=b"{}", headers={"Content-Type": media_type})
    assert status == 200


async def test_head_and_options_succeed_without_a_credential(api: Api) -> None:
    for path in ("/v1/bot/list", "/v1/bot/create", "/v1/nonsense"):
        assert (await api.raw("HEAD", path, key=None))[::2] == (200, b"")
        assert (await api.raw("OPTIONS", path, key=None))[::2] == (200, b"{}")


async def test_a_trailing_slash_is_redirected_to_the_asked_host(api: Api) -> None:
    status, headers, _ = await api.raw("GET", "/v1/bot/list/?take=1", headers={"Host": "api.example:8"})
    assert (status, headers["Location"]) == (308, "http://api.example:8/v1/bot/list?take=1")


async def test_a_query_key_shadows_a_path_parameter_as_in_the_api(api: Api) -> None:
    first, second = await api.make("bot", {"name": "one"}), await api.make("bot", {"name": "two"})
    _, bot = await api.get(f"/v1/bot/{first}/fetch?botId={second}")
    assert bot["id"] == second


async def test_every_account_sees_its_own_and_is_refused_the_others(api: Api) -> None:
    bot = await api.make("bot", {"name": "mine", "alias": "mine"})
    assert (await api.get("/v1/bot/list", key="sk-globex"))[1]["items"] == []
    for method, path in (("get", "fetch"), ("post", "update"), ("post", "delete")):
        status, refusal = await getattr(api, method)(f"/v1/bot/{bot}/{path}", key="sk-globex")
        assert (status, refusal["code"]) == (403, "NOT_AUTHORIZED")
    assert (await api.get("/v1/bot/@mine/fetch", key="sk-globex"))[0] == 404
    assert (await api.get(f"/v1/bot/{bot}/fetch", key="sk-acme-2"))[0] == 200


async def test_a_foreign_reference_in_a_body_is_refused(api: Api) -> None:
    dataset = await api.make("dataset", key="sk-globex")
    status, _ = await api.post("/v1/bot/create", {"datasetId": dataset})
    assert status == 403


async def test_the_log_shows_exactly_what_arrived(api: Api, sandbox: Sandbox) -> None:
    body = {"name": "naïve"}
    await api.post("/api/v1/bot/create?x=%2F&x=2", body, headers={"X-Odd": "a"})
    await api.get("/v1/bot/%40none/fetch", key="sk-globex")
    await api.get("/v1/bot/list", key=None)
    first, second, third = sandbox.requests
    assert (first.method, first.path, first.query) == ("POST", "/api/v1/bot/create", "x=%2F&x=2")
    assert (first.account, first.run_as, first.status, first.outcome) == ("acme", None, 200, "answered")
    assert first.body == body
    assert ["X-Odd", "a"] in first.raw_headers
    assert (second.path, second.account, second.status) == ("/v1/bot/%40none/fetch", "globex", 404)
    assert (third.account, third.status) == (None, 401)
    _, listed = await api.get("/_sandbox/requests")
    assert listed == [record.shape() for record in (first, second, third)]
    assert {"method", "path", "query", "headers", "account", "time"} <= set(listed[0])
    await api.raw("DELETE", "/_sandbox/requests")
    assert sandbox.requests == []


async def test_a_run_as_call_is_logged_with_its_child(api: Api, sandbox: Sandbox) -> None:
    await api.get("/v1/bot/list", headers={"X-RunAs-User-ID": "user_kid"})
    assert (sandbox.requests[0].account, sandbox.requests[0].run_as) == ("acme", "user_kid")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/_sandbox/", None, 200),
        ("GET", "/_sandbox/health", None, 200),
        ("POST", "/_sandbox/health", None, 405),
        ("GET", "/_sandbox/nonsense", None, 404),
        ("POST", "/_sandbox/faults", b"{", 400),
        ("POST", "/_sandbox/faults", b"[]", 400),
        ("POST", "/_sandbox/faults", b'{"path": "*", "fault": "gremlins"}', 400),
        ("PUT", "/_sandbox/storage/unknown", b"x", 404),
    ],
)
async def test_the_control_plane_needs_no_key_and_is_not_logged(
    api: Api, sandbox: Sandbox, *, method: str, path: str, body: bytes | None, status: int
) -> None:
    answered, _, _ = await api.raw(method, path, key=None, data=body)
    assert answered == status
    assert sandbox.requests == []


async def test_a_reset_forgets_all_but_the_accounts(api: Api, sandbox: Sandbox) -> None:
    await api.make("bot")
    sandbox.add_fault("/v9/*", "rate_limited")
    assert (await api.post("/_sandbox/reset"))[0] == 200
    assert (await api.get("/_sandbox/health"))[1]["resources"] == 1
    assert (await api.get("/_sandbox/faults"))[1] == []
    assert sandbox.requests == []
    assert (await api.get("/v1/bot/list", headers={"X-RunAs-User-ID": "user_kid"}))[0] == 200


async def test_a_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            await Sandbox(KEYS, port=port).start()


async def test_seeding_gives_each_account_something_to_look_at() -> None:
    async with Sandbox(KEYS, seed=True) as seeded:
        for account in ("acme", "globex"):
            assert len(seeded.world.store.rows(account, "bot")) == 3
            assert len(seeded.world.store.rows(account, "contact")) == 2


async def test_a_file_of_data_survives_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "sandbox.sqlite"
    async with aiohttp.ClientSession() as http:
        async with Sandbox(KEYS, data=data) as first:
            api = Api(first, http)
            gone, kept = await api.make("bot", {"name": "gone"}), await api.make("bot", {"name": "old"})
            await api.post(f"/v1/bot/{kept}/update", {"name": "kept"})
            await api.post(f"/v1/bot/{gone}/delete")
            talk = await api.make("conversation", {"botId": kept})
            await api.post(f"/v1/conversation/{talk}/complete", {"text": "hi"})
            file = await api.make("file", {"name": "f"})
            await api.raw(
                "POST", f"/v1/file/{file}/upload", data=b"bytes", headers={"Content-Type": "text/x"}
            )
            user = await api.make("partner/user", {"email": "a@b.c"})
            _, token = await api.post(f"/v1/partner/user/{user}/token/create")
        async with Sandbox(KEYS, data=data) as second:
            api = Api(second, http)
            _, bots = await api.get("/v1/bot/list")
            assert [bot["name"] for bot in bots["items"]] == ["kept"]
            _, messages = await api.get(f"/v1/conversation/{talk}/message/list")
            assert [message["type"] for message in messages["items"]] == ["user", "bot"]
            assert (await api.raw("GET", f"/v1/file/{file}/download"))[2] == b"bytes"
            assert (await api.get("/v1/bot/list", key=token["token"]))[0] == 200
            newer = await api.make("bot", {"name": "newer"})
            assert (await api.get("/v1/bot/list?take=1"))[1]["items"][0]["id"] == newer


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    data = tmp_path / "notes.txt"
    data.write_text("not a database, " * 100)
    with pytest.raises(OSError, match="cannot keep sandbox data"):
        await Sandbox(KEYS, data=data).start()


async def test_a_client_that_waits_for_leave_to_send_gets_it(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(
        b"POST /v1/bot/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-acme\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"{}")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
