from __future__ import annotations

import pytest

from cbk_gateway.errors import NotAuthenticated
from cbk_gateway.identity.bearer import bearer_token


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR      abc"])
def test_the_scheme_is_read_in_any_case_with_any_number_of_spaces(value: str) -> None:
    assert bearer_token([value], 100) == "abc"


@pytest.mark.parametrize("token", ["a.b-c_d~e+f/g", "abc==", "0"])
def test_every_letter_of_a_bearer_token_is_let_through(token: str) -> None:
    assert bearer_token([f"Bearer {token}"], 100) == token


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no_token"),
        ([""], "scheme"),
        (["Bearer"], "no_token"),
        (["Bearer "], "no_token"),
        (["Bearer  "], "no_token"),
        (["abc"], "scheme"),
        ([" Bearer abc"], "scheme"),
        (["Bearer\tabc"], "scheme"),
        (["Basic YTpi"], "scheme"),
        (["Bearerabc def"], "scheme"),
        (["Bearer abc def"], "malformed_token"),
        (["Bearer abc, Bearer def"], "malformed_token"),
        (["Bearer abc "], "malformed_token"),
        (["Bearer abc\n"], "malformed_token"),
        (["Bearer a=b"], "malformed_token"),
        (["Bearer \u00e4"], "malformed_token"),
        (["Bearer " + "a" * 101], "token_too_large"),
        (["Bearer abc", "Bearer abc"], "several_tokens"),
        (["Bearer abc", ""], "several_tokens"),
    ],
)
def test_anything_else_is_refused(values: list[str], reason: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        bearer_token(values, 100)
    assert caught.value.reason == reason
    assert caught.value.headers["WWW-Authenticate"] == "Bearer"
