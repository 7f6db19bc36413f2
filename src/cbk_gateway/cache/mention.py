"""Which remembered answers speak of one object: by path, query or body. Pure.

A path may name an object by an alias, and a list holds it without naming it at all; so the body counts as
well as the label. An answer too many costs one fetch, one too few would stay wrong: what looks like the id in
any place is taken for it. Where entries are kept, and how they are dropped, is the tiers' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import orjson

from cbk_gateway.operation import canonical


@dataclass(frozen=True, slots=True)
class Mention:
    """What an operator looks for among the answers of an account.

    Attributes:
        types: Only answers of these resource types; of any when empty.
        identifier: Only answers that speak of this id; all when None.
    """

    types: frozenset[str] = frozenset()
    identifier: str | None = None

    def concerns(self, label: str) -> bool:
        """Whether an entry is of one of the types, by its label: `bot /bot/bot_1/fetch?take=5`."""
        return not self.types or canonical(label.partition(" ")[0]) in self.types

    def is_in(self, label: str, body: bytes) -> bool:
        """Whether an entry speaks of the id; of the types it is already."""
        if self.identifier is None:
            return True
        path, _, query = label.partition(" ")[2].partition("?")
        if any(unquote(one) == self.identifier for one in path.split("/")):
            return True
        values = (value.split(",") for _, value in parse_qsl(query, errors="replace"))
        if any(self.identifier in named for named in values):
            return True
        return orjson.dumps(self.identifier.encode(errors="replace").decode()) in body
