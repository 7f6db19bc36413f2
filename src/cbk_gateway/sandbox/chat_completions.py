"""The OpenAI-style endpoint: the same engine, in that dialect of bodies, chunks and errors.

`model` selects (`model/name=...` or `bot/id=...`); a bare model name is refused, as the API refuses it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

import orjson

from cbk_gateway.sandbox import engine
from cbk_gateway.sandbox.answers import SSE, Answer, ApiError, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.runs import Run, drain
from cbk_gateway.sandbox.schema import FLAG, Field, Fields, array_of, check_body, required

_BODY: Final[Fields] = {
    "model": Field("string", required=True, nullable=False, min_length=1),
    "messages": required(array_of(Field("object", nullable=False))),
    "stream": FLAG,
    "functions": array_of(Field("object", nullable=False)),
    "tools": array_of(Field("object", nullable=False)),
}
_ROLES: Final[Mapping[str, str]] = {"user": "user", "assistant": "bot"}
_MESSAGE: Final[Fields] = {"role": required(Field("string"))}


class _DialectError(ApiError):
    """A refusal with OpenAI's members beside the API's."""

    def shape(self) -> JsonObject:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        shape = super().shape()
        return {**shape, "error": {"message": self.message, "type": kind, "code": self.code, "param": None}}


def read_selector(call: Call, model: str) -> tuple[str, str | None]:
    """The model and the bot's id that a selector names.

    Raises:
        ApiError: 400 for a bare name or an unknown kind of selector; 403 or 404 for the bot.
    """
    kind, _, rest = model.partition("/")
    options = dict(part.partition("=")[::2] for part in rest.split(","))
    if kind == "model" and (options.get("name") or options.get("id")):
        return options.get("name") or options["id"], None
    if kind == "bot" and options.get("id"):
        bot = call.lookup("bot", options["id"])
        return str(bot.body.get("model") or engine.DEFAULT_MODEL), bot.id
    raise ApiError(400, f'Unsupported model selector "{model}" - expected one of model/*, bot/*')


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


async def complete(call: Call) -> Answer:
    """A reply to OpenAI-style messages, whole or in chunks."""
    try:
        run = _read_run(call)
        if call.body.get("stream"):
            headers = {"Cache-Control": "no-cache"}
            return Answer(content_type=SSE, headers=headers, stream=_chunks(call, run))
        return json_answer(await _completion(call, run))
    except ApiError as error:
        raise _DialectError(error.status, error.message, error.code) from error


def _read_run(call: Call) -> Run:
    check_body(_BODY, call.body, open_ended=True)
    messages: list[JsonObject] = call.body["messages"]
    for message in messages:
        check_body(_MESSAGE, message, open_ended=True)
    if not messages:
        raise bad_request('"messages" must contain at least 1 items')
    model, bot_id = read_selector(call, call.body["model"])
    said = [
        {"type": _ROLES.get(message["role"], "context"), "text": _text(message.get("content"))}
        for message in messages
    ]
    return Run(call, None, engine.last_user_text(said), bot_id=bot_id, model=model)


def _head(call: Call, kind: str) -> JsonObject:
    return {
        "id": f"chatcmpl-{call.world.random.randbytes(12).hex()}",
        "object": kind,
        "created": call.world.store.now_ms() // 1000,
        "model": call.body["model"],
    }


async def _completion(call: Call, run: Run) -> JsonObject:
    result = await drain(run)
    prompt = engine.count_tokens(run.heard)
    total = int(result["usage"]["token"])
    message = {"role": "assistant", "content": result["text"], "refusal": None}
    return {
        **_head(call, "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": total - prompt, "total_tokens": total},
    }


async def _chunks(call: Call, run: Run) -> AsyncGenerator[bytes, None]:
    head = _head(call, "chat.completion.chunk")

    def chunk(delta: JsonObject, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: " + orjson.dumps({**head, "choices": [choice]}) + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    async for event in run.events():
        if event["type"] == "token":
            yield chunk({"content": event["data"]["token"]})
        elif event["type"] == "result":
            yield chunk({}, "stop")
        elif event["type"] == "error":
            failure = {"error": {**event["data"], "type": "server_error"}}
            yield b"data: " + orjson.dumps(failure) + b"\n\n"
    yield b"data: [DONE]\n\n"


ROUTES: Final[Routes] = {("openai/chat", False, "complete"): complete}
