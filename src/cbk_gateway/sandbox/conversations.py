"""Conversations beyond the generic pattern: creation with messages, votes, sessions, counts.

Model runs are in `runs`, attachments in `files`, contacts in `contacts`.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.contacts import resolve_contact
from cbk_gateway.sandbox.crud import accepted, add_row
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.runs import add_message
from cbk_gateway.sandbox.schema import (
    MESSAGES,
    META,
    NUMBER,
    TEXT,
    Field,
    Fields,
    array_of,
    check_body,
    record,
    required,
)
from cbk_gateway.sandbox.store import Row

_CONVERSATION: Final[Fields] = RESOURCES["conversation"].fields or {}
_MESSAGE: Final[Fields] = RESOURCES["conversation/message"].fields or {}
_CREATE: Final[Fields] = {
    **_CONVERSATION,
    "contactId": Field("any"),
    "contact": Field("any"),
    "messages": MESSAGES,
}
_VOTE: Final[Fields] = {"value": NUMBER, "reason": TEXT}
_DURATION: Final = Field("integer", minimum=1, maximum=86_400)
_BATCH: Final[Fields] = {"messages": required(array_of(record(**_MESSAGE)))}
_SESSION_S: Final = 3_600


def add_conversation(call: Call, values: JsonObject) -> Row:
    """A new conversation of the caller, counted."""
    row = add_row(call, "conversation", values)
    bot_id = row.body.get("botId")
    call.world.ledger.spend(call.owner, "conversation", 1, conversationId=row.id, botId=bot_id)
    return row


async def create(call: Call) -> Answer:
    """A new conversation, with its first messages and an inline contact where given."""
    values = accepted(call, _CREATE)
    resolve_contact(call, values)
    messages = values.pop("messages", None)
    row = add_conversation(call, values)
    for message in messages or []:
        add_message(call, row, message)
    return json_answer({"id": row.id} if messages is None else {"id": row.id, "messages": messages})


async def create_message(call: Call) -> Answer:
    """Store one message."""
    check_body(_MESSAGE, call.body)
    values = {name: value for name, value in call.body.items() if name != "entities"}
    row = add_message(call, call.parent(), values)
    return json_answer({"id": row.id, "entities": call.body.get("entities") or []})


async def create_messages(call: Call) -> Answer:
    """Store several messages."""
    check_body(_BATCH, call.body)
    conversation = call.parent()
    rows = [add_message(call, conversation, message) for message in call.body["messages"]]
    return json_answer({"items": [{"id": row.id} for row in rows]})


def _vote(call: Call, row: Row, conversation: Row | None, default: int) -> Answer:
    check_body(_VOTE, call.body)
    value = call.body.get("value")
    rating: JsonObject = {
        "value": default if value is None else value,
        "reason": call.body.get("reason"),
        f"{row.kind.rpartition('/')[2]}Id": row.id,
    }
    if conversation is not None:
        rating["conversationId"] = conversation.id
        rating["contactId"] = conversation.body.get("contactId")
        rating["botId"] = conversation.body.get("botId")
    add_row(call, "rating", {name: part for name, part in rating.items() if part is not None})
    if conversation is not None:
        # A vote leaves a request and a response activity in the conversation.
        for phase in ("request", "response"):
            meta = {"activity": {"type": phase, "function": {"name": "rating"}}}
            add_message(call, conversation, {"type": "activity", "text": "", "meta": meta})
    return json_answer({"id": row.id})


async def upvote(call: Call) -> Answer:
    """Rate the addressed bot, conversation or message well."""
    return _vote(call, call.item(), _conversation_of(call), 1)


async def downvote(call: Call) -> Answer:
    """Rate the addressed bot, conversation or message badly."""
    return _vote(call, call.item(), _conversation_of(call), -1)


def _conversation_of(call: Call) -> Row | None:
    if call.target.chain[0] != "conversation":
        return None
    return call.lookup("conversation", call.target.ids[0])


async def compact(call: Call) -> Answer:
    """Put a checkpoint where the history could be cut."""
    row = call.item()
    add_message(call, row, {"type": "checkpoint", "text": "The conversation so far."})
    return json_answer({"id": row.id, "usage": {"token": 1}})


async def create_session(call: Call) -> Answer:
    """A token for an end user, who may talk in this conversation only."""
    check_body({"durationInSeconds": _DURATION}, call.body)
    row = call.parent()
    token, expires_ms = call.world.accounts.mint_session(
        call.caller, call.owner, int(call.body.get("durationInSeconds") or _SESSION_S), row.id
    )
    return json_answer({"id": row.id, "token": token, "expiresAt": expires_ms})


async def create_bot_session(call: Call) -> Answer:
    """A new conversation with the bot or widget, and a token for it."""
    fields: Fields = {
        "durationInSeconds": _DURATION,
        "messages": MESSAGES,
        "meta": META,
        "contactId": Field("any"),
        "contact": Field("any"),
    }
    values = accepted(call, fields)
    parent = call.parent()
    duration_s = int(values.pop("durationInSeconds", None) or _SESSION_S)
    messages = values.pop("messages", None)
    resolve_contact(call, values)
    values["botId"] = parent.id if parent.kind == "bot" else parent.body.get("botId")
    row = add_conversation(call, values)
    for message in messages or []:
        add_message(call, row, message)
    token, expires_ms = call.world.accounts.mint_session(call.caller, call.owner, duration_s, row.id)
    shape = {"id": row.id, "conversationId": row.id, "token": token, "expiresAt": expires_ms}
    return json_answer(shape if messages is None else {**shape, "messages": messages})


async def fetch_usage(call: Call) -> Answer:
    """What the addressed bot or conversation has used."""
    row = call.parent()
    usage = call.world.ledger.book(call.owner).parts.get(row.id)
    shape = usage.shape() if usage is not None else {"tokens": 0, "conversations": 0, "messages": 0}
    return json_answer(shape)


async def touch_item(call: Call) -> Answer:
    """Actions on a conversation or message whose result is only its id."""
    row = call.item()
    return json_answer({"id": row.id})


async def create_websocket(call: Call) -> Answer:
    """A URL on the relay, which a client would dial by itself."""
    call.lookup(call.target.chain[0], call.target.ids[0])
    ticket = call.world.random.randbytes(16).hex()
    relay = call.world.base_url.replace("http://", "ws://")
    return json_answer({"websocket": f"{relay}/_sandbox/relay/{ticket}"})


ROUTES: Final[Routes] = {
    ("conversation", False, "create"): create,
    ("conversation/message", False, "create"): create_message,
    ("conversation/message/batch", False, "create"): create_messages,
    ("conversation/message", True, "upvote"): upvote,
    ("conversation/message", True, "downvote"): downvote,
    ("conversation/message", True, "synthesize"): touch_item,
    ("conversation", True, "upvote"): upvote,
    ("conversation", True, "downvote"): downvote,
    ("conversation", True, "compact"): compact,
    ("conversation", True, "initiate"): touch_item,
    ("conversation", True, "apply"): touch_item,
    ("bot", True, "upvote"): upvote,
    ("bot", True, "downvote"): downvote,
    ("conversation/session", False, "create"): create_session,
    ("bot/session", False, "create"): create_bot_session,
    ("integration/widget/session", False, "create"): create_bot_session,
    ("conversation/usage", False, "fetch"): fetch_usage,
    ("bot/usage", False, "fetch"): fetch_usage,
    ("bot/realtime/websocket", False, "create"): create_websocket,
    ("conversation/realtime/websocket", False, "create"): create_websocket,
}
