"""The control plane under `/_sandbox/`: shows what arrived, plants faults, resets.

It needs no credential, because the sandbox listens on loopback for tests and developers. It is not part of
the API: its requests are neither recorded nor disturbed.
"""

from __future__ import annotations

from typing import Final, Protocol

import orjson
from aiohttp import web

from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.faults import FAULTS, FaultBook, read_fault
from cbk_gateway.sandbox.request_log import RequestLog

PREFIX: Final = "/_sandbox"


class Controlled(Protocol):
    """What the control plane controls."""

    log: RequestLog
    faults: FaultBook

    def reset(self) -> None:
        """Forget all resources, records and faults."""

    def health(self) -> JsonObject:
        """How it is doing."""


async def answer_control(sandbox: Controlled, request: web.BaseRequest, path: str) -> Answer:
    """Answer one control request.

    Raises:
        ApiError: 404 for an unknown path, 405 for a wrong method, 400 for a bad fault.
    """
    name = path[len(PREFIX) :].strip("/")
    match name, request.method:
        case "", "GET":
            return json_answer({"faults": dict(FAULTS), "paths": ["requests", "faults", "reset", "health"]})
        case "health", "GET":
            return json_answer(sandbox.health())
        case "requests", "GET":
            return json_answer([record.shape() for record in sandbox.log.records()])
        case "requests", "DELETE":
            sandbox.log.clear()
            return json_answer({})
        case "faults", "GET":
            return json_answer([fault.shape() for fault in sandbox.faults.listing()])
        case "faults", "POST":
            fault = read_fault(await _json_body(request))
            sandbox.faults.add(fault)
            return json_answer(fault.shape())
        case "faults", "DELETE":
            sandbox.faults.clear()
            return json_answer({})
        case "reset", "POST":
            sandbox.reset()
            return json_answer({})
        case (("" | "health" | "requests" | "faults" | "reset"), _):
            raise ApiError(405)
    raise ApiError(404)


async def _json_body(request: web.BaseRequest) -> JsonObject:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("The body must be a JSON object")
    return body
