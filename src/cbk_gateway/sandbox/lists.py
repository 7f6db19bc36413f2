"""Renders lists and event streams in the formats a client may ask for.

JSON gives one page; JSONL, SSE and CSV walk all pages, as the API does. Nothing here picks the rows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Final

import orjson

from cbk_gateway.sandbox.answers import CSV, JSON, JSONL, SSE, Answer, JsonObject, bad_request, json_answer
from cbk_gateway.sandbox.query import Page, select_all, select_page
from cbk_gateway.sandbox.store import Row, Rows

STREAM_TYPES: Final = (JSONL, SSE, CSV)


def event_line(event: JsonObject) -> bytes:
    """One event as a JSON line."""
    return orjson.dumps(event) + b"\n"


def event_frame(event: JsonObject) -> bytes:
    """One event as a server-sent event; only its type and data are shown."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event["data"]))


def check_format(accept: str) -> None:
    """Refuse a media type that stream-capable routes do not know.

    Raises:
        ApiError: 400, as the API answers.
    """
    if accept != JSON and accept not in STREAM_TYPES:
        raise bad_request("Unsupported accept header")


def encoder(accept: str) -> Callable[[JsonObject], bytes]:
    """How an event looks in that media type; CSV shows items only."""
    if accept == SSE:
        return event_frame
    if accept == CSV:
        return _CsvWriter().row
    return event_line


class _CsvWriter:
    def __init__(self) -> None:
        self._is_first = True

    def row(self, event: JsonObject) -> bytes:
        if event["type"] != "item":
            return b""
        item: Mapping[str, object] = event["data"]
        head = ",".join(item) + "\n" if self._is_first else ""
        self._is_first = False
        cells = ",".join('"' + _cell(value).replace('"', '""') + '"' for value in item.values())
        return f"{head}{cells}\n".encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def items_page(items: list[JsonObject], *, with_cursor: bool = True) -> JsonObject:
    """A JSON page; an empty one has no cursor, which is how a walk ends."""
    page: JsonObject = {"items": items}
    if items and with_cursor:
        page["cursor"] = items[-1]["id"]
    return page


def list_answer(
    accept: str, rows: Rows, page: Page, view: Callable[[Row], JsonObject] | None = None
) -> Answer:
    """The list of some rows in the asked format; each row as `view` shows it, or as fetch does.

    Raises:
        ApiError: 400 for an unknown media type.
    """
    check_format(accept)
    if accept == JSON:
        picked = select_page(rows, page)
        return json_answer(items_page([row.view if view is None else view(row) for row in picked]))
    everything = select_all(rows, page)
    return stream_items(accept, (row.view if view is None else view(row) for row in everything))


def stream_items(accept: str, items: Iterable[JsonObject]) -> Answer:
    """Items as a stream of `item` events, without a closing event."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        encode = encoder(accept)
        for item in items:
            yield encode({"type": "item", "data": item})

    return Answer(content_type=accept, stream=pieces())


def plain_list(accept: str, items: list[JsonObject], *, with_cursor: bool = True) -> Answer:
    """A list of ready items, all of them on its only page."""
    check_format(accept)
    if accept == JSON:
        return json_answer(items_page(items, with_cursor=with_cursor))
    return stream_items(accept, items)
