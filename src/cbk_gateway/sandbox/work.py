"""Work that goes on after the answer: syncs, task executions, triggered integrations.

Each finishes a moment later, as a change of rows that no call announces. That is what makes caches of such
resources hard, and why the sandbox imitates it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cbk_gateway.sandbox.answers import Answer, ApiError, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.channels import TASK_CHANNEL
from cbk_gateway.sandbox.crud import add_row
from cbk_gateway.sandbox.schema import COUNT, NAME, TEXT, Field, array_of, check_body, choice, required
from cbk_gateway.sandbox.store import Row

#: How long after its answer such work is done.
DELAY_S: Final = 0.05
SYNC_PAUSE_MS: Final = 120_000


def later(call: Call, finish: Callable[[], None]) -> None:
    """Do the rest of the work a moment after the answer."""

    async def work() -> None:
        await asyncio.sleep(DELAY_S)
        finish()

    call.world.spawn(work())


def synced_later(call: Call, finish: Callable[[], None]) -> None:
    """As `later`, for a sync: one per two minutes, account and resource.

    Raises:
        ApiError: 429 for one that comes too soon.
    """
    key = (call.owner, f"{call.target.kind}/{'/'.join(call.target.ids)}")
    now = call.world.store.now_ms()
    if now - call.world.last_sync.get(key, -SYNC_PAUSE_MS) < SYNC_PAUSE_MS:
        raise ApiError(429, "Too many requests", "TOO_MANY_REQUESTS")
    call.world.last_sync[key] = now
    later(call, finish)


async def sync(call: Call) -> Answer:
    """Begin to sync a file or an integration."""
    row = call.item()
    store = call.world.store

    def finish() -> None:
        if store.get(row.id) is not None:
            store.change(row, {"syncStatus": "synced", "lastSyncedAt": store.now_ms()})

    synced_later(call, finish)
    if row.kind != "file":
        store.change(row, {"syncStatus": "pending"})
    return json_answer({"id": row.id})


async def trigger_task(call: Call) -> Answer:
    """Begin one execution of a task."""
    task = call.item()
    store, channels, owner = call.world.store, call.world.channels, call.owner
    conversation = add_row(call, "conversation", {"taskId": task.id, "botId": task.body.get("botId")})
    started: JsonObject = {"conversationId": conversation.id, "status": "running", "outcome": "pending"}
    execution = store.add(owner, "task/execution", started, parent=task.id)
    store.change(task, {"status": "running", "outcome": "pending", "lastRunAt": store.now_ms()})
    action = {"id": execution.id, "kind": "function", "name": "sandbox"}
    name = f"{TASK_CHANNEL}:{task.id}"

    def event(kind: str) -> JsonObject:
        return {"type": kind, "createdAt": store.now_ms(), "data": {"id": execution.id, "action": action}}

    def finish() -> None:
        if store.get(execution.id) is None or execution.body["status"] != "running":
            return
        ended = {"status": "idle", "outcome": "success"}
        store.change(execution, {**ended, "summary": "Done.", "completedAt": store.now_ms()})
        store.change(task, ended)
        channels.publish(name, event("operationEnd"))

    channels.publish(name, event("operationBegin"))
    later(call, finish)
    return json_answer({"id": task.id})


def _cancel(call: Call, execution: Row) -> None:
    if execution.body.get("status") == "running":
        call.world.store.change(execution, {"status": "canceled", "outcome": "failure"})


async def cancel_task(call: Call) -> Answer:
    """Stop a task and its running executions."""
    task = call.item()
    store = call.world.store
    for execution in store.rows(call.owner, "task/execution", task.id).values():
        _cancel(call, execution)
    store.change(task, {"status": "canceled"})
    return json_answer({"id": task.id})


async def cancel_execution(call: Call) -> Answer:
    """Stop one execution."""
    execution = call.item()
    _cancel(call, execution)
    return json_answer({"id": execution.id, "taskId": execution.parent})


async def trigger_integration(call: Call) -> Answer:
    """Run an extraction or a support check over conversations, later."""
    check_body({"conversationIds": array_of(NAME), "sample": COUNT}, call.body)
    row = call.item()
    store, owner = call.world.store, call.owner
    chosen = call.body.get("conversationIds")
    known = store.rows(owner, "conversation")
    sample = list(known)[-int(call.body.get("sample") or 1) :]
    picked = [found for found in (chosen or sample) if found in known]

    def finish() -> None:
        for conversation_id in picked:
            if row.kind == "integration/extract" and store.get(row.id) is not None:
                item = {"conversationId": conversation_id, "data": {"summary": "A talk."}}
                store.add(owner, "integration/extract/item", item, parent=row.id)

    later(call, finish)
    return json_answer({"id": row.id, "triggered": len(picked)})


async def invoke_trigger(call: Call) -> Answer:
    """Fire a trigger: it starts a conversation."""
    row = call.item()
    store = call.world.store
    values = {"name": row.body.get("name"), "botId": row.body.get("botId")}
    conversation = add_row(call, "conversation", values)
    text = call.body.get("text") or "The trigger fired."
    store.add(call.owner, "conversation/message", {"type": "user", "text": text}, parent=conversation.id)
    store.change(row, {"lastTriggerAt": store.now_ms()})
    return json_answer({"id": row.id})


async def initiate(call: Call) -> Answer:
    """Begin a conversation through an integration."""
    where = {"email": "email", "slack": "channel", "twilio": "to"}[call.target.kind.rpartition("/")[2]]
    fields = {"text": required(TEXT), where: required(NAME), "subject": TEXT, "from": NAME}
    if call.target.kind == "integration/twilio":
        fields["channel"] = choice("sms", "call")
    check_body(fields, call.body)
    row = call.item()
    conversation = add_row(call, "conversation", {"botId": row.body.get("botId")})
    message = {"type": "bot", "text": call.body["text"]}
    call.world.store.add(call.owner, "conversation/message", message, parent=conversation.id)
    return json_answer({"id": conversation.id})


async def attach_widget_file(call: Call) -> Answer:
    """Note that a widget shows a file."""
    field = Field("string", nullable=False, choices=("bar", "user", "bot", "button"))
    check_body({"type": field}, call.body)
    widget, file = call.parent(), call.lookup("file", call.target.ids[-1])
    call.world.store.change(widget, {})
    kind = call.body.get("type") or "bar"
    return json_answer({"id": file.id, "type": kind, "widgetIntegrationId": widget.id})


ROUTES: Final[Routes] = {
    ("file", True, "sync"): sync,
    ("integration/sitemap", True, "sync"): sync,
    ("integration/notion", True, "sync"): sync,
    ("task", True, "trigger"): trigger_task,
    ("task", True, "cancel"): cancel_task,
    ("task/execution", True, "cancel"): cancel_execution,
    ("integration/extract", True, "trigger"): trigger_integration,
    ("integration/support", True, "trigger"): trigger_integration,
    ("integration/trigger", True, "invoke"): invoke_trigger,
    ("integration/trigger", True, "event"): invoke_trigger,
    ("integration/email", True, "initiate"): initiate,
    ("integration/slack", True, "initiate"): initiate,
    ("integration/twilio", True, "initiate"): initiate,
    ("integration/widget/file", True, "attach"): attach_widget_file,
    ("integration/widget/file", True, "detach"): attach_widget_file,
}
