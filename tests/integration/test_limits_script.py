"""The script on a real server does what the rule in plain Python says, step by step.

The server's clock is replaced by one the test can move, also backwards: that is the only word of the script
that is changed. Clients are several workers, each with its own memory of what it saw last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbk_gateway.limits.bucket import MICRO, BucketState, Draw, decide
from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.ledger import (
    Answer,
    BucketQuestion,
    Kind,
    Question,
    QuotaQuestion,
    SlotQuestion,
    decode,
    encode,
    script_text,
)
from cbk_gateway.store import Store, StoreOptions, open_store

LIFE_S = 1.0
START = 1_700_000_000 * MICRO
ALWAYS = Span("2026", 0, 10**18)


class Bench:
    """A loop and a store for synchronous properties, with a movable server clock."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self.store: Store = self._runner.run(open_store(StoreOptions(url=url, call_timeout_s=5)))
        text = script_text("admit.lua").replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
        self._script = self.store.script(text)

    def ask(self, question: Question, now: int, worker: str = "w") -> Answer:
        keys, args = encode(question, worker, LIFE_S, 10.0)
        reply = self._runner.run(self._script(keys, [*args, now // MICRO, now % MICRO]))
        return decode(reply, question)

    def run(self, command: Any) -> Any:
        return self._runner.run(self.store.call(command))

    def clear(self) -> None:
        self.run(lambda client: client.flushall())

    def close(self) -> None:
        self._runner.run(self.store.close())
        self._runner.close()


@pytest.fixture
def bench(valkey_url: str) -> Iterator[Bench]:
    one = Bench(valkey_url)
    one.clear()
    yield one
    one.close()


_draws = st.builds(
    Draw,
    rate=st.sampled_from([0.5, 1.0, 3.0, 7.3, 1000.0]),
    burst=st.sampled_from([1.0, 2.5, 10.0, 400.0]),
)
_steps = st.lists(
    st.tuples(
        st.sampled_from([-5_000_000, -1, 0, 1, 333_333, 1_000_000, 2_500_000, 90_000_000]),
        st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0]), min_size=3, max_size=3),
        st.sampled_from([0.0, 3.0, 30.0]),
        st.sampled_from([0.0, 0.0, 1.5]),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies=st.lists(_draws, min_size=1, max_size=3), steps=_steps)
def test_the_script_decides_as_the_rule_does(
    bench: Bench, policies: list[Draw], steps: list[tuple[int, list[float], float, float, bool]]
) -> None:
    bench.clear()
    states: list[BucketState | None] = [None] * len(policies)
    now = START
    for gap, costs, want, back, is_shadow in steps:
        now += gap
        draws = [
            Draw(one.rate, one.burst, cost, want, is_shadow and i == 0, back)
            for i, (one, cost) in enumerate(zip(policies, costs, strict=False))
        ]
        asked = tuple(BucketQuestion(f"cbkgw:{{t}}:{i}", draw) for i, draw in enumerate(draws))
        answer = bench.ask(Question(asked), now)
        expected = decide(states, draws, now, int(LIFE_S * MICRO))
        assert answer.is_admitted == expected.is_admitted
        assert answer.wait_us == expected.wait_us
        assert answer.missed == expected.missed
        assert answer.tokens == tuple(state.tokens for state in expected.states)
        assert answer.extras == tuple(int(extra) for extra in expected.extras)
        for i, (draw, missed) in enumerate(zip(draws, expected.missed, strict=True)):
            # What was not written, the next question computes again from what was there.
            took = draw.cost > 0 or expected.extras[i] > 0
            if back > 0 or (expected.is_admitted and not missed and took):
                states[i] = expected.states[i]


def _bucket(draw: Draw, **known: Any) -> Question:
    return Question((BucketQuestion("cbkgw:{t}:b", draw, **known),))


def test_a_key_lives_longer_than_the_bucket_takes_to_fill(bench: Bench) -> None:
    bench.ask(_bucket(Draw(0.01, 100)), START)
    remaining_ms = bench.run(lambda client: client.pttl("cbkgw:{t}:b"))
    assert remaining_ms > 100 / 0.01 * 1000


def test_a_refusal_writes_nothing(bench: Bench) -> None:
    bench.ask(_bucket(Draw(1, 1)), START)
    before = bench.run(lambda client: client.get("cbkgw:{t}:b"))
    for _ in range(5):
        assert not bench.ask(_bucket(Draw(1, 1)), START + 10).is_admitted
    assert bench.run(lambda client: client.get("cbkgw:{t}:b")) == before


def test_a_client_above_the_limit_recovers_as_soon_as_the_limit_allows(bench: Bench) -> None:
    bench.ask(_bucket(Draw(1, 1)), START)
    outcomes = [bench.ask(_bucket(Draw(1, 1)), START + tick * 100_000).is_admitted for tick in range(1, 31)]
    assert sum(outcomes) == 3


def test_a_lost_key_is_restored_from_what_the_worker_knew(bench: Bench) -> None:
    spent = bench.ask(_bucket(Draw(1, 100, 90)), START)
    bench.clear()
    known = {"known_tokens": spent.tokens[0], "known_at_us": spent.now_us}
    assert bench.ask(_bucket(Draw(1, 100, 0), **known), START + 5 * MICRO).tokens == (15.0,)


def test_a_ceiling_takes_away_what_was_admitted_without_the_store(bench: Bench) -> None:
    bench.ask(_bucket(Draw(1, 100)), START)
    assert bench.ask(_bucket(Draw(1, 100, 0), ceiling=7.0), START).tokens == (7.0,)
    assert bench.ask(_bucket(Draw(1, 100, 0)), START).tokens == (7.0,)


def _quota(
    amount: int, *, limit: int = 10, is_enforced: bool = True, floor: int = 0, span: Span = ALWAYS
) -> Question:
    return Question(quotas=(QuotaQuestion("cbkgw:{t}:q", limit, amount, is_enforced, floor, span),))


def test_a_quota_refuses_what_would_pass_it_and_counts_nothing_then(bench: Bench) -> None:
    assert bench.ask(_quota(9), START).used == (9,)
    refused = bench.ask(_quota(2), START)
    assert (refused.is_admitted, refused.kind, refused.used) == (False, Kind.QUOTA, (9,))
    assert bench.ask(_quota(1), START).used == (10,)


def test_a_counter_always_has_an_end(bench: Bench) -> None:
    bench.ask(_quota(1, span=Span("d", START - 1, START + 3600 * MICRO)), START)
    assert 3_600_000 < bench.run(lambda client: client.pttl("cbkgw:{t}:q")) <= 3_600_000 + 172_800_000


def test_a_question_about_an_ended_period_changes_nothing(bench: Bench) -> None:
    both = Question((BucketQuestion("cbkgw:{t}:b", Draw(1, 5)),), _quota(1, span=Span("d", 0, START)).quotas)
    assert bench.ask(both, START).is_stale
    assert bench.run(lambda client: client.keys("*")) == []


def test_a_lost_counter_starts_from_what_the_worker_knew(bench: Bench) -> None:
    assert bench.ask(_quota(1, limit=1000, floor=500), START).used == (501,)
    assert bench.ask(_quota(1, limit=1000, floor=900), START).used == (502,)


def test_refusals_of_one_sort_leave_the_others_untouched(bench: Bench) -> None:
    question = Question(
        (BucketQuestion("cbkgw:{t}:b", Draw(1, 5)),),
        _quota(11).quotas,
        (SlotQuestion("cbkgw:{t}:s", 5, 0, is_wanted=True),),
    )
    answer = bench.ask(question, START)
    assert (answer.is_admitted, answer.tokens, answer.used, answer.open) == (False, (5.0,), (0,), (0,))


def test_of_a_store_that_forgot_the_one_who_knows_most_is_believed(bench: Bench) -> None:
    assert bench.ask(_quota(0, limit=1000, floor=40), START).used == (40,)
    told = replace(_quota(0, limit=1000, floor=150, is_enforced=False).quotas[0], correction=-80)
    assert bench.ask(Question(quotas=(replace(told, is_lost=True),)), START).used == (70,)
    assert bench.ask(_quota(0, limit=1000, floor=500), START).used == (70,)


def _slot(own: int, *, most: int = 3, is_wanted: bool = True) -> Question:
    return Question(slots=(SlotQuestion("cbkgw:{t}:s", most, own, is_wanted),))


def test_open_requests_are_counted_over_workers(bench: Bench) -> None:
    assert bench.ask(_slot(0), START, "a").is_admitted
    assert bench.ask(_slot(1), START, "a").is_admitted
    assert bench.ask(_slot(0), START, "b").is_admitted
    assert bench.ask(_slot(1), START, "b").kind is Kind.SLOT
    bench.ask(_slot(1, is_wanted=False), START, "a")
    assert bench.ask(_slot(1), START, "b").is_admitted


def test_a_question_that_was_overtaken_is_not_counted_twice(bench: Bench) -> None:
    # The second question says that this worker has one open already, which is the first one's.
    second = Question(slots=(SlotQuestion("cbkgw:{t}:s", 2, 1, is_wanted=True, number=2),))
    first = Question(slots=(SlotQuestion("cbkgw:{t}:s", 2, 0, is_wanted=True, number=1),))
    assert bench.ask(second, START, "a").open == (2,)
    late = bench.ask(first, START, "a")
    assert (late.is_admitted, late.open) == (True, (2,))
    assert not bench.ask(_slot(0, most=2), START, "b").is_admitted


@pytest.mark.parametrize(("most", "want", "part", "places"), [(100, 9, 2, 9), (20, 9, 4, 4), (3, 9, 4, 0)])
def test_free_places_are_kept_only_where_there_is_room(
    bench: Bench, most: int, want: int, part: int, places: int
) -> None:
    question = SlotQuestion("cbkgw:{t}:s", most, 0, is_wanted=True, want=want, part=part)
    answer = bench.ask(Question(slots=(question,)), START, "a")
    assert (answer.places, answer.open) == ((places,), (1 + places,))


@pytest.mark.parametrize(
    ("used", "top", "part", "extra"), [(0, 1000, 8, 50), (0, 80, 8, 9), (900, 1000, 8, 12), (999, 1000, 8, 0)]
)
def test_a_quotas_lease_is_a_part_of_the_room_below_the_mark(
    bench: Bench, used: int, top: int, part: int, extra: int
) -> None:
    question = replace(_quota(1, limit=1000, floor=used).quotas[0], want=50, top=top, part=part)
    answer = bench.ask(Question(quotas=(question,)), START)
    assert (answer.allotted, answer.used) == ((extra,), (used + 1 + extra,))


def test_a_correction_is_entered_even_when_the_question_is_refused(bench: Bench) -> None:
    bench.ask(_quota(9), START)
    question = replace(_quota(5).quotas[0], correction=-3)
    refused = bench.ask(Question(quotas=(question,)), START)
    assert (refused.is_admitted, refused.used) == (False, (6,))
    assert bench.ask(_quota(0), START).used == (6,)


def test_a_dead_worker_holds_no_slots(bench: Bench) -> None:
    for own in range(3):
        bench.ask(_slot(own), START, "dead")
    assert not bench.ask(_slot(0), START + 9 * MICRO, "b").is_admitted
    assert bench.ask(_slot(0), START + 10 * MICRO, "b").is_admitted
