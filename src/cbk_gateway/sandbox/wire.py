"""Writes answers to sockets, and cuts them where a fault says so.

It knows bytes, connections and the faults that act on them. It knows nothing of resources or accounts.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import orjson
from aiohttp import web

from cbk_gateway.sandbox.answers import JSON, Answer, ApiError, JsonObject, error_answer
from cbk_gateway.sandbox.faults import Fault
from cbk_gateway.sandbox.request_log import RequestRecord

CORS: Final[Mapping[str, str]] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET,POST",
    "Access-Control-Allow-Headers": "X-Requested-With, Accept, Content-Length, Content-Type, Authorization",
}
_SERVER: Final = "cbk-sandbox"


async def send_answer(
    request: web.BaseRequest, record: RequestRecord, answer: Answer, faults: Mapping[str, Fault]
) -> web.StreamResponse:
    """Send an answer, disturbed by the faults that concern its sending."""
    if answer.stream is not None:
        return await _send_stream(request, record, answer, answer.stream, faults)
    if "truncate_stream" in faults and answer.body:
        return await _send_part(request, record, answer, faults["truncate_stream"])
    record.status = answer.status
    record.outcome = "answered"
    return web.Response(status=answer.status, body=answer.body, headers=_headers(answer))


async def _send_stream(
    request: web.BaseRequest,
    record: RequestRecord,
    answer: Answer,
    stream: AsyncGenerator[bytes, None],
    faults: Mapping[str, Fault],
) -> web.StreamResponse:
    async with aclosing(stream) as pieces:
        try:
            # Until the first event is there, a failure is still an ordinary error answer.
            first = await anext(pieces, None)
        except ApiError as error:
            return await send_answer(request, record, error_answer(error), faults)
        response = await _open(request, record, answer)
        limit = _limit(faults.get("truncate_stream"), 1)
        sent = 0
        while first is not None:
            if limit is not None and sent >= limit:
                await _finish_unseen(pieces, answer)
                return cut(request, record, response)
            if first:
                await response.write(first)
                sent += 1
            if sent == 1 and "silence" in faults:
                await _fall_silent(faults["silence"])
            first = await anext(pieces, None)
        if limit is not None and sent >= limit:
            return cut(request, record, response)
    record.outcome = "answered"
    await response.write_eof()
    return response


async def _open(request: web.BaseRequest, record: RequestRecord, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    if answer.length is not None:
        response.content_length = answer.length
    record.status = answer.status
    await response.prepare(request)
    return response


async def _finish_unseen(pieces: AsyncGenerator[bytes, None], answer: Answer) -> None:
    """Let the work behind a cut stream go on to its end: the wire broke, not the API."""
    if not answer.endless:
        async for _ in pieces:
            pass


async def drain_answer(answer: Answer) -> None:
    """Let all effects of an answer happen without sending it."""
    if answer.stream is not None:
        async with aclosing(answer.stream) as pieces:
            await _finish_unseen(pieces, answer)


async def _send_part(
    request: web.BaseRequest, record: RequestRecord, answer: Answer, fault: Fault
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    response.content_length = len(answer.body)
    record.status = answer.status
    await response.prepare(request)
    await response.write(answer.body[: _limit(fault, len(answer.body) // 2)])
    return cut(request, record, response)


async def send_slow_error(
    request: web.BaseRequest, record: RequestRecord, fault: Fault
) -> web.StreamResponse:
    """A 200 whose chunked body turns out, later, to be an error."""
    response = web.StreamResponse(status=200, headers={"Content-Type": JSON, "Server": _SERVER, **CORS})
    record.status = 200
    await response.prepare(request)
    await asyncio.sleep(_number(fault, 0) / 1000)
    await response.write(orjson.dumps({"message": "Internal server error", "code": "INTERNAL_SERVER_ERROR"}))
    record.outcome = "answered"
    await response.write_eof()
    return response


def cut(
    request: web.BaseRequest, record: RequestRecord, response: web.StreamResponse | None = None
) -> web.StreamResponse:
    """Close the connection after what was written, without ending the body."""
    record.outcome = "dropped"
    if request.transport is not None:
        request.transport.close()
    return response if response is not None else web.Response()


def drop(request: web.BaseRequest, record: RequestRecord, fault: Fault) -> web.StreamResponse:
    """Close the connection without a word; with a TCP reset where the fault asks for one."""
    transport = request.transport
    if fault.value == "reset" and transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return cut(request, record)


def fault_answer(fault: Fault) -> Answer:
    """The answer of a `status` or `rate_limited` fault."""
    if fault.fault == "rate_limited":
        return error_answer(ApiError(429, "You have reached your allocated rate limits"))
    value = fault.value
    options: JsonObject = value if isinstance(value, dict) else {"status": value}
    status = int(options["status"])
    answer = error_answer(ApiError(status, options.get("message"), options.get("code")))
    answer.headers = {str(name): str(text) for name, text in dict(options.get("headers") or {}).items()}
    return answer


async def wait_latency(fault: Fault) -> None:
    """Wait as long as a `latency` fault says."""
    await asyncio.sleep(_number(fault, 0) / 1000)


async def _fall_silent(fault: Fault) -> None:
    if fault.value is None:
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(_number(fault, 0) / 1000)


def _number(fault: Fault, default: float) -> float:
    return fault.value if isinstance(fault.value, int | float) else default


def _limit(fault: Fault | None, default: int) -> int | None:
    return None if fault is None else int(_number(fault, default))


def _headers(answer: Answer) -> dict[str, str]:
    typed = {"Content-Type": answer.content_type} if answer.body or answer.stream is not None else {}
    return {**typed, "Server": _SERVER, **CORS, **answer.headers}
