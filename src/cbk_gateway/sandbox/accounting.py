"""Reads of what an account has used and of what happened in it: usage, series, event and audit logs.

The books are kept by `ledger`; here they are only shown.
"""

from __future__ import annotations

from typing import Final

from cbk_gateway.sandbox.answers import JSON, Answer, JsonObject, json_answer
from cbk_gateway.sandbox.calls import Call, Routes
from cbk_gateway.sandbox.lists import check_format, items_page, stream_items
from cbk_gateway.sandbox.query import MAX_TAKE, read_page

_COUNTED: Final = {
    "bots": "bot",
    "datasets": "dataset",
    "records": "dataset/record",
    "skillsets": "skillset",
    "abilities": "ability",
    "files": "file",
    "users": "partner/user",
}
_DAY_MS: Final = 86_400_000


async def fetch_usage(call: Call) -> Answer:
    """Totals of the account, and how many resources of each type it has."""
    database = {name: call.world.store.count(call.owner, kind) for name, kind in _COUNTED.items()}
    return json_answer({**call.world.ledger.book(call.owner).usage.shape(), "database": database})


async def fetch_series(call: Call) -> Answer:
    """Totals by day, oldest first."""
    totals: dict[str, dict[int, int]] = {"token": {}, "conversation": {}, "message": {}}
    for entry in call.world.ledger.book(call.owner).entries:
        day = entry["createdAt"] // _DAY_MS * _DAY_MS
        days = totals[entry["type"]]
        days[day] = days.get(day, 0) + entry["count"]
    return json_answer(
        {
            f"{kind}s": [{"date": day, "total": total} for day, total in sorted(days.items())]
            for kind, days in totals.items()
        }
    )


def _log_answer(call: Call, entries: list[JsonObject]) -> Answer:
    check_format(call.accept)
    page = read_page(call.query, None, ascending=False)
    picked = [
        entry
        for entry in (entries if page.ascending else reversed(entries))
        if all(len(path) == 1 and entry.get(path[0]) in wanted for path, wanted in page.filters)
    ]
    if page.cursor is not None:
        places = [index for index, entry in enumerate(picked) if entry["id"] == page.cursor]
        picked = picked[places[0] + 1 :] if places else []
    if call.accept == JSON:
        return json_answer(items_page(picked[: min(page.take or MAX_TAKE, MAX_TAKE)]))
    return stream_items(call.accept, picked[: page.take])


async def list_usage(call: Call) -> Answer:
    """Each count, newest first."""
    return _log_answer(call, list(call.world.ledger.book(call.owner).entries))


async def list_events(call: Call) -> Answer:
    """Each event, newest first."""
    return _log_answer(call, list(call.world.ledger.book(call.owner).events))


ROUTES: Final[Routes] = {
    ("usage", False, "fetch"): fetch_usage,
    ("usage", False, "list"): list_usage,
    ("usage/series", False, "fetch"): fetch_series,
    ("event/log", False, "list"): list_events,
    ("event/log", False, "export"): list_events,
    ("audit/log", False, "list"): list_events,
    ("audit/log", False, "export"): list_events,
}
