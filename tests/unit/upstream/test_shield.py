"""The duplicate shield on a real store: what repeats, what passes, who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cbk_gateway.errors import Conflict
from cbk_gateway.operation import understand
from cbk_gateway.secret import Secret
from cbk_gateway.store import EmbeddedServer, Store, StoreOptions, open_store
from cbk_gateway.upstream import (
    Attempt,
    Outcome,
    Proceed,
    Replay,
    Resolution,
    Shield,
    ShieldOptions,
    SilentObserver,
    StoredAnswer,
)
from cbk_gateway.upstream.sealing import NOT_KEPT, seal, unseal
from cbk_gateway.upstream.shield import Verdict, fingerprint, verdict_on

KEY = Secret("ab" * 32)
ANSWER = StoredAnswer(200, (("Content-Type", "application/json"),), b'{"id":"bot-1"}')


def attempt(body: str = "b1", key: str | None = None, **changes: str) -> Attempt:
    operation = understand("POST", changes.get("path", "/v1/bot/create"))
    return Attempt(changes.get("tenant", "acme"), changes.get("subject", "app"), operation, body, key)


class Upstream:
    """Answers the shield's question about an earlier attempt, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.found: StoredAnswer | Resolution = Resolution.NOT_KNOWN

    async def resolve(self, _: Attempt) -> StoredAnswer | Resolution:
        self.asked += 1
        return self.found


class Decisions(SilentObserver):
    """What the shield decided, in order."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def shielded(self, decision: str) -> None:
        self.made.append(decision)


def make(
    store: Store,
    upstream: Upstream | None = None,
    decisions: Decisions | None = None,
    **options: float,
) -> Shield:
    found = upstream if upstream is not None else Upstream()
    return Shield(store, ShieldOptions(KEY, **options), found.resolve, decisions)  # type: ignore[arg-type] # numbers only


async def proceeding(shield: Shield, one: Attempt) -> Proceed:
    decision = await shield.enter(one)
    assert isinstance(decision, Proceed)
    return decision


async def replayed(shield: Shield, one: Attempt) -> StoredAnswer:
    decision = await shield.enter(one)
    assert isinstance(decision, Replay)
    return decision.answer


async def test_two_deliberate_identical_writes_both_pass(store: Store) -> None:
    shield = make(store)
    for _ in range(2):
        entry = await proceeding(shield, attempt())
        await entry.answered(200, ANSWER)


async def test_a_repetition_waits_for_the_attempt_under_way_and_shares_its_answer(store: Store) -> None:
    # Two shields: the workers of one gateway.
    decisions = Decisions()
    first, second = make(store, decisions=decisions), make(store, decisions=decisions)
    entry = await proceeding(first, attempt())
    repetitions = [asyncio.create_task(shield.enter(attempt())) for shield in (first, second, second)]
    async with asyncio.timeout(20):
        while decisions.made.count("attach") < 3:
            await asyncio.sleep(0.005)
    await entry.answered(200, ANSWER)
    assert await asyncio.gather(*repetitions) == [Replay(ANSWER)] * 3
    assert decisions.made == ["proceed", "attach", "attach", "attach", "replay", "replay", "replay"]


@pytest.mark.parametrize("how", ["502", "unknown"])
async def test_a_write_that_was_done_and_failed_to_say_so_is_not_done_again(store: Store, how: str) -> None:
    upstream = Upstream()
    upstream.found = ANSWER
    shield = make(store, upstream)
    entry = await proceeding(shield, attempt())
    await (entry.answered(502, None) if how == "502" else entry.failed(Outcome.UNKNOWN))
    assert await replayed(shield, attempt()) == ANSWER
    assert upstream.asked == 1


async def test_a_write_that_was_not_done_is_done_once(store: Store) -> None:
    upstream = Upstream()
    upstream.found = Resolution.NOT_DONE
    shield = make(store, upstream)
    await (await proceeding(shield, attempt())).failed(Outcome.UNKNOWN)
    again = await proceeding(shield, attempt())
    await again.answered(200, ANSWER)
    assert upstream.asked == 1


async def test_what_cannot_be_found_out_is_refused_and_stays_refused(store: Store) -> None:
    shield = make(store)
    await (await proceeding(shield, attempt())).failed(Outcome.UNKNOWN)
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            await shield.enter(attempt())
        assert refused.value.reason == "unresolved"


@pytest.mark.parametrize("how", ["not_sent", "429"])
async def test_a_write_that_did_nothing_may_be_repeated(store: Store, how: str) -> None:
    upstream = Upstream()
    shield = make(store, upstream)
    entry = await proceeding(shield, attempt())
    await (entry.answered(429, None) if how == "429" else entry.failed(Outcome.NOT_SENT))
    await (await proceeding(shield, attempt())).answered(200, ANSWER)
    assert upstream.asked == 0


async def test_failures_are_forgotten_after_the_window(store: Store) -> None:
    shield = make(store, window_s=0.05)
    await (await proceeding(shield, attempt())).failed(Outcome.UNKNOWN)
    async with asyncio.timeout(20):
        # The store's own clock ends the window.
        while await store.client.keys("cbkgw:{acme}:shield:*"):
            await asyncio.sleep(0.005)
    entry = await proceeding(shield, attempt())
    await entry.answered(200, ANSWER)


@pytest.mark.parametrize(
    "other",
    [
        attempt("b2"),
        attempt(tenant="globex"),
        attempt(subject="other"),
        attempt(path="/v1/bot/create?x=1"),
        attempt(path="/v1/dataset/create"),
        attempt(key="k"),
    ],
)
async def test_other_writes_are_other_writes(store: Store, other: Attempt) -> None:
    shield = make(store)
    one = await proceeding(shield, attempt())
    two = await proceeding(shield, other)
    await one.answered(200, ANSWER)
    await two.answered(200, ANSWER)


async def test_an_idempotency_key_gives_the_answer_again(store: Store) -> None:
    shield = make(store)
    await (await proceeding(shield, attempt(key="k-1"))).answered(200, ANSWER)
    for _ in range(3):
        assert await replayed(shield, attempt(key="k-1")) == ANSWER


async def test_an_idempotency_key_is_of_one_request(store: Store) -> None:
    shield = make(store)
    await (await proceeding(shield, attempt(key="k-1"))).answered(200, ANSWER)
    with pytest.raises(Conflict) as refused:
        await shield.enter(attempt("b2", key="k-1"))
    assert refused.value.reason == "key_reused"
    # Of this subject: another one's keys are its own.
    await (await proceeding(shield, attempt("b2", key="k-1", subject="other"))).answered(200, ANSWER)


@pytest.mark.parametrize("answer", [None, StoredAnswer(200, (), b"x" * 100)])
async def test_an_answer_that_was_not_kept_is_not_made_up(store: Store, answer: StoredAnswer | None) -> None:
    shield = Shield(store, ShieldOptions(KEY, max_body_bytes=10), Upstream().resolve)
    await (await proceeding(shield, attempt(key="k"))).answered(200, answer)
    with pytest.raises(Conflict) as refused:
        await shield.enter(attempt(key="k"))
    assert refused.value.reason == "not_kept"


async def test_waiting_has_an_end(store: Store) -> None:
    shield = make(store, attach_s=0.05)
    entry = await proceeding(shield, attempt())
    with pytest.raises(Conflict) as refused:
        await shield.enter(attempt())
    assert refused.value.reason == "in_flight"
    await entry.answered(200, ANSWER)


async def test_a_worker_that_died_leaves_an_unknown_outcome(store: Store) -> None:
    upstream = Upstream()
    upstream.found = ANSWER
    shield = make(store, upstream, lease_s=0.2)
    entry = await proceeding(shield, attempt())
    assert entry._lease is not None
    entry._lease.cancel()
    assert await replayed(shield, attempt()) == ANSWER
    assert upstream.asked == 1


async def test_a_long_write_keeps_its_lease(store: Store) -> None:
    shield = make(store, lease_s=1.5, attach_s=3.0)
    entry = await proceeding(shield, attempt())
    with pytest.raises(Conflict) as refused:
        await shield.enter(attempt())
    assert refused.value.reason == "in_flight"
    await entry.answered(200, ANSWER)


async def test_the_store_holds_no_content_and_forgets(store: Store) -> None:
    shield = make(store)
    await (await proceeding(shield, attempt(key="secret-key"))).answered(200, ANSWER)
    await (await proceeding(shield, attempt("b3"))).answered(200, ANSWER)
    keys: list[Any] = await store.client.keys("*")
    assert len(keys) == 3
    for key in keys:
        assert key.startswith(b"cbkgw:{acme}:shield:")
        assert b"secret-key" not in key
        assert await store.client.pttl(key) > 0
        if await store.client.type(key) == b"string":
            kept: Any = await store.client.get(key)
            assert b"bot-1" not in kept


@contextlib.asynccontextmanager
async def dying_store(directory: Path) -> AsyncIterator[tuple[Store, EmbeddedServer]]:
    server = EmbeddedServer(directory)
    await asyncio.to_thread(server.start)
    try:
        async with await open_store(StoreOptions(url=server.url)) as store:
            yield store, server
    finally:
        await asyncio.to_thread(server.stop)


async def test_without_a_store_writes_pass_unshielded(tmp_path: Path) -> None:
    async with dying_store(tmp_path) as (store, server):
        shield = make(store)
        first = await proceeding(shield, attempt())
        await asyncio.to_thread(server.stop)
        second = await proceeding(shield, attempt())
        assert not second.is_shielded
        await first.answered(200, ANSWER)
        await second.answered(200, ANSWER)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.ANSWERED),
        (404, Verdict.ANSWERED),
        (409, Verdict.ANSWERED),
        (429, Verdict.DROPPED),
        (500, Verdict.FAILED),
        (502, Verdict.FAILED),
        (504, Verdict.FAILED),
    ],
)
def test_what_a_status_means_for_a_repetition(status: int, verdict: Verdict) -> None:
    assert verdict_on(status) is verdict


def test_fingerprints_cannot_be_shifted_between_their_parts() -> None:
    key = b"k" * 32
    assert fingerprint(key, attempt(tenant="a", subject="bc")) != fingerprint(
        key, attempt(tenant="ab", subject="c")
    )


def test_sealed_answers_open_only_where_they_were_kept() -> None:
    sealed = seal(b"k" * 32, "here", ANSWER)
    assert unseal(b"k" * 32, "here", sealed) == ANSWER
    assert unseal(b"k" * 32, "there", sealed) is None
    assert unseal(b"x" * 32, "here", sealed) is None
    assert unseal(b"k" * 32, "here", NOT_KEPT) is None


def test_a_key_of_the_wrong_size_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Shield(store, ShieldOptions(Secret("ab")), Upstream().resolve)
