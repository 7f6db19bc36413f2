"""What every write of the API changes, written down from the description of the API's side effects.

Nothing here is taken from the gateway's own table: it is what that table is held against. Reads stand under
their type; a write changes the reads of its own type and of all below it, the views over what it changes,
and what `ALSO` adds. What the description leaves open ("maybe") stands in `PERHAPS` and is asked neither way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

READS = {
    "ability": ("ability/list", "ability/{abilityId}/fetch"),
    "blueprint": ("blueprint/list", "blueprint/{blueprintId}/fetch"),
    "bot": ("bot/list", "bot/list?blueprintId={blueprintId}", "bot/{botId}/fetch"),
    "contact": ("contact/list", "contact/{contactId}/fetch"),
    "contact/conversation": ("contact/{contactId}/conversation/list",),
    "contact/memory": ("contact/{contactId}/memory/list",),
    "contact/rating": ("contact/{contactId}/rating/list",),
    "contact/space": ("contact/{contactId}/space/list",),
    "contact/task": ("contact/{contactId}/task/list",),
    "conversation": (
        *("conversation/list", "conversation/list?botId={botId}"),
        "conversation/{conversationId}/fetch",
    ),
    "conversation/message": (
        "conversation/{conversationId}/message/list",
        "conversation/{conversationId}/message/{messageId}/fetch",
    ),
    "dataset": ("dataset/list", "dataset/{datasetId}/fetch"),
    "dataset/file": ("dataset/{datasetId}/file/list",),
    "dataset/record": ("dataset/{datasetId}/record/list", "dataset/{datasetId}/record/{recordId}/fetch"),
    "file": ("file/list", "file/{fileId}/fetch"),
    "integration/extract/item": ("integration/extract/{extractIntegrationId}/item/list",),
    "memory": ("memory/list", "memory/{memoryId}/fetch"),
    "partner/user": ("partner/user/list", "partner/user/{userId}/fetch"),
    "partner/user/context": (
        "partner/user/{userId}/context/list",
        "partner/user/{userId}/context/{contextId}/fetch",
    ),
    "policy": ("policy/list", "policy/{policyId}/fetch"),
    "portal": ("portal/list", "portal/{portalId}/fetch"),
    "rating": ("rating/list",),
    "skillset": ("skillset/list", "skillset/{skillsetId}/fetch"),
    "skillset/ability": (
        "skillset/{skillsetId}/ability/list",
        "skillset/{skillsetId}/ability/{abilityId}/fetch",
    ),
    "space": ("space/list", "space/{spaceId}/fetch"),
    "space/site": ("space/{spaceId}/site/list",),
    "task": ("task/list", "task/{taskId}/fetch"),
    "task/execution": ("task/{taskId}/execution/list",),
    "team": ("team/list",),
    # Of the integrations only those that can show no credential are kept.
    **{
        f"integration/{kind}": (
            f"integration/{kind}/list",
            f"integration/{kind}/{{{kind}IntegrationId}}/fetch",
        )
        for kind in ("email", "extract", "sitemap", "support", "widget")
    },
}

BYSTANDERS = {
    **{kind: READS[kind][0] for kind in READS if "{" not in READS[kind][0]},
    "platform/model": "platform/model/list",
    "conversation/message": READS["conversation/message"][0],
    "dataset/record": READS["dataset/record"][0],
}
"""A list of each type, asked for beside every write that has nothing to do with it."""

ANYTHING = {
    # Several types at once, or a model whose abilities may write any.
    *("/blueprint/{}/clone", "/blueprint/{}/delete", "/blueprint/{}/resource/import"),
    *("/platform/example/{}/clone", "/partner/user/{}/delete", "/partner/user/{}/token/{}/delete"),
    *("/conversation/complete", "/conversation/dispatch", "/conversation/{}/compact"),
    *("/conversation/{}/complete", "/conversation/{}/dispatch", "/conversation/{}/receive"),
    *("/conversation/{}/send", "/graphql", "/task/{}/trigger", "/skillset/{}/ability/{}/execute"),
    *("/integration/email/{}/initiate", "/integration/slack/{}/initiate"),
    *("/integration/twilio/{}/initiate", "/integration/extract/{}/trigger"),
    *("/integration/support/{}/trigger", "/integration/trigger/{}/invoke"),
    # Beyond the description's list of paths: the same, and what nobody has described.
    *("/openai/chat/completions", "/ability/{}/execute", "/integration/skillserver/{}/invoke"),
    *("/conversation/{}/initiate", "/bot/{}/realtime/websocket/create", "/bot/{}/frobnicate"),
    *("/integration/trigger/{}/event", "/novelty/{}/run"),
}

NOTHING = {
    # They store nothing that is listed.
    *("/bot/{}/memory/search", "/contact/{}/memory/search", "/memory/search", "/dataset/{}/search"),
    *(f"/platform/{one}/search" for one in ("ability", "doc", "example", "guide")),
    *(f"/platform/{one}/search" for one in ("manual", "secret", "tutorial")),
    *("/platform/report/generate", "/platform/report/{}/generate", "/magic/{}/generate"),
    *("/channel/{}/publish", "/channel/{}/subscribe", "/event/log/subscribe", "/task/{}/subscribe"),
    *(f"/space/{{}}/storage/{one}/{{}}" for one in ("copy", "delete", "move", "upload")),
}

_LINKED = {
    "skillset": ("bot", "conversation", "partner/user/context", "skillset/ability"),
    "dataset": ("bot", "conversation", "partner/user/context", "integration/sitemap"),
}
ALSO: dict[str, tuple[str, ...]] = {
    "/bot/{}/delete": (
        *("memory", "policy", "conversation", "task", "rating", "partner/user/context", "skillset/ability"),
        *(f"integration/{kind}" for kind in ("email", "extract", "support", "widget")),
    ),
    "/dataset/{}/delete": _LINKED["dataset"],
    "/skillset/{}/delete": _LINKED["skillset"],
    "/file/{}/delete": ("dataset/file", "integration/widget", "skillset/ability"),
    "/secret/{}/delete": ("skillset/ability",),
    "/contact/{}/delete": ("task", "memory", "partner/user/context", "conversation", "space", "rating"),
    "/conversation/{}/delete": ("integration/extract/item", "rating", "task/execution"),
    "/conversation/{}/message/{}/delete": ("rating", "task/execution"),
    "/task/{}/delete": ("conversation",),
    "/space/{}/delete": ("conversation", "skillset/ability"),
    "/dataset/{}/file/{}/detach": ("dataset/record",),
    "/dataset/{}/file/{}/sync": ("dataset/record",),
    "/file/{}/sync": ("dataset/record",),
    "/integration/notion/{}/sync": ("dataset/record",),
    "/integration/sitemap/{}/sync": ("dataset/record",),
    "/integration/widget/{}/file/{}/attach": ("integration/widget",),
    "/integration/widget/{}/file/{}/detach": ("integration/widget",),
    "/conversation/create": ("contact",),
    "/conversation/{}/contact/upsert": ("contact", "conversation"),
    "/conversation/{}/upvote": ("rating", "conversation/message"),
    "/conversation/{}/downvote": ("rating", "conversation/message"),
    "/conversation/{}/message/{}/upvote": ("rating",),
    "/conversation/{}/message/{}/downvote": ("rating",),
    "/bot/{}/upvote": ("rating",),
    "/bot/{}/downvote": ("rating",),
    "/bot/{}/session/create": ("conversation",),
    "/integration/widget/{}/session/create": ("conversation",),
    "/task/{}/cancel": ("task/execution", "conversation"),
    "/task/{}/execution/{}/cancel": ("task", "conversation"),
}

PERHAPS: dict[str, tuple[str, ...]] = {
    # "All bot integrations" lose their bot; whether these have one is not said.
    "/bot/{}/delete": ("integration/sitemap",),
    "/bot/{}/clone": ("skillset", "skillset/ability", "dataset"),
    "/bot/{}/upvote": ("conversation", "conversation/message"),
    "/bot/{}/downvote": ("conversation", "conversation/message"),
    "/bot/{}/session/create": ("contact",),
    "/integration/widget/{}/session/create": ("contact",),
    "/conversation/{}/session/create": ("conversation", "contact"),
    "/conversation/{}/attachment/upload": ("conversation", "file"),
    "/dataset/{}/file/{}/attach": ("dataset/record",),
    "/conversation/{}/delete": ("task",),
    "/conversation/create": ("conversation/message",),
}

OVER = {
    "conversation": ("contact/conversation",),
    "memory": ("contact/memory",),
    "rating": ("contact/rating",),
    "space": ("contact/space",),
    "task": ("contact/task",),
    "file": ("dataset/file",),
    "skillset/ability": ("ability",),
}
"""Views, under the type whose rows they show."""

BODIES: dict[str, Any] = {
    **{path: {"search": "text"} for path in NOTHING if path.endswith("/search")},
    "/conversation/complete": {"messages": [{"type": "user", "text": "Hello"}]},
    "/conversation/dispatch": {"messages": [{"type": "user", "text": "Hello"}]},
    "/conversation/{}/send": {"text": "Hello"},
    "/conversation/{}/complete": {"text": "Hello"},
    "/conversation/{}/dispatch": {"text": "Hello"},
    "/conversation/create": {"contact": {"name": "Inline", "fingerprint": "inline"}},
    "/conversation/{}/contact/upsert": {"name": "Upserted", "fingerprint": "upserted"},
    "/conversation/{}/message/create": {"type": "user", "text": "One more"},
    "/conversation/{}/message/{}/update": {"text": "Another"},
    "/conversation/{}/attachment/upload": {"file": "data:text/plain,attached"},
    "/contact/ensure": {"fingerprint": "ensured"},
    "/dataset/{}/record/create": {"text": "A record"},
    "/dataset/{}/record/{}/update": {"text": "Another record"},
    "/file/{}/upload": {"file": "data:text/plain,uploaded"},
    "/memory/create": {"text": "A memory"},
    "/memory/{}/update": {"text": "Another memory"},
    "/policy/create": {"type": "retention"},
    "/blueprint/{}/delete": {"deleteResources": True},
    "/blueprint/{}/resource/import": {"resources": {"bot": [{"name": "Imported"}]}},
    "/graphql": {"query": 'mutation { createBot(input: {name: "Made"}) { id } }'},
    "/magic/{}/generate": {"text": "something"},
    "/channel/{}/publish": {"message": {"text": "x"}},
    "/integration/email/{}/initiate": {"text": "Hello", "email": "a@example.com"},
    "/integration/slack/{}/initiate": {"text": "Hello", "channel": "c"},
    "/integration/twilio/{}/initiate": {"text": "Hello", "to": "+1"},
    "/openai/chat/completions": {
        "model": "model/name=sandbox-echo",
        "messages": [{"role": "user", "content": "Hello"}],
    },
    "/space/{}/storage/upload/{}": {"file": "data:text/plain,kept"},
    "/space/{}/storage/copy/{}": {"destinationPath": "copy.txt"},
    "/space/{}/storage/move/{}": {"destinationPath": "moved.txt"},
    **{
        f"/{kind}/{{}}/update": {"name": "Renamed"}
        for kind in (
            *("blueprint", "bot", "contact", "conversation", "dataset", "file", "policy", "portal"),
            *("skillset", "skillset/{}/ability", "space", "task", "partner/user", "secret"),
            *("partner/user/{}/context", "partner/user/{}/token"),
        )
    },
}
"""Bodies that the API takes; `{}` where none is named."""


def described_posts() -> list[str]:
    """The POST paths of the API's public description, with the names of their parameters."""
    file = Path(__file__).parents[1] / "contract" / "openapi_paths.txt"
    lines = (line.split() for line in file.read_text().splitlines() if line)
    return [path for method, path in lines if method == "post"]


def bare(path: str) -> str:
    """A path whose parameters have no names: how it stands in the tables above."""
    return re.sub(r"\{\w+\}", "{}", path)


def resource_of(path: str) -> str:
    """The type a path acts on: its words without ids and action."""
    return "/".join(part for part in path.split("/")[:-1] if part and not part.startswith("{"))


def changed_reads(path: str) -> set[str]:
    """The types of `READS` that a write to this path changes."""
    name = bare(path)
    if name in NOTHING:
        return set()
    if name in ANYTHING:
        return set(READS)
    own = resource_of(path)
    changed = {own, *ALSO.get(name, ())}
    below = {kind for kind in READS if kind.startswith(own + "/")}
    return (with_views(changed) | below) & READS.keys()


def with_views(kinds: Iterable[str]) -> set[str]:
    """Types, and the views over their rows."""
    return {view for kind in kinds for view in (kind, *OVER.get(kind, ()))}


def untouched(path: str) -> list[str]:
    """The lists that a write to this path leaves as they are.

    What is below a changed type is left open: an id in its path may be an alias, and mean another object now.
    """
    name = bare(path)
    if name in ANYTHING:
        return []
    touched = changed_reads(path) | with_views(PERHAPS.get(name, ()))
    return [
        read
        for kind, read in BYSTANDERS.items()
        if not any(kind == one or kind.startswith(one + "/") for one in touched)
    ]
