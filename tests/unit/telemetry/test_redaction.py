"""What looks like a credential does not get out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.secret import Secret
from cbk_gateway.telemetry.redaction import _CREDENTIAL, HIDDEN, redact, redact_item, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhY21lIn0.c2lnbmF0dXJlLW9mLXRoaXM"
KEY = "sk-" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {KEY} is bad", f"key {HIDDEN} is bad"),
        (f"token={JWT}", f"token={HIDDEN}"),
        (JWT[:25], HIDDEN),
        ("oaac-abcdef123456", HIDDEN),
        ("redis://:hunter2@db:6379/0", f"redis://{HIDDEN}@db:6379/0"),
        ("https://me:pa%20ss@host/x", f"https://{HIDDEN}@host/x"),
        ("Authorization: Bearer abc.def", f"Authorization: {HIDDEN}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- rest", f"{HIDDEN} rest"),
        ("-----BEGIN PRIVATE KEY-----\ncut short", HIDDEN),
    ],
)
def test_a_credential_in_a_text_is_hidden(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    ["redis://db:6379/0", "a task-force of risk-takers", "https://host/a:b@c", "eyJ", "ask-me", "bot list"],
)
def test_an_innocent_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_a_secret_is_shown_as_its_fingerprint() -> None:
    secret = Secret(KEY)
    assert redact(secret) == repr(secret)
    assert redact_item("token", secret) == repr(secret)


@pytest.mark.parametrize("key", ["token", "Authorization", "set-cookie", "API_KEY", "password"])
def test_what_stands_under_a_telling_name_is_hidden(key: str) -> None:
    assert redact_item(key, "opaque-value") == HIDDEN
    assert redact({"headers": {key: ["opaque-value"]}}) == {"headers": {key: HIDDEN}}


def test_bytes_are_shown_by_their_length() -> None:
    assert redact(KEY.encode()) == f"<{len(KEY)} bytes>"


def test_what_is_nested_too_deep_to_look_at_is_hidden() -> None:
    value: object = KEY
    for _ in range(10):
        value = [value]
    assert HIDDEN in str(redact(value))
    assert KEY not in str(redact(value))


class Odd:
    def __str__(self) -> str:
        return f"odd {KEY}"


@given(
    st.recursive(
        st.sampled_from([KEY, JWT, KEY.encode(), Secret(KEY), ValueError(KEY), Odd(), 1, None]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", KEY]), inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_wherever_it_stands_a_credential_is_hidden(value: object) -> None:
    shown = str(redact(value))
    assert KEY not in shown
    assert JWT not in shown


@given(st.from_regex(_CREDENTIAL, fullmatch=True))
def test_the_quick_look_misses_nothing_that_the_expression_finds(text: str) -> None:
    assert redact_text(text) == HIDDEN
