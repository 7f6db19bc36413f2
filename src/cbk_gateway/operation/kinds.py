"""The words in which the grammar speaks: effects, lifetimes, cost classes, routes and operations.

Values only. Which route has which of them is `table.py` and `effects.py`; how a request target becomes
one is `router.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ALL_TYPES: Final = "*"
"""In `Route.invalidates`: everything the account owns may have changed."""

ANY_WRITE: Final = "~any"
"""In `Route.reads`: a view over so many types that any write of the account may change it."""

OTHER: Final = "other"
"""The label of whatever the table does not name."""


class Effect(StrEnum):
    """What an operation does to the account. Scopes, journal and retries follow from it."""

    READ = "read"
    WRITE = "write"
    STREAM = "stream"


class Lifetime(StrEnum):
    """How long an answer of a type may be remembered; seconds per word are configuration."""

    CONFIG = "config"  # changes only by writes, though some may pass beside the gateway
    VOLATILE = "volatile"  # changes by itself: widgets, schedules, expiry
    GLOBAL = "global"  # the same for all accounts
    NEVER = "never"  # may hold a credential, or is out of date as soon as it is sent


class CostClass(StrEnum):
    """Groups of operations that cost alike: the unit of rate costs and of timeouts."""

    READ = "read"
    SEARCH = "search"
    WRITE = "write"
    MODEL = "model"
    STREAM = "stream"
    TRANSFER = "transfer"
    GRAPHQL = "graphql"


class Dialect(StrEnum):
    """Whose shapes the bodies and errors have."""

    REST = "rest"
    GRAPHQL = "graphql"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the API: all that follows from a path's shape, shared by every request to it.

    Attributes:
        resource: Type name as scopes write it: `conversation/message`. For unknown tops the label `other`.
        action: Last word of the path; `other` when the table does not know it.
        methods: Methods the API serves here ("GET", "POST" or both).
        effect: Read, write or stream.
        cost_class: For limits and timeouts.
        lifetime: How long answers live in a cache; NEVER unless this is a cacheable GET.
        reads: Types whose epochs a cached answer depends on.
        invalidates: Types a write changes; contains `ALL_TYPES` when any may change.
        runs_model: Whether a model runs behind it, so that abilities may write anything meanwhile.
        params: Names of the path parameters, outermost first.
        template: The path with its parameters named, for people: `/bot/{botId}/fetch`.
        dialect: Whose shapes it speaks.
        reaches_children: Whether it changes child accounts (partner users).
    """

    resource: str
    action: str
    methods: tuple[str, ...]
    effect: Effect
    cost_class: CostClass
    lifetime: Lifetime = Lifetime.NEVER
    reads: frozenset[str] = frozenset()
    invalidates: frozenset[str] = frozenset()
    runs_model: bool = False
    params: tuple[str, ...] = ()
    template: str = ""
    dialect: Dialect = Dialect.REST
    reaches_children: bool = False

    @property
    def known(self) -> bool:
        """Whether the table names this route."""
        return self.action != OTHER

    @property
    def audit_name(self) -> str:
        """Bounded name for journals: `conversation.message.create`."""
        return f"{self.resource.replace('/', '.')}.{self.action}"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one request asks for.

    Attributes:
        route: The row of the table.
        method: "GET" or "POST".
        path: Normalised path after the version prefix, as it is matched *and* forwarded: `/bot/b1/fetch`.
        query: Query text as received, without the question mark.
        ids: Path parameters decoded once, in the order of `route.params`.
        scope_resource: Resource as scopes see it: the type name, or the first segment of an unknown path.
        scope_action: Action as scopes see it: the last word of the path.
    """

    route: Route
    method: str
    path: str
    query: str
    ids: tuple[str, ...]
    scope_resource: str
    scope_action: str

    @property
    def resource(self) -> str:
        """Type name; bounded, fit for labels."""
        return self.route.resource

    @property
    def action(self) -> str:
        """Action; bounded, fit for labels."""
        return self.route.action

    @property
    def effect(self) -> Effect:
        """Read, write or stream."""
        return self.route.effect

    @property
    def scope(self) -> str:
        """The scope that allows exactly this: `bot:fetch`."""
        return f"{self.scope_resource}:{self.scope_action}"

    @property
    def is_write(self) -> bool:
        """Whether it must be journalled and invalidates."""
        return self.route.effect is Effect.WRITE

    @property
    def is_cacheable(self) -> bool:
        """Whether an answer may be remembered at all.

        An id such as `@@alias` or `@user@alias` names another account's object, whose writes this
        account's epochs do not see, so such answers are never kept.
        """
        return (
            self.method == "GET"
            and self.route.lifetime is not Lifetime.NEVER
            and not any(crosses_accounts(one) for one in self.ids)
        )


def crosses_accounts(identifier: str) -> bool:
    """Whether a decoded path id names an object of the parent account or of a sibling."""
    return identifier.startswith("@") and "@" in identifier[1:]
