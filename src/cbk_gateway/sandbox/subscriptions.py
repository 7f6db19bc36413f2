"""Streams that never end by themselves: channels, tasks and the event log.

As in the API, a stream opens with a `nop` and then stays silent until something is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from cbk_gateway.sandbox.answers import JSON, Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.channels import EVENT_CHANNEL, TASK_CHANNEL
from cbk_gateway.sandbox.lists import check_format, encoder
from cbk_gateway.sandbox.runs import channel_name
from cbk_gateway.sandbox.schema import OBJECT, Field, Fields, check_body, required

#: How long a client that asked for one JSON answer waits for the first message.
JSON_WAIT_S: Final = 25.0
_SUBSCRIBE: Final[Fields] = {"historyLength": Field("integer", minimum=0, maximum=100)}
_PUBLISH: Final[Fields] = {"message": required(OBJECT)}


def _subscription(call: Call, name: str, wrap: Callable[[JsonObject], JsonObject]) -> Answer:
    check_body(_SUBSCRIBE, call.body)
    check_format(call.accept)
    history = int(call.body.get("historyLength") or 0)
    encode = encoder(call.accept)
    channels = call.world.channels

    async def pieces() -> AsyncGenerator[bytes, None]:
        with channels.listen(name, history) as queue:
            yield encode({"type": "nop", "data": {}})
            while True:
                yield encode(wrap(await queue.get()))

    return Answer(content_type=call.accept, stream=pieces(), endless=True)


async def _first_message(call: Call, name: str) -> Answer:
    """What a JSON client gets: it cannot be streamed to, so it waits for one message."""
    check_body(_SUBSCRIBE, call.body)
    with call.world.channels.listen(name, int(call.body.get("historyLength") or 0)) as queue:
        try:
            async with asyncio.timeout(JSON_WAIT_S):
                return json_answer(await queue.get())
        except TimeoutError:
            return json_answer({})


async def subscribe_channel(call: Call) -> Answer:
    """The messages of a channel of this credential."""
    name = channel_name(call, call.target.ids[0])
    if call.accept == JSON:
        return await _first_message(call, name)
    return _subscription(call, name, lambda message: {"type": "message", "data": message})


async def publish(call: Call) -> Answer:
    """Hand a message to all who listen on a channel of this credential."""
    check_body(_PUBLISH, call.body)
    channel = call.target.ids[0]
    call.world.channels.publish(channel_name(call, channel), call.body["message"])
    return json_answer({"id": channel})


async def subscribe_task(call: Call) -> Answer:
    """The events of a task's executions."""
    name = f"{TASK_CHANNEL}:{call.item().id}"
    if call.accept == JSON:
        return await _first_message(call, name)
    return _subscription(call, name, lambda event: event)


async def subscribe_events(call: Call) -> Answer:
    """The account's event log as it is written."""
    name = f"{EVENT_CHANNEL}:{call.owner}"
    if call.accept == JSON:
        return await _first_message(call, name)
    return _subscription(call, name, lambda entry: {"type": "item", "data": entry})


ROUTES: Final[Routes] = {
    ("channel", True, "subscribe"): subscribe_channel,
    ("channel", True, "publish"): publish,
    ("task", True, "subscribe"): subscribe_task,
    ("event/log", False, "subscribe"): subscribe_events,
}
