from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.sandbox import engine
from cbk_gateway.sandbox.search import fits, score


@given(st.text())
def test_the_tokens_of_a_reply_joined_are_the_reply(text: str) -> None:
    reply = engine.reply_to(text)
    assert "".join(engine.pieces_of(reply)) == reply


@pytest.mark.parametrize(("text", "count"), [("!tokens 500", 500), ("say !tokens 3 please", 3), ("hi", 8)])
def test_the_length_of_a_reply_can_be_asked_for(text: str, count: int) -> None:
    assert len(engine.pieces_of(engine.reply_to(text))) == count


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], ""),
        ([{"type": "bot", "text": "b"}], ""),
        ([{"type": "user", "text": "a"}, {"type": "bot", "text": "b"}], "a"),
        ([{"type": "user", "text": "a"}, {"type": "user", "text": "c"}], "c"),
    ],
)
def test_the_model_answers_the_last_user_message(messages: list[dict[str, object]], text: str) -> None:
    assert engine.last_user_text(messages) == text


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"n": 5}, True),
        ({"n": {"$eq": 5}}, True),
        ({"n": {"$ne": 5}}, False),
        ({"n": {"$gt": 4, "$lt": 6}}, True),
        ({"n": {"$gte": 6}}, False),
        ({"n": {"$lte": 5}}, True),
        ({"missing": {"$gt": 0}}, False),
        ({"n": 5, "s": "x"}, False),
    ],
)
def test_a_filter_compares_metadata(conditions: dict[str, object], expected: bool) -> None:
    assert fits({"n": 5, "s": "y"}, conditions) is expected


def test_a_score_is_the_share_of_words_held() -> None:
    assert score("brown fox", "The quick BROWN fox.") == 1
    assert score("brown cow", "The quick brown fox.") == 0.5
    assert score("", "anything") == 0
