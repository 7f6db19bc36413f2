"""Records: every field documented, bounded, one line, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.audit import Act, Outcome, Result
from cbk_gateway.audit.record import FIELDS, RecordFormat, encode, stamp
from cbk_gateway.audit.redaction import Redactor
from cbk_gateway.parties import RunAs, RunAsForm

FORMAT = RecordFormat(Redactor(b"master"), max_bytes=16_384, key_version="1")
ORIGIN = {"intent": "i1", "request_id": "r1", "tenant": "acme", "resource": "bot"}


@pytest.mark.parametrize(
    ("now_ns", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (1_795_366_800_000_123_999, "2026-11-22T17:00:00.000123Z")],
)
def test_time_is_utc_with_microseconds(now_ns: int, text: str) -> None:
    assert stamp(now_ns) == text


def test_an_intent_says_who_what_and_how(act: Callable[..., Act]) -> None:
    body = FORMAT.intent(
        act(
            "r7",
            target="/v1/conversation/c1/message/create?botId=b2",
            token_id="t1",
            scopes=("*",),
            client_address="192.0.2.1",
            run_as=RunAs(RunAsForm.USER_ID, "child-1"),
            body_sha256="ab",
            body_bytes=2,
            body=b'{"type":"user","text":"hi"}',
        ),
        "i1",
    )
    record = orjson.loads(body)
    assert body.startswith(b'{"time":"')
    assert record["operation"] == "conversation.message.create"
    assert record["ids"] == {"conversationId": "c1"}
    assert (record["query"], record["run_as"]) == (["botId"], "child-1")
    assert record["body"] == {"type": "user", "text": "text:2"}
    assert (record["tenant"], record["token_id"], record["client"]) == ("acme", "t1", "192.0.2.1")
    assert set(record) <= set(FIELDS)


def test_the_e_mail_of_a_child_account_is_a_digest(act: Callable[..., Act]) -> None:
    body = FORMAT.intent(act(run_as=RunAs(RunAsForm.CHILD_EMAIL, "kim@example.org")), "i1")
    assert b"kim@" not in body
    assert orjson.loads(body)["run_as"].startswith("digest:")


def test_query_values_are_not_kept(act: Callable[..., Act]) -> None:
    body = FORMAT.intent(act(target="/v1/bot/create?note=private-text"), "i1")
    assert b"private-text" not in body


def test_an_outcome_repeats_what_it_is_the_outcome_of() -> None:
    record = orjson.loads(
        FORMAT.outcome(ORIGIN, Outcome(Result.ANSWERED, status=200, duration_s=0.1234567, answer_ids=("b9",)))
    )
    assert {name: record[name] for name in ORIGIN} == ORIGIN
    assert (record["result"], record["status"], record["duration_s"]) == ("answered", 200, 0.123457)
    assert record["answer_ids"] == ["b9"]
    assert set(record) <= set(FIELDS)


@pytest.mark.parametrize(
    ("outcome", "kept", "count"),
    [
        (Outcome(Result.ANSWERED, answer_ids=tuple(map(str, range(16))), answer_ids_count=16), 16, None),
        (Outcome(Result.ANSWERED, answer_ids=tuple(map(str, range(17))), answer_ids_count=17), 16, 17),
        (Outcome(Result.ANSWERED, answer_ids=tuple(map(str, range(40))), answer_ids_count=250), 16, 250),
    ],
)
def test_an_outcome_that_does_not_keep_all_ids_says_how_many_there_were(
    outcome: Outcome, kept: int, count: int | None
) -> None:
    record = orjson.loads(FORMAT.outcome(ORIGIN, outcome))
    assert record["answer_ids"] == [str(one) for one in range(kept)]
    assert record.get("answer_ids_count") == count


def test_a_note_cannot_set_the_fields_of_the_chain() -> None:
    forged = {"seq": 1, "prev": "x", "hash": "y", "kind": "intent", "time": "1970", "reason": "scope"}
    record = orjson.loads(FORMAT.note("refused", forged))
    assert record["kind"] == "refused"
    assert not {"seq", "prev", "hash"} & set(record)
    assert record["time"] > "2000"


@pytest.mark.parametrize(
    "agent",
    ["x" * 100_000, "\ud800 lone", "line\nbreak\r\x00", "\u2028\u2029", '","kind":"seal"}\n', "…" * 300],
)
def test_hostile_texts_stay_one_bounded_line(act: Callable[..., Act], agent: str) -> None:
    body = FORMAT.intent(act(user_agent=agent, subject=agent, request_id=agent), "i1")
    assert b"\n" not in body
    assert len(body) < 16_384
    assert orjson.loads(body)["kind"] == "intent"


def test_a_record_over_its_bound_gives_up_its_body_first(act: Callable[..., Act]) -> None:
    small = RecordFormat(Redactor(b"m"), max_bytes=1500, key_version="1")
    body = orjson.dumps({f"name{n}": "x" for n in range(48)})
    record = orjson.loads(small.intent(act(body=body), "i1"))
    assert record["omitted"] == ["body"]
    assert record["operation"] == "bot.update"


def test_a_record_that_is_all_too_large_keeps_its_names(act: Callable[..., Act]) -> None:
    tiny = RecordFormat(Redactor(b"m"), max_bytes=700, key_version="1")
    record = orjson.loads(tiny.intent(act(token_id="t" * 128, issuer="i" * 500), "i1"))
    assert (record["intent"], record["tenant"]) == ("i1", "acme")
    assert record["omitted"] == ["everything else"]


@given(st.dictionaries(st.text(), st.binary() | st.text() | st.integers() | st.sets(st.integers())))
def test_anything_can_be_encoded(fields: dict[str, Any]) -> None:
    line = encode(fields)
    assert b"\n" not in line
    assert isinstance(orjson.loads(line), dict)
