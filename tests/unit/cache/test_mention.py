"""Which answers speak of an object."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.mention import Mention

ITEM = b'{"items":[{"id":"bot_1","botId":"bot_2"}]}'


@pytest.mark.parametrize(
    ("label", "body", "speaks"),
    [
        ("bot /bot/bot_1/fetch", b"{}", True),
        ("bot /bot/bot%5F1/fetch", b"{}", True),
        ("bot/usage /bot/bot_1/usage/fetch?x=y", b"{}", True),
        ("conversation /conversation/list?botId=bot_1", b"{}", True),
        ("conversation /conversation/list?botId=bot_0,bot_1", b"{}", True),
        ("bot /bot/@alias/fetch", b'{"id":"bot_1"}', True),
        ("bot /bot/list", ITEM, True),
        ("bot /bot/list?take=5", b'{"items":[{"id":"bot_12"}]}', False),
        ("bot /bot/bot_12/fetch", b'{"id":"bot_12","name":"not bot_1"}', False),
        ("bot /bot/list", b"", False),
    ],
)
def test_an_answer_speaks_of_an_id_by_path_query_or_body(label: str, body: bytes, speaks: bool) -> None:
    assert Mention(identifier="bot_1").is_in(label, body) is speaks
    assert Mention().is_in(label, body)


@pytest.mark.parametrize(
    ("types", "label", "concerned"),
    [
        (set(), "bot /bot/list", True),
        ({"bot"}, "bot /bot/list", True),
        ({"bot"}, "bot/usage /bot/b/usage/fetch", False),
        ({"skillset/ability"}, "ability /ability/list", True),
        ({"dataset"}, "bot /bot/list", False),
    ],
)
def test_types_are_known_by_the_label(types: set[str], label: str, concerned: bool) -> None:
    assert Mention(frozenset(types)).concerns(label) is concerned


def test_a_name_of_any_bytes_can_be_looked_for() -> None:
    assert Mention(identifier='"').is_in("bot /bot/list", b'{"name":"\\""}')
    assert not Mention(identifier="\udcff").is_in("bot /bot/list", b"{}")
