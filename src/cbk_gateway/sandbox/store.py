"""The rows of all accounts: adding, changing, finding and removing them, with the deletion rules.

Dictionaries in memory, and optionally every change written through to a file. It knows the resource table,
and nothing about HTTP, credentials or queries. Rows stay in order of creation, so a list needs no sorting.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from cbk_gateway.sandbox.answers import JsonObject
from cbk_gateway.sandbox.resources import (
    REMOVED_WITH,
    RESOURCES,
    ResourceType,
    references_to,
    resource_type,
)
from cbk_gateway.sandbox.schema import MASK

Clock = Callable[[], float]


class Row:
    """One resource.

    Attributes:
        owner: The account (or child account) it belongs to.
        parent: Id of the enclosing resource, or None.
        body: Its fields in the clear.
        hidden: What no answer shows: live tokens, contents.
        view: Its fields as fetch and list show them.
    """

    __slots__ = ("body", "created", "hidden", "id", "kind", "owner", "parent", "seq", "updated", "view")

    def __init__(
        self,
        row_id: str,
        kind: str,
        owner: str,
        parent: str | None,
        *,
        body: JsonObject,
        hidden: JsonObject,
        created: int,
        updated: int,
        seq: int,
    ) -> None:
        self.id = row_id
        self.kind = kind
        self.owner = owner
        self.parent = parent
        self.body = body
        self.hidden = hidden
        self.created = created
        self.updated = updated
        self.seq = seq
        self.view = self._render()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.id} of {self.owner}>"

    def refresh(self) -> None:
        """Bring the view up to date with the fields."""
        self.view = self._render()

    def _render(self) -> JsonObject:
        fields = resource_type(self.kind).fields or {}
        view: JsonObject = {"id": self.id}
        for name, value in self.body.items():
            field = fields.get(name)
            if field is None or field.answer == "clear":
                view[name] = value
            elif field.answer == "masked" and value:
                view[name] = MASK
        if (
            self.kind == "secret"
            and isinstance(view.get("config"), dict)
            and "clientSecret" in view["config"]
        ):
            view["config"] = {**view["config"], "clientSecret": MASK}
        view["createdAt"] = self.created
        view["updatedAt"] = self.updated
        return view


class Journal(Protocol):
    """Where changes are written through to."""

    def save(self, row: Row) -> None:
        """Keep the row as it is now."""

    def forget(self, row_id: str) -> None:
        """Drop the row."""

    def wipe(self) -> None:
        """Drop everything."""


Rows = dict[str, Row]
_NO_ROWS: Final[Rows] = {}


class Store:
    """All rows.

    Args:
        clock: Seconds since the epoch.
        journal: Where changes are written through to; None keeps them in memory only.
    """

    def __init__(self, clock: Clock, journal: Journal | None = None) -> None:
        self._clock = clock
        self._journal = journal
        self._rows: Rows = {}
        self._by_kind: dict[str, dict[str, Rows]] = {}
        self._children: dict[str, dict[str, Rows]] = {}
        self._sequence = itertools.count(1)
        self.on_change: Callable[[Row, str], None] | None = None

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock() * 1000)

    def load(self, rows: list[Row]) -> None:
        """Take over rows that were kept earlier, oldest first."""
        for row in rows:
            self._place(row)
        self._sequence = itertools.count(rows[-1].seq + 1 if rows else 1)

    def add(
        self,
        owner: str,
        kind: str,
        values: Mapping[str, object],
        *,
        parent: str | None = None,
        hidden: Mapping[str, object] | None = None,
        row_id: str | None = None,
    ) -> Row:
        """Create a row and give it an id, unless it has one."""
        now, seq = self.now_ms(), next(self._sequence)
        chosen = row_id or new_id(resource_type(kind), now, seq)
        row = Row(
            chosen,
            kind,
            owner,
            parent,
            body=dict(values),
            hidden=dict(hidden or {}),
            created=now,
            updated=now,
            seq=seq,
        )
        self._place(row)
        self._save(row, "create")
        return row

    def change(
        self, row: Row, values: Mapping[str, object], hidden: Mapping[str, object] | None = None
    ) -> None:
        """Set fields of a row; a masked value sent back means that the old one stays."""
        fields = resource_type(row.kind).fields or {}
        for name, value in values.items():
            field = fields.get(name)
            if value == MASK and field is not None and field.answer != "clear":
                continue
            row.body[name] = value
        row.hidden.update(hidden or {})
        row.updated = self.now_ms()
        row.refresh()
        self._save(row, "update")

    def remove(self, row: Row) -> None:
        """Delete a row, what is nested in it, and its traces in other rows."""
        if self._rows.pop(row.id, None) is None:
            return
        self._by_kind[row.owner][row.kind].pop(row.id, None)
        if row.parent is not None:
            self._children.get(row.parent, {}).get(row.kind, {}).pop(row.id, None)
        for nested in self._children.pop(row.id, {}).values():
            for child in list(nested.values()):
                self.remove(child)
        self._remove_references(row)
        if self._journal is not None:
            self._journal.forget(row.id)
        if self.on_change is not None:
            self.on_change(row, "delete")

    def remove_owner(self, owner: str) -> None:
        """Delete everything that an account owns."""
        for row in self.owned(owner):
            self.remove(row)

    def get(self, row_id: str) -> Row | None:
        """The row with that id, whoever owns it."""
        return self._rows.get(row_id)

    def rows(self, owner: str, kind: str, parent: str | None = None) -> Rows:
        """The rows of a kind in order of creation: of an account, or nested in one resource."""
        if parent is not None:
            return self._children.get(parent, {}).get(kind, _NO_ROWS)
        return self._by_kind.get(owner, {}).get(kind, _NO_ROWS)

    def owned(self, owner: str) -> list[Row]:
        """Every row of an account."""
        return [row for rows in self._by_kind.get(owner, {}).values() for row in rows.values()]

    def count(self, owner: str, kind: str) -> int:
        """How many rows of a kind an account has, nested ones included."""
        return len(self.rows(owner, kind))

    def all_rows(self) -> Iterator[Row]:
        """Every row of every account."""
        return iter(self._rows.values())

    def find_alias(self, owner: str, kind: str, alias: str) -> Row | None:
        """The account's row with that alias."""
        return next((row for row in self.rows(owner, kind).values() if row.body.get("alias") == alias), None)

    def find_name(self, owner: str, kind: str, name: str) -> Row | None:
        """The account's first row with that name."""
        return next((row for row in self.rows(owner, kind).values() if row.body.get("name") == name), None)

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        self._by_kind.clear()
        self._children.clear()
        if self._journal is not None:
            self._journal.wipe()

    def _place(self, row: Row) -> None:
        self._rows[row.id] = row
        self._by_kind.setdefault(row.owner, {}).setdefault(row.kind, {})[row.id] = row
        if row.parent is not None:
            self._children.setdefault(row.parent, {}).setdefault(row.kind, {})[row.id] = row

    def _save(self, row: Row, action: str) -> None:
        if self._journal is not None:
            self._journal.save(row)
        if self.on_change is not None:
            self.on_change(row, action)

    def _remove_references(self, gone: Row) -> None:
        names = references_to(gone.kind)
        removed_kinds = REMOVED_WITH.get(gone.kind, frozenset())
        for kind, rows in self._by_kind.get(gone.owner, {}).items():
            fields = RESOURCES[kind].fields if kind in RESOURCES else None
            held = names if fields is None else tuple(name for name in names if name in fields)
            if not held:
                continue
            for row in [row for row in rows.values() if any(row.body.get(name) == gone.id for name in held)]:
                if kind in removed_kinds:
                    self.remove(row)
                else:
                    self.change(row, {name: None for name in held if row.body.get(name) == gone.id})


def new_id(resource: ResourceType, now_ms: int, seq: int) -> str:
    """An opaque id whose head tells people what it is."""
    return f"{resource.prefix}_{now_ms:011x}{seq:06x}{secrets.token_hex(4)}"
