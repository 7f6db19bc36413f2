"""Origins are granted by the tenant's list; credentials never."""

import pytest

from cbk_gateway.cors import PREFLIGHT_HEADERS, granted


@pytest.mark.parametrize(
    ("allowed", "origin", "grant"),
    [
        (("*",), None, "*"),
        (("*",), "https://a.example", "*"),
        (("https://a.example",), "https://a.example", "https://a.example"),
        (("https://a.example",), "https://b.example", None),
        (("https://a.example",), "null", None),
        (("https://a.example",), None, None),
        ((), "https://a.example", None),
    ],
)
def test_who_may_read_an_answer(allowed: tuple[str, ...], origin: str | None, grant: str | None) -> None:
    headers = dict(granted(allowed, origin))
    assert headers.get("Access-Control-Allow-Origin") == grant
    assert "Access-Control-Allow-Credentials" not in headers
    assert (headers.get("Vary") == "Origin") is ("*" not in allowed)


def test_a_preflight_allows_what_the_sdks_send() -> None:
    allowed = PREFLIGHT_HEADERS["Access-Control-Allow-Headers"].lower()
    for name in (
        "authorization",
        "content-type",
        "x-runas-user-id",
        "x-runas-child-user-email",
        "x-timezone",
    ):
        assert name in allowed
