"""Who may use the operators' port, and how it refuses: every route, every role."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cbk_gateway.store import Store
from harness import ADMIN_TOKEN, Stage, running
from integration.e2e_calls import TOKENS, Said, admin_records, arrived, ask, bearer, look, roles

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ROUTES: dict[tuple[str, str], str] = {
    ("GET", "/admin/tenants"): VIEWER,
    ("GET", "/admin/tenants/{id}"): VIEWER,
    ("GET", "/admin/settings"): VIEWER,
    ("GET", "/admin/explain"): VIEWER,
    ("GET", "/admin/tokens/revocations"): VIEWER,
    ("GET", "/admin/limits/{id}"): VIEWER,
    ("GET", "/admin/cache"): VIEWER,
    ("GET", "/admin/audit"): VIEWER,
    ("GET", "/admin/audit/{request_id}"): VIEWER,
    ("GET", "/admin/openapi.json"): VIEWER,
    ("POST", "/admin/tokens/mint"): ADMIN,
    ("POST", "/admin/tokens/revoke"): OPERATOR,
    ("POST", "/admin/tokens/lift"): OPERATOR,
    ("POST", "/admin/tenants"): ADMIN,
    ("POST", "/admin/tenants/{id}/disable"): OPERATOR,
    ("POST", "/admin/tenants/{id}/enable"): OPERATOR,
    ("POST", "/admin/tenants/{id}/delete"): ADMIN,
    ("POST", "/admin/tenants/{id}/key/rotate"): ADMIN,
    ("POST", "/admin/tenants/{id}/key/promote"): ADMIN,
    ("POST", "/admin/tenants/{id}/key/drop"): ADMIN,
    ("POST", "/admin/keys/reseal"): ADMIN,
    ("POST", "/admin/limits/{id}/reset"): OPERATOR,
    ("POST", "/admin/quotas/{id}/grant"): OPERATOR,
    ("POST", "/admin/quotas/{id}/reset"): OPERATOR,
    ("POST", "/admin/cache/purge"): OPERATOR,
    ("POST", "/admin/log-level"): OPERATOR,
    ("POST", "/admin/reload"): OPERATOR,
}
CHANGES = [path for method, path in ROUTES if method == "POST"]
RANKS = (VIEWER, OPERATOR, ADMIN)
HARDENED = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "cbk-gateway",
}


@pytest.fixture
async def guarded(tmp_path: Path, valkey_url: str, store: Store) -> AsyncIterator[Stage]:
    """A stage with one operator of each role."""
    async with running(tmp_path, valkey_url, admin=roles(tmp_path)) as stage:
        yield stage


def of_nobody(path: str) -> str:
    """A path whose parameters name nothing that is."""
    return re.sub(r"{\w+}", "nobody", path)


def assert_hardened(said: Said) -> None:
    for name, value in HARDENED.items():
        assert said.headers.get(name) == value, name


def assert_error(said: Said, status: int, code: str) -> None:
    assert (said.status, said.code) == (status, code), said.body
    assert said.headers["Content-Type"] == "application/json"
    assert_hardened(said)


async def test_the_table_of_roles_is_the_whole_api(guarded: Stage) -> None:
    said = await look(guarded, "/admin/openapi.json", TOKENS[VIEWER])
    served = {
        (method.upper(), path): operation["x-role"]
        for path, operations in said.json["paths"].items()
        for method, operation in operations.items()
    }
    assert served == ROUTES


async def test_each_route_wants_its_role_and_tells_nothing_before(guarded: Stage) -> None:
    for (method, path), role in ROUTES.items():
        url = guarded.admin_url + of_nobody(path)
        body: dict[str, str] | None = {} if method == "POST" else None
        for rank in RANKS:
            said = await ask(method, url, bearer(TOKENS[rank]), body)
            if RANKS.index(rank) < RANKS.index(role):
                assert_error(said, 403, "NOT_AUTHORIZED")
            else:
                assert said.status in {200, 400, 404, 409}, (path, rank, said.body)
                assert_hardened(said)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nobodys"},
        {"Authorization": f"Basic {TOKENS[ADMIN]}"},
        {"Authorization": TOKENS[ADMIN]},
        {"Authorization": f"Bearer {ADMIN_TOKEN}"},
        {"Cookie": f"Authorization=Bearer {TOKENS[ADMIN]}; token={TOKENS[ADMIN]}"},
        {"X-Forwarded-For": "127.0.0.1", "X-Operator": "the-admin"},
    ],
)
async def test_without_an_operators_token_every_route_is_closed(
    guarded: Stage, headers: dict[str, str]
) -> None:
    for method, path in ROUTES:
        said = await ask(
            method, guarded.admin_url + of_nobody(path), headers, {} if method == "POST" else None
        )
        assert_error(said, 401, "NOT_AUTHENTICATED")
        assert said.headers["WWW-Authenticate"] == "Bearer"
    assert admin_records(guarded) == []


async def test_a_tenants_token_is_nobodys_here_and_an_operators_is_nobodys_there(guarded: Stage) -> None:
    assert (await look(guarded, "/admin/tenants", guarded.token())).status == 401
    said = await ask("GET", guarded.url + "/api/v1/bot/list", bearer(TOKENS[ADMIN]))
    assert (said.status, said.code) == (401, "NOT_AUTHENTICATED")
    assert arrived(guarded) == []


@pytest.mark.parametrize(
    "path",
    ["//admin/tenants", "/%61dmin/tenants", "/x/../admin/tenants", "/admin%2ftenants", "/ADMIN/tenants"],
)
async def test_no_spelling_of_a_path_gets_past_the_token(guarded: Stage, path: str) -> None:
    host, port = guarded.admin_url.removeprefix("http://").split(":")
    raw = await raw_status(host, int(port), path)
    assert raw in {400, 401, 404}


async def raw_status(host: str, port: int, path: str) -> int:
    """The status of a GET whose path is sent as it is."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_without_operators_in_the_settings_the_door_is_shut(
    tmp_path: Path, valkey_url: str, store: Store
) -> None:
    async with running(tmp_path, valkey_url, admin={"tokens": []}) as stage:
        for token in ("", ADMIN_TOKEN):
            assert (await look(stage, "/admin/tenants", token)).status == 401
        assert (await ask("GET", stage.admin_url + "/healthz")).status == 200


FORMS: list[tuple[str, bytes]] = [
    ("text/plain", b"{}"),
    ("application/x-www-form-urlencoded", b"key=value"),
    ("multipart/form-data; boundary=x", b"--x--\r\n"),
    ("text/plain;application/json", b"{}"),
    ("application/jsonp", b"{}"),
]


async def test_what_a_foreign_page_can_send_changes_nothing(guarded: Stage) -> None:
    """Such media types a page of another origin can send without asking first (Fetch, section 2.2.2)."""
    for path in CHANGES:
        for media_type, data in FORMS:
            headers = {**bearer(TOKENS[ADMIN]), "Content-Type": media_type}
            said = await ask("POST", guarded.admin_url + of_nobody(path), headers, data=data)
            assert_error(said, 400, "BAD_REQUEST")
    assert admin_records(guarded) == []


@pytest.mark.parametrize(
    "data",
    [b'{"surprise": "hunter2"}', b"[]", b"5", b"null", b"{", b"\xff\xfe", b"[" * 5000, b'{"a": NaN}'],
)
async def test_what_is_no_command_is_refused_without_showing_values(guarded: Stage, data: bytes) -> None:
    headers = {**bearer(TOKENS[ADMIN]), "Content-Type": "application/json"}
    for path in CHANGES:
        said = await ask("POST", guarded.admin_url + of_nobody(path), headers, data=data)
        assert_error(said, 400, "BAD_REQUEST")
        assert b"hunter2" not in said.body
        if b"surprise" in data:
            assert "surprise" in said.json["message"]
    assert admin_records(guarded) == []


async def test_a_huge_body_is_refused_in_the_one_shape(guarded: Stage) -> None:
    headers = {**bearer(TOKENS[ADMIN]), "Content-Type": "application/json"}
    data = io.BytesIO(orjson.dumps({"level": "x" * 3_000_000}))
    said = await ask("POST", guarded.admin_url + "/admin/log-level", headers, data=data)
    assert_error(said, 413, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/nothing", 404),
        ("GET", "/admin", 404),
        ("POST", "/admin/settings", 404),
        ("DELETE", "/admin/tenants/acme", 404),
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/bot/list", 404),
        ("GET", "/admin/tenants/nobody", 404),
        ("GET", "/admin/limits/nobody", 404),
        ("GET", "/admin/audit/nothing", 404),
        ("GET", "/admin/explain", 400),
        ("GET", "/admin/explain?path=/api/v2/x", 404),
        ("GET", "/admin/explain?path=/api/v1/bot/list&method=PUT", 405),
        ("GET", "/admin/cache", 400),
        ("GET", "/admin/audit?colour=red", 400),
        ("GET", "/admin/audit?limit=0", 400),
        ("GET", "/admin/audit?limit=%C2%B2", 400),
        ("GET", "/admin/audit?cursor=elsewhere", 400),
    ],
)
async def test_errors_have_the_one_shape(guarded: Stage, method: str, path: str, status: int) -> None:
    said = await ask(method, guarded.admin_url + path, bearer(TOKENS[ADMIN]))
    document: dict[str, Any] = said.json
    assert said.status == status, said.body
    assert_error(said, status, document["code"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/.well-known/jwks.json"])
async def test_what_machines_ask_needs_no_token_and_is_hardened_too(guarded: Stage, path: str) -> None:
    said = await ask("GET", guarded.admin_url + path)
    assert said.status == 200
    assert_hardened(said)
