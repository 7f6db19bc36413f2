"""The table of resource types: their fields, nesting, actions and what their deletion does elsewhere.

A table and look-ups in it, nothing else. Field names are those of the official SDK's request and response
types; a type that is missing here is still served, generically, with any body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cbk_gateway.sandbox.integrations import INTEGRATIONS
from cbk_gateway.sandbox.schema import (
    ALIAS,
    BOT_CONFIG,
    COUNT,
    CRUD,
    DURATION,
    LONG_TEXT,
    MASKED,
    MESSAGE_TYPE,
    META,
    NAME,
    NAME_BYTES,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    VISIBILITY,
    Field,
    Fields,
    choice,
    record,
    ref,
    required,
    server_set,
)

CRUD_ACTIONS: Final = frozenset({"create", "list", "fetch", "update", "delete"})


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource type.

    Attributes:
        name: Slash-separated chain of names, such as `dataset/record` or `integration/widget`.
        fields: What create and update accept; None accepts anything.
        actions: What it offers besides its special routes.
        param: Name of its path parameter in the published API document.
        aliased: Its ids may be given as `@alias` and `(name)`.
        ascending: Its lists run from oldest to newest by default.
    """

    name: str
    fields: Fields | None
    param: str
    actions: frozenset[str] = CRUD_ACTIONS
    aliased: bool = True
    ascending: bool = False
    create_only: frozenset[str] = field(default_factory=frozenset)

    @property
    def prefix(self) -> str:
        """The readable head of its ids."""
        return self.name.rpartition("/")[2]


def _define(
    name: str,
    fields: Fields,
    *extra: str,
    param: str | None = None,
    without: tuple[str, ...] = (),
    aliased: bool = True,
    ascending: bool = False,
    create_only: tuple[str, ...] = (),
) -> ResourceType:
    last = name.rpartition("/")[2]
    return ResourceType(
        name=name,
        fields=fields,
        param=param or f"{last}Id",
        actions=(CRUD_ACTIONS | frozenset(extra)) - frozenset(without),
        aliased=aliased,
        ascending=ascending,
        create_only=frozenset(create_only),
    )


BLUEPRINT: Final = ref("blueprint")
SYNC_STATUS: Final = server_set(choice("pending", "synced", "error"))
_NAMED: Final[Fields] = {"alias": ALIAS, **CRUD, "blueprintId": BLUEPRINT}
_DATASET: Final[Fields] = {
    **_NAMED,
    "store": NAME,
    "reranker": NAME,
    "recordMaxTokens": Field("integer", minimum=1, maximum=100_000),
    "searchMinScore": Field("number", minimum=0, maximum=1),
    "searchMaxRecords": Field("integer", minimum=1, maximum=1_000),
    "searchMaxTokens": Field("integer", minimum=1, maximum=1_000_000),
    "matchInstruction": TEXT,
    "mismatchInstruction": TEXT,
    "separators": NAME,
    "visibility": VISIBILITY,
}
_CONTACT: Final[Fields] = {
    **CRUD,
    "fingerprint": NAME,
    "email": NAME,
    "phone": NAME,
    "nick": NAME,
    "preferences": TEXT,
    "verifiedAt": TIME,
}
_CONVERSATION: Final[Fields] = {
    **CRUD,
    "contactId": ref("contact"),
    "taskId": ref("task"),
    "spaceId": ref("space"),
    "botId": ref("bot"),
    **BOT_CONFIG,
}
_ABILITY: Final[Fields] = {
    **CRUD,
    "blueprintId": BLUEPRINT,
    "instruction": TEXT,
    "secretId": ref("secret"),
    "fileId": ref("file"),
    "botId": ref("bot"),
    "spaceId": ref("space"),
    "linkedSecretId": ref("secret"),
    "linkedFileId": ref("file"),
    "linkedBotId": ref("bot"),
    "linkedSpaceId": ref("space"),
}
_TASK: Final[Fields] = {
    **CRUD,
    "contactId": ref("contact"),
    "botId": ref("bot"),
    "schedule": NAME,
    "timezone": NAME,
    "sessionDuration": DURATION,
    "maxIterations": COUNT,
    "maxTime": COUNT,
    "status": server_set(choice("idle", "running", "canceled")),
    "outcome": server_set(choice("pending", "success", "failure")),
    "lastRunAt": server_set(TIME),
    "nextRunAt": server_set(TIME),
}
_SECRET: Final[Fields] = {
    **_NAMED,
    "kind": choice("shared", "personal"),
    "type": choice("plain", "basic", "bearer", "jwt", "oauth", "template", "reference"),
    "value": MASKED,
    "config": OBJECT,
    "visibility": VISIBILITY,
}
_LIMITS: Final = record(
    tokens=COUNT,
    conversations=COUNT,
    messages=COUNT,
    database=record(datasets=COUNT, records=COUNT, skillsets=COUNT, abilities=COUNT, files=COUNT),
)
_RATING: Final[Fields] = {
    **CRUD,
    "contactId": ref("contact"),
    "botId": ref("bot"),
    "conversationId": ref("conversation"),
    "messageId": ref("conversation/message"),
    "value": NUMBER,
    "reason": TEXT,
}

RESOURCES: Final[Mapping[str, ResourceType]] = {
    resource.name: resource
    for resource in (
        _define("bot", {**_NAMED, **BOT_CONFIG, "visibility": VISIBILITY}, "clone"),
        _define("dataset", _DATASET, create_only=("store",)),
        _define("dataset/record", {"text": required(TEXT), "source": TEXT, "meta": META}, "export"),
        _define("skillset", {**_NAMED, "visibility": VISIBILITY}),
        _define("ability", {**_ABILITY, "skillsetId": ref("skillset")}, "export"),
        _define("conversation", _CONVERSATION, "export", aliased=False),
        _define(
            "conversation/message",
            {**CRUD, "type": required(MESSAGE_TYPE), "text": required(TEXT), "entities": Field("array")},
            param="messageId",
            aliased=False,
            ascending=True,
        ),
        _define("conversation/attachment", {**CRUD}, without=("create", "update"), aliased=False),
        _define("contact", _CONTACT, "export"),
        _define("file", {**_NAMED, "visibility": VISIBILITY}, "sync"),
        _define("secret", _SECRET),
        _define("space", {**_NAMED, "contactId": ref("contact")}, "export"),
        _define("space/site", {**CRUD, "slug": NAME, "config": OBJECT}),
        _define("task", _TASK, "export"),
        _define(
            "task/execution",
            {
                **CRUD,
                "conversationId": ref("conversation"),
                "status": NAME,
                "outcome": NAME,
                "summary": TEXT,
                "completedAt": TIME,
            },
            without=("create", "update", "delete"),
        ),
        _define(
            "memory",
            {**CRUD, "contactId": ref("contact"), "botId": ref("bot"), "text": required(TEXT)},
            "export",
            aliased=False,
        ),
        _define("blueprint", {"alias": ALIAS, **CRUD, "visibility": VISIBILITY}),
        _define("blueprint/bulletin", {**CRUD, "text": TEXT}),
        _define("portal", {**_NAMED, "slug": NAME, "config": OBJECT}),
        _define(
            "policy",
            {
                **CRUD,
                "blueprintId": BLUEPRINT,
                "botId": ref("bot"),
                "type": required(choice("retention")),
                "config": OBJECT,
            },
        ),
        _define("rating", _RATING, "export", aliased=False),
        _define("team", {**CRUD}),
        _define(
            "partner/user",
            {
                "alias": ALIAS,
                **CRUD,
                "image": TEXT,
                "email": Field("string", max_bytes=NAME_BYTES, pattern=r"[^@\s]+@[^@\s]+"),
                "limits": _LIMITS,
            },
        ),
        _define(
            "partner/user/token",
            {"name": NAME, "description": TEXT, "config": OBJECT, "meta": META},
            without=("fetch",),
        ),
        _define(
            "partner/user/context",
            {
                **CRUD,
                "payload": OBJECT,
                "blueprintId": BLUEPRINT,
                "botId": ref("bot"),
                "datasetId": ref("dataset"),
                "skillsetId": ref("skillset"),
                "contactId": ref("contact"),
            },
        ),
        *(
            _define(f"integration/{kind}", fields, *extra, param=f"{kind}IntegrationId")
            for kind, (fields, extra) in INTEGRATIONS.items()
        ),
        _define(
            "integration/extract/item",
            {"conversationId": ref("conversation"), "data": LONG_TEXT},
            "export",
            without=("create", "update", "delete"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class LinkedView:
    """A nested path that shows rows of another type, picked by a foreign id.

    Attributes:
        resource: The type whose rows are shown.
        key: The field that must equal the parent's id.
        actions: What the nested path offers.
    """

    resource: str
    key: str
    actions: frozenset[str] = frozenset({"list"})


LINKED_VIEWS: Final[Mapping[str, LinkedView]] = {
    "skillset/ability": LinkedView("ability", "skillsetId", CRUD_ACTIONS | {"export"}),
    "contact/conversation": LinkedView("conversation", "contactId"),
    "contact/memory": LinkedView("memory", "contactId"),
    "contact/rating": LinkedView("rating", "contactId"),
    "contact/space": LinkedView("space", "contactId"),
    "contact/task": LinkedView("task", "contactId"),
    "bot/memory": LinkedView("memory", "botId"),
}

#: Types whose rows go when the row they point at is deleted, by the deleted type. Nested rows always go;
#: any other field that held the deleted id becomes null.
REMOVED_WITH: Final[Mapping[str, frozenset[str]]] = {
    "bot": frozenset({"memory", "policy"}),
    "contact": frozenset({"task", "memory", "partner/user/context"}),
    "conversation": frozenset({"integration/extract/item"}),
    "conversation/message": frozenset({"rating"}),
}

#: Fields that hold the id of a type, where the name differs from the type's own path parameter.
EXTRA_REFERENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "bot": ("botId", "linkedBotId"),
    "file": ("fileId", "linkedFileId"),
    "secret": ("secretId", "linkedSecretId"),
    "space": ("spaceId", "linkedSpaceId"),
}

_READ_ONLY: Final = frozenset({"event/log", "audit/log", "usage", "usage/series", "magic"})


def resource_type(name: str) -> ResourceType:
    """The type of that name; one that accepts anything when the table does not know it."""
    known = RESOURCES.get(name)
    if known is not None:
        return known
    last = name.rpartition("/")[2]
    actions = frozenset({"list", "fetch"}) if is_read_only(name) else CRUD_ACTIONS | {"export"}
    return ResourceType(name=name, fields=None, param=f"{last}Id", actions=actions)


def is_read_only(name: str) -> bool:
    """Whether a type can be read only."""
    return name in _READ_ONLY or name.startswith("platform/")


def references_to(name: str) -> tuple[str, ...]:
    """The fields of other types that may hold an id of this type."""
    return EXTRA_REFERENCES.get(name, (resource_type(name).param,))
