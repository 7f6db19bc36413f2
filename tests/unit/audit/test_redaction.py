"""What of a body is kept: allow-lists, digests, and bounds against hostile bodies."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.audit.redaction import Redactor, digest_for

MASTER = b"master key of the tests"
DIGEST = re.compile(r"digest:[0-9a-f]{32}")

SECTION_NINE = [
    ("secret", {"value": "s3cret", "config": {"clientSecret": "s3cret"}}),
    ("contact/secret", {"headers": {"x": "s3cret"}, "url": "https://s3cret/"}),
    ("partner/user/token", {"config": {"a": "s3cret"}, "token": "s3cret"}),
    ("integration/slack", {"botToken": "s3cret", "signingSecret": "s3cret", "userToken": "s3cret"}),
    ("integration/twilio", {"authToken": "s3cret", "accountSid": "s3cret"}),
    ("integration/teams", {"botFrameworkAppSecret": "s3cret"}),
    ("integration/googlechat", {"serviceAccountKey": "s3cret"}),
    ("integration/whatsapp", {"accessToken": "s3cret", "appSecret": "s3cret", "verifyToken": "s3cret"}),
    ("integration/github", {"privateKey": "s3cret", "webhookSecret": "s3cret"}),
    ("integration/recall", {"apiKey": "s3cret"}),
    ("integration/trigger", {"secret": "s3cret"}),
    ("file", {"file": "data:text/plain,s3cret", "url": "https://s3cret/"}),
    ("conversation", {"messages": [{"type": "user", "text": "s3cret"}], "backstory": "s3cret"}),
    ("contact", {"email": "s3cret", "phone": "s3cret", "fingerprint": "s3cret", "name": "s3cret"}),
    ("blueprint/resource", {"template": {"secrets": [{"value": "s3cret", "deep": {"token": "s3cret"}}]}}),
    ("graphql", {"query": 'mutation{createSecret(value:"s3cret")}', "variables": {"value": "s3cret"}}),
]


@pytest.mark.parametrize(("resource", "body"), SECTION_NINE, ids=[one for one, _ in SECTION_NINE])
def test_no_secret_of_any_type_stays_readable(resource: str, body: dict[str, Any]) -> None:
    kept = Redactor(MASTER).body("acme", resource, orjson.dumps(body))
    assert b"s3cret" not in orjson.dumps(kept)


def test_equal_secrets_of_a_tenant_have_equal_digests_and_those_of_two_tenants_have_not() -> None:
    redactor = Redactor(MASTER)
    body = orjson.dumps({"botToken": "xoxb-1"})
    first, again = (redactor.body("acme", "integration/slack", body) for _ in range(2))
    other = redactor.body("globex", "integration/slack", body)
    assert first == again == {"botToken": digest_for(MASTER, "acme", "xoxb-1")}
    assert first != other


@pytest.mark.parametrize("name", ["botToken", "bot_token", "BOT-TOKEN", "bottoken"])
def test_every_spelling_of_a_secret_field_is_redacted(name: str) -> None:
    kept = Redactor(MASTER).body("acme", "integration/slack", orjson.dumps({name: "xoxb"}))
    assert isinstance(kept, dict)
    assert DIGEST.fullmatch(kept[name])


def test_the_apis_own_mask_is_kept_because_it_means_keep() -> None:
    assert Redactor(MASTER).body("acme", "secret", b'{"value":"********"}') == {"value": "********"}


def test_fields_on_the_allow_list_are_shown_and_all_others_described() -> None:
    body = orjson.dumps({"name": "Support", "model": "m1", "unheardOf": "abc", "depth": 7, "on": True})
    assert Redactor(MASTER).body("acme", "bot", body) == {
        "name": "Support",
        "model": "m1",
        "unheardOf": "text:3",
        "depth": "number",
        "on": True,
    }


def test_the_allow_list_depends_on_the_type() -> None:
    body = b'{"temperature":0.5}'
    redactor = Redactor(MASTER)
    assert redactor.body("acme", "bot", body) == {"temperature": 0.5}
    assert redactor.body("acme", "dataset", body) == {"temperature": "number"}


def test_conversation_texts_are_kept_only_when_asked_for() -> None:
    body = b'{"text":"hello"}'
    assert Redactor(MASTER).body("acme", "conversation/message", body) == {"text": "text:5"}
    asked = Redactor(MASTER, free_text=True)
    assert asked.body("acme", "conversation/message", body) == {"text": "hello"}


def test_configured_paths_are_redacted_too() -> None:
    redactor = Redactor(MASTER, secret_paths=["meta.customer_no", "alias"])
    body = orjson.dumps({"meta": {"customerNo": "4711"}, "customerNo": "1", "alias": "x", "name": "n"})
    kept = redactor.body("acme", "bot", body)
    assert isinstance(kept, dict)
    assert DIGEST.fullmatch(kept["meta"]["customerNo"])
    assert DIGEST.fullmatch(kept["alias"])
    assert (kept["customerNo"], kept["name"]) == ("text:1", "n")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"x" * 1_000_000,
        b'"' + b"y" * 200_000 + b'"',
        b"1" * 5000,
    ],
)
def test_a_body_that_is_no_sound_json_becomes_a_small_description(raw: bytes) -> None:
    assert len(orjson.dumps(Redactor(MASTER).body("acme", "bot", raw))) < 1000


def test_hostile_names_are_neither_kept_nor_able_to_swell_a_record() -> None:
    body = orjson.dumps({'","hash":"' + "x" * 500: 1, **{f"k{n}": "v" * 1000 for n in range(1000)}})
    kept = orjson.dumps(Redactor(MASTER).body("acme", "bot", body))
    assert len(kept) < 4000
    assert b"hash" not in kept


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)


@given(_JSON)
def test_any_json_gives_a_bounded_plain_value(document: object) -> None:
    kept = Redactor(MASTER).body("acme", "bot", orjson.dumps(document))
    assert len(orjson.dumps(kept)) < 200_000
