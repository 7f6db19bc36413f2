"""Hostile requests through a whole gateway: a record is one bounded line, and says no more than happened."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import aiohttp
import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify
from cbk_gateway.store import Store
from harness import running, tenant
from integration.e2e_calls import all_closed

JSON = "application/json"
FORGED = '","kind":"seal","seq":1,"hash":"' + "0" * 64
# Bodies that reach the API, and bodies that are refused before: content type, raw bytes, whether it is sent.
BODIES: dict[str, tuple[str, bytes, bool]] = {
    "empty": (JSON, b"", True),
    "broken-utf8": (JSON, b'{"name":"\xff\xfe"}', False),
    "broken-utf8-not-json": ("text/plain", b"\xff\xfe\x00\n\r\x00", True),
    "utf16": (JSON, '{"name":"Ada"}'.encode("utf-16"), False),
    "lone-surrogate": (JSON, b'{"name":"\\ud800"}', True),
    "duplicate-keys": (JSON, b'{"name":"a","name":"b","meta":{"x":1},"meta":{"y":2}}', True),
    "deep-arrays": (JSON, b"[" * 50_000, False),
    "deep-objects": (JSON, b'{"meta":' * 900 + b"1" + b"}" * 900, True),
    "hostile-names": (JSON, orjson.dumps({FORGED: 1, "a\nb": 2, "\u2028": 3, "n" * 5000: 4}), True),
    "many-names": (JSON, orjson.dumps({f"name{number}": "x" * 50 for number in range(3000)}), True),
    "large": (JSON, orjson.dumps({"description": "x" * 2_000_000}), True),
    "large-stream": ("application/octet-stream", b"\x00\n" * 1_000_000, True),
    "huge-number": (JSON, b'{"name":' + b"9" * 4000 + b"}", True),
    "not-json": (JSON, b"{name: Ada}", False),
}  # fmt: skip


@pytest.mark.parametrize("tags", [False, True], ids=["as-it-came", "tagged"])
async def test_no_body_breaks_forges_or_bloats_a_record(
    tmp_path: Path, valkey_url: str, store: Store, tags: bool
) -> None:
    tenants = (tenant("acme", audit_bodies=True),)
    async with running(tmp_path, valkey_url, tenants=tenants, audit={"tag_creates": tags}) as stage:
        headers = {**stage.bearer(), "User-Agent": "x" * 3000, "X-Request-Id": FORGED}
        told: dict[str, str] = {}
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            for name, (kind, raw, _) in BODIES.items():
                async with session.post(
                    f"{stage.url}/api/v1/bot/create", data=io.BytesIO(raw), headers={"Content-Type": kind}
                ) as answer:
                    body = await answer.read()
                    assert answer.status < 500, (name, body)
                    told[name] = answer.headers["X-Request-Id"]
        await all_closed(stage)
        sent = {one.headers["x-request-id"] for one in stage.sandbox.requests if one.method == "POST"}
    lines = [
        line for path in stage.audit_directory.rglob("*.jsonl") for line in path.read_bytes().splitlines()
    ]
    assert max(map(len, lines)) <= 16_384
    records = [orjson.loads(line) for line in lines]
    intents = {one["request_id"]: one for one in records if one["kind"] == "intent"}
    digests = {one["request_id"]: one["request_sha256"] for one in records if one["kind"] == "outcome"}
    for name, (_, raw, is_sent) in BODIES.items():
        identifier = told[name]
        assert (identifier in sent, identifier in intents) == (is_sent, is_sent), name
        if is_sent:
            assert digests[identifier] == hashlib.sha256(raw).hexdigest(), name
    assert b'\\",\\"kind\\":\\"seal\\"' not in b"".join(lines)
    assert [one["kind"] for one in records].count("seal") == 1
    report = verify(stage.audit_directory, keys_at(tmp_path / "audit.signing.pem"))
    assert report.is_good, report.findings
