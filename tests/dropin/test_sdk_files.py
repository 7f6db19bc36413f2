"""The official SDK on contents: uploads in every form, downloads, and the storage of spaces."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from dropin import scripts
from dropin.doors import Door, arrived

pytestmark = [pytest.mark.dropin, pytest.mark.node, pytest.mark.usefixtures("sdk")]


async def test_contents_go_up_and_come_down_unchanged(door: Door) -> None:
    seen = await scripts.run("files", door.url, door.secret())
    records = arrived(door.stage)
    uploads = [record for record in records if record.path.endswith("/upload")]
    raw = [record for record in uploads if record.headers["content-type"] == "application/octet-stream"]
    assert (raw[0].body_sha256, raw[0].body_size) == (
        seen["raw bytes"]["sha256"],
        seen["raw bytes"]["size"],
    )
    (form,) = [record for record in uploads if record.headers["content-type"].startswith("multipart/")]
    assert "boundary=" in form.headers["content-type"]
    assert form.body_size > seen["raw bytes"]["size"]


async def test_every_segment_of_a_stored_path_arrives_as_it_was_encoded(door: Door) -> None:
    seen = await scripts.run("files", door.url, door.secret())
    space = seen["the storage of a space"]["id"]
    arrivals = [record.path for record in arrived(door.stage) if "/storage/upload/" in record.path]
    assert arrivals == [
        f"/api/v1/space/{space}/storage/upload/notes/a%20b/%C3%BC%20(1)%20%26%20%E4%B8%96%E7%95%8C.txt"
    ]


async def test_downloads_are_never_served_from_a_cache(gateway: Door) -> None:
    token = gateway.secret()
    file = await scripts.value(gateway.url, token, "file.create", {"name": "File"})
    path = f"/api/v1/file/{file['id']}/upload"
    await scripts.value(gateway.url, token, "clientFetch", path, {"record": {"file": "data:text/plain,one"}})
    # The SDK brings these bytes to the storage itself, so the gateway never hears of the second content.
    look = {"call": "file.download", "args": [file["id"]]}
    bring = {"call": "file.upload", "args": [file["id"], {"data": "two", "type": "text/plain", "name": "a"}]}
    gateway.stage.sandbox.clear_requests()
    await scripts.calls(gateway.url, token, look, bring, look, look)
    actions = [record.path.rpartition("/")[2] for record in arrived(gateway.stage)]
    assert actions == ["download", "upload", "download", "download"]


@pytest.mark.parametrize("name", ["a%20b.txt", "a\\b.txt", "100%.txt", "%25.txt"])
async def test_a_stored_name_may_look_encoded(door: Door, name: str) -> None:
    space = (await scripts.value(door.url, door.secret(), "space.create", {"name": "Space"}))["id"]
    held = {"file": "data:text/plain,kept"}
    bring = {"call": "space.storage.upload", "args": [space, name, held]}
    look = {"call": "space.storage.list", "args": [space]}
    brought, listed = await scripts.calls(door.url, door.secret(), bring, look)
    assert "value" in brought, brought
    assert name in str(listed["value"]).replace("\\\\", "\\")
    uploads = [record.path for record in arrived(door.stage) if "/storage/upload/" in record.path]
    assert [unquote(path.rpartition("/")[2]) for path in uploads] == [name]
