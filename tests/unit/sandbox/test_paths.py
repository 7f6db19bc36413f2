from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.sandbox.paths import ACTIONS, GRAPHQL_TARGET, Target, read_path


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/bot/list", Target(("bot",), (), "list")),
        ("/api/v1/bot/b1/fetch", Target(("bot",), ("b1",), "fetch")),
        ("/v1/bot/%40alias/fetch", Target(("bot",), ("@alias",), "fetch")),
        ("/v1/bot/(my%20bot)/fetch", Target(("bot",), ("(my bot)",), "fetch")),
        ("/v1/dataset/d/record/r/update", Target(("dataset", "record"), ("d", "r"), "update")),
        ("/v1/dataset/d/record/list", Target(("dataset", "record"), ("d",), "list")),
        ("/v1/integration/slack/s/setup", Target(("integration/slack",), ("s",), "setup")),
        ("/v1/platform/report/generate", Target(("platform/report",), (), "generate")),
        ("/v1/partner/user/u/token/t/delete", Target(("partner/user", "token"), ("u", "t"), "delete")),
        ("/v1/user/u/fetch", Target(("partner/user",), ("u",), "fetch")),
        ("/v1/usage/series/fetch", Target(("usage/series",), (), "fetch")),
        ("/v1/usage/fetch", Target(("usage",), (), "fetch")),
        ("/v1/event/log/subscribe", Target(("event/log",), (), "subscribe")),
        ("/v1/bot/b/realtime/websocket/create", Target(("bot", "realtime/websocket"), ("b",), "create")),
        (
            "/v1/conversation/c/message/batch/create",
            Target(("conversation", "message/batch"), ("c",), "create"),
        ),
        ("/v1/openai/chat/completions", Target(("openai/chat",), (), "complete")),
        ("/v1/spec", Target(("spec",), (), "fetch")),
        ("/graphql", GRAPHQL_TARGET),
        ("/api/v1/graphql", GRAPHQL_TARGET),
        ("/v1/space/s/storage/list", Target(("space", "storage"), ("s",), "list")),
        ("/v1/space/s/storage/list/a/b", Target(("space", "storage"), ("s",), "list", "a/b")),
        ("/v1/space/s/storage/upload/a%20b/c%2Fd", Target(("space", "storage"), ("s",), "upload", "a b/c/d")),
        ("/v1/unknown/thing/x/list", Target(("unknown", "x"), ("thing",), "list")),
        ("/v1/bot/frobnicate", None),
        ("/v1/bot", None),
        ("/v1/list", None),
        ("/v1//bot/list", None),
        ("/v1/bot/list/", None),
        ("/v2/bot/list", None),
        ("/bot/list", None),
        ("/v1/event/list", None),
        ("/v1/%00/list", None),
        ("/v1/b ot/list", None),
        ("", None),
    ],
)
def test_a_path_is_read_as_types_ids_and_action(path: str, target: Target | None) -> None:
    assert read_path(path) == target


def test_an_item_has_one_id_per_type_and_a_collection_one_less() -> None:
    item = read_path("/v1/dataset/d/record/r/fetch")
    collection = read_path("/v1/dataset/d/record/list")
    assert item is not None
    assert collection is not None
    assert item.on_item
    assert not collection.on_item
    assert item.kind == collection.kind == "dataset/record"


@given(st.text())
def test_any_text_is_a_known_action_or_no_path_at_all(text: str) -> None:
    target = read_path(f"/v1/{text}")
    assert target is None or target.action in ACTIONS
