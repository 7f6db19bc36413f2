from __future__ import annotations

import pytest

from cbk_gateway.sandbox.query import read_page, read_query, select_all, select_page
from cbk_gateway.sandbox.resources import RESOURCES
from cbk_gateway.sandbox.store import Rows, Store


def rows_of(count: int) -> Rows:
    store = Store(lambda: 1_000.0)
    for index in range(count):
        meta = {"parity": "even" if index % 2 == 0 else "odd", "deep": {"flag": index == 1}, "n": index}
        store.add(
            "acme", "bot", {"name": f"b{index}", "meta": meta, "datasetId": f"d{index}"}, row_id=f"b{index}"
        )
    return store.rows("acme", "bot")


def ids(query: str, count: int = 5, *, everything: bool = False) -> list[str]:
    page = read_page(read_query(query), RESOURCES["bot"].fields, ascending=False)
    pick = select_all if everything else select_page
    return [row.id for row in pick(rows_of(count), page)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["b4", "b3", "b2", "b1", "b0"]),
        ("order=asc", ["b0", "b1", "b2", "b3", "b4"]),
        ("order=sideways", ["b4", "b3", "b2", "b1", "b0"]),
        ("take=2", ["b4", "b3"]),
        ("limit=2", ["b4", "b3"]),
        ("take=1&limit=3", ["b4"]),
        ("take=1&take=3", ["b4"]),
        ("take=0", ["b4", "b3", "b2", "b1", "b0"]),
        ("take=many", ["b4", "b3", "b2", "b1", "b0"]),
        ("take=-5", ["b4"]),
        ("cursor=b3&take=2", ["b2", "b1"]),
        ("cursor=b3&take=2&order=asc", ["b4"]),
        ("cursor=b0", []),
        ("cursor=unknown", []),
        ("meta.parity=odd", ["b3", "b1"]),
        ("meta%5Bparity%5D=odd", ["b3", "b1"]),
        ("meta.deep.flag=true", ["b1"]),
        ("meta.n=1", []),
        ("meta.parity=odd&cursor=b3", ["b1"]),
        ("datasetId=d1", ["b1"]),
        ("datasetId=d1,d3", ["b3", "b1"]),
        ("contactId=zzz", ["b4", "b3", "b2", "b1", "b0"]),
        ("meta.parity=", ["b4", "b3", "b2", "b1", "b0"]),
    ],
)
def test_a_query_picks_its_rows(query: str, expected: list[str]) -> None:
    assert ids(query) == expected


def test_a_page_holds_at_most_a_hundred_and_a_stream_all() -> None:
    assert len(ids("take=500", 150)) == 100
    assert len(ids("", 150)) == 100
    assert len(ids("", 150, everything=True)) == 150
    assert len(ids("take=120", 150, everything=True)) == 120


def test_walking_by_cursor_meets_every_row_once() -> None:
    met: list[str] = []
    cursor = ""
    while page := ids(f"take=7&cursor={cursor}", 30):
        met += page
        cursor = page[-1]
    assert met == [f"b{index}" for index in reversed(range(30))]
