"""Receives a request whose head and body are known: route, method, media type, credential, JSON, handler.

The order of the checks is the API's: an unknown route before a wrong method, a wrong method before a wrong
media type, that before the credential, and the credential before the body.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import orjson
from aiohttp import web

from cbk_gateway.sandbox.accounts import Caller
from cbk_gateway.sandbox.answers import (
    JSON,
    Answer,
    ApiError,
    JsonObject,
    bad_request,
    error_answer,
    json_answer,
)
from cbk_gateway.sandbox.calls import Call, World, media_type
from cbk_gateway.sandbox.paths import Target
from cbk_gateway.sandbox.query import read_query
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.sandbox.routes import (
    allows,
    anonymous_caller,
    find_handler,
    is_upload,
    needs_credential,
    shadowed,
)

_LOG: Final = logging.getLogger(__name__)
_NOBODY: Final = Caller("", "", None, "public")


async def answer_call(
    world: World, request: web.BaseRequest, record: RequestRecord, target: Target | None, raw: bytes
) -> Answer:
    """The answer to a request, whatever happens."""
    try:
        return await _receive(world, request, record, target, raw)
    except ApiError as error:
        return error_answer(error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:  # noqa: BLE001 - the stand-in answers in shape even where it is wrong itself
        _LOG.exception("the sandbox failed on %s %s", request.method, record.path)
        return error_answer(ApiError(500))


def streams_body(request: web.BaseRequest, target: Target | None) -> bool:
    """Whether the handler reads the body itself, because it may be too large to hold."""
    return target is not None and is_upload(target) and media_type(request) != JSON


def read_json(raw: bytes) -> JsonObject:
    """The JSON object in a body.

    Raises:
        ApiError: 400 when it is not JSON, or not an object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request("Invalid JSON") from error
    if not isinstance(body, dict):
        raise bad_request('"value" must be of type object')
    return body


async def _receive(
    world: World, request: web.BaseRequest, record: RequestRecord, target: Target | None, raw: bytes
) -> Answer:
    if request.method == "HEAD":
        return Answer()
    if request.method == "OPTIONS":
        return json_answer({})
    handler = find_handler(target) if target is not None else None
    if target is None or handler is None:
        if record.path.endswith("/") and len(record.path) > 1:
            return _redirect(request, record)
        raise ApiError(404)
    if not allows(target, request.method):
        raise ApiError(405)
    query = read_query(record.query)
    if query:
        target = shadowed(target, query)
    takes_json = request.method == "POST" and not streams_body(request, target)
    if takes_json and media_type(request) != JSON:
        raise bad_request("Invalid content type")
    caller = _identify(world, request, target)
    record.account, record.run_as = caller.account or None, caller.run_as
    body = read_json(raw) if takes_json else {}
    return await handler(Call(world, target, caller, query, body, request, record))


def _identify(world: World, request: web.BaseRequest, target: Target) -> Caller:
    if not needs_credential(target):
        return _NOBODY
    try:
        return world.accounts.identify(request.headers, target)
    except ApiError:
        token = request.headers.get("Authorization", "").partition(" ")[2]
        stranger = anonymous_caller(world.store, target, token)
        if stranger is None:
            raise
        return stranger


def _redirect(request: web.BaseRequest, record: RequestRecord) -> Answer:
    host = request.headers.get("Host", "localhost")
    query = f"?{record.query}" if record.query else ""
    return Answer(status=308, headers={"Location": f"http://{host}{record.path.rstrip('/')}{query}"})
