"""What a write changes: the invalidation table, and what a view depends on.

Two maps, from the database schema behind the API. `invalidated_by` says which types' answers a write
makes old; `depends_on` says which types' writes make a view old. Lists and fetches carry foreign ids
only, so an update changes its own type and the views over it; a delete also clears foreign ids.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.operation.kinds import ALL_TYPES
from cbk_gateway.operation.table import TYPES, runs_model

TYPE_NAMES: Final = frozenset(row.name for row in TYPES)

CANONICAL: Final = {
    # Two doors to one set of rows: epochs stand under the first name.
    "ability": "skillset/ability",
    "user": "partner/user",
    "user/context": "partner/user/context",
    "user/session": "partner/user/session",
    "user/token": "partner/user/token",
    "context": "partner/user/context",
    "conversation/message/batch": "conversation/message",
}

VIEWS: Final[dict[str, tuple[str, ...]]] = {
    # A view and the types whose rows it shows beside its own.
    "contact/conversation": ("conversation",),
    "contact/memory": ("memory",),
    "contact/rating": ("rating",),
    "contact/space": ("space",),
    "contact/task": ("task",),
    "dataset/file": ("file",),
    "integration/widget/file": ("file",),
}

_INTEGRATIONS: Final = tuple(
    sorted(name for name in TYPE_NAMES if name.startswith("integration/") and name.count("/") == 1)
)

DELETE_CASCADES: Final[dict[str, tuple[str, ...]]] = {
    # Rows removed with it, and rows elsewhere whose foreign id becomes null.
    "bot": (
        "memory",
        "policy",
        "conversation",
        "task",
        "rating",
        "context",
        "skillset/ability",
        *_INTEGRATIONS,
    ),
    "dataset": ("bot", "conversation", "context", "integration/sitemap", "integration/notion"),
    "skillset": ("bot", "conversation", "context", "integration/mcpserver", "integration/skillserver"),
    "file": ("dataset/file", "integration/widget", "integration/widget/file", "skillset/ability"),
    "secret": ("contact/secret", "skillset/ability"),
    "contact": ("task", "memory", "context", "contact/secret", "conversation", "space", "rating"),
    "conversation": ("integration/extract/item", "rating", "task", "task/execution"),
    "conversation/message": ("rating", "task/execution"),
    "task": ("conversation",),
    "space": ("conversation", "skillset/ability"),
    "blueprint": (ALL_TYPES,),
    "partner/user": (ALL_TYPES,),
}

WRITES: Final[dict[str, tuple[str, ...]]] = {
    # Writes that change types other than the one they are named after; `own` changes unless absent.
    "blueprint:clone": (ALL_TYPES,),
    "blueprint/resource:import": (ALL_TYPES,),
    "platform/example:clone": (ALL_TYPES,),
    "partner/user/token:delete": (ALL_TYPES,),
    "bot:clone": ("skillset", "skillset/ability", "dataset"),
    "bot:upvote": ("rating", "conversation", "conversation/message"),
    "bot:downvote": ("rating", "conversation", "conversation/message"),
    "bot/session:create": ("conversation", "contact"),
    "integration/widget/session:create": ("conversation", "contact"),
    "conversation/session:create": ("conversation", "contact"),
    "conversation:create": ("contact", "conversation/message"),
    "conversation:upvote": ("rating", "conversation/message"),
    "conversation:downvote": ("rating", "conversation/message"),
    "conversation/message:upvote": ("rating",),
    "conversation/message:downvote": ("rating",),
    "conversation/contact:upsert": ("contact", "conversation"),
    "conversation/attachment:upload": ("conversation", "file"),
    "dataset/file:attach": ("dataset/record",),
    "dataset/file:detach": ("dataset/record",),
    "dataset/file:sync": ("dataset/record",),
    "file:upload": ("dataset/file",),
    "file:sync": ("dataset/file", "dataset/record"),
    "integration/notion:sync": ("dataset/record",),
    "integration/sitemap:sync": ("dataset/record",),
    "integration/widget/file:attach": ("integration/widget",),
    "integration/widget/file:detach": ("integration/widget",),
    "secret:authenticate": ("contact/secret",),
    "secret:revoke": ("contact/secret",),
    "secret:verify": ("contact/secret",),
    "contact/secret:authenticate": ("secret",),
    "contact/secret:revoke": ("secret",),
    "contact/secret:verify": ("secret",),
    "task:cancel": ("task/execution", "conversation"),
    "task/execution:cancel": ("task", "conversation"),
    "space/storage:upload": (),
}


def canonical(resource: str) -> str:
    """The name under which a type's epoch stands."""
    return CANONICAL.get(resource, resource)


def depends_on(resource: str) -> frozenset[str]:
    """Types whose writes may change an answer of `resource`.

    Types above it in the path count, because an id there may be an alias, and because deleting the
    parent makes the answer a 404.
    """
    parts = resource.split("/")
    above = {"/".join(parts[:depth]) for depth in range(1, len(parts))} & TYPE_NAMES
    return frozenset(canonical(one) for one in {resource, *above, *VIEWS.get(resource, ())})


def invalidated_by(resource: str, action: str) -> frozenset[str]:
    """Types that a write of this action may change; `ALL_TYPES` alone when any may."""
    if runs_model(resource, action):
        return frozenset({ALL_TYPES})
    own = canonical(resource)
    changed = {own, *WRITES.get(f"{own}:{action}", ())}
    if action == "delete":
        changed.update(DELETE_CASCADES.get(own, ()))
        changed.update(name for name in TYPE_NAMES if name.startswith(own + "/"))
    return _closed(changed)


def family(top: str) -> frozenset[str]:
    """A top-level type and all below it: what an unknown GET under it is taken to change."""
    return _closed({top, *(name for name in TYPE_NAMES if name.startswith(top + "/"))})


def _closed(changed: set[str]) -> frozenset[str]:
    if ALL_TYPES in changed:
        return frozenset({ALL_TYPES})
    return frozenset(canonical(one) for one in changed)
