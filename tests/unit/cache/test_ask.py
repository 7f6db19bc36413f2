"""Which entry a request means, and which requests mean none."""

from __future__ import annotations

import pytest

from cbk_gateway.cache.ask import Ask, Asks, ask_of
from cbk_gateway.cache.keys import CacheKeyParts
from cbk_gateway.cache.options import CacheOptions
from cbk_gateway.operation import understand

OPTIONS = CacheOptions()


def parts(accept: str = "", timezone: str = "", account: str = "acme") -> CacheKeyParts:
    return CacheKeyParts(account, "key", None, accept, timezone)


def ask(path: str, of: CacheKeyParts | None = None, options: CacheOptions = OPTIONS) -> Ask | str:
    return ask_of(understand("GET", f"/v1{path}"), of or parts(), options)


@pytest.mark.parametrize(
    ("path", "of", "options", "word"),
    [
        ("/bot/list", parts(), CacheOptions(enabled=False), "disabled"),
        ("/bot/list", parts(), CacheOptions(type_ttl_s={"bot": 0}), "not-cacheable"),
        ("/bot/b1/export", parts(), OPTIONS, "not-cacheable"),
        ("/integration/trigger/list", parts(), OPTIONS, "not-cacheable"),
        ("/bot/list", parts("text/csv"), OPTIONS, "representation"),
        ("/bot/list", parts("text/event-stream"), OPTIONS, "representation"),
        ("/dataset/d1/file/list", parts("application/jsonl"), OPTIONS, "representation"),
        ("/bot/list", parts("x" * 201), OPTIONS, "representation"),
        ("/bot/list", parts(timezone="x" * 201), OPTIONS, "representation"),
    ],
)
def test_requests_that_mean_no_entry_say_why(
    path: str, of: CacheKeyParts, options: CacheOptions, word: str
) -> None:
    assert ask(path, of, options) == word


@pytest.mark.parametrize(
    "kind",
    [
        *("secret", "partner/user/u1/token", "contact/c1/secret", "integration/slack", "integration/discord"),
        *("integration/telegram", "integration/twilio", "integration/teams", "integration/googlechat"),
        *("integration/whatsapp", "integration/messenger", "integration/instagram", "integration/notion"),
        *("integration/github", "integration/recall", "integration/anam", "integration/trigger"),
        *("integration/mcpserver", "integration/skillserver", "oauth/connection"),
    ],
)
@pytest.mark.parametrize("action", ["list", "x1/fetch"])
def test_no_setting_makes_an_entry_of_what_may_hold_a_credential(kind: str, action: str) -> None:
    operation = understand("GET", f"/v1/{kind}/{action}")
    eager = CacheOptions(type_ttl_s={operation.resource: 600.0, kind: 600.0}, cache_jsonl_walks=True)
    assert ask(f"/{kind}/{action}", options=eager) == "not-cacheable"


@pytest.mark.parametrize(
    "path",
    [
        *("/file/f1/download", "/space/s1/storage/download/a", "/conversation/c1/attachment/a/download"),
        *("/bot/b1/export", "/spec", "/platform/secret/s1/mint", "/graphql?query={a}"),
    ],
)
def test_no_entry_is_made_of_links_that_expire_nor_of_what_is_not_described(path: str) -> None:
    assert ask(path) == "not-cacheable"


def test_a_page_of_json_lines_means_the_page_of_json() -> None:
    plain, lines = ask("/bot/list?take=5"), ask("/bot/list?take=5", parts("application/jsonl"))
    assert isinstance(plain, Ask)
    assert isinstance(lines, Ask)
    assert (lines.digest, lines.accept) == (plain.digest, "application/json")
    assert (plain.is_jsonl, lines.is_jsonl, lines.take, lines.may_fill) == (False, True, 5, True)


def test_a_walk_without_a_size_may_look_and_not_fetch() -> None:
    walk = ask("/bot/list", parts("application/jsonl"))
    assert isinstance(walk, Ask)
    assert (walk.is_jsonl, walk.take, walk.may_fill) == (True, None, False)


def test_walks_that_are_kept_are_entries_of_their_own() -> None:
    walk = ask("/bot/list", parts("application/jsonl"), CacheOptions(cache_jsonl_walks=True))
    plain = ask("/bot/list")
    assert isinstance(walk, Ask)
    assert isinstance(plain, Ask)
    assert (walk.accept, walk.is_jsonl, walk.may_fill) == ("application/jsonl", False, True)
    assert walk.digest != plain.digest


def test_the_shared_name_is_the_same_for_all_and_the_own_name_is_not() -> None:
    one, other = (ask("/platform/model/list", parts(account=name)) for name in ("acme", "globex"))
    assert isinstance(one, Ask)
    assert isinstance(other, Ask)
    assert one.shared_digest == other.shared_digest
    assert one.digest != other.digest
    assert one.is_global
    assert one.label == "platform/model /platform/model/list"


def test_what_was_asked_before_is_not_worked_out_again() -> None:
    asks = Asks(OPTIONS)
    operation = understand("GET", "/v1/bot/list")
    assert asks.of(operation, parts()) is asks.of(understand("GET", "/v1/bot/list"), parts())
    assert asks.of(operation, parts(account="globex")) is not asks.of(operation, parts())
    assert asks.of(understand("POST", "/v1/bot/create"), parts()) == "not-cacheable"
