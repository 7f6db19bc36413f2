"""Reads a path of the API into its resource types, ids and action.

Pure and standing alone: it shares nothing with the gateway's own grammar, because it judges it. It knows
which words are actions and which resources live in a namespace, and nothing about who may do what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

GRAPHQL_PATHS: Final = frozenset({"/graphql", "/api/graphql", "/v1/graphql", "/api/v1/graphql"})
PREFIXES: Final = ("/api/v1/", "/v1/")
GET_ACTIONS: Final = frozenset({"list", "fetch", "export", "download"})
POST_ACTIONS: Final = frozenset(
    {
        *("create", "update", "delete", "ensure", "upsert", "clone", "import", "search", "apply"),
        *("complete", "send", "receive", "dispatch", "compact", "generate", "execute", "initiate"),
        *("publish", "subscribe", "upload", "copy", "move", "attach", "detach", "sync", "setup"),
        *("trigger", "cancel", "invoke", "event", "upvote", "downvote", "synthesize", "unfurl"),
        *("authenticate", "revoke", "verify", "mint", "proxy"),
    }
)
ACTIONS: Final = GET_ACTIONS | POST_ACTIONS
_NAMESPACES: Final = frozenset({"integration", "platform", "partner", "event", "audit"})
_PAIRS: Final = frozenset({("usage", "series")})
_STORAGE_ACTIONS: Final = frozenset({"list", "download", "upload", "delete", "copy", "move"})
_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]*(/[a-zA-Z][a-zA-Z0-9_-]*)?")
#: Words that stand where an id would, and are part of the name instead.
_FIXED: Final = frozenset({("realtime", "websocket"), ("message", "batch")})


@dataclass(frozen=True, slots=True)
class Target:
    """What a path addresses.

    Attributes:
        chain: Resource types from the outside in, such as `("conversation", "message")`; a namespaced type
            is one element (`integration/widget`).
        ids: One id per type that has one; as many as `chain` when the action is on an item.
        action: The action word.
        tail: The catch-all path of a storage action, decoded, without a leading slash; else empty.
    """

    chain: tuple[str, ...]
    ids: tuple[str, ...]
    action: str
    tail: str = ""

    @property
    def kind(self) -> str:
        """The chain as one name."""
        return "/".join(self.chain)

    @property
    def on_item(self) -> bool:
        """Whether the action is on one item and not on the collection."""
        return len(self.ids) == len(self.chain)

    @property
    def parent_id(self) -> str | None:
        """The id of the enclosing resource, for a nested type."""
        return self.ids[len(self.chain) - 2] if len(self.chain) > 1 else None


GRAPHQL_TARGET: Final = Target(("graphql",), (), "execute")


@lru_cache(maxsize=8192)
def read_path(raw_path: str) -> Target | None:
    """The target of a raw path, percent-encoded as received; None when it cannot be one of this API."""
    if raw_path in GRAPHQL_PATHS:
        return GRAPHQL_TARGET
    for prefix in PREFIXES:
        if raw_path.startswith(prefix):
            segments = [unquote(segment) for segment in raw_path[len(prefix) :].split("/")]
            break
    else:
        return None
    if not all(segments) and "storage" not in segments:
        return None
    special = _read_special(segments)
    if special is not None:
        return special
    if len(segments) < 2 or segments[-1] not in ACTIONS:
        return None
    return _read_chain(segments[:-1], segments[-1])


def _read_special(segments: list[str]) -> Target | None:
    match segments:
        case ["spec"]:
            return Target(("spec",), (), "fetch")
        case ["openai", "chat", "completions"]:
            return Target(("openai/chat",), (), "complete")
        case ["space", space_id, "storage", action, *tail] if space_id and action in _STORAGE_ACTIONS:
            return Target(("space", "storage"), (space_id,), action, "/".join(tail).strip("/"))
        case ["user", *_] if len(segments) > 1:
            # The newer server drops the namespace of child accounts.
            return _read_chain(["partner", *segments[:-1]], segments[-1]) if segments[-1] in ACTIONS else None
    return None


def _read_chain(words: list[str], action: str) -> Target | None:
    head = 2 if words[0] in _NAMESPACES or tuple(words[:2]) in _PAIRS else 1
    if len(words) < head:
        return None
    chain, ids = ["/".join(words[:head])], []
    rest = words[head:]
    while rest:
        ids.append(rest.pop(0))
        if not rest:
            break
        name = rest.pop(0)
        if rest and (name, rest[0]) in _FIXED:
            name = f"{name}/{rest.pop(0)}"
        chain.append(name)
    if not all(_NAME.fullmatch(name) for name in chain):
        return None
    return Target(tuple(chain), tuple(ids), action)
