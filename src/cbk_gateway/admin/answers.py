"""What operators are answered: the members an answer always has, for the API's description. It may have more.

Answers are built where they are known (`views.py`, `changes.py`); nothing is built here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Records of the journal; `cursor` asks for the next page, null on the last."""

    items: list[dict[str, Any]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Named:
    """What was changed, by its id."""

    id: str


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new token, shown this once; `expires_at` is epoch seconds."""

    token: str
    token_id: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many tenants' stored keys were under an older master key."""

    resealed: int


@dataclass(frozen=True, slots=True)
class Filled:
    """The rates whose buckets are full again."""

    filled: list[str]


@dataclass(frozen=True, slots=True)
class Purged:
    """Whose answers were forgotten, and of which types."""

    account: str
    types: list[str] | Literal["all"]


@dataclass(frozen=True, slots=True)
class Level:
    """How much is logged."""

    level: Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class TenantsRead:
    """How many tenants there are, and what is wrong with those that were left out."""

    tenants: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Explained:
    """What a request would be."""

    operation: str
