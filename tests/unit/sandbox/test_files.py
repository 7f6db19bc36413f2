"""Bytes in and out: the three kinds of upload, downloads, presigned URLs, the storage of spaces."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cbk_gateway.sandbox import Sandbox
from cbk_gateway.sandbox.answers import ApiError
from cbk_gateway.sandbox.blobs import MEMORY_BYTES
from cbk_gateway.sandbox.files import read_data_url, read_form_file

from .conftest import Api

BYTES = bytes(range(256)) * 4


async def upload_raw(api: Api, file: str) -> None:
    status, _, _ = await api.raw(
        "POST", f"/v1/file/{file}/upload", data=BYTES, headers={"Content-Type": "image/png"}
    )
    assert status == 200


async def upload_form(api: Api, file: str) -> None:
    form = aiohttp.FormData()
    form.add_field("other", "x")
    form.add_field("file", BYTES, filename="p.png", content_type="image/png")
    assert (await api.raw("POST", f"/v1/file/{file}/upload", data=form))[0] == 200


async def upload_inline(api: Api, file: str) -> None:
    url = f"data:image/png;base64,{base64.b64encode(BYTES).decode()}"
    assert (await api.post(f"/v1/file/{file}/upload", {"file": url}))[0] == 200


async def upload_planned(api: Api, file: str) -> None:
    plan = {"file": {"type": "image/png", "size": len(BYTES), "name": "p.png"}}
    _, answer = await api.post(f"/v1/file/{file}/upload", plan)
    request = answer["uploadRequest"]
    async with api.http.request(
        request["method"], request["url"], data=BYTES, headers=request["headers"]
    ) as response:
        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize("upload", [upload_raw, upload_form, upload_inline, upload_planned])
async def test_a_file_comes_back_as_it_was_sent(api: Api, upload: object) -> None:
    assert callable(upload)
    file = await api.make("file", {"name": "f", "meta": {"k": "v"}})
    assert (await api.raw("GET", f"/v1/file/{file}/download"))[0] == 204
    await upload(api, file)
    status, headers, body = await api.raw("GET", f"/v1/file/{file}/download")
    assert (status, body) == (200, BYTES)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(len(BYTES))
    assert headers["Content-Disposition"].startswith("attachment")
    _, fetched = await api.get(f"/v1/file/{file}/fetch")
    assert fetched["meta"] == {"k": "v", "contentType": "image/png"}
    _, link = await api.get(f"/v1/file/{file}/download", headers={"Accept": "application/json"})
    async with api.http.get(link["url"]) as response:
        assert await response.read() == BYTES


@pytest.mark.parametrize(
    "body", [{}, {"file": 5}, {"file": "https://elsewhere.example/x"}, {"file": {"type": "x"}}]
)
async def test_an_upload_in_no_known_form_is_refused(api: Api, body: dict[str, object]) -> None:
    file = await api.make("file")
    assert (await api.post(f"/v1/file/{file}/upload", body))[0] == 400


async def test_a_large_upload_is_streamed_and_digested(api: Api, sandbox: Sandbox) -> None:
    size = MEMORY_BYTES + 3 * 1024 * 1024
    piece = b"x" * 65_536

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    file = await api.make("file")
    status, _, _ = await api.raw(
        "POST", f"/v1/file/{file}/upload", data=body(), headers={"Content-Type": "video/mp4"}
    )
    assert status == 200
    record = sandbox.requests[-1]
    assert record.body_size == size
    assert record.body_sha256 == hashlib.sha256(b"x" * size).hexdigest()
    _, _, back = await api.raw("GET", f"/v1/file/{file}/download")
    assert hashlib.sha256(back).hexdigest() == record.body_sha256


async def test_a_public_file_needs_no_credential(api: Api) -> None:
    public = await api.make("file", {"visibility": "public"})
    private = await api.make("file", {"visibility": "private"})
    for file in (public, private):
        await upload_raw(api, file)
    assert (await api.raw("GET", f"/v1/file/{public}/download", key=None))[2] == BYTES
    assert (await api.raw("GET", f"/v1/file/{private}/download", key=None))[0] == 401


async def test_an_attachment_is_downloaded_by_redirect(api: Api) -> None:
    talk = await api.make("conversation")
    _, _, _ = await api.raw("POST", f"/v1/conversation/{talk}/attachment/upload", data=BYTES)
    _, page = await api.get(f"/v1/conversation/{talk}/attachment/list")
    path = f"/v1/conversation/{talk}/attachment/{page['items'][0]['id']}/download"
    status, headers, _ = await api.raw("GET", path)
    assert status == 302
    async with api.http.get(headers["Location"]) as response:
        assert await response.read() == BYTES


async def test_the_storage_of_a_space_is_a_tree(api: Api) -> None:
    space = await api.make("space")
    base = f"/v1/space/{space}/storage"
    for path in ("a%20b/c.txt", "a%20b/d/e.txt", "top.txt"):
        assert (await api.post(f"{base}/upload/{path}", {"file": "data:,hi"}))[0] == 200

    async def listed(path: str) -> list[tuple[str, bool]]:
        _, answer = await api.get(f"{base}/list{path}")
        return [(item["path"], item["isDirectory"]) for item in answer["items"]]

    assert await listed("") == [("a b", True), ("top.txt", False)]
    assert await listed("/a%20b") == [("a b/c.txt", False), ("a b/d", True)]
    assert len(await listed("?recursive=true")) == 3
    assert (await api.raw("GET", f"{base}/download/a%20b/c.txt"))[2] == b"hi"
    assert (await api.post(f"{base}/copy/top.txt", {"destinationPath": "x/y.txt"}))[0] == 200
    assert (await api.post(f"{base}/move/top.txt", {"destinationPath": "z.txt"}))[0] == 200
    assert (await api.raw("GET", f"{base}/download/top.txt"))[0] == 404
    assert (await api.raw("GET", f"{base}/download/x%2Fy.txt"))[2] == b"hi"
    assert (await api.post(f"{base}/delete/a%20b"))[0] == 404
    assert (await api.post(f"{base}/delete/a%20b", {"recursive": True}))[0] == 200
    assert await listed("") == [("x", True), ("z.txt", False)]


@pytest.mark.parametrize("path", ["..", "a/../b", "%2e%2e/x", "a%2F..%2Fb", ""])
async def test_a_storage_path_never_steps_upwards(api: Api, path: str) -> None:
    space = await api.make("space")
    status, _ = await api.post(f"/v1/space/{space}/storage/upload/{path}", {"file": "data:,hi"})
    assert status == 400


@pytest.mark.parametrize(
    ("url", "content", "media_type"),
    [
        ("data:,a%20b", b"a b", "text/plain"),
        ("data:text/x;base64,aGk=", b"hi", "text/x"),
        ("data:text/x;charset=utf-8;base64,aGk=", b"hi", "text/x"),
    ],
)
def test_a_data_url_holds_its_bytes(url: str, content: bytes, media_type: str) -> None:
    assert read_data_url(url) == (content, media_type)


@pytest.mark.parametrize("url", ["", "data:", "http://x", "data:x;base64,@@@"])
def test_anything_else_is_no_data_url(url: str) -> None:
    with pytest.raises(ApiError):
        read_data_url(url)


def test_a_form_gives_its_file_whatever_the_bytes() -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="n"\r\n\r\n\r\n--\r\n\r\n\r\n--B--\r\n'
    )
    content, media_type, name = read_form_file(body, 'multipart/form-data; boundary="B"')
    assert (content, media_type, name) == (b"\r\n--\r\n\r\n", "application/octet-stream", "n")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=C"])
def test_a_form_without_a_file_is_refused(content_type: str) -> None:
    with pytest.raises(ApiError):
        read_form_file(b"--B--\r\n", content_type)
