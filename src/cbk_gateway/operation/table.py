"""The API as a table: every resource type, its actions, and what each action is.

A row names a type by the path that leads to it (`*` stands for an id), the name of its id parameter, how
long its answers live, and its actions. Actions on the collection come first, on one object second; an
action's method follows from its name unless the row says otherwise. What a write changes beyond its own
type is in `effects.py`. Sources: the API's OpenAPI description, and its server's route folders where the
description lags behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cbk_gateway.operation.kinds import CostClass, Effect, Lifetime

CONFIG, VOLATILE, GLOBAL, NEVER = Lifetime.CONFIG, Lifetime.VOLATILE, Lifetime.GLOBAL, Lifetime.NEVER


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One resource type: where it is, how its id is called, what can be done with it."""

    path: str
    param: str
    lifetime: Lifetime
    collection: str
    member: str = ""

    @property
    def name(self) -> str:
        """The type as scopes write it: the path without its ids."""
        return "/".join(part for part in self.path.split("/") if part != "*")


CRUD: Final = "fetch update delete"

TYPES: Final = (
    TypeRow("blueprint", "blueprintId", CONFIG, "create list ensure", f"{CRUD} clone"),
    TypeRow("blueprint/*/resource", "resourceId", NEVER, "list export import"),
    TypeRow("blueprint/*/bulletin", "bulletinId", NEVER, "create list", "fetch"),
    TypeRow("bot", "botId", CONFIG, "create list ensure", f"{CRUD} clone upvote downvote"),
    TypeRow("bot/*/memory", "memoryId", NEVER, "search"),
    TypeRow("bot/*/session", "sessionId", NEVER, "create"),
    TypeRow("bot/*/usage", "usageId", NEVER, "fetch"),
    TypeRow("bot/*/realtime/websocket", "websocketId", NEVER, "create"),
    TypeRow("channel", "channelId", NEVER, "list", "publish subscribe"),
    TypeRow("contact", "contactId", VOLATILE, "create list ensure export", CRUD),
    TypeRow("contact/*/conversation", "conversationId", VOLATILE, "list"),
    TypeRow("contact/*/memory", "memoryId", VOLATILE, "list search"),
    TypeRow("contact/*/rating", "ratingId", VOLATILE, "list"),
    TypeRow("contact/*/space", "spaceId", VOLATILE, "list"),
    TypeRow("contact/*/task", "taskId", VOLATILE, "list"),
    TypeRow("contact/*/secret", "secretId", NEVER, "list", "authenticate revoke verify mint proxy"),
    TypeRow(
        "conversation",
        "conversationId",
        VOLATILE,
        "create list export complete compact dispatch",
        f"{CRUD} complete compact dispatch send receive initiate apply upvote downvote",
    ),
    TypeRow(
        "conversation/*/attachment", "attachmentId", NEVER, "upload list", "fetch download upload delete"
    ),
    TypeRow("conversation/*/contact", "contactId", NEVER, "upsert"),
    TypeRow(
        "conversation/*/message",
        "messageId",
        VOLATILE,
        "create list export",
        f"{CRUD} upvote downvote synthesize",
    ),
    TypeRow("conversation/*/message/batch", "batchId", NEVER, "create"),
    TypeRow("conversation/*/session", "sessionId", NEVER, "create"),
    TypeRow("conversation/*/usage", "usageId", NEVER, "fetch"),
    TypeRow("conversation/*/realtime/websocket", "websocketId", NEVER, "create"),
    TypeRow("dataset", "datasetId", CONFIG, "create list ensure", f"{CRUD} search"),
    TypeRow("dataset/*/file", "fileId", CONFIG, "list", "attach detach sync"),
    TypeRow("dataset/*/record", "recordId", VOLATILE, "create list export search", CRUD),
    TypeRow("decision", "decisionId", NEVER, "create"),
    TypeRow("event/log", "logId", NEVER, "list export subscribe", "fetch"),
    TypeRow("audit/log", "logId", NEVER, "list export", "fetch"),
    TypeRow("file", "fileId", CONFIG, "create list", f"{CRUD} download upload sync"),
    TypeRow("file/*/portrait", "portraitId", NEVER, "download"),
    TypeRow("file/*/thumbnail", "thumbnailId", NEVER, "download"),
    # Fetched integrations may show tokens, in clear or masked: only the kinds that hold none are kept.
    TypeRow("integration/discord", "discordIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/email", "emailIntegrationId", CONFIG, "create list", f"{CRUD} initiate setup"),
    TypeRow("integration/extract", "extractIntegrationId", CONFIG, "create list", f"{CRUD} trigger"),
    TypeRow("integration/extract/*/item", "itemId", VOLATILE, "list export", "fetch delete"),
    TypeRow("integration/anam", "anamIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/github", "githubIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/googlechat", "googlechatIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/instagram", "instagramIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/mcpserver", "mcpserverIntegrationId", NEVER, "create list", CRUD),
    TypeRow("integration/messenger", "messengerIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/notion", "notionIntegrationId", NEVER, "create list", f"{CRUD} sync"),
    TypeRow("integration/recall", "recallIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/sitemap", "sitemapIntegrationId", VOLATILE, "create list", f"{CRUD} sync"),
    TypeRow("integration/skillserver", "skillserverIntegrationId", NEVER, "create list", f"{CRUD} invoke"),
    TypeRow("integration/slack", "slackIntegrationId", NEVER, "create list", f"{CRUD} initiate setup"),
    TypeRow("integration/support", "supportIntegrationId", CONFIG, "create list", f"{CRUD} trigger"),
    TypeRow("integration/teams", "teamsIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/telegram", "telegramIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow(
        "integration/trigger", "triggerIntegrationId", NEVER, "create list", f"{CRUD} invoke setup event"
    ),
    TypeRow("integration/twilio", "twilioIntegrationId", NEVER, "create list", f"{CRUD} initiate setup"),
    TypeRow("integration/whatsapp", "whatsappIntegrationId", NEVER, "create list", f"{CRUD} setup"),
    TypeRow("integration/widget", "widgetIntegrationId", CONFIG, "create list", f"{CRUD} clone setup"),
    TypeRow("integration/widget/*/file", "fileId", CONFIG, "list", "attach detach"),
    TypeRow("integration/widget/*/session", "sessionId", NEVER, "create"),
    TypeRow("magic", "promptId", GLOBAL, "list", "generate"),
    TypeRow("memory", "memoryId", VOLATILE, "create list export search", CRUD),
    TypeRow("openai/chat/completions", "", NEVER, ""),
    TypeRow("partner/user", "userId", CONFIG, "create list", CRUD),
    TypeRow("partner/user/*/context", "contextId", CONFIG, "create list", CRUD),
    TypeRow("partner/user/*/session", "sessionId", NEVER, "create"),
    TypeRow("partner/user/*/token", "tokenId", NEVER, "create list", "update delete"),
    TypeRow("user", "userId", CONFIG, "create list", CRUD),
    TypeRow("user/*/context", "contextId", CONFIG, "create list", CRUD),
    TypeRow("user/*/session", "sessionId", NEVER, "create"),
    TypeRow("user/*/token", "tokenId", NEVER, "create list", "update delete"),
    TypeRow("ability", "abilityId", CONFIG, "create list export", f"{CRUD} execute"),
    TypeRow("platform/ability", "abilityId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/action", "actionId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/doc", "docId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/example", "exampleId", GLOBAL, "list search", "fetch clone"),
    TypeRow("platform/guide", "guideId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/limit", "limitId", GLOBAL, "list"),
    TypeRow("platform/manual", "manualId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/model", "modelId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/report", "reportId", GLOBAL, "list generate", "generate"),
    TypeRow("platform/secret", "secretId", GLOBAL, "list search", "fetch"),
    TypeRow("platform/subscription", "subscriptionId", GLOBAL, "list"),
    TypeRow("platform/tutorial", "tutorialId", GLOBAL, "list search", "fetch"),
    TypeRow("policy", "policyId", CONFIG, "create list ensure", CRUD),
    TypeRow("portal", "portalId", CONFIG, "create list ensure", CRUD),
    TypeRow("rating", "ratingId", VOLATILE, "create list export", CRUD),
    TypeRow("secret", "secretId", NEVER, "create list", f"{CRUD} authenticate revoke verify mint proxy"),
    TypeRow("skillset", "skillsetId", CONFIG, "create list ensure", CRUD),
    TypeRow("skillset/*/ability", "abilityId", CONFIG, "create list export", f"{CRUD} execute"),
    TypeRow("space", "spaceId", CONFIG, "create list export ensure", CRUD),
    TypeRow("space/*/site", "siteId", CONFIG, "create list", CRUD),
    # The storage actions stand before an optional path of any depth: see `router.py`.
    TypeRow("space/*/storage", "path", NEVER, "list download upload delete copy move"),
    TypeRow("spec", "", NEVER, ""),
    TypeRow("task", "taskId", VOLATILE, "create list export", f"{CRUD} cancel trigger subscribe"),
    TypeRow("task/*/execution", "taskExecutionId", VOLATILE, "list", "fetch cancel"),
    TypeRow("team", "teamId", CONFIG, "list create", CRUD),
    TypeRow("url", "urlId", NEVER, "unfurl"),
    TypeRow("usage", "usageId", NEVER, "fetch list"),
    TypeRow("usage/series", "seriesId", NEVER, "fetch"),
)

GET_ACTIONS: Final = frozenset({"list", "fetch", "export", "download"})
"""Actions served by GET; all others are POST. Only `skillserver/{id}/invoke` is both, and two things: its
GET reads a manual, its POST runs an ability."""

CACHEABLE_ACTIONS: Final = frozenset({"list", "fetch"})

READ_POSTS: Final = frozenset({"search", "platform/report:generate"})
"""POSTs that store nothing: retried like reads, not journalled. Either an action or `type:action`."""

STREAM_ACTIONS: Final = frozenset({"subscribe"})

MODEL_ACTIONS: Final = frozenset(
    {"complete", "compact", "dispatch", "send", "receive", "initiate", "apply", "execute", "trigger"}
)
"""A model runs, now or a little later; its abilities may write any type."""

MODEL_ROUTES: Final = frozenset(
    {
        "integration/trigger:invoke",
        "integration/trigger:event",
        "integration/skillserver:invoke",
        "openai/chat/completions:create",
        "bot/realtime/websocket:create",
        "conversation/realtime/websocket:create",
    }
)

PAID_ROUTES: Final = frozenset({"magic:generate", "decision:create", "conversation/message:synthesize"})
"""They cost like a model run but store nothing that is listed."""

TRANSFER_ACTIONS: Final = frozenset({"upload", "download", "export"})


def methods_of(resource: str, action: str) -> tuple[str, ...]:
    """The methods that the API serves for an action."""
    if (resource, action) == ("integration/skillserver", "invoke"):
        return ("GET", "POST")
    return ("GET",) if action in GET_ACTIONS else ("POST",)


def effect_of(resource: str, action: str, method: str) -> Effect:
    """Whether an action reads, writes or streams. What is named in the table stores nothing on a GET."""
    if action in STREAM_ACTIONS:
        return Effect.STREAM
    if method == "GET" or action in READ_POSTS or f"{resource}:{action}" in READ_POSTS:
        return Effect.READ
    return Effect.WRITE


def runs_model(resource: str, action: str, method: str = "POST") -> bool:
    """Whether the action starts a model, whose abilities may change any type of the account."""
    return method == "POST" and (action in MODEL_ACTIONS or f"{resource}:{action}" in MODEL_ROUTES)


def cost_class_of(resource: str, action: str, method: str) -> CostClass:
    """The group an action's cost and timeouts are configured in."""
    if action in STREAM_ACTIONS:
        return CostClass.STREAM
    if runs_model(resource, action, method) or f"{resource}:{action}" in PAID_ROUTES:
        return CostClass.MODEL
    if action in TRANSFER_ACTIONS:
        return CostClass.TRANSFER
    if action == "search":
        return CostClass.SEARCH
    return CostClass.READ if effect_of(resource, action, method) is Effect.READ else CostClass.WRITE


def lifetime_of(row: TypeRow, action: str) -> Lifetime:
    """How long an answer of this action may be remembered."""
    return row.lifetime if action in CACHEABLE_ACTIONS else Lifetime.NEVER
