"""The integration kinds: what each one's create and update accept, and its extra actions.

A table only. Credentials are marked here as masked or omitted, so that no answer can show one by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cbk_gateway.sandbox.schema import (
    COUNT,
    CRUD,
    DURATION,
    FLAG,
    MASKED,
    NAME,
    OBJECT,
    OMITTED,
    TEXT,
    TIME,
    Fields,
    choice,
    ref,
    server_set,
)

_BASE: Final[Fields] = {**CRUD, "blueprintId": ref("blueprint")}
_BOT: Final[Fields] = {**_BASE, "botId": ref("bot")}
_CHAT: Final[Fields] = {**_BOT, "contactCollection": FLAG, "sessionDuration": DURATION}
_OPEN_CHAT: Final[Fields] = {**_CHAT, "allowFrom": TEXT}
_META_CHAT: Final[Fields] = {
    **_CHAT,
    "accessToken": MASKED,
    "appSecret": OMITTED,
    "verifyToken": server_set(NAME),
    "attachments": FLAG,
}
_SYNCED: Final[Fields] = {
    **_BASE,
    "datasetId": ref("dataset"),
    "syncSchedule": NAME,
    "expiresIn": COUNT,
    "syncStatus": server_set(choice("pending", "synced", "error")),
    "lastSyncedAt": server_set(TIME),
}
_WIDGET_FLAGS: Final = (
    "stream",
    "verbose",
    "tools",
    "unfurl",
    "math",
    "carousel",
    "form",
    "attachments",
    "autoScroll",
    "startFirst",
    "contactCollection",
    "exportConversation",
    "restartConversation",
    "maximize",
    "messagePeek",
    "voiceIn",
    "voiceOut",
    "poweredBy",
)
_WIDGET_TEXTS: Final = (
    "theme",
    "layout",
    "title",
    "intro",
    "initial",
    "placeholder",
    "origin",
    "language",
    "plugins",
)

#: Fields and extra actions by kind.
INTEGRATIONS: Final[Mapping[str, tuple[Fields, tuple[str, ...]]]] = {
    "widget": (
        {
            **_BOT,
            "sessionDuration": DURATION,
            **dict.fromkeys(_WIDGET_TEXTS, TEXT),
            **dict.fromkeys(_WIDGET_FLAGS, FLAG),
        },
        ("setup", "clone"),
    ),
    "slack": (
        {
            **_OPEN_CHAT,
            "signingSecret": MASKED,
            "botToken": MASKED,
            "userToken": MASKED,
            "references": FLAG,
            "ratings": FLAG,
            "visibleMessages": COUNT,
            "autoRespond": TEXT,
        },
        ("setup", "initiate"),
    ),
    "discord": (
        {**_OPEN_CHAT, "appId": NAME, "botToken": OMITTED, "publicKey": OMITTED, "handle": NAME},
        ("setup",),
    ),
    "whatsapp": ({**_META_CHAT, "phoneNumberId": NAME, "allowFrom": TEXT}, ("setup",)),
    "messenger": (_META_CHAT, ("setup",)),
    "instagram": (_META_CHAT, ("setup",)),
    "telegram": ({**_OPEN_CHAT, "botToken": OMITTED, "attachments": FLAG}, ("setup",)),
    "twilio": (
        {**_OPEN_CHAT, "accountSid": MASKED, "authToken": OMITTED, "voice": NAME},
        ("setup", "initiate"),
    ),
    "email": ({**_OPEN_CHAT, "attachments": FLAG}, ("setup", "initiate")),
    "teams": (
        {
            **_OPEN_CHAT,
            "botFrameworkAppId": NAME,
            "botFrameworkAppSecret": OMITTED,
            "tenantId": NAME,
        },
        ("setup",),
    ),
    "googlechat": (
        {**_OPEN_CHAT, "serviceAccountKey": MASKED, "projectNumber": NAME, "autoRespond": TEXT},
        ("setup",),
    ),
    "sitemap": ({**_SYNCED, "url": TEXT, "glob": TEXT, "selectors": TEXT, "javascript": FLAG}, ("sync",)),
    "notion": ({**_SYNCED, "token": MASKED}, ("sync",)),
    "support": ({**_BOT, "email": NAME}, ("trigger",)),
    "extract": ({**_BOT, "schema": OBJECT, "request": TEXT, "model": NAME}, ("trigger",)),
    "trigger": (
        {
            **_BOT,
            "authenticate": FLAG,
            "schedule": NAME,
            "timezone": NAME,
            "sessionDuration": DURATION,
            "secret": server_set(NAME),
            "lastTriggerAt": server_set(TIME),
            "nextTriggerAt": server_set(TIME),
        },
        ("setup", "invoke", "event"),
    ),
    "mcpserver": (
        {
            **_BASE,
            "skillsetId": ref("skillset"),
            "oAuthConnectionId": NAME,
            "accessToken": server_set(OMITTED),
        },
        (),
    ),
    "skillserver": ({**_BASE, "skillsetId": ref("skillset"), "accessToken": server_set(OMITTED)}, ()),
    "github": ({**_BOT, "privateKey": MASKED, "webhookSecret": MASKED, "appId": NAME}, ("setup",)),
    "recall": ({**_BOT, "apiKey": MASKED, "webhookSecret": MASKED}, ("setup",)),
    "anam": ({**_BOT, "apiKey": MASKED, "webhookSecret": MASKED}, ("setup",)),
    "avatar": (_BOT, ("setup",)),
}
