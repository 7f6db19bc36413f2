"""The words that go to the script and come back."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.limits.bucket import Draw
from cbk_gateway.limits.calendar import Span
from cbk_gateway.limits.ledger import (
    BucketQuestion,
    Kind,
    Question,
    QuotaQuestion,
    SlotQuestion,
    decode,
    encode,
    script_text,
)

DAY = Span("d", 0, 10)
_HEAD = 5


def question(buckets: int, quotas: int, slots: int) -> Question:
    return Question(
        tuple(BucketQuestion(f"b{number}", Draw(0.1, 3.5)) for number in range(buckets)),
        tuple(QuotaQuestion(f"q{number}", 9, 1, True, 0, DAY) for number in range(quotas)),
        tuple(SlotQuestion(f"s{number}", 9, 1, is_wanted=True) for number in range(slots)),
    )


_counts = st.integers(0, 4)


@given(_counts, _counts, _counts)
def test_the_script_reads_exactly_what_is_written(buckets: int, quotas: int, slots: int) -> None:
    keys, args = encode(question(buckets, quotas, slots), "w", 1.0, 10.0)
    assert len(keys) == buckets + quotas + slots
    assert args[:_HEAD] == ["w", buckets, quotas, slots, 1_000_000]
    # How often the script takes the next number, for each kind of limit.
    read = [part.count("next_number()") for part in _parts(script_text("admit.lua"))]
    assert len(args) == _HEAD + buckets * read[0] + quotas * read[1] + slots * read[2]


def _parts(text: str) -> tuple[str, str, str]:
    text = re.sub(r"--.*", "", text)
    bucket = text[text.index("local function load_bucket") : text.index("local function fill")]
    slot = text[text.index("local function load_slot") : text.index("local buckets, quotas")]
    quota = text[text.index("local q = {") : text.index("if now < q.from")]
    return bucket, quota, slot


@given(_counts, _counts, _counts, st.booleans())
def test_every_part_of_an_answer_finds_its_place(
    buckets: int, quotas: int, slots: int, admitted: bool
) -> None:
    reply: list[Any] = [int(admitted), 77, b"" if admitted else b"rate", 0 if admitted else 2, 5]
    for number in range(buckets):
        reply += [f"{number}.5".encode(), number, number % 2]
    for number in range(quotas):
        reply += [100 + number, number]
    for number in range(slots):
        reply += [200 + number, number]
    answer = decode(reply, question(buckets, quotas, slots))
    assert (answer.is_admitted, answer.is_stale, answer.now_us, answer.wait_us) == (admitted, False, 77, 5)
    assert (answer.kind, answer.index) == ((Kind.NONE, -1) if admitted else (Kind.RATE, 1))
    assert answer.tokens == tuple(number + 0.5 for number in range(buckets))
    assert answer.extras == tuple(range(buckets))
    assert answer.missed == tuple(number % 2 == 1 for number in range(buckets))
    assert answer.used == tuple(range(100, 100 + quotas))
    assert answer.allotted == tuple(range(quotas))
    assert answer.open == tuple(range(200, 200 + slots))
    assert answer.places == tuple(range(slots))


def test_an_ended_period_is_told_by_the_verdict_alone() -> None:
    assert decode([-1, 5], question(1, 1, 1)).is_stale
