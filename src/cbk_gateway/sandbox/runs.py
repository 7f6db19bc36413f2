"""Model runs: the calls that make the model speak, as one JSON answer or as a stream of events.

The order of events is the API's: the user's message is stored and acknowledged (`sendResult`), tokens flow,
then abilities write, the reply is stored, and `receiveResult` and `result` close. A client that leaves in
the middle stops the run, and what was still to come never happens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.sandbox import engine
from cbk_gateway.sandbox.answers import JSON, Answer, ApiError, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.contacts import resolve_contact
from cbk_gateway.sandbox.crud import accepted
from cbk_gateway.sandbox.lists import check_format, encoder
from cbk_gateway.sandbox.schema import (
    BOT_CONFIG,
    ENTITIES,
    MESSAGES,
    NAME,
    RUN_OPTIONS,
    TEXT,
    Field,
    Fields,
    array_of,
    check_body,
    record,
    ref,
    required,
)
from cbk_gateway.sandbox.store import Row

COMPLETE: Final[Fields] = {
    "text": Field("string", nullable=False, min_length=1, max_bytes=TEXT.max_bytes),
    "entities": ENTITIES,
    **RUN_OPTIONS,
}
SEND: Final[Fields] = {"text": required(TEXT), "entities": ENTITIES, **RUN_OPTIONS}
RECEIVE: Final[Fields] = RUN_OPTIONS
STATELESS: Final[Fields] = {
    "messages": required(MESSAGES),
    "attachments": array_of(record(url=TEXT, name=NAME, type=NAME)),
    "contactId": Field("any"),
    "contact": Field("any"),
    "botId": ref("bot"),
    **BOT_CONFIG,
    **RUN_OPTIONS,
}
CHANNEL: Final[Fields] = {"channelId": NAME}


@dataclass(slots=True)
class Run:
    """One model run.

    Attributes:
        conversation: Where messages are kept; None for a stateless run.
        new_text: What the user says now, to be stored first; None when nothing new is said.
        heard: The text that the model answers.
        speaks: Whether the model replies, or the message is only stored.
    """

    call: Call
    conversation: Row | None
    heard: str
    new_text: str | None = None
    speaks: bool = True
    bot_id: str | None = None
    model: str = engine.DEFAULT_MODEL
    usage: dict[str, int] = field(default_factory=lambda: {"token": 0})

    def _event(self, kind: str, data: JsonObject) -> JsonObject:
        return {"type": kind, "createdAt": self.call.world.store.now_ms(), "data": data}

    def _spend(self, tokens: int) -> None:
        self.usage["token"] += tokens
        conversation = self.conversation.id if self.conversation is not None else None
        ledger = self.call.world.ledger
        ledger.spend(self.call.owner, "token", tokens, conversationId=conversation, botId=self.bot_id)

    def _store_message(self, kind: str, text: str) -> JsonObject:
        if self.conversation is None:
            return {}
        row = add_message(self.call, self.conversation, {"type": kind, "text": text})
        return {"id": row.id}

    async def events(self) -> AsyncGenerator[JsonObject, None]:
        """The events of the run, the effects of each just before it."""
        if self.new_text is not None:
            sent = self._store_message("user", self.new_text)
            self._spend(engine.count_tokens(self.new_text))
            result = {**sent, "text": self.new_text, "entities": [], "usage": dict(self.usage)}
            yield self._event("sendResult", result)
            if not self.speaks:
                yield self._event("result", {**sent, "entities": []})
                return
        yield self._event("completeBegin", {})
        yield {"type": "ping", "data": {}}
        reply = engine.reply_to(self.heard)
        for index, piece in enumerate(engine.pieces_of(reply)):
            if index == 2 and engine.fails(self.heard):
                failure = ApiError(500, "The model failed")
                yield self._event("error", {"message": failure.message, "code": failure.code})
                return
            yield self._event("token", {"token": piece})
        async for event in self._finish(reply):
            yield event

    async def _finish(self, reply: str) -> AsyncGenerator[JsonObject, None]:
        spent = engine.count_tokens(reply)
        prompt = self.usage["token"] or engine.count_tokens(self.heard)
        self._spend(spent + (prompt - self.usage["token"]))
        used = {"model": self.model, "inputTokensUsed": prompt, "outputTokensUsed": spent}
        yield self._event("usage", used)
        yield self._event("completeEnd", {"reason": "stop"})
        engine.obey(self.call, self.heard)
        kept = self._store_message("bot", reply)
        result = {**kept, "text": reply, "usage": dict(self.usage), "end": {"reason": "stop"}}
        yield self._event("receiveResult", result)
        yield self._event("result", result)


def add_message(call: Call, conversation: Row, values: Mapping[str, object]) -> Row:
    """Store a message in a conversation and count it."""
    row = call.world.store.add(call.owner, "conversation/message", values, parent=conversation.id)
    bot_id = conversation.body.get("botId")
    call.world.ledger.spend(call.owner, "message", 1, conversationId=conversation.id, botId=bot_id)
    return row


async def answer_run(call: Call, run: Run) -> Answer:
    """The run as the client wants it: drained into its result, or event by event."""
    accept = call.accept
    check_format(accept)
    if accept == JSON:
        return json_answer(await drain(run))
    encode = encoder(accept)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(run.events()) as events:
            async for event in events:
                yield encode(event)

    return Answer(content_type=accept, stream=pieces())


async def drain(run: Run) -> JsonObject:
    """The result of a run.

    Raises:
        ApiError: 500 when the run fails.
    """
    result: JsonObject = {}
    async for event in run.events():
        if event["type"] == "error":
            raise ApiError(500, event["data"]["message"], event["data"]["code"])
        if event["type"] == "result":
            result = event["data"]
    return result


def stateful_run(call: Call, fields: Fields, *, speaks: bool = True) -> Run:
    """A run in the addressed conversation.

    Raises:
        ApiError: 400, 403 or 404 before anything happens.
    """
    check_body(fields, call.body)
    conversation = call.item()
    text = call.body.get("text")
    messages = call.world.store.rows(call.owner, "conversation/message", conversation.id)
    heard = text if isinstance(text, str) else engine.last_user_text([row.body for row in messages.values()])
    bot_id = conversation.body.get("botId")
    return Run(call, conversation, heard, text, speaks, bot_id, _model(call, conversation.body, bot_id))


def stateless_run(call: Call, fields: Fields = STATELESS) -> Run:
    """A run over the messages of the body.

    Raises:
        ApiError: 400 or 403 before anything happens.
    """
    values = accepted(call, fields)
    resolve_contact(call, values)
    heard = engine.last_user_text(values["messages"])
    bot_id = values.get("botId")
    return Run(call, None, heard, bot_id=bot_id, model=_model(call, values, bot_id))


def _model(call: Call, values: Mapping[str, object], bot_id: str | None) -> str:
    bot = call.world.store.get(bot_id) if bot_id else None
    chosen = values.get("model") or (bot.body.get("model") if bot is not None else None)
    return str(chosen) if chosen else engine.DEFAULT_MODEL


async def complete(call: Call) -> Answer:
    """Say something in a conversation and hear the reply."""
    return await answer_run(call, stateful_run(call, COMPLETE))


async def send(call: Call) -> Answer:
    """Say something without asking for a reply."""
    return await answer_run(call, stateful_run(call, SEND, speaks=False))


async def receive(call: Call) -> Answer:
    """Ask for a reply to what was said."""
    return await answer_run(call, stateful_run(call, RECEIVE))


async def complete_stateless(call: Call) -> Answer:
    """A reply to messages that are not kept."""
    return await answer_run(call, stateless_run(call))


def channel_name(call: Call, channel: str) -> str:
    """Channels are private to a credential, and to the child it acts as."""
    return f"{call.caller.session}:{channel}"


def _dispatch(call: Call, run: Run) -> Answer:
    world = call.world
    channel = str(call.body.get("channelId") or f"channel_{world.random.randbytes(12).hex()}")
    name = channel_name(call, channel)

    async def work() -> None:
        async for event in run.events():
            world.channels.publish(name, event)

    world.spawn(work())
    return json_answer({"channelId": channel})


async def dispatch(call: Call) -> Answer:
    """Like `complete`, later, the events on a channel."""
    return _dispatch(call, stateful_run(call, {**COMPLETE, **CHANNEL}))


async def dispatch_stateless(call: Call) -> Answer:
    """Like the stateless `complete`, later, the events on a channel."""
    return _dispatch(call, stateless_run(call, {**STATELESS, **CHANNEL}))


ROUTES: Final[Routes] = {
    ("conversation", True, "complete"): complete,
    ("conversation", True, "send"): send,
    ("conversation", True, "receive"): receive,
    ("conversation", True, "dispatch"): dispatch,
    ("conversation", False, "complete"): complete_stateless,
    ("conversation", False, "dispatch"): dispatch_stateless,
}
