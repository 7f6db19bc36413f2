"""Searching, paging, telling a request's story, following, and the index beside the journal."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import Any

import pytest

from cbk_gateway.audit import Journal, JournalFault, JournalOptions, Outcome, Result, SilentObserver
from cbk_gateway.audit.index import JournalIndex, index_path, passed_over
from cbk_gateway.audit.reading import segments
from cbk_gateway.audit.retention import compress
from cbk_gateway.audit.search import Query, Record, follow, page, search, show

UPDATE = "/api/v1/bot/b1/update"
MESSAGE = "/api/v1/conversation/c1/message/create"


@pytest.fixture
async def sample(options: JournalOptions, act: Any) -> JournalOptions:
    """Two workers, two tenants, three kinds of ending, small segments."""
    small = replace(options, segment_max_bytes=6000)
    for worker in ("w0", "w1"):
        journal = Journal(small, SilentObserver(), worker)
        await journal.start()
        for number in range(12):
            tenant = "acme" if number % 3 else "globex"
            target = UPDATE if number % 2 else MESSAGE
            intent = await journal.intend(act(f"{worker}-{number}", target=target, tenant=tenant))
            unknown = number == 5
            intent.close(
                Outcome(Result.UNKNOWN)
                if unknown
                else Outcome(Result.ANSWERED, status=200, answer_ids=(f"new-{worker}-{number}",))
            )
        journal.note("refused", {"request_id": "r-no", "tenant": "globex", "reason": "scope", "status": 403})
        await journal.record("admin", {"what": "purge", "subject": "ops"})
        await journal.stop()
    return small


def found(options: JournalOptions, query: Query) -> list[Record]:
    """Everything that matches."""
    return list(search(options.directory, query))


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (Query(), 2 * (12 * 2 + 2)),
        (Query(tenant="globex"), 2 * (4 * 2 + 1)),
        (Query(tenant="nobody"), 0),
        (Query(resource="conversation"), 2 * 6 * 2),
        (Query(resource="conversation/message"), 2 * 6 * 2),
        (Query(resource="conv"), 0),
        (Query(action="update"), 2 * 6 * 2),
        (Query(object_id="b1"), 2 * 6 * 2),
        (Query(object_id="new-w1-3"), 1),
        (Query(result="unknown"), 2),
        (Query(result="refused"), 2),
        (Query(request_id="w0-7"), 2),
        (Query(kinds=frozenset({"admin"})), 2),
        (Query(kinds=frozenset({"seal"}), text="stopped"), 2),
        (Query(until="2000-01-01"), 0),
        (Query(since="2999-01-01"), 0),
        (Query(since="2000-01-01", until="2999-01-01", kinds=frozenset({"intent"})), 24),
    ],
)
async def test_a_query_finds_exactly_what_fits(sample: JournalOptions, query: Query, count: int) -> None:
    records = found(sample, query)
    assert len(records) == count
    assert [one.time for one in records] == sorted(one.time for one in records)


async def test_time_narrows_to_the_records_within(sample: JournalOptions) -> None:
    everything = found(sample, Query())
    middle = everything[len(everything) // 2].time
    after, before = found(sample, Query(since=middle)), found(sample, Query(until=middle))
    assert len(after) + len(before) == len(everything)


async def test_pages_cover_everything_once_newest_first(sample: JournalOptions) -> None:
    seen: list[Record] = []
    cursor: str | None = None
    for _ in range(100):
        one = page(sample.directory, Query(), limit=7, cursor=cursor)
        seen += one.records
        cursor = one.cursor
        if cursor is None:
            break
    assert [one.text("hash") for one in reversed(seen)] == [
        one.text("hash")
        for one in sorted(found(sample, Query()), key=lambda one: (one.time, one.text("hash")))
    ]


async def test_a_foreign_cursor_is_refused(sample: JournalOptions) -> None:
    with pytest.raises(ValueError, match="cursor"):
        page(sample.directory, Query(), cursor="nonsense")


async def test_a_requests_story_has_its_parts_together(sample: JournalOptions) -> None:
    (story,) = show(sample.directory, "w0-5")
    assert story.intent is not None
    assert story.outcome is not None
    assert story.verdict is None
    assert (story.intent.kind, story.outcome.text("result")) == ("intent", "unknown")
    assert show(sample.directory, "never") == []
    (refused,) = show(sample.directory, "r-no")
    assert [one.kind for one in refused.others] == ["refused", "refused"]


async def test_compressed_and_damaged_segments_are_read_as_far_as_they_go(sample: JournalOptions) -> None:
    everything = len(found(sample, Query()))
    compress(segments(sample.directory / "w0")[0])
    assert len(found(sample, Query())) == everything
    packed = segments(sample.directory / "w0")[0]
    packed.path.write_bytes(packed.path.read_bytes()[:-200])
    assert 0 < len(found(sample, Query())) < everything


async def test_following_gives_what_is_written_from_now_on(journal: Journal, act: Any) -> None:
    (await journal.intend(act("old"))).close(Outcome(Result.ANSWERED))
    seen: list[str] = []
    is_reading = asyncio.Event()

    async def read_two() -> None:
        is_reading.set()
        async for record in follow(journal.options.directory, Query(tenant="acme"), poll_s=0.01):
            seen.append(record.text("request_id"))
            if len(seen) == 2:
                return

    await journal.record("admin", {"what": "flush"})
    reading = asyncio.create_task(read_two())
    await is_reading.wait()
    await journal.intend(act("other", tenant="globex"))
    intent = await journal.intend(act("new"))
    intent.close(Outcome(Result.ANSWERED))
    await reading
    assert seen == ["new", "new"]


def test_a_missing_journal_is_a_clear_fault(options: JournalOptions) -> None:
    with pytest.raises(JournalFault, match="no audit journal"):
        found(options, Query())


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(tenant="globex"),
        Query(object_id="new-w1-3"),
        Query(request_id="w0-7"),
        Query(subject="nobody"),
        Query(tenant="acme", resource="bot", result="answered"),
    ],
)
async def test_the_index_finds_what_a_full_search_finds(sample: JournalOptions, query: Query) -> None:
    with JournalIndex(sample.directory) as index:
        assert index.extend() > 2
        assert index.extend() == 0
        without = index.without(query)
    assert without == passed_over(sample.directory, query)
    narrowed = search(sample.directory, query, without=without)
    assert [one.text("hash") for one in narrowed] == [one.text("hash") for one in found(sample, query)]


async def test_the_index_spares_most_of_the_journal(sample: JournalOptions) -> None:
    with JournalIndex(sample.directory) as index:
        count = index.extend()
        assert len(index.without(Query(request_id="w0-7"))) >= count - 1
        assert len(index.without(Query(subject="nobody"))) == count
        assert len(index.without(Query())) == 0
        assert len(index.without(Query(since="2999"))) == count


async def test_an_index_of_a_journal_that_was_begun_anew_hides_nothing(
    sample: JournalOptions, act: Any
) -> None:
    with JournalIndex(sample.directory) as index:
        index.extend()
    shutil.rmtree(sample.directory)
    journal = Journal(sample, SilentObserver(), "w0")
    await journal.start()
    for number in range(40):
        (await journal.intend(act(f"anew-{number}"))).close(Outcome(Result.ANSWERED))
    await journal.stop()
    for number in range(40):
        query = Query(request_id=f"anew-{number}")
        without = passed_over(sample.directory, query)
        assert len(list(search(sample.directory, query, without=without))) == 2
    with JournalIndex(sample.directory) as index:
        assert index.extend() > 2


async def test_a_spoiled_index_is_as_good_as_none(sample: JournalOptions) -> None:
    index_path(sample.directory).write_bytes(b"no database" * 100)
    assert passed_over(sample.directory, Query(tenant="acme")) == frozenset()


async def test_the_index_sees_what_came_after_it_was_built(sample: JournalOptions, act: Any) -> None:
    with JournalIndex(sample.directory) as index:
        index.extend()
        journal = Journal(sample, SilentObserver(), "w0")
        await journal.start()
        await journal.intend(act("later"))
        query = Query(request_id="later")
        later = list(search(sample.directory, query, without=index.without(query)))
        assert [one.text("request_id") for one in later] == ["later"]
        await journal.stop()
