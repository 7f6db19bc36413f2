"""The platform's own lists: models, abilities, documents, examples, limits. The same for every account.

As in the API they ignore paging (a cursor gives an empty page) and stamp every item with the current time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cbk_gateway.sandbox import engine
from cbk_gateway.sandbox.answers import JSON, Answer, ApiError, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.crud import add_row
from cbk_gateway.sandbox.lists import plain_list
from cbk_gateway.sandbox.runs import Run, answer_run
from cbk_gateway.sandbox.schema import COUNT, NAME, OBJECT, TEXT, Field, Fields, check_body, required
from cbk_gateway.sandbox.search import score

_SEARCH: Final[Fields] = {
    "search": Field("string", required=True, nullable=False, min_length=1),
    "take": COUNT,
}
_GENERATE: Final[Fields] = {"text": required(TEXT), "props": OBJECT, "model": NAME}
_SCHEMA: Final = {"type": "object", "properties": {}}
_DOCUMENTS: Final = ("doc", "guide", "manual", "tutorial")


def _document(kind: str, topic: str) -> JsonObject:
    return {
        "id": f"{kind}-{topic}",
        "name": f"{topic.title()} {kind}",
        "description": f"How {topic} work.",
        "category": "Basics",
        "tags": [topic],
        "index": 1,
        "link": f"https://example.com/{kind}/{topic}",
    }


_LISTS: Final[Mapping[str, list[JsonObject]]] = {
    "platform/model": [
        {
            "id": name,
            "name": name,
            "description": f"A stand-in that answers {how}.",
            "provider": "sandbox",
            "family": "echo",
            "type": "language",
            "maxTokens": 8_192,
            "maxInputTokens": 6_144,
            "maxOutputTokens": 2_048,
        }
        for name, how in ((engine.DEFAULT_MODEL, "with what was said"), ("sandbox-echo-large", "likewise"))
    ],
    "platform/ability": [
        {
            "id": f"ability-{name}",
            "name": name,
            "description": f"Lets a bot {what}.",
            "instruction": f"```{name}\n```",
            "schema": _SCHEMA,
            "icon": "box",
            "tags": [name],
        }
        for name, what in (("fetch", "read a page"), ("search", "search a dataset"), ("bot", "make a bot"))
    ],
    "platform/action": [
        {"id": f"action-{name}", "name": name, "description": f"The {name} action.", "examples": [name]}
        for name in ("fetch", "search", "email")
    ],
    "platform/secret": [
        {"id": f"secret-{name}", "name": name, "description": f"A {name} key.", "type": kind, "icon": "key"}
        for name, kind in (("plain", "plain"), ("mail", "oauth"))
    ],
    "platform/example": [
        {
            "id": f"example-{name}",
            "name": name.title(),
            "description": f"A {name} bot to start from.",
            "type": "blueprint",
            "tags": [name],
            "link": f"https://example.com/examples/{name}",
        }
        for name in ("support", "sales")
    ],
    **{
        f"platform/{kind}": [_document(kind, topic) for topic in ("bots", "datasets", "skillsets")]
        for kind in _DOCUMENTS
    },
    "platform/report": [{"id": "usage", "name": "Usage", "description": "What was used."}],
    "platform/limit": [{"id": "free", "name": "Free", "tokens": 100_000, "conversations": 1_000}],
    "platform/subscription": [{"id": "free", "name": "Free", "description": "To begin with."}],
    "magic": [{"id": "magic-title", "alias": "title", "name": "Title", "description": "Finds a title."}],
}


def _stamped(call: Call, item: JsonObject) -> JsonObject:
    now = call.world.store.now_ms()
    return {**item, "createdAt": now, "updatedAt": now}


def _items(call: Call) -> list[JsonObject]:
    items = _LISTS[call.target.kind]
    wanted = call.query.get("type")
    if call.target.kind == "platform/model" and wanted:
        items = [item for item in items if item["type"] == wanted]
    return [_stamped(call, item) for item in items]


async def list_items(call: Call) -> Answer:
    """The whole list on one page."""
    return plain_list(call.accept, [] if call.query.get("cursor") and call.accept == JSON else _items(call))


def _item(call: Call) -> JsonObject:
    wanted = call.target.ids[0]
    found = next((item for item in _LISTS[call.target.kind] if wanted in (item["id"], item["name"])), None)
    if found is None:
        raise ApiError(404)
    return _stamped(call, found)


async def fetch_item(call: Call) -> Answer:
    """One entry, with its content where it is a document."""
    item = _item(call)
    if call.target.kind == "platform/example":
        return json_answer({**item, "config": {"resources": []}})
    return json_answer({**item, "content": f"# {item['name']}\n\n{item['description']}\n"})


async def search_items(call: Call) -> Answer:
    """The entries that share words with the search, best first."""
    check_body(_SEARCH, call.body)
    found = []
    for item in _items(call):
        points = score(call.body["search"], f"{item['name']} {item['description']}")
        if points > 0:
            found.append({**item, "score": points, "excerpt": item["description"]})
    found.sort(key=lambda item: -float(item["score"]))
    return json_answer({"items": found[: int(call.body.get("take") or 100)]})


async def clone_example(call: Call) -> Answer:
    """Real resources made from an example."""
    item = _item(call)
    blueprint = add_row(call, "blueprint", {"name": item["name"]})
    bot = add_row(call, "bot", {"name": item["name"], "blueprintId": blueprint.id})
    made = {"blueprint": [blueprint.view], "bot": [bot.view]}
    return json_answer({"resources": made})


def _report(call: Call, report: str) -> JsonObject:
    if report != "usage":
        return {"error": f"unknown report {report}"}
    return {"totals": call.world.ledger.book(call.owner).usage.shape()}


async def generate_report(call: Call) -> Answer:
    """One report."""
    if call.target.ids[0] not in {item["id"] for item in _LISTS["platform/report"]}:
        raise ApiError(404)
    return json_answer(_report(call, call.target.ids[0]))


async def generate_reports(call: Call) -> Answer:
    """Several reports; one that fails says so in its own place."""
    return json_answer({name: _report(call, name) for name in call.body})


async def generate_magic(call: Call) -> Answer:
    """A text made by a prompt."""
    check_body(_GENERATE, call.body)
    wanted = call.target.ids[0].lstrip("@")
    if not any(wanted in (item["id"], item["alias"]) for item in _LISTS["magic"]):
        raise ApiError(404)
    return await answer_run(call, Run(call, None, call.body["text"]))


ROUTES: Final[Routes] = {
    **{(kind, False, "list"): list_items for kind in _LISTS},
    **{
        (f"platform/{kind}", False, "search"): search_items
        for kind in ("ability", "secret", "example", *_DOCUMENTS)
    },
    **{(f"platform/{kind}", True, "fetch"): fetch_item for kind in ("example", *_DOCUMENTS)},
    ("platform/example", True, "clone"): clone_example,
    ("platform/report", True, "generate"): generate_report,
    ("platform/report", False, "generate"): generate_reports,
    ("magic", True, "generate"): generate_magic,
}
