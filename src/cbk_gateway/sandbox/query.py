"""Reads the query of a list: page, order and filters, and picks the rows they mean.

Pure. As in the API, the first of repeated keys wins, a bad `take` means the default, and an unknown cursor
is past the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl

from cbk_gateway.sandbox.schema import Fields
from cbk_gateway.sandbox.store import Row, Rows

MAX_TAKE: Final = 100
_PAGING: Final = frozenset({"cursor", "order", "take", "limit"})
_FILTERED_WORDS: Final = frozenset({"type", "status", "fingerprint", "email", "outcome"})


def read_query(raw: str) -> dict[str, str]:
    """The parameters of a raw query string; the first of repeated keys wins."""
    if not raw:
        return {}
    parameters: dict[str, str] = {}
    for key, value in parse_qsl(raw, keep_blank_values=True):
        parameters.setdefault(key, value)
    return parameters


@dataclass(frozen=True, slots=True)
class Page:
    """What a list was asked for.

    Attributes:
        cursor: The id after which to begin, or None.
        ascending: From oldest to newest.
        take: Rows wanted; None when not said.
        filters: Pairs of a field path and the values it may have.
    """

    cursor: str | None
    ascending: bool
    take: int | None
    filters: tuple[tuple[tuple[str, ...], tuple[object, ...]], ...]


def read_page(parameters: Mapping[str, str], fields: Fields | None, *, ascending: bool) -> Page:
    """The page that a query asks for, in the type's own order unless it asks for another.

    Without `fields`, a filter on any `...Id` is allowed.
    """
    if not parameters:
        return Page(None, ascending, None, ())
    order = parameters.get("order")
    take = _read_take(parameters.get("take")) or _read_take(parameters.get("limit"))
    return Page(
        cursor=parameters.get("cursor", "").strip() or None,
        ascending=order == "asc" if order in ("asc", "desc") else ascending,
        take=take,
        filters=tuple(_read_filters(parameters, fields)),
    )


def _read_take(text: str | None) -> int | None:
    try:
        return max(1, int(text)) if text is not None and int(text) != 0 else None
    except ValueError:
        return None


def _read_filters(
    parameters: Mapping[str, str], fields: Fields | None
) -> Iterable[tuple[tuple[str, ...], tuple[object, ...]]]:
    for key, value in parameters.items():
        if key.startswith("meta.") and value:
            yield ("meta", *key[5:].split(".")), (_meta_value(value),)
        elif key.startswith("meta[") and key.endswith("]") and value:
            yield ("meta", *key[5:-1].split(".")), (_meta_value(value),)
        elif key in _PAGING or not value:
            continue
        elif key.endswith("Id") and (fields is None or key in fields):
            yield (key,), tuple(part.strip() for part in value.split(",") if part.strip())
        elif key in _FILTERED_WORDS and (fields is None or key in fields):
            yield (key,), (value,)


def _meta_value(text: str) -> object:
    return {"true": True, "false": False}.get(text, text)


def _fits(row: Row, page: Page) -> bool:
    for path, wanted in page.filters:
        found: object = row.body
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if not any(found == value and isinstance(found, bool) == isinstance(value, bool) for value in wanted):
            return False
    return True


def select(rows: Rows, page: Page) -> Iterable[Row]:
    """All rows from the cursor on that fit, in the asked order."""
    ordered: Iterable[Row] = rows.values() if page.ascending else reversed(rows.values())
    if page.cursor is not None:
        if page.cursor not in rows:
            return ()
        ordered = _after(ordered, page.cursor)
    return (row for row in ordered if _fits(row, page)) if page.filters else ordered


def _after(ordered: Iterable[Row], cursor: str) -> Iterable[Row]:
    following = iter(ordered)
    for row in following:
        if row.id == cursor:
            break
    return following


def select_page(rows: Rows, page: Page) -> list[Row]:
    """One page of rows."""
    return list(islice(select(rows, page), min(page.take or MAX_TAKE, MAX_TAKE)))


def select_all(rows: Rows, page: Page) -> list[Row]:
    """All pages in one, as the line formats give them; `take` bounds the whole."""
    return list(islice(select(rows, page), page.take))
